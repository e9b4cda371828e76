//! What the run routes answer.

use poem_openapi::{Object, types::Example};
use serde::Serialize;

use crate::{
    serving::{freshness::DataState, runs::RunRow},
    summary::rfc3339_utc,
};

/// One run.
#[derive(Debug, Clone, Serialize, Object)]
pub struct Run {
    pub source: String,
    pub run_id: String,
    pub job: String,
    /// Whose run it is.
    #[oai(nullable)]
    pub user_id: Option<String>,
    /// `completed`, `failed`, `aborted` or `running`.
    pub status: String,
    /// RFC 3339 in UTC, like all times here.
    #[oai(nullable)]
    pub started_at: Option<String>,
    #[oai(nullable)]
    pub finished_at: Option<String>,
    /// Null while it runs, and when its start was never told.
    #[oai(nullable)]
    pub duration_ms: Option<f64>,
    #[oai(nullable)]
    pub records_read: Option<i64>,
    #[oai(nullable)]
    pub records_written: Option<i64>,
    #[oai(nullable)]
    pub records_failed: Option<i64>,
    #[oai(nullable)]
    pub bytes_written: Option<i64>,
    /// Why it failed or was aborted.
    #[oai(nullable)]
    pub error_message: Option<String>,
    #[oai(nullable)]
    pub parent_run_id: Option<String>,
    #[oai(nullable)]
    pub last_event_at: Option<String>,
    /// Events that told of it.
    pub events: i64,
}

/// A page of runs.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct RunPage {
    pub epoch: u64,
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    /// Newest first.
    pub runs: Vec<Run>,
    /// For the next page; null on the last.
    #[oai(nullable)]
    pub next_cursor: Option<String>,
}

/// A run with those around it.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct RunDetail {
    pub epoch: u64,
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    pub run: Run,
    /// The run that started it, when that is known and visible.
    #[oai(nullable)]
    pub parent: Option<Run>,
    /// Runs that it started, newest first, at most 1000.
    pub children: Vec<Run>,
}

impl From<RunRow> for Run {
    fn from(row: RunRow) -> Self {
        let time = |us: Option<i64>| us.and_then(rfc3339_utc);
        Self {
            source: row.source,
            run_id: row.run_id,
            job: row.job,
            user_id: row.user_id,
            status: row.status,
            started_at: time(row.started_at_us),
            finished_at: time(row.finished_at_us),
            duration_ms: row.duration_us.map(|us| us as f64 / 1000.0),
            records_read: row.records_read,
            records_written: row.records_written,
            records_failed: row.records_failed,
            bytes_written: row.bytes_written,
            error_message: row.error_message,
            parent_run_id: row.parent_run_id,
            last_event_at: time(row.last_event_at_us),
            events: row.events,
        }
    }
}

fn example_run() -> Run {
    RunRow {
        source: "billing".to_owned(),
        run_id: "0197b3a2-5c1e-7d40-8a77-2f6f0c1f9d11".to_owned(),
        job: "load_invoices".to_owned(),
        user_id: Some("0197a001-0000-7000-8000-000000000001".to_owned()),
        status: "completed".to_owned(),
        started_at_us: Some(1_769_896_800_000_000),
        finished_at_us: Some(1_769_896_841_250_000),
        duration_us: Some(41_250_000),
        records_read: Some(20_000),
        records_written: Some(19_992),
        records_failed: Some(8),
        bytes_written: Some(3_145_728),
        last_event_at_us: Some(1_769_896_841_250_000),
        events: 2,
        ..RunRow::default()
    }
    .into()
}

impl Example for RunPage {
    fn example() -> Self {
        let as_of = Some("2026-01-31T22:00:41.250Z".to_owned());
        Self { epoch: 412, as_of, data_state: DataState::Complete, runs: vec![example_run()], next_cursor: None }
    }
}

impl Example for RunDetail {
    fn example() -> Self {
        Self {
            epoch: 412,
            as_of: Some("2026-01-31T22:00:41.250Z".to_owned()),
            data_state: DataState::Complete,
            run: example_run(),
            parent: None,
            children: vec![],
        }
    }
}
