//! [`ReadEpochs`]: the epochs of an answer over tables of several pipelines.
//!
//! Each pipeline is read at one epoch, its newest, and two of them may be at two points in time. So an answer names each of them,
//! and what it says of itself as a whole is on the careful side: it is as new as the one of them whose newest event is the oldest,
//! and as complete as the one that is the least complete.

use std::{
    collections::{BTreeMap, HashSet},
    iter::once,
    sync::Arc,
};

use karat_schemas::epoch::Epoch;
use poem_openapi::Object;
use serde::Serialize;

use crate::{
    serving::{
        KeyParts, Serving,
        freshness::{DataState, Freshness},
        now_us,
    },
    snapshot::Snapshot,
    summary::rfc3339_utc,
};

/// The point at which a pipeline was read.
#[derive(Debug, Clone, Serialize, Object)]
pub struct PipelineEpoch {
    pub pipeline: String,
    pub epoch: u64,
    /// Newest event time that is folded in, RFC 3339 in UTC.
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
}

/// The epochs of an answer: one a pipeline, that of the runs first where it is among them.
#[derive(Debug, Clone)]
pub(super) struct ReadEpochs {
    first: ReadEpoch,
    others: Vec<ReadEpoch>,
}

#[derive(Debug, Clone)]
struct ReadEpoch {
    snapshot: Arc<Snapshot>,
    freshness: Freshness,
}

impl ReadEpochs {
    /// The newest epoch of each pipeline that has one; where none has, that of the runs, which is empty.
    pub(super) fn newest(serving: &Serving) -> Self {
        let now_us = now_us();
        let read = |snapshot: Arc<Snapshot>| {
            let freshness = serving.freshness(&snapshot, now_us);
            ReadEpoch { snapshot, freshness }
        };
        let mut read_epochs = serving.newest().into_iter().filter(|snapshot| snapshot.epoch.epoch > 0).map(read);
        let first = read_epochs.next();
        let others = read_epochs.collect();
        Self { first: first.unwrap_or_else(|| read(serving.snapshots.current())), others }
    }

    /// Those that have a table of these full names; that of the runs, or the first, where none has.
    pub(super) fn of_tables(&self, names: &[String]) -> Self {
        let tables = self.tables();
        let owners = names.iter().filter_map(|name| tables.get(name.as_str()));
        let owners: HashSet<&str> = owners.map(|(owner, _)| owner.epoch.pipeline.as_str()).collect();
        let mut read = self.each().filter(|one| owners.contains(one.snapshot.epoch.pipeline.as_str())).cloned();
        let first = read.next().unwrap_or_else(|| self.first.clone());
        Self { first, others: read.collect() }
    }

    /// Every table, by full name, with whose it is and its version there. A table that moved from one pipeline to another may be in
    /// an epoch of both: one has it.
    pub(super) fn tables(&self) -> BTreeMap<&str, (&Snapshot, u64)> {
        let mut tables = BTreeMap::new();
        for one in self.each() {
            for (name, version) in &one.snapshot.epoch.tables {
                tables.entry(name.as_str()).or_insert((&*one.snapshot, *version));
            }
        }
        tables
    }

    /// What stands for all of them: the one whose newest event is the oldest, written when the newest of them was, and with the
    /// state of the least complete. One without an event is as old as nothing.
    pub(super) fn told(&self) -> (Arc<Snapshot>, Freshness) {
        let oldest =
            self.others.iter().fold(&self.first, |oldest, one| if is_older(one, oldest) { one } else { oldest });
        let state = self.each().map(|one| one.freshness.data_state).max();
        let freshness = Freshness { data_state: state.unwrap_or(oldest.freshness.data_state), ..oldest.freshness };
        if self.others.is_empty() {
            return (Arc::clone(&oldest.snapshot), freshness);
        }
        let epoch = &oldest.snapshot.epoch;
        let written_at_us =
            self.each().map(|one| one.snapshot.epoch.written_at_us).max().unwrap_or(epoch.written_at_us);
        (Arc::new(Snapshot { epoch: Epoch { written_at_us, ..epoch.clone() }, ..Snapshot::default() }), freshness)
    }

