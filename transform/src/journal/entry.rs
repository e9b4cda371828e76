//! One row of the event log, and the columns of the table.

use std::sync::Arc;

use karat_lake::{
    TableSpec,
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    },
};

use super::TABLE;
use crate::Result;

/// What a row tells of. docs/EVENT_LOG.md says which columns each kind fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The worker started.
    Start,
    /// The worker stopped; without one, it crashed or was killed.
    Stop,
    /// A pipeline took some bronze versions to gold.
    Step,
    /// A table got a version in a step.
    Commit,
    /// Rows of a step broke a rule.
    Rule,
    /// A pipeline's declaration is not the one that made its tables.
    Declaration,
    /// The columns of a table change.
    Schema,
    /// A rebuild of a pipeline's silver and gold from bronze.
    Replay,
    /// A pipeline waits for somebody to act.
    Pause,
    /// A task of the worker failed.
    Failure,
    /// Rows that are missing here.
    LeftOut,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Step => "step",
            Self::Commit => "commit",
            Self::Rule => "rule",
            Self::Declaration => "declaration",
            Self::Schema => "schema",
            Self::Replay => "replay",
            Self::Pause => "pause",
            Self::Failure => "failure",
            Self::LeftOut => "left_out",
        }
    }
}

/// One row. What a kind does not have is null.
#[derive(Debug, Clone)]
pub struct Entry {
    pub kind: Kind,
    /// Microseconds since 1970 UTC; set when it is noted.
    pub at_us: i64,
    /// The run of the worker; set when it is noted.
    pub worker: String,
    pub pipeline: Option<String>,
    pub epoch: Option<u64>,
    pub generation: Option<u64>,
    pub table: Option<String>,
    pub table_version: Option<u64>,
    pub rule: Option<String>,
    pub state: Option<&'static str>,
    /// Bronze versions: after this one, up to that one.
    pub bronze_from: Option<u64>,
    pub bronze_to: Option<u64>,
    pub events: Option<u64>,
    pub silver: Option<u64>,
    pub duplicates: Option<u64>,
    pub quarantined: Option<u64>,
    pub dropped: Option<u64>,
    pub num_rows: Option<u64>,
    pub num_deleted: Option<u64>,
    pub duration_us: Option<u64>,
    pub compute_us: Option<u64>,
    pub commit_us: Option<u64>,
    pub message: Option<String>,
}

impl Entry {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            at_us: 0,
            worker: String::new(),
            pipeline: None,
            epoch: None,
            generation: None,
            table: None,
            table_version: None,
            rule: None,
            state: None,
            bronze_from: None,
            bronze_to: None,
            events: None,
            silver: None,
            duplicates: None,
            quarantined: None,
            dropped: None,
            num_rows: None,
            num_deleted: None,
            duration_us: None,
            compute_us: None,
            commit_us: None,
            message: None,
        }
    }

    /// An entry about a pipeline.
    pub fn of(kind: Kind, pipeline: &str) -> Self {
        Self { pipeline: Some(pipeline.to_owned()), ..Self::new(kind) }
    }

    pub fn message(mut self, message: impl ToString) -> Self {
        self.message = Some(message.to_string());
        self
    }

    pub fn state(mut self, state: &'static str) -> Self {
        self.state = Some(state);
        self
    }
}

/// How a column is read from an entry.
enum Cell {
    Time(fn(&Entry) -> i64),
    Text(fn(&Entry) -> Option<&str>),
    Number(fn(&Entry) -> Option<u64>),
}

