//! The settings of a chaos run, and its table.

use std::{collections::BTreeMap, time::Duration};

use karat_oracle::Verdict;

/// What came of all rounds with one fault.
#[derive(Default)]
struct Row {
    runs: u64,
    acknowledged: u64,
    found: u64,
    duplicated: usize,
    lost: usize,
    wrong: usize,
    longest_drain: Duration,
}

/// One row a fault.
#[derive(Default)]
pub struct Report {
    rows: BTreeMap<&'static str, Row>,
    acknowledged: u64,
    found: u64,
}

impl Report {
    /// Notes a round, judged when everything was in gold.
    pub fn note(&mut self, fault: &'static str, verdict: &Verdict, drained: Duration) {
        let row = self.rows.entry(fault).or_default();
        row.runs += 1;
        row.acknowledged += verdict.acknowledged - self.acknowledged;
        row.found += verdict.found - self.found;
        row.duplicated += verdict.duplicated.len();
        row.lost += verdict.lost.len();
        row.wrong += verdict.wrong.len();
        row.longest_drain = row.longest_drain.max(drained);
        (self.acknowledged, self.found) = (verdict.acknowledged, verdict.found);
    }

    pub fn table(&self) -> String {
        let mut lines = vec![
            "| fault | runs | acknowledged | found | duplicates | lost | wrong | longest time to drain |".to_owned(),
            "|---|---|---|---|---|---|---|---|".to_owned(),
        ];
        lines.extend(self.rows.iter().map(|(fault, row)| {
            format!(
                "| {fault} | {} | {} | {} | {} | {} | {} | {:.1} s |",
                row.runs,
                row.acknowledged,
                row.found,
                row.duplicated,
                row.lost,
                row.wrong,
                row.longest_drain.as_secs_f64()
            )
        }));
        lines.join("\n")
    }
}

/// Of `KARAT_SEED`.
pub fn seed(usual: u64) -> u64 {
    std::env::var("KARAT_SEED").map_or(usual, |seed| seed.parse().unwrap())
}

/// How long `make chaos` runs.
pub fn minutes() -> u64 {
    std::env::var("KARAT_CHAOS_MINUTES").map_or(2, |minutes| minutes.parse().unwrap())
}
