//! Reads rows of a version of a table: filtered, ordered, a page of them.

use std::sync::Arc;

use karat_http::ApiError;
use karat_lake::{
    Lake, VersionSummary,
    arrow::{array::RecordBatch, datatypes::Schema},
    datafusion::{
        catalog::TableProvider,
        error::DataFusionError,
        logical_expr::{Expr, ident},
        object_store,
    },
    parquet::errors::ParquetError,
};
use serde_json::value::RawValue;

use super::{
    filter::RowQuestion,
    json::{JsonRows, Shape},
    tables::{Facts, Tables},
};
use crate::serving::{
    cursor,
    scans::{Scans, query_error},
};

/// A page ends before it would be larger.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// What every object store says of a file that is not there.
const NOT_FOUND: &str = " not found: ";

/// The way to the rows of tables. Shared by every request.
pub(crate) struct TableReader {
    pub(crate) tables: Arc<Tables>,
    /// To be read in turn.
    pub(crate) scans: Arc<Scans>,
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
    pub(crate) fn new(lake: Lake, scans: Arc<Scans>) -> Self {
        Self { tables: Arc::new(Tables::new(lake)), scans }
    }

    /// What the version is.
    ///
    /// # Errors
    /// 410 when it is no longer kept; 503 when too many wait; 500 when the lake fails.
    pub(crate) async fn facts(&self, table: &TableVersion) -> Result<Arc<Facts>, ApiError> {
        if let Some(facts) = self.tables.known_facts(&table.name, table.version) {
            return Ok(facts);
        }
        let (tables, table) = (Arc::clone(&self.tables), table.clone());
        let read = async move { tables.facts(&table.name, table.version).await.map_err(|error| table.failed(error)) };
        self.scans.run(read).await
    }

    /// The last versions up to this one, newest first and at most `limit`.
    ///
    /// # Errors
    /// As [`Self::facts`].
    pub(crate) async fn history(&self, table: &TableVersion, limit: u64) -> Result<Vec<VersionSummary>, ApiError> {
        let (tables, table) = (Arc::clone(&self.tables), table.clone());
        let read =
            async move { tables.history(&table.name, table.version, limit).await.map_err(|error| table.failed(error)) };
        self.scans.run(read).await
    }

    /// A version that an epoch names, for work that runs in turn.
    ///
    /// # Errors
    /// 410 when it is an older one and no longer kept; 500 when the lake fails.
    pub(crate) async fn provider(&self, table: &TableVersion) -> Result<Arc<dyn TableProvider>, ApiError> {
        let provider = self.tables.provider(&table.name, table.version).await;
        provider.map_err(|error| table.failed(error))
    }

    /// Rows `begin` and on of the answer to `question`, and one more than `limit`, which tells whether there is another
    /// page: see [`Page::of`].
    ///
    /// # Errors
    /// As [`Self::facts`], and 503 when it takes more memory than there is. What is missing of an older version is 410 also
    /// when the scan finds it out: versions that are open may have lost their files.
    pub(crate) async fn rows(
        self: &Arc<Self>,
        table: &TableVersion,
        question: RowQuestion,
        scope: Option<Expr>,
        begin: usize,
        limit: usize,
    ) -> Result<Vec<RecordBatch>, ApiError> {
        let facts = self.facts(table).await?;
        let (reader, table) = (Arc::clone(self), table.clone());
        let range = (begin, limit.saturating_add(1));
        let read = async move {
            let provider = reader.provider(&table).await?;
            let batches = reader.scan(provider, &question, scope, &facts.schema, range).await;
            batches.map_err(|error| scan_error(error, table.is_older))
        };
        self.scans.run(read).await
    }

    async fn scan(
        &self,
        provider: Arc<dyn TableProvider>,
        question: &RowQuestion,
        scope: Option<Expr>,
        schema: &Schema,
        (begin, count): (usize, usize),
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        let mut frame = self.scans.session.read_table(provider)?;
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
    /// The version of the table `name` that an epoch has; `is_older` when that is the epoch of a cursor.
    pub(crate) fn of(name: &str, version: u64, is_older: bool) -> Self {
        Self { name: name.to_owned(), version, is_older }
    }

    /// What it means that the version cannot be opened.
    fn failed(&self, error: karat_lake::Error) -> ApiError {
        // Old versions are cleaned up by age, so this is how "no longer kept" looks.
        if self.is_older { gone(error) } else { ApiError::internal(error) }
    }
}

impl Page {
    /// The first `limit` rows, or fewer when they are large. Takes the processor for a while.
    ///
    /// # Errors
    /// When a value cannot be written.
    pub(crate) fn of(batches: &[RecordBatch], limit: usize) -> Result<Self, ApiError> {
        let mut rows = JsonRows::new(Shape::Objects, limit, MAX_PAGE_BYTES);
        let mut has_more = false;
        for batch in batches {
            if !rows.add(batch).map_err(ApiError::internal)? {
                has_more = true;
                break;
            }
        }
        let num_rows = rows.len();
        Ok(Self { rows: rows.finish().map_err(ApiError::internal)?, num_rows, has_more })
    }
}

/// What it means that a scan of tables failed; `is_older` when their versions are of an epoch or a number that was named before.
pub(crate) fn scan_error(error: DataFusionError, is_older: bool) -> ApiError {
    // The newest versions have all of their files: a lack of one there is a fault of the lake.
    if is_older && is_gone(&error) { gone(error) } else { query_error(error) }
}

/// Whether a data file is no longer there.
fn is_gone(error: &DataFusionError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(object_store::Error::NotFound { .. }) = error.downcast_ref() {
            return true;
        }
        // Of a file's footer the engine passes on nothing but what the store said.
        if let Some(ParquetError::General(said)) = error.downcast_ref()
            && said.contains(NOT_FOUND)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn gone(cause: impl std::fmt::Display) -> ApiError {
    cursor::expired().caused_by(cause)
}
