//! What happened to runs between two epochs: the data files of `silver.runs` that came, compared with those that went.
//!
//! A file never changes, so its rows are all that a step can have touched. Costs the reading of those files, of which there are few
//! for the keys of one time; beyond a bound it is not found out, and listeners are told that they missed something.

use std::collections::HashMap;

use karat_lake::{
    DataFile, Lake, Result, Table,
    arrow::{
        array::RecordBatch,
        datatypes::{Schema, SchemaRef},
        error::ArrowError,
    },
};
use karat_schemas::epoch::Epoch;
use serde::Serialize;

use crate::{
    snapshot::{Columns, RUNS},
    summary::Visible,
};

/// Files that are read for one step, and what they may take on disk: their rows are in memory while they are compared.
const MOST_FILES: usize = 32;
const MOST_BYTES: i64 = 128 << 20;
/// Changes that listeners are told of one step.
const MOST_CHANGES: usize = 1_000;
const COLUMNS: [&str; 5] = ["source", "run_id", "job", "user_id", "status"];

/// A run that is new, or whose status is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct RunChange {
    pub(super) source: String,
    pub(super) run_id: String,
    pub(super) job: String,
    pub(super) status: String,
    /// None of a run that is new.
    pub(super) previous_status: Option<String>,
    pub(super) user_id: Option<String>,
}

impl RunChange {
    pub(super) fn is_seen_by(&self, visible: &Visible) -> bool {
        match visible {
            Visible::All => true,
            Visible::Own { user, granted } => self.user_id.as_ref() == Some(user) || granted.contains(&self.source),
        }
    }
}

/// Follows `silver.runs` from epoch to epoch.
pub(super) struct RunsFollower {
    lake: Lake,
    /// At the version of the epoch before.
    table: Option<Table>,
}

impl RunsFollower {
    pub(super) fn new(lake: Lake) -> Self {
        Self { lake, table: None }
    }

    /// The changes from `old` to `new`, by source and run; none when they are too many to tell.
    ///
    /// # Errors
    /// When the lake does not answer, or a version is no longer kept.
    pub(super) async fn between(&mut self, old: &Epoch, new: &Epoch) -> Result<Option<Vec<RunChange>>> {
        let (from, to) = (old.tables.get(RUNS).copied(), new.tables.get(RUNS).copied());
        if from == to {
            return Ok(Some(Vec::new()));
        }
        if old.generation != new.generation {
            self.table = None;
            return Ok(None);
        }
        let mut before = HashMap::new();
        if let Some(from) = from {
            let table = self.table_at(from).await?;
            before.extend(table.files().map(|file| (file.path().to_owned(), file.clone())));
            self.table = Some(table);
        }
        let Some(to) = to else { return Ok(None) };
        let table = self.table_at(to).await?;
        let mut came = Vec::new();
        for file in table.files() {
            if before.remove(file.path()).is_none() {
                came.push(file.clone());
            }
        }
        let went: Vec<DataFile> = before.into_values().collect();
        let changes = compare(&table, &went, &came).await?;
        self.table = Some(table);
        Ok(changes)
    }

    async fn table_at(&mut self, version: u64) -> Result<Table> {
        if let Some(mut table) = self.table.take_if(|table| table.version() <= version)
            && table.advance_to(version).await?
        {
            return Ok(table);
        }
        self.lake.open_at(RUNS, version).await
    }
}

async fn compare(table: &Table, went: &[DataFile], came: &[DataFile]) -> Result<Option<Vec<RunChange>>> {
    if !may_be_read(went.iter().chain(came).map(DataFile::size_bytes)) {
        return Ok(None);
    }
    let schema = columns_of(table.schema())?;
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for (files, rows) in [(went, &mut old), (came, &mut new)] {
        for file in files {
            rows.extend(table.read(file, Some(&schema)).await?);
        }
    }
    Ok(tokio::task::spawn_blocking(move || changes(&old, &new)).await??)
}

/// Whether files of these sizes are few and small enough.
fn may_be_read(sizes_bytes: impl Iterator<Item = i64>) -> bool {
    let add = |(files, bytes): (usize, i64), size| (files + 1, bytes.saturating_add(size));
    let (files, bytes) = sizes_bytes.fold((0, 0), add);
    files <= MOST_FILES && bytes <= MOST_BYTES
}

