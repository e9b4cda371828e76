//! The parts of `pipelines.toml`. Field docs are the reference for each key.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use serde::Deserialize;

use super::Endpoint;
use crate::units::deserialize_duration;

/// A whole file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pipelines {
    pub topics: Vec<Topic>,
    pub events: Vec<EventType>,
    pub references: Vec<Reference>,
    pub pipelines: Vec<Pipeline>,
    /// Routes of all pipelines: they are no part of what a pipeline computes.
    pub endpoints: Vec<Endpoint>,
}

/// `[[topic]]`: where events wait in the log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    pub name: String,
    /// Used when the topic is created; an existing topic is left as it is.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
    /// How long the log keeps records, such as `7d`; absent keeps them for ever.
    #[serde(default, deserialize_with = "deserialize_duration")]
    pub retention: Option<Duration>,
}

/// `[[event]]`: a type that may be published.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventType {
    /// The CloudEvents `type`.
    #[serde(rename = "type")]
    pub event_type: String,
    #[serde(default = "default_topic")]
    pub topic: String,
    /// JSON Schema of `data`: a path beside the file, or `builtin:NAME`.
    pub schema: Option<String>,
    #[serde(skip)]
    pub line: usize,
}

/// `[[reference]]`: a small table from a file, or by SQL from others, for joins in gold SQL.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The table that gold SQL names.
    pub name: String,
    /// CSV with a header, JSON lines or Parquet, by the end of its name; a path relative to `pipelines.toml`. Empty with
    /// `sql`.
    #[serde(default)]
    pub file: String,
    /// A query over the reference tables that are declared above.
    pub sql: Option<String>,
    /// The columns that are read, with their types; absent reads all, with the types that the file has or suggests.
    #[serde(default)]
    pub columns: Vec<ReferenceColumn>,
    /// Where the file was found; set when it is loaded.
    #[serde(skip)]
    pub path: PathBuf,
    /// What the file holds; set when it is loaded.
    #[serde(skip)]
    pub bytes: Arc<[u8]>,
    #[serde(skip)]
    pub line: usize,
}

impl fmt::Debug for Reference {
    /// What is declared, without the bytes.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = out.debug_struct("Reference");
        shown.field("name", &self.name).field("sql", &self.sql).field("columns", &self.columns);
        shown.finish_non_exhaustive()
    }
}

/// A column of a reference table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceColumn {
    pub name: String,
    /// As of an input's column.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// A row without a value makes the file unusable.
    #[serde(default)]
    pub required: bool,
}

/// `[[pipeline]]`: from one topic to silver and gold tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    pub name: String,
    pub topic: String,
    pub description: String,
    pub inputs: Vec<Input>,
    pub silver: Vec<Silver>,
    pub gold: Vec<Gold>,
    /// The loaded reference tables that its gold SQL names.
    pub references: Vec<Reference>,
    /// Line of the `[[pipeline]]` header.
    pub line: usize,
}

/// `[[pipeline.input]]`: events become rows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The table that `sql` reads.
    pub name: String,
    /// Event types that this input takes.
    pub types: Vec<String>,
    /// The silver table that the rows go to.
    pub into: String,
    pub columns: Vec<Column>,
    /// A row-wise `SELECT` over the input (decision 6). Absent: the declared columns as they are.
    pub sql: Option<String>,
    /// Keeps unknown fields in the silver column `_rescued`, as a JSON object by dotted path (spec S1).
    #[serde(default = "yes")]
    pub rescue: bool,
    #[serde(skip)]
    pub line: usize,
}

/// A declared column: where it is in the event's data, and its type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    pub name: String,
    /// Dotted path into `data`, such as `run.runId`; absent means the name.
    pub path: Option<String>,
    /// `string`, `int64`, `float64`, `bool`, `timestamp`, `date`, `json`, or `decimal(P,S)`.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// A missing or null value sends the record to quarantine.
    #[serde(default)]
    pub required: bool,
    /// Takes a number or boolean written as text, and text written as a number (spec S1).
    #[serde(default)]
    pub coerce: bool,
}

/// The type of a declared column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ColumnType {
    String,
    Int64,
    Float64,
    Bool,
    /// RFC 3339 text, kept as UTC microseconds.
    Timestamp,
    /// `YYYY-MM-DD`.
    Date,
    /// Any JSON value, kept as its text.
    Json,
    /// Exact decimals of up to 38 digits.
    Decimal {
        precision: u8,
        scale: i8,
    },
}

impl TryFrom<String> for ColumnType {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "string" => Self::String,
            "int64" => Self::Int64,
            "float64" => Self::Float64,
            "bool" => Self::Bool,
            "timestamp" => Self::Timestamp,
            "date" => Self::Date,
            "json" => Self::Json,
            other => parse_decimal(other).ok_or_else(|| {
                format!(
                    "unknown column type `{other}`: expected string, int64, float64, bool, timestamp, date, json or \
                     decimal(P,S) with P from 1 to 38 and S from 0 to P"
                )
            })?,
        })
    }
}

