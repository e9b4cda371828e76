//! What the routes about tables answer.

use karat_lake::{VersionSummary, arrow::datatypes::Field};
use poem_openapi::{Object, types::Example};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    cover::Cover,
    read_epochs::{PipelineEpoch, example_epoch},
    sync_views::TableFreshness,
};
use crate::{
    lakehouse::{
        declared::{DeclaredRule, DeclaredTable},
        tables::Facts,
        types::type_name,
    },
    serving::freshness::DataState,
    summary::rfc3339_utc,
};

/// A table at the version that the epoch of its pipeline names.
#[derive(Debug, Clone, Serialize, Object)]
pub struct Table {
    /// Full name, such as `gold.daily_summary`.
    pub table: String,
    /// `gold` or `silver`.
    pub layer: String,
    /// The name without its layer.
    pub name: String,
    /// The pipeline that makes it.
    pub pipeline: String,
    pub version: u64,
    /// Null for who sees own rows only, as are `files` and `bytes`.
    #[oai(nullable)]
    pub rows: Option<u64>,
    #[oai(nullable)]
    pub files: Option<u64>,
    #[oai(nullable)]
    pub bytes: Option<u64>,
    /// When its newest file was written, RFC 3339 in UTC; null of a table without rows.
    #[oai(nullable)]
    pub newest_commit: Option<String>,
}

/// The tables that the caller sees.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct TableList {
    /// Of several pipelines, that of the one whose newest event is the oldest.
    pub epoch: u64,
    /// The newest event time of that pipeline.
    #[oai(nullable)]
    pub as_of: Option<String>,
    /// Of the pipeline that is the least complete.
    pub data_state: DataState,
    /// The epochs that the tables are of, one a pipeline: two may be at two points in time.
    pub epochs: Vec<PipelineEpoch>,
    /// By full name.
    pub tables: Vec<Table>,
}

/// A column of a table.
#[derive(Debug, Clone, Serialize, Object)]
pub struct TableColumn {
    pub name: String,
    /// `string`, `int64`, `float64`, `bool`, `timestamp`, `date`, `decimal(P,S)`, `binary`, or another.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    pub column_type: String,
    /// What the table says of it.
    #[oai(nullable)]
    pub description: Option<String>,
}

/// What a version of a table did.
#[derive(Debug, Clone, Serialize, Object)]
pub struct TableVersionView {
    pub version: u64,
    /// RFC 3339 in UTC.
    #[oai(nullable)]
    pub written_at: Option<String>,
    pub files_added: u64,
    pub files_removed: u64,
    /// Rows of the added files: those that were only written anew are counted too.
    pub rows_added: u64,
}

/// One table.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct TableDetail {
    /// Of the table's pipeline.
    pub epoch: u64,
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    pub table: Table,
    pub columns: Vec<TableColumn>,
    /// The last versions up to that of the epoch, newest first, as far as they are kept; none for who sees own rows only.
    pub versions: Vec<TableVersionView>,
    /// Where it has an objective (`fresh_within`).
    #[oai(nullable)]
    pub freshness: Option<TableFreshness>,
    /// What is declared of it, where the pipeline that made it is known.
    #[oai(nullable)]
    pub declared: Option<DeclaredTable>,
}

/// A page of rows.
#[derive(Debug, Serialize, Object)]
#[oai(example)]
pub struct RowPage {
    /// The pipeline that makes the table, whose epoch this is.
    pub pipeline: String,
    pub epoch: u64,
    /// Null with an older `as_of_version`.
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    pub table: String,
    pub version: u64,
    /// Objects by column. Whole numbers are exact, decimals are text, times RFC 3339 in UTC, bytes base64.
    pub rows: Vec<Value>,
    /// For the next page; null on the last.
    #[oai(nullable)]
    pub next_cursor: Option<String>,
}

/// [`RowPage`] as it is written, with rows that are JSON already.
#[derive(Serialize)]
pub(super) struct WrittenRowPage<'a> {
    pub(super) pipeline: &'a str,
    pub(super) epoch: u64,
    pub(super) as_of: Option<&'a str>,
    pub(super) data_state: DataState,
    pub(super) table: &'a str,
    pub(super) version: u64,
    pub(super) rows: &'a RawValue,
    pub(super) next_cursor: Option<String>,
}

