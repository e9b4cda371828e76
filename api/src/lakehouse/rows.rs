//! Reads rows of a version of a table: filtered, ordered, a page of them.

use std::{sync::Arc, time::Duration};

use karat_http::ApiError;
use karat_lake::{
    Lake,
    arrow::{array::RecordBatch, datatypes::Schema},
    datafusion::{
        catalog::TableProvider,
        error::DataFusionError,
        logical_expr::{Expr, ident},
        object_store,
        prelude::SessionContext,
    },
};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::{
    filter::RowQuestion,
    json::{JsonRows, Shape},
    tables::Tables,
    too_slow,
};
use crate::serving::{blocking, cursor, runs::query_error};

/// Questions at a time; further ones wait, within their deadline.
const PARALLEL: usize = 4;
/// A page ends before it would be larger.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// The way to the rows of tables. Shared by every request.
pub(crate) struct TableReader {
    pub(crate) tables: Arc<Tables>,
    session: SessionContext,
    turns: Semaphore,
    deadline: Duration,
}

/// Which version of which table.
#[derive(Debug, Clone)]
pub(crate) struct TableVersion {
    pub(crate) name: String,
    pub(crate) version: u64,
    /// Whether it is one that was named before, so that it may be gone by now.
    pub(crate) is_older: bool,
}

/// A page of rows.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Box<RawValue>,
    pub(crate) num_rows: usize,
    /// Whether there are rows behind it.
    pub(crate) has_more: bool,
}

impl TableReader {
    pub(crate) fn new(lake: Lake, session: SessionContext, deadline: Duration) -> Self {
        Self { tables: Arc::new(Tables::new(lake)), session, turns: Semaphore::new(PARALLEL), deadline }
    }

    /// Rows `begin` and on of the answer to `question`, at most `limit`.
    ///
    /// # Errors
    /// 504 at the deadline; 410 when the version is no longer kept; 503 when it takes more memory than there is; 500 when the
    /// lake fails.
    pub(crate) async fn page(
        &self,
        table: &TableVersion,
        question: &RowQuestion,
        scope: Option<Expr>,
        begin: usize,
        limit: usize,
    ) -> Result<Page, ApiError> {
        self.within_deadline(async {
            let facts = self.tables.facts(&table.name, table.version).await.map_err(|error| table.failed(error))?;
            let provider =
                self.tables.provider(&table.name, table.version).await.map_err(|error| table.failed(error))?;
            // One more than asked tells whether there is another page.
            let range = (begin, limit.saturating_add(1));
            let batches = self.scan(provider, question, scope, &facts.schema, range).await;
            let batches = batches.map_err(|error| if is_gone(&error) { gone(error) } else { query_error(error) })?;
            blocking(move || write(&batches, limit)).await
        })
        .await
    }

    /// Waits for a turn and does `work`, both within the deadline.
    ///
    /// # Errors
    /// 504 at the deadline; what `work` fails with.
    pub(crate) async fn within_deadline<T>(
        &self,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let work = async {
            let _turn = self.turns.acquire().await.map_err(ApiError::internal)?;
            work.await
        };
        tokio::time::timeout(self.deadline, work).await.unwrap_or_else(|_| Err(too_slow(self.deadline)))
    }

    async fn scan(
        &self,
        provider: Arc<dyn TableProvider>,
        question: &RowQuestion,
        scope: Option<Expr>,
        schema: &Schema,
        (begin, count): (usize, usize),
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        let mut frame = self.session.read_table(provider)?;
        for condition in question.conditions.iter().cloned().chain(scope) {
            frame = frame.filter(condition)?;
        }
        let order = question.sort(schema);
        if !order.is_empty() {
            frame = frame.sort(order)?;
        }
        let columns: Vec<Expr> = question.columns.iter().map(ident).collect();
        frame.limit(begin, Some(count))?.select(columns)?.collect().await
    }
}

impl TableVersion {
    /// What it means that the version cannot be opened.
    pub(crate) fn failed(&self, error: karat_lake::Error) -> ApiError {
        // Old versions are cleaned up by age, so this is how "no longer kept" looks.
        if self.is_older { gone(error) } else { ApiError::internal(error) }
    }
}

fn write(batches: &[RecordBatch], limit: usize) -> Result<Page, ApiError> {
    let mut rows = JsonRows::new(Shape::Objects, limit, MAX_PAGE_BYTES);
    let mut has_more = false;
    for batch in batches {
        if !rows.add(batch).map_err(ApiError::internal)? {
            has_more = true;
            break;
        }
    }
    let num_rows = rows.len();
    Ok(Page { rows: rows.finish().map_err(ApiError::internal)?, num_rows, has_more })
}

/// Whether a data file is no longer there.
fn is_gone(error: &DataFusionError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(object_store::Error::NotFound { .. }) = error.downcast_ref() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn gone(cause: impl std::fmt::Display) -> ApiError {
    cursor::expired().caused_by(cause)
}
