//! Reads `silver.runs` at the version that an epoch names.
//!
//! Filters are built as expressions over known columns and never as text, so a value is always a value. Scans share one
//! bounded memory pool with those of other tables, run a few at a time, and end at a deadline.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use karat_http::ApiError;
use karat_lake::{
    Lake,
    arrow::array::RecordBatch,
    datafusion::{
        catalog::TableProvider,
        common::ScalarValue,
        error::DataFusionError,
        logical_expr::{Expr, SortExpr, ident, lit},
        prelude::SessionContext,
    },
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};

use super::cursor;
use crate::{
    lakehouse::{scope::only_visible, too_slow},
    snapshot::{Columns, RUNS},
    summary::Visible,
};

/// Scans at a time; further ones wait, within their deadline.
const PARALLEL_SCANS: usize = 4;
/// Versions of the table that are kept open.
const OPEN_VERSIONS: usize = 4;

/// Which runs are wanted. Times are microseconds since 1970 UTC.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub run_id: Option<String>,
    pub parent_run_id: Option<String>,
    pub source: Option<String>,
    pub job: Option<String>,
    pub status: Option<&'static str>,
    pub user: Option<String>,
    /// Started at or after.
    pub from_us: Option<i64>,
    /// Started before.
    pub to_us: Option<i64>,
    pub top_level_only: bool,
    /// Only runs behind this one, in the order of the answer.
    pub after: Option<RunKey>,
    pub limit: usize,
}

/// A run's place in the order of the answer: newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunKey {
    #[serde(rename = "t")]
    pub started_at_us: i64,
    #[serde(rename = "r")]
    pub run_id: String,
    #[serde(rename = "s")]
    pub source: String,
}

/// One run. Times are microseconds since 1970 UTC.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunRow {
    pub source: String,
    pub run_id: String,
    pub job: String,
    pub user_id: Option<String>,
    pub status: String,
    pub started_at_us: Option<i64>,
    pub finished_at_us: Option<i64>,
    pub duration_us: Option<i64>,
    pub records_read: Option<i64>,
    pub records_written: Option<i64>,
    pub records_failed: Option<i64>,
    pub bytes_written: Option<i64>,
    pub error_message: Option<String>,
    pub parent_run_id: Option<String>,
    pub last_event_at_us: Option<i64>,
    pub events: i64,
}

impl RunRow {
    pub(crate) fn key(&self) -> RunKey {
        let started_at_us = self.started_at_us.unwrap_or(i64::MIN);
        RunKey { started_at_us, run_id: self.run_id.clone(), source: self.source.clone() }
    }
}

/// The way to the runs. Shared by every request.
pub struct RunsReader {
    lake: Lake,
    session: SessionContext,
    open: Mutex<VecDeque<(u64, Arc<dyn TableProvider>)>>,
    scans: Semaphore,
    deadline: Duration,
}

impl RunsReader {
    pub(super) fn new(lake: Lake, session: SessionContext, deadline: Duration) -> Self {
        Self { lake, session, open: Mutex::default(), scans: Semaphore::new(PARALLEL_SCANS), deadline }
    }

    /// The runs of version `version` that `filter` wants and the caller may see, newest first.
    ///
    /// # Errors
    /// 504 at the deadline; 410 when the version is no longer kept; 500 when the lake fails.
    pub async fn find(&self, version: u64, visible: &Visible, filter: &RunFilter) -> Result<Vec<RunRow>, ApiError> {
        let work = async {
            let _permit = self.scans.acquire().await.map_err(ApiError::internal)?;
            let table = self.table(version).await?;
            self.scan(table, visible, filter).await.map_err(query_error)
        };
        tokio::time::timeout(self.deadline, work).await.unwrap_or_else(|_| Err(too_slow(self.deadline)))
    }

    async fn scan(
        &self,
        table: Arc<dyn TableProvider>,
        visible: &Visible,
        filter: &RunFilter,
    ) -> Result<Vec<RunRow>, DataFusionError> {
        let mut frame = self.session.read_table(table)?;
        for condition in conditions(visible, filter) {
            frame = frame.filter(condition)?;
        }
        let batches = frame.sort(newest_first())?.limit(0, Some(filter.limit))?.collect().await?;
        let mut rows = Vec::new();
        for batch in &batches {
            add_rows(batch, &mut rows)?;
        }
        Ok(rows)
    }

