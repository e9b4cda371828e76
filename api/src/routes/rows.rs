//! `GET /tables/{table}/rows`.

use std::sync::Arc;

use karat_http::{ApiError, Authenticated, error_answers};
use karat_schemas::epoch::Epoch;
use poem::Request;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};

use super::{
    DataTag,
    cover::Cover,
    table_views::{RowPage, WrittenRowPage},
    tables::{no_such_table, version_in},
};
use crate::{
    lakehouse::{
        filter::RowQuestion,
        rows::{Page, TableVersion},
        scope::visible_rows,
    },
    serving::{
        DataAnswer, KeyParts, Question, Serving, envelope, in_time, now_us,
        params::Params,
        raw::{ColumnsText, CursorText, LimitText, OrderText, Raw, VersionText},
    },
    snapshot::Snapshot,
};

error_answers! {
    /// Errors of `GET /tables/{table}/rows`.
    pub ReadRowsError: 400, 401, 403, 404, 410, 422, 429, 503, 504;
}

/// Operations on the rows of gold tables.
pub struct RowsApi {
    serving: Arc<Serving>,
}

impl RowsApi {
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[OpenApi(tag = "DataTag::Tables")]
impl RowsApi {
    /// Read rows of a gold table
    ///
    /// Each further parameter is a filter: `column=value`, or `column[OPERATOR]=value` with `eq`, `ne`, `gt`, `gte`, `lt`,
    /// `lte`, or `in` with values separated by commas. All of them hold; a value is of the column's type: a text as it is, a
    /// number, `true` or `false`, a date, or a time in RFC 3339. The pages of one list are of one version.
    #[oai(path = "/tables/:table/rows", method = "get", operation_id = "read_table_rows")]
    #[allow(clippy::too_many_arguments)]
    async fn read(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Full name of a gold table, such as `gold.daily_summary`.
        table: Path<String>,
        /// Columns of the answer, separated by commas. Default: all.
        columns: Query<Option<Raw<ColumnsText>>>,
        /// Columns to order by, separated by commas, `-` before one for the largest first. Rows without a value come last.
        order: Query<Option<Raw<OrderText>>>,
        /// Rows of a page. Default: 1000. A page of large rows may have fewer.
        limit: Query<Option<Raw<LimitText>>>,
        /// From `next_cursor` of the page before.
        cursor: Query<Option<Raw<CursorText>>>,
        /// An older version of the table, while it is kept.
        as_of_version: Query<Option<Raw<VersionText>>>,
    ) -> Result<DataAnswer<RowPage>, ReadRowsError> {
        // Read with the filters, from the whole query.
        let _ = (columns, order);
        let paging = Paging { limit: limit.as_deref(), cursor: cursor.as_deref(), version: as_of_version.as_deref() };
        Ok(self.page(request, &caller, &table.0, paging).await?)
    }
}

/// Which page of which version, as it was sent.
struct Paging<'a> {
    limit: Option<&'a str>,
    cursor: Option<&'a str>,
    version: Option<&'a str>,
}

impl RowsApi {
    async fn page(
        &self,
        request: &Request,
        caller: &Authenticated,
        name: &str,
        paging: Paging<'_>,
    ) -> Result<DataAnswer<RowPage>, ApiError> {
        let serving = Arc::clone(&self.serving);
        let scope = serving.scope_of(caller)?;
        let cursor = serving.read_cursor::<usize>(paging.cursor)?;
        // Of the pipeline whose table it is.
        let snapshots = serving.snapshots_with(name).ok_or_else(no_such_table)?;
        let snapshot = serving.snapshot_in(snapshots, cursor.as_ref()).await?;
        let newest = version_in(&snapshot, name).filter(|_| name.starts_with("gold.")).ok_or_else(no_such_table)?;
        let mut params = Params::default();
        let limit = params.limit(paging.limit);
        let version = params.number("as_of_version", paging.version, 0..=newest.version).unwrap_or(newest.version);
        let is_older = cursor.is_some() || version < newest.version;
        let table = TableVersion { version, is_older, ..newest.clone() };
        // Columns and types are those of the version.
        let facts = in_time(serving.settings.query_deadline, serving.tables.facts(&table)).await?;
        let condition = visible_rows(&scope.visible, &facts, name)?;
        let rows = RowQuestion::understand(request.uri().query().unwrap_or_default(), &facts.schema, &mut params);
        params.finish()?;
        let mut parts = scope.asks("rows");
        parts.text("pipeline", &snapshot.epoch.pipeline).text("table", name).number("version", version);
        parts.text("rows", &rows.text);
        let id = parts.key();
        if let Some(cursor) = &cursor {
            cursor.check_question(id)?;
        }
        let begin = cursor.map_or(0, |cursor| cursor.position);
        let mut page = KeyParts::of("page");
        page.number("limit", limit as u64).number("at", begin as u64);
        let told = if version == newest.version { Arc::clone(&snapshot) } else { older(&snapshot) };
        let cover = Cover::of(&told, serving.freshness(&snapshot, now_us()));
        let question = Question { id, page, snapshot: told, freshness: cover.freshness, clock: 0 };
        let render = async move {
            let batches = serving.tables.rows(&table, rows, condition, begin, limit).await?;
            let page = serving.compute(move |serving, _| {
                let page = Page::of(&batches, limit)?;
                let next = page.has_more.then(|| serving.next_cursor(&snapshot, id, begin + page.num_rows));
                let as_of = cover.as_of();
                let written = WrittenRowPage {
                    pipeline: &snapshot.epoch.pipeline,
                    epoch: cover.epoch,
                    as_of: as_of.as_deref(),
                    data_state: cover.freshness.data_state,
                    table: &table.name,
                    version,
                    rows: &page.rows,
                    next_cursor: next.transpose()?,
                };
                envelope(&written, "rows of the table")
            });
            page.await
        };
        self.serving.answer(request, question, render).await
    }
}

/// The epoch of an answer about an older version: how new its events are is not known.
fn older(snapshot: &Snapshot) -> Arc<Snapshot> {
    Arc::new(Snapshot { epoch: Epoch { as_of_us: None, ..snapshot.epoch.clone() }, ..Snapshot::default() })
}
