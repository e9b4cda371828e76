//! Seeded events of ETL runs, with known totals.
//!
//! The same [`Plan`] gives the same bytes, on every machine: random numbers and all arithmetic are whole numbers, and
//! chances compare exact fractions. Lines carry what a real stream carries: repeated events, events that come late,
//! and seven kinds of bad ones ([`Fault`]). [`Generator::truth`] counts what was made, so that a test or a benchmark
//! can check the answer before it trusts the time.

mod random;
mod run;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use serde::Serialize;

pub(crate) use self::random::Random;
pub(crate) use self::run::Timestamp;
pub use self::run::{Fault, Run, Shape, Status};

/// What is generated.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Distinct good events.
    pub count: u64,
    pub sources: u32,
    pub jobs: u32,
    pub users: u32,
    /// Share of events that are sent a second time, byte for byte.
    pub duplicates: f64,
    /// Extra bad events, as a share of the good ones.
    pub bad: f64,
    /// Share of events that come up to [`Plan::delay`] events later than their place.
    pub out_of_order: f64,
    pub delay: u64,
    /// The starts of the runs are spread evenly over so many days.
    pub days: u32,
    /// Start of the first run, milliseconds since 1970 UTC.
    pub start_ms: i64,
    /// Runs are told apart by so many ids, drawn evenly; every run has its own when absent.
    pub keys: Option<u64>,
    pub seed: u64,
    pub shape: Shape,
    /// CloudEvents around the data; without, a line is the data alone.
    pub with_envelope: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            count: 100_000,
            sources: 50,
            jobs: 200,
            users: 500,
            duplicates: 0.02,
            bad: 0.005,
            out_of_order: 0.05,
            delay: 10_000,
            days: 30,
            start_ms: FIRST_START_MS,
            keys: None,
            seed: 1,
            shape: Shape::RunFinished,
            with_envelope: true,
        }
    }
}

/// 2026-01-01T00:00:00Z.
const FIRST_START_MS: i64 = 1_767_225_600_000;

/// What the lines that were given so far hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Truth {
    pub lines: u64,
    /// Distinct good events.
    pub events: u64,
    pub duplicates: u64,
    pub bad: u64,
    pub bad_kinds: BTreeMap<&'static str, u64>,
    pub out_of_order: u64,
    /// The figures below are of the distinct good events.
    pub completed: u64,
    pub failed: u64,
    pub aborted: u64,
    pub records_read: u64,
    pub records_written: u64,
    pub records_failed: u64,
    pub bytes_written: u64,
}

/// Gives the lines of a plan, without line ends. Memory is bounded by the late events and `RECENT`.
pub struct Generator {
    plan: Plan,
    random: Random,
    next: u64,
    ready: VecDeque<String>,
    /// Late lines by the event after which they come.
    held: BinaryHeap<Reverse<(u64, u64, String)>>,
    /// Lines that may be sent again.
    recent: Vec<String>,
    truth: Truth,
}

/// Events among which a repeated one is picked.
const RECENT: usize = 1024;

impl Generator {
    pub fn new(plan: Plan) -> Self {
        let random = Random::new(plan.seed);
        let (ready, held, recent) = (VecDeque::new(), BinaryHeap::new(), Vec::new());
        Self { plan, random, next: 0, ready, held, recent, truth: Truth::default() }
    }

    /// Totals of the lines given so far; of the whole when the lines have ended.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    fn make_event(&mut self) {
        let index = self.next;
        self.next += 1;
        let start_ms = self.start_of(index);
        let run = Run::random(&mut self.random, &self.plan, start_ms);
        self.count(&run);
        let line = run.line(&self.plan, None, &mut self.random);
        if self.random.chance(self.plan.out_of_order) {
            self.truth.out_of_order += 1;
            let due = index + 1 + self.random.below(self.plan.delay.max(1));
            self.held.push(Reverse((due, index, line)));
        } else {
            self.remember(&line);
            self.ready.push_back(line);
        }
        while let Some(Reverse((_, _, line))) = self.pop_due(index) {
            self.ready.push_back(line);
        }
        if self.random.chance(self.plan.duplicates) && !self.recent.is_empty() {
            let pick = self.random.index(self.recent.len());
            self.truth.duplicates += 1;
            self.ready.push_back(self.recent[pick].clone());
        }
        if self.random.chance(self.plan.bad) {
            self.make_bad(start_ms);
        }
    }

    fn make_bad(&mut self, start_ms: i64) {
        let kinds = Fault::ALL;
        let fault = kinds[(self.truth.bad % kinds.len() as u64) as usize];
        self.truth.bad += 1;
        *self.truth.bad_kinds.entry(fault.name()).or_default() += 1;
        let run = Run::random(&mut self.random, &self.plan, start_ms);
        let line = run.line(&self.plan, Some(fault), &mut self.random);
        self.ready.push_back(line);
    }

    fn start_of(&self, index: u64) -> i64 {
        let span = u128::from(self.plan.days) * 86_400_000;
        let offset = u128::from(index) * span / u128::from(self.plan.count.max(1));
        self.plan.start_ms + i64::try_from(offset).unwrap_or(0)
    }

    fn pop_due(&mut self, index: u64) -> Option<Reverse<(u64, u64, String)>> {
        let Reverse((due, ..)) = self.held.peek()?;
        if *due <= index { self.held.pop() } else { None }
    }

    fn remember(&mut self, line: &str) {
        if self.recent.len() < RECENT {
            self.recent.push(line.to_owned());
        } else {
            let place = self.random.index(RECENT);
            self.recent[place].clear();
            self.recent[place].push_str(line);
        }
    }

    fn count(&mut self, run: &Run) {
        self.truth.events += 1;
        match run.status {
            Status::Completed => self.truth.completed += 1,
            Status::Failed => self.truth.failed += 1,
            Status::Aborted => self.truth.aborted += 1,
        }
        self.truth.records_read += run.records_read;
        self.truth.records_written += run.records_read - run.records_failed;
        self.truth.records_failed += run.records_failed;
        self.truth.bytes_written += run.bytes;
    }
}

impl Iterator for Generator {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        while self.ready.is_empty() && self.next < self.plan.count {
            self.make_event();
        }
        let line = self.ready.pop_front().or_else(|| self.held.pop().map(|Reverse((_, _, line))| line))?;
        self.truth.lines += 1;
        Some(line)
    }
}

#[cfg(test)]
mod tests;