    async fn table(&self, version: u64) -> Result<Arc<dyn TableProvider>, ApiError> {
        let mut open = self.open.lock().await;
        if let Some((_, table)) = open.iter().find(|(held, _)| *held == version) {
            return Ok(Arc::clone(table));
        }
        let opened = self.lake.open_at(RUNS, version).await.map_err(|error| cursor::expired().caused_by(error))?;
        let table = opened.provider().await.map_err(ApiError::internal)?;
        if open.len() == OPEN_VERSIONS {
            open.pop_front();
        }
        open.push_back((version, Arc::clone(&table)));
        Ok(table)
    }
}

/// What it means that a scan failed.
pub(crate) fn query_error(error: DataFusionError) -> ApiError {
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) {
        let message = "too many large questions at once: try again, or ask for fewer rows";
        return ApiError::unavailable("query_memory", message).retry_after(Duration::from_secs(1)).caused_by(error);
    }
    ApiError::internal(error)
}

fn newest_first() -> Vec<SortExpr> {
    ["started_at", "run_id", "source"].into_iter().map(|column| ident(column).sort(false, false)).collect()
}

fn conditions(visible: &Visible, filter: &RunFilter) -> Vec<Expr> {
    let text = |column: &str, value: &Option<String>| value.as_ref().map(|value| ident(column).eq(lit(value.as_str())));
    let conditions = [
        text("run_id", &filter.run_id),
        text("parent_run_id", &filter.parent_run_id),
        text("source", &filter.source),
        text("job", &filter.job),
        text("user_id", &filter.user),
        filter.status.map(|status| ident("status").eq(lit(status))),
        filter.from_us.map(|us| ident("started_at").gt_eq(instant(us))),
        filter.to_us.map(|us| ident("started_at").lt(instant(us))),
        filter.top_level_only.then(|| ident("parent_run_id").is_null()),
        filter.after.as_ref().map(behind),
        only_visible(visible, true, true),
    ];
    conditions.into_iter().flatten().collect()
}

/// The rows after `key` in the order of [`newest_first`].
fn behind(key: &RunKey) -> Expr {
    let at = || instant(key.started_at_us);
    let same_run = ident("run_id").eq(lit(key.run_id.as_str())).and(ident("source").lt(lit(key.source.as_str())));
    let same_time = ident("started_at").eq(at()).and(ident("run_id").lt(lit(key.run_id.as_str())).or(same_run));
    ident("started_at").lt(at()).or(same_time)
}

fn instant(us: i64) -> Expr {
    Expr::Literal(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())), None)
}

fn add_rows(batch: &RecordBatch, rows: &mut Vec<RunRow>) -> Result<(), DataFusionError> {
    let columns = Columns::of(batch);
    let (sources, run_ids, jobs) = (columns.texts("source")?, columns.texts("run_id")?, columns.texts("job")?);
    let (users, statuses) = (columns.texts("user_id")?, columns.texts("status")?);
    let (started, finished) = (columns.instants("started_at")?, columns.instants("finished_at")?);
    let (durations, events) = (columns.numbers("duration_us")?, columns.numbers("events")?);
    let (read, written) = (columns.numbers("records_read")?, columns.numbers("records_written")?);
    let (failed, bytes) = (columns.numbers("records_failed")?, columns.numbers("bytes_written")?);
    let (errors, parents) = (columns.texts("error_message")?, columns.texts("parent_run_id")?);
    let last_event = columns.instants("last_event_at")?;
    rows.extend((0..batch.num_rows()).map(|at| RunRow {
        source: sources.owned(at).unwrap_or_default(),
        run_id: run_ids.owned(at).unwrap_or_default(),
        job: jobs.owned(at).unwrap_or_default(),
        user_id: users.owned(at),
        status: statuses.owned(at).unwrap_or_default(),
        started_at_us: started.get(at),
        finished_at_us: finished.get(at),
        duration_us: durations.get(at),
        records_read: read.get(at),
        records_written: written.get(at),
        records_failed: failed.get(at),
        bytes_written: bytes.get(at),
        error_message: errors.owned(at),
        parent_run_id: parents.owned(at),
        last_event_at_us: last_event.get(at),
        events: events.get_or_0(at),
    }));
    Ok(())
}