fn columns_of(schema: &SchemaRef) -> Result<SchemaRef> {
    let positions = COLUMNS.iter().map(|name| schema.index_of(name)).collect::<std::result::Result<Vec<_>, _>>()?;
    let columns: Schema = schema.project(&positions)?;
    Ok(columns.into())
}

fn changes(old: &[RecordBatch], new: &[RecordBatch]) -> std::result::Result<Option<Vec<RunChange>>, ArrowError> {
    let mut before = HashMap::new();
    for batch in old {
        let columns = Columns::of(batch);
        let (sources, run_ids) = (columns.texts("source")?, columns.texts("run_id")?);
        let statuses = columns.texts("status")?;
        before.extend((0..batch.num_rows()).map(|at| ((sources.owned(at), run_ids.owned(at)), statuses.owned(at))));
    }
    let mut changes = Vec::new();
    for batch in new {
        let columns = Columns::of(batch);
        let (sources, run_ids, jobs) = (columns.texts("source")?, columns.texts("run_id")?, columns.texts("job")?);
        let (users, statuses) = (columns.texts("user_id")?, columns.texts("status")?);
        for at in 0..batch.num_rows() {
            let previous = before.get(&(sources.owned(at), run_ids.owned(at)));
            if previous.is_some_and(|previous| previous.as_deref() == statuses.get(at)) {
                continue;
            }
            if changes.len() == MOST_CHANGES {
                return Ok(None);
            }
            changes.push(RunChange {
                source: sources.owned(at).unwrap_or_default(),
                run_id: run_ids.owned(at).unwrap_or_default(),
                job: jobs.owned(at).unwrap_or_default(),
                status: statuses.owned(at).unwrap_or_default(),
                previous_status: previous.cloned().flatten(),
                user_id: users.owned(at),
            });
        }
    }
    changes.sort();
    Ok(Some(changes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, silver_runs};

    fn run(id: &str, status: &str, user: &str) -> Run {
        let (id, status, user) = (id.to_owned(), status.to_owned(), Some(user.to_owned()));
        Run { id, source: "crm".to_owned(), job: "load".to_owned(), status, user, ..Run::default() }
    }

    #[test]
    fn a_run_that_is_new_or_has_another_status_changed_and_a_row_that_was_only_moved_did_not() {
        let old = silver_runs(&[run("a", "running", "u"), run("b", "completed", "u")]);
        let new = silver_runs(&[run("a", "failed", "u"), run("b", "completed", "u"), run("c", "running", "v")]);
        let found = changes(&[old], &[new]).unwrap().unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|change| (change.run_id.as_str(), change.status.as_str(), change.previous_status.as_deref()))
            .collect();
        assert_eq!(told, [("a", "failed", Some("running")), ("c", "running", None)]);
        let own = Visible::Own { user: "u".to_owned(), granted: Vec::new() };
        let granted = Visible::Own { user: "x".to_owned(), granted: vec!["crm".to_owned()] };
        assert_eq!(found.iter().map(|change| change.is_seen_by(&own)).collect::<Vec<_>>(), [true, false]);
        assert!(found.iter().all(|change| change.is_seen_by(&granted) && change.is_seen_by(&Visible::All)));
    }

    #[test]
    fn many_files_and_large_ones_are_not_read() {
        let may = |files: usize, bytes: i64| may_be_read(std::iter::repeat_n(bytes, files));
        assert!(may(MOST_FILES, 1) && may(2, MOST_BYTES / 2) && may(0, 0));
        assert!(!may(MOST_FILES + 1, 1) && !may(3, MOST_BYTES / 2) && !may(2, i64::MAX));
    }

    #[test]
    fn more_than_can_be_told_is_said_to_be_so() {
        let many: Vec<Run> = (0..=MOST_CHANGES).map(|number| run(&number.to_string(), "completed", "u")).collect();
        assert_eq!(changes(&[], &[silver_runs(&many)]).unwrap(), None);
        assert_eq!(changes(&[], &[silver_runs(&many[1..])]).unwrap().unwrap().len(), MOST_CHANGES);
    }
}