/// Every column, in the order of the table.
const COLUMNS: [(&str, Cell); 23] = [
    ("at", Cell::Time(|entry| entry.at_us)),
    ("worker", Cell::Text(|entry| Some(&entry.worker))),
    ("kind", Cell::Text(|entry| Some(entry.kind.name()))),
    ("pipeline", Cell::Text(|entry| entry.pipeline.as_deref())),
    ("epoch", Cell::Number(|entry| entry.epoch)),
    ("generation", Cell::Number(|entry| entry.generation)),
    ("table_name", Cell::Text(|entry| entry.table.as_deref())),
    ("table_version", Cell::Number(|entry| entry.table_version)),
    ("rule", Cell::Text(|entry| entry.rule.as_deref())),
    ("state", Cell::Text(|entry| entry.state)),
    ("bronze_from", Cell::Number(|entry| entry.bronze_from)),
    ("bronze_to", Cell::Number(|entry| entry.bronze_to)),
    ("events", Cell::Number(|entry| entry.events)),
    ("silver", Cell::Number(|entry| entry.silver)),
    ("duplicates", Cell::Number(|entry| entry.duplicates)),
    ("quarantined", Cell::Number(|entry| entry.quarantined)),
    ("dropped", Cell::Number(|entry| entry.dropped)),
    ("num_rows", Cell::Number(|entry| entry.num_rows)),
    ("num_deleted", Cell::Number(|entry| entry.num_deleted)),
    ("duration_us", Cell::Number(|entry| entry.duration_us)),
    ("compute_us", Cell::Number(|entry| entry.compute_us)),
    ("commit_us", Cell::Number(|entry| entry.commit_us)),
    ("message", Cell::Text(|entry| entry.message.as_deref())),
];

/// What the table is created as.
///
/// Its rows are only ever appended to; its files are not, as small ones are merged and old ones dropped, so the table
/// itself is not marked append-only.
pub fn table_spec() -> TableSpec {
    TableSpec {
        name: TABLE.to_owned(),
        schema: schema(),
        partition_by: Vec::new(),
        stats_columns: vec!["at".to_owned()],
        append_only: false,
    }
}

fn schema() -> SchemaRef {
    let field = |(name, cell): &(&str, Cell)| {
        let data_type = match cell {
            Cell::Time(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Cell::Text(_) => DataType::Utf8,
            Cell::Number(_) => DataType::Int64,
        };
        Field::new(*name, data_type, true)
    };
    Arc::new(Schema::new(COLUMNS.iter().map(field).collect::<Vec<_>>()))
}

/// The entries as rows of the table.
pub(super) fn rows(entries: &[Entry]) -> Result<RecordBatch> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let column = |(_, cell): &(&str, Cell)| -> ArrayRef {
        match cell {
            Cell::Time(of) => {
                let times = TimestampMicrosecondArray::from_iter_values(entries.iter().map(of));
                Arc::new(times.with_timezone("UTC"))
            }
            Cell::Text(of) => Arc::new(entries.iter().map(of).collect::<StringArray>()),
            Cell::Number(of) => Arc::new(entries.iter().map(|entry| of(entry).map(number)).collect::<Int64Array>()),
        }
    };
    Ok(RecordBatch::try_new(schema(), COLUMNS.iter().map(column).collect())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: [Kind; 11] = [
        Kind::Start,
        Kind::Stop,
        Kind::Step,
        Kind::Commit,
        Kind::Rule,
        Kind::Declaration,
        Kind::Schema,
        Kind::Replay,
        Kind::Pause,
        Kind::Failure,
        Kind::LeftOut,
    ];

    #[test]
    fn every_column_and_kind_is_documented() {
        let page = include_str!("../../../docs/EVENT_LOG.md");
        let columns = COLUMNS.iter().map(|(name, _)| *name);
        for name in columns.chain(EVERY.iter().map(|kind| kind.name())) {
            assert!(page.contains(&format!("| `{name}` |")), "`{name}` has no line in docs/EVENT_LOG.md");
        }
    }

    #[test]
    fn entries_become_rows_with_nulls_for_what_they_do_not_have() {
        let entries = [Entry::new(Kind::Start), Entry { epoch: Some(7), ..Entry::of(Kind::Step, "shop") }];
        let rows = rows(&entries).unwrap();
        let nulls = |name: &str| rows.column_by_name(name).unwrap().null_count();
        assert_eq!((rows.num_rows(), nulls("kind"), nulls("pipeline"), nulls("epoch"), nulls("rule")), (2, 0, 1, 1, 2));
    }
}