fn parse_decimal(text: &str) -> Option<ColumnType> {
    let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let is_valid = (1..=38).contains(&precision) && scale >= 0 && scale.unsigned_abs() <= precision;
    is_valid.then_some(ColumnType::Decimal { precision, scale })
}

/// `[[pipeline.silver]]`: a checked, typed table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silver {
    pub name: String,
    pub mode: SilverMode,
    /// The append table that a fold reads.
    pub from: Option<String>,
    /// Key columns of a keyed table.
    #[serde(default)]
    pub key: Vec<String>,
    /// Columns that order the records of a key: the last wins (`upsert`).
    #[serde(default)]
    pub sequence: Vec<String>,
    /// SQL condition that removes the row of a key (`upsert`).
    pub delete_when: Option<String>,
    /// Time column that keeps rows of one time in one file, and that outside readers prune by.
    pub time: Option<String>,
    /// Aggregate a column (`fold`).
    #[serde(default)]
    pub fold: BTreeMap<String, Aggregate>,
    /// Shapes the folded columns into the row (`fold`).
    pub sql: Option<String>,
    #[serde(default)]
    pub expect: Vec<Expectation>,
    /// How far the files of a keyed table may be behind its epochs, where changing them at once is dear (decision 2).
    #[serde(default, deserialize_with = "deserialize_duration")]
    pub publish_within: Option<Duration>,
    #[serde(skip)]
    pub line: usize,
}

/// How a silver table takes rows (spec S5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SilverMode {
    Append,
    Fold,
    Upsert,
}

/// One aggregate of a fold. Each gives the same result in any order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "an aggregate is one of { min = C }, { max = C }, { sum = C }, { count = C }, { any_true = C }, \
                 { first = C, by = [..] }, { last = C, by = [..] }, { latest_sum = C, by = [..] }"
)]
pub enum Aggregate {
    Min {
        min: String,
    },
    Max {
        max: String,
    },
    Sum {
        sum: String,
    },
    /// Number of events, `*`, or of non-null values.
    Count {
        count: String,
    },
    AnyTrue {
        any_true: String,
    },
    /// The earliest non-null value by the `by` columns.
    First {
        first: String,
        by: Vec<String>,
    },
    /// The latest non-null value by the `by` columns.
    Last {
        last: String,
        by: Vec<String>,
    },
    /// The column holds a JSON object of numbers; the latest number of each name is kept, and their sum is the value.
    LatestSum {
        latest_sum: String,
        by: Vec<String>,
    },
}

impl Aggregate {
    /// The columns that order the events, for the aggregates that need an order.
    pub fn order(&self) -> Option<&[String]> {
        match self {
            Self::First { by, .. } | Self::Last { by, .. } | Self::LatestSum { by, .. } => Some(by),
            _ => None,
        }
    }
}

/// A rule on silver rows (spec S3).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    pub name: String,
    /// Boolean SQL over the row; `ingest_time` is there too.
    pub check: String,
    pub action: Action,
    /// What a rule that is neither true nor false means.
    #[serde(default)]
    pub null: NullMeans,
}

/// What happens to a row that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Counted; the row goes on.
    Warn,
    /// Counted; the row is left out.
    Drop,
    /// The record is kept in the quarantine table.
    Quarantine,
    /// The record is kept in quarantine and the pipeline pauses after the batch is committed.
    Fail,
}

/// The verdict for a rule that gives NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullMeans {
    Pass,
    #[default]
    Fail,
}

/// `[[pipeline.gold]]`: figures by SQL over one silver table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gold {
    pub name: String,
    pub sql: String,
    #[serde(default)]
    pub refresh: Refresh,
    /// Group columns; needed with `keys`, known from the SQL with `merge`, all columns by default with `full`.
    #[serde(default)]
    pub key: Vec<String>,
    /// With `keys`: the group's SQL sees only its newest rows.
    pub latest: Option<Latest>,
    /// The time column and length of a summary; adds `revision` and `revised_at` (spec G4).
    pub bucket: Option<Bucket>,
    /// Freshness objective, on event time (spec G6).
    #[serde(default, deserialize_with = "deserialize_duration")]
    pub fresh_within: Option<Duration>,
    #[serde(skip)]
    pub line: usize,
}

/// How a gold table is kept up to date (spec G1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refresh {
    /// The cheapest that is right for the SQL: merge, else keys. Never full.
    #[default]
    Auto,
    /// Changed rows are folded into stored aggregate state.
    Merge,
    /// Touched groups are computed again from their rows.
    Keys,
    /// Everything is computed again at each change.
    Full,
}

/// The newest rows of each group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latest {
    pub by: String,
    pub keep: usize,
}

/// The time bucket of a summary.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    pub column: String,
    pub grain: Grain,
}

/// Length of a bucket, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Grain {
    #[serde(rename = "15m")]
    QuarterHour,
    #[serde(rename = "hour")]
    Hour,
    #[serde(rename = "day")]
    Day,
    #[serde(rename = "week")]
    Week,
    #[serde(rename = "month")]
    Month,
}

fn yes() -> bool {
    true
}

fn default_partitions() -> u32 {
    4
}

pub(crate) fn default_topic() -> String {
    "karat.events".to_owned()
}
