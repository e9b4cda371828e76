//! Reads `silver.runs` at the version that an epoch names.
//!
//! Filters are built as expressions over known columns and never as text, so a value is always a value. Scans share their
//! bounds with those of other tables, and end when nobody waits for them.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use karat_http::ApiError;
use karat_lake::{
    arrow::array::RecordBatch,
    datafusion::{
        catalog::TableProvider,
        common::ScalarValue,
        error::DataFusionError,
        logical_expr::{Expr, SortExpr, ident, lit},
        prelude::DataFrame,
    },
};
use serde::{Deserialize, Serialize};

use super::{key::KeyParts, run_columns, scans::query_error, threads::Items};
use crate::{
    lakehouse::{
        rows::{TableReader, TableVersion, scan_error},
        scope::only_visible,
    },
    snapshot::{Columns, RUNS},
    summary::Visible,
};

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

impl RunFilter {
    /// What of a question this is; the page, which is `after` and `limit`, apart.
    pub(crate) fn parts(&self, question: &mut KeyParts, page: &mut KeyParts) {
        question
            .maybe("run_id", self.run_id.as_deref())
            .maybe("parent_run_id", self.parent_run_id.as_deref())
            .maybe("source", self.source.as_deref())
            .maybe("job", self.job.as_deref())
            .maybe("status", self.status)
            .maybe("user", self.user.as_deref())
            .number("from", self.from_us.map_or(i128::MIN, i128::from))
            .number("to", self.to_us.map_or(i128::MAX, i128::from))
            .flag("top_level", self.top_level_only);
        page.number("limit", self.limit as u64);
        if let Some(RunKey { started_at_us, run_id, source }) = &self.after {
            page.number("started_at", *started_at_us).text("run_id", run_id).text("source", source);
        }
    }
}

impl RunRow {
    pub(crate) fn key(&self) -> RunKey {
        let started_at_us = self.started_at_us.unwrap_or(i64::MIN);
        RunKey { started_at_us, run_id: self.run_id.clone(), source: self.source.clone() }
    }
}

/// The way to the runs.
pub struct RunsReader {
    tables: Arc<TableReader>,
}

impl RunsReader {
    pub(super) fn new(tables: &Arc<TableReader>) -> Self {
        Self { tables: Arc::clone(tables) }
    }

    /// The runs of version `version` that `filter` wants and the caller may see, newest first.
    ///
    /// # Errors
    /// 503 when too many wait, or too much memory is used; 410 when the version of a cursor is no longer kept; 500 when the
    /// lake fails.
    pub async fn find(&self, version: u64, visible: &Visible, filter: &RunFilter) -> Result<Vec<RunRow>, ApiError> {
        let (tables, visible, filter) = (Arc::clone(&self.tables), visible.clone(), filter.clone());
        let find = async move {
            // Only a cursor names a run to go on behind, and it is of its epoch.
            let is_older = filter.after.is_some();
            let table = tables.provider(&TableVersion::of(RUNS, version, is_older)).await?;
            scan(&tables, table, &visible, &filter).await.map_err(|error| scan_error(error, is_older))
        };
        self.tables.scans.run(find).await
    }

    /// Every run of version `version` that `filter` wants and the caller may see, as batches of [`run_columns::schema`]
    /// or of what can be cast to it. In no order, so that memory does not follow the number of runs; the page and the
    /// limit of the filter do not count. The stream has 500 when the lake fails.
    pub(crate) fn all(&self, version: u64, visible: Visible, filter: RunFilter) -> Items<RecordBatch> {
        let tables = Arc::clone(&self.tables);
        let open = async move {
            let table = tables.provider(&TableVersion::of(RUNS, version, false)).await?;
            let frame = wanted(&tables, table, &visible, &filter);
            let frame = frame.and_then(|frame| frame.select(run_columns::expressions()));
            let batches = frame.map_err(query_error)?.execute_stream().await.map_err(query_error)?;
            Ok(batches.map_err(query_error).boxed())
        };
        self.tables.scans.stream(open)
    }
}

async fn scan(
    tables: &TableReader,
    table: Arc<dyn TableProvider>,
    visible: &Visible,
    filter: &RunFilter,
) -> Result<Vec<RunRow>, DataFusionError> {
    let frame = wanted(tables, table, visible, filter)?;
    let batches = frame.sort(newest_first())?.limit(0, Some(filter.limit))?.collect().await?;
    let mut rows = Vec::new();
    for batch in &batches {
        add_rows(batch, &mut rows)?;
    }
    Ok(rows)
}

fn wanted(
    tables: &TableReader,
    table: Arc<dyn TableProvider>,
    visible: &Visible,
    filter: &RunFilter,
) -> Result<DataFrame, DataFusionError> {
    let mut frame = tables.scans.session.read_table(table)?;
    for condition in conditions(visible, filter) {
        frame = frame.filter(condition)?;
    }
    Ok(frame)
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