impl Table {
    /// Sizes count everybody's rows.
    pub(super) fn of(pipeline: &str, table: &str, facts: &Facts, sees_all: bool) -> Self {
        let (layer, name) = table.split_once('.').unwrap_or_default();
        let of_all = |count: u64| sees_all.then_some(count);
        Self {
            table: table.to_owned(),
            layer: layer.to_owned(),
            name: name.to_owned(),
            pipeline: pipeline.to_owned(),
            version: facts.version,
            rows: of_all(facts.rows),
            files: of_all(facts.files),
            bytes: of_all(facts.bytes),
            newest_commit: facts.newest_file_ms.and_then(rfc3339_of_ms),
        }
    }
}

impl TableColumn {
    pub(super) fn of(field: &Field) -> Self {
        Self {
            name: field.name().clone(),
            column_type: type_name(field.data_type()),
            description: field.metadata().get("comment").cloned(),
        }
    }
}

impl From<VersionSummary> for TableVersionView {
    fn from(summary: VersionSummary) -> Self {
        Self {
            version: summary.version,
            written_at: summary.written_at_ms.and_then(rfc3339_of_ms),
            files_added: summary.files_added,
            files_removed: summary.files_removed,
            rows_added: summary.rows_added,
        }
    }
}

impl TableList {
    pub(super) fn of(cover: &Cover, epochs: Vec<PipelineEpoch>, tables: Vec<Table>) -> Self {
        let (as_of, data_state) = (cover.as_of(), cover.freshness.data_state);
        Self { epoch: cover.epoch, as_of, data_state, epochs, tables }
    }
}

fn rfc3339_of_ms(ms: i64) -> Option<String> {
    rfc3339_utc(ms.checked_mul(1_000)?)
}

fn example_table() -> Table {
    Table {
        table: "gold.daily_summary".to_owned(),
        layer: "gold".to_owned(),
        name: "daily_summary".to_owned(),
        pipeline: "etl_runs".to_owned(),
        version: 412,
        rows: Some(731),
        files: Some(1),
        bytes: Some(48_213),
        newest_commit: Some("2026-01-31T22:00:42.310Z".to_owned()),
    }
}

fn example_as_of() -> Option<String> {
    Some("2026-01-31T22:00:41.250Z".to_owned())
}

impl Example for TableList {
    fn example() -> Self {
        Self {
            epoch: 412,
            as_of: example_as_of(),
            data_state: DataState::Complete,
            epochs: vec![example_epoch()],
            tables: vec![example_table()],
        }
    }
}

impl Example for TableDetail {
    fn example() -> Self {
        let column = |name: &str, column_type: &str| TableColumn {
            name: name.to_owned(),
            column_type: column_type.to_owned(),
            description: None,
        };
        let version = TableVersionView {
            version: 412,
            written_at: Some("2026-01-31T22:00:42.310Z".to_owned()),
            files_added: 1,
            files_removed: 1,
            rows_added: 731,
        };
        let rule = DeclaredRule {
            name: "source_is_named".to_owned(),
            check: "source IS NOT NULL AND source <> ''".to_owned(),
            action: "quarantine".to_owned(),
            null: "fail".to_owned(),
        };
        let declared = DeclaredTable {
            table: "gold.daily_summary".to_owned(),
            pipeline: "etl_runs".to_owned(),
            refresh: "auto".to_owned(),
            key: vec![],
            time: Some("bucket_start".to_owned()),
            expectations: vec![rule],
        };
        Self {
            epoch: 412,
            as_of: example_as_of(),
            data_state: DataState::Complete,
            table: example_table(),
            columns: vec![column("bucket_start", "timestamp"), column("source", "string"), column("runs", "int64")],
            versions: vec![version],
            freshness: None,
            declared: Some(declared),
        }
    }
}

impl Example for RowPage {
    fn example() -> Self {
        let row = json!({"bucket_start": "2026-01-31T00:00:00Z", "source": "billing", "runs": 24});
        Self {
            pipeline: "etl_runs".to_owned(),
            epoch: 412,
            as_of: example_as_of(),
            data_state: DataState::Complete,
            table: "gold.daily_summary".to_owned(),
            version: 412,
            rows: vec![row],
            next_cursor: None,
        }
    }
}