    /// What of a question they are.
    pub(super) fn parts(&self, parts: &mut KeyParts) {
        for ReadEpoch { snapshot, freshness } in self.each() {
            let epoch = &snapshot.epoch;
            parts
                .text("pipeline", &epoch.pipeline)
                .number("generation", epoch.generation)
                .number("epoch", epoch.epoch)
                .number("written_at", epoch.written_at_us)
                .number("state", freshness.data_state as u8);
        }
    }

    /// As answers tell of them.
    pub(super) fn views(&self) -> Vec<PipelineEpoch> {
        let view = |ReadEpoch { snapshot, freshness }: &ReadEpoch| PipelineEpoch {
            pipeline: snapshot.epoch.pipeline.clone(),
            epoch: snapshot.epoch.epoch,
            as_of: snapshot.epoch.as_of_us.and_then(rfc3339_utc),
            data_state: freshness.data_state,
        };
        self.each().map(view).collect()
    }

    fn each(&self) -> impl Iterator<Item = &ReadEpoch> {
        once(&self.first).chain(&self.others)
    }
}

/// Whether the newest event of `one` is older than that of `than`.
fn is_older(one: &ReadEpoch, than: &ReadEpoch) -> bool {
    match (one.snapshot.epoch.as_of_us, than.snapshot.epoch.as_of_us) {
        (Some(one), Some(than)) => one < than,
        (one, than) => one.is_some() && than.is_none(),
    }
}

/// An epoch as an example has it.
pub(super) fn example_epoch() -> PipelineEpoch {
    PipelineEpoch {
        pipeline: "etl_runs".to_owned(),
        epoch: 412,
        as_of: Some("2026-01-31T22:00:41.250Z".to_owned()),
        data_state: DataState::Complete,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(
        pipeline: &str,
        table: &str,
        as_of_us: Option<i64>,
        written_at_us: i64,
        data_state: DataState,
    ) -> ReadEpoch {
        let epoch = Epoch {
            pipeline: pipeline.to_owned(),
            epoch: 1,
            tables: BTreeMap::from([(table.to_owned(), 7), ("gold.moved".to_owned(), 8)]),
            as_of_us,
            written_at_us,
            ..Epoch::default()
        };
        let freshness = Freshness { data_state, lag_records: None, lag_bytes: None, lag: Duration::ZERO };
        ReadEpoch { snapshot: Arc::new(Snapshot { epoch, ..Snapshot::default() }), freshness }
    }

    #[test]
    fn an_answer_over_two_pipelines_is_as_new_and_as_complete_as_the_one_that_is_behind() {
        let first = read("runs", "gold.a", Some(50), 60, DataState::Complete);
        let older = read("old", "gold.b", Some(20), 90, DataState::Partial);
        let empty = read("empty", "gold.c", None, 10, DataState::Complete);
        let all = ReadEpochs { first, others: vec![older, empty] };
        let (told, freshness) = all.told();
        assert_eq!(
            (told.epoch.pipeline.as_str(), told.epoch.as_of_us, told.epoch.written_at_us),
            ("old", Some(20), 90)
        );
        assert_eq!(freshness.data_state, DataState::Partial);
        let owners: Vec<_> =
            all.tables().into_iter().map(|(name, (of, _))| (name, of.epoch.pipeline.as_str())).collect();
        assert_eq!(owners, [("gold.a", "runs"), ("gold.b", "old"), ("gold.c", "empty"), ("gold.moved", "runs")]);
    }

    #[test]
    fn an_answer_tells_of_the_epochs_whose_tables_it_read_and_of_one_where_it_read_none() {
        let first = read("runs", "gold.a", Some(50), 60, DataState::Complete);
        let all = ReadEpochs { first, others: vec![read("old", "gold.b", Some(20), 90, DataState::Late)] };
        let pipelines = |names: &[&str]| -> Vec<String> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            all.of_tables(&names).views().into_iter().map(|view| view.pipeline).collect()
        };
        assert_eq!(pipelines(&["gold.a", "gold.moved"]), ["runs"]);
        assert_eq!(pipelines(&["gold.b"]), ["old"]);
        assert_eq!(pipelines(&["gold.b", "gold.a"]), ["runs", "old"]);
        assert_eq!(pipelines(&[]), ["runs"]);
        let (told, freshness) = all.of_tables(&["gold.a".to_owned()]).told();
        assert_eq!(
            (told.epoch.written_at_us, freshness.data_state),
            (60, DataState::Complete),
            "of one, nothing else counts"
        );
    }
}
