//! What a step leaves in the event log: itself, the tables it gave a version, the rules that were broken.

use std::{collections::BTreeMap, time::Duration};

use super::{Entry, Kind};
use crate::{
    plan::{quarantine_name, silver_name},
    step::{StepCounts, StepOutput},
};

/// Taken before the tables commit; told with what came of it.
pub(crate) struct StepNote {
    /// Rows written and removed, by table.
    sizes: BTreeMap<String, (u64, u64)>,
    before: BTreeMap<String, u64>,
}

/// Where the step ended, and how long it took.
pub(crate) struct StepEnd<'a> {
    pub pipeline: &'a str,
    pub epoch: u64,
    pub generation: u64,
    pub bronze_from: u64,
    pub bronze_to: u64,
    /// The step had been done in part before a crash.
    pub is_again: bool,
    pub counts: &'a StepCounts,
    pub versions: BTreeMap<String, u64>,
    pub whole: Duration,
    pub compute: Duration,
    pub commit: Duration,
}

impl StepNote {
    pub(crate) fn new(pipeline: &str, output: &StepOutput, versions: BTreeMap<String, u64>) -> Self {
        let appended = output.appends.iter().map(|(table, rows)| (table.clone(), (*rows, 0)));
        let keyed = output.keyed.iter().map(|(table, changes)| {
            (table.clone(), (changes.upserts.num_rows() as u64, changes.deleted_keys.len() as u64))
        });
        let quarantined = (quarantine_name(pipeline), (output.quarantine.num_rows() as u64, 0));
        Self { sizes: appended.chain(keyed).chain([quarantined]).collect(), before: versions }
    }

    /// The entries of the step. Tables that it left at their version have none.
    pub(crate) fn entries(self, end: &StepEnd<'_>) -> Vec<Entry> {
        let about = |kind| Entry {
            epoch: Some(end.epoch),
            generation: Some(end.generation),
            bronze_from: Some(end.bronze_from),
            bronze_to: Some(end.bronze_to),
            ..Entry::of(kind, end.pipeline)
        };
        let counts = end.counts;
        let mut entries = vec![Entry {
            state: Some(if end.is_again { "again" } else { "done" }),
            events: Some(counts.events),
            silver: Some(counts.silver),
            duplicates: Some(counts.duplicates),
            quarantined: Some(counts.quarantined),
            dropped: Some(counts.dropped),
            duration_us: Some(micros(end.whole)),
            compute_us: Some(micros(end.compute)),
            commit_us: Some(micros(end.commit)),
            ..about(Kind::Step)
        }];
        let moved = end.versions.iter().filter(|(table, version)| self.before.get(*table) != Some(*version));
        entries.extend(moved.map(|(table, version)| {
            let (written, deleted) = self.sizes.get(table).copied().unwrap_or_default();
            Entry {
                table: Some(table.clone()),
                table_version: Some(*version),
                num_rows: Some(written),
                num_deleted: Some(deleted),
                ..about(Kind::Commit)
            }
        }));
        entries.extend(counts.rules.iter().map(|((table, rule), broken)| Entry {
            table: Some(silver_name(table)),
            rule: Some(rule.clone()),
            num_rows: Some(*broken),
            ..about(Kind::Rule)
        }));
        entries
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
