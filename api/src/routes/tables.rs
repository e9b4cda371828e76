//! `GET /tables` and `GET /tables/{table}`.

use std::sync::Arc;

use karat_http::{ApiError, Authenticated, error_answers};
use poem::Request;
use poem_openapi::{OpenApi, param::Path};

use super::{
    DataTag,
    cover::Cover,
    read_epochs::ReadEpochs,
    sync_status::Moment,
    sync_views::TableFreshness,
    table_views::{Table, TableColumn, TableDetail, TableList, TableVersionView},
};
use crate::{
    lakehouse::{rows::TableVersion, scope::may_see},
    serving::{DataAnswer, KeyParts, Question, Serving, envelope, params::Params},
    snapshot::Snapshot,
    summary::Visible,
};

error_answers! {
    /// Errors of `GET /tables`.
    pub ListTablesError: 400, 401, 403, 422, 429, 503, 504;
    /// Errors of `GET /tables/{table}`.
    pub ReadTableError: 400, 401, 403, 404, 422, 429, 503, 504;
}

/// Layers whose tables are told of.
const LAYERS: [&str; 2] = ["gold.", "silver."];
/// Versions in the answer about one table.
const MAX_VERSIONS: u64 = 20;

/// Operations on tables.
pub struct TablesApi {
    serving: Arc<Serving>,
}

impl TablesApi {
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[OpenApi(tag = "DataTag::Tables")]
impl TablesApi {
    /// List tables
    ///
    /// The gold and silver tables of all pipelines, each at its version in the newest epoch of its pipeline. Who sees own rows only
    /// is told of tables that say whose their rows are.
    #[oai(path = "/tables", method = "get", operation_id = "list_tables")]
    async fn list(&self, request: &Request, caller: Authenticated) -> Result<DataAnswer<TableList>, ListTablesError> {
        Params::of(request, &[]).finish()?;
        Ok(self.all(request, &caller).await?)
    }

    /// Read what a table is
    ///
    /// Its columns, sizes, last versions and freshness, and what is declared of it.
    #[oai(path = "/tables/:table", method = "get", operation_id = "read_table")]
    async fn read(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Full name, such as `gold.daily_summary`.
        table: Path<String>,
    ) -> Result<DataAnswer<TableDetail>, ReadTableError> {
        Params::of(request, &[]).finish()?;
        Ok(self.one(request, &caller, &table.0).await?)
    }
}

impl TablesApi {
    async fn all(&self, request: &Request, caller: &Authenticated) -> Result<DataAnswer<TableList>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let epochs = ReadEpochs::newest(&self.serving);
        let (snapshot, freshness) = epochs.told();
        let cover = Cover::of(&snapshot, freshness);
        let (id, mut page) = (scope.asks("tables").key(), KeyParts::of("page"));
        epochs.parts(&mut page);
        let question = Question { id, page, snapshot, freshness, clock: 0 };
        let serving = Arc::clone(&self.serving);
        let render = async move {
            let mut tables = Vec::new();
            for (name, (owner, _)) in epochs.tables() {
                let Some(version) = version_in(owner, name) else { continue };
                let facts = serving.tables.facts(&version).await?;
                if may_see(&scope.visible, &facts) {
                    tables.push(Table::of(&owner.epoch.pipeline, name, &facts, scope.visible == Visible::All));
                }
            }
            // A pipeline without a table that the caller sees is not named.
            let mut epochs = epochs.views();
            epochs.retain(|epoch| tables.iter().any(|table| table.pipeline == epoch.pipeline));
            envelope(&TableList::of(&cover, epochs, tables), "the tables of the newest epochs")
        };
        self.serving.answer(request, question, render).await
    }

    async fn one(
        &self,
        request: &Request,
        caller: &Authenticated,
        name: &str,
    ) -> Result<DataAnswer<TableDetail>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let snapshot = self.serving.snapshots_with(name).ok_or_else(no_such_table)?.current();
        let version = version_in(&snapshot, name).ok_or_else(no_such_table)?;
        let moment = Moment::now();
        let cover = Cover::of(&snapshot, self.serving.freshness(&snapshot, moment.now_us));
        let objective = self.serving.settings.objectives.iter().find(|objective| objective.table == name);
        let freshness = objective.map(|objective| TableFreshness::of(objective, &snapshot.epoch, moment));
        let mut parts = scope.asks("table");
        parts.text("table", name);
        let mut page = KeyParts::of("page");
        if let Some(TableFreshness { age_seconds, is_fresh, .. }) = freshness {
            page.number("age", age_seconds.map_or(-1, i128::from));
            page.number("is_fresh", is_fresh.map_or(-1, i128::from));
        }
        let pipeline = snapshot.epoch.pipeline.clone();
        let question = Question { id: parts.key(), page, snapshot, freshness: cover.freshness, clock: 0 };
        let serving = Arc::clone(&self.serving);
        let render = async move {
            let facts = serving.tables.facts(&version).await?;
            if !may_see(&scope.visible, &facts) {
                return Err(no_such_table());
            }
            let sees_all = scope.visible == Visible::All;
            let versions = if sees_all { serving.tables.history(&version, MAX_VERSIONS).await? } else { Vec::new() };
            let declared = serving.settings.tables.iter().find(|declared| declared.table == version.name);
            let detail = TableDetail {
                epoch: cover.epoch,
                as_of: cover.as_of(),
                data_state: cover.freshness.data_state,
                table: Table::of(&pipeline, &version.name, &facts, sees_all),
                columns: facts.schema.fields().iter().map(|field| TableColumn::of(field)).collect(),
                versions: versions.into_iter().map(TableVersionView::from).collect(),
                freshness,
                declared: declared.cloned(),
            };
            envelope(&detail, "the table, as the newest epoch of its pipeline has it")
        };
        self.serving.answer(request, question, render).await
    }
}

/// The version of a gold or silver table in an epoch.
pub(super) fn version_in(snapshot: &Snapshot, name: &str) -> Option<TableVersion> {
    let version = *snapshot.epoch.tables.get(name).filter(|_| LAYERS.iter().any(|layer| name.starts_with(layer)))?;
    Some(TableVersion::of(name, version, false))
}

pub(super) fn no_such_table() -> ApiError {
    ApiError::not_found("there is no such table: `GET /tables` lists them")
}
