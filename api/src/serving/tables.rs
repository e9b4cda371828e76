//! [`TablesReader`]: the tables of the lake at the versions that an epoch names, for scans.
//!
//! Scans share one bounded memory pool, run a few at a time, and end when nobody waits for them.

use std::{collections::VecDeque, sync::Arc};

use karat_http::ApiError;
use karat_lake::{
    Lake,
    datafusion::{
        catalog::TableProvider,
        error::DataFusionError,
        execution::{
            SessionStateBuilder,
            runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
        },
        prelude::{DataFrame, SessionConfig, SessionContext},
    },
};
use tokio::sync::Mutex;

use super::{
    cursor,
    load::ServingCounters,
    turns::{MAX_WAITING, Turn, Turns, out_of_memory},
};

/// Scans at a time; further ones wait, within the deadline of their answer.
const PARALLEL_SCANS: usize = 4;
/// Versions of tables that are kept open.
const OPEN_VERSIONS: usize = 16;

/// The way to the tables. Shared by every request.
pub struct TablesReader {
    lake: Lake,
    session: SessionContext,
    open: Mutex<VecDeque<OpenTable>>,
    scans: Turns,
}

/// A table at one version.
struct OpenTable {
    name: String,
    version: u64,
    table: Arc<dyn TableProvider>,
}

impl TablesReader {
    pub(super) fn new(lake: Lake, memory_bytes: usize, counters: &Arc<ServingCounters>) -> Result<Self, ApiError> {
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory_bytes, 1.0).build_arc();
        Ok(Self {
            lake,
            session: session(runtime.map_err(ApiError::internal)?),
            open: Mutex::default(),
            scans: Turns::new(PARALLEL_SCANS, MAX_WAITING, counters),
        })
    }

    /// Waits for the right to scan, which is to be held until the rows are there.
    ///
    /// # Errors
    /// 503 when too many wait.
    pub(crate) async fn turn(&self) -> Result<Turn, ApiError> {
        self.scans.next().await
    }

    /// The table `name` at `version`.
    ///
    /// # Errors
    /// 410 when the version is no longer kept; 500 when the lake fails.
    pub(crate) async fn table(&self, name: &str, version: u64) -> Result<Arc<dyn TableProvider>, ApiError> {
        let mut open = self.open.lock().await;
        if let Some(held) = open.iter().find(|held| held.version == version && held.name == name) {
            return Ok(Arc::clone(&held.table));
        }
        let opened = self.lake.open_at(name, version).await.map_err(|error| cursor::expired().caused_by(error))?;
        let table = opened.provider().await.map_err(ApiError::internal)?;
        if open.len() == OPEN_VERSIONS {
            open.pop_front();
        }
        open.push_back(OpenTable { name: name.to_owned(), version, table: Arc::clone(&table) });
        Ok(table)
    }

    /// All rows of a table, to be filtered and collected.
    ///
    /// # Errors
    /// When the engine cannot plan it.
    pub(crate) fn rows(&self, table: Arc<dyn TableProvider>) -> Result<DataFrame, DataFusionError> {
        self.session.read_table(table)
    }

    /// A session that knows these tables by name and nothing else; within the same bound of memory.
    ///
    /// # Errors
    /// When a name is given twice.
    pub(crate) fn session_over(
        &self,
        tables: &[(String, Arc<dyn TableProvider>)],
    ) -> Result<SessionContext, DataFusionError> {
        session_over(self.session.runtime_env(), tables)
    }
}

/// The same outside of requests, such as for planning.
///
/// # Errors
/// When a name is given twice.
pub(crate) fn session_over(
    runtime: Arc<RuntimeEnv>,
    tables: &[(String, Arc<dyn TableProvider>)],
) -> Result<SessionContext, DataFusionError> {
    let session = session(runtime);
    for (name, table) in tables {
        session.register_table(name.as_str(), Arc::clone(table))?;
    }
    Ok(session)
}

fn session(runtime: Arc<RuntimeEnv>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(2).with_information_schema(false);
    let state =
        SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
    SessionContext::new_with_state(state)
}

/// The answer to a failed scan.
pub(crate) fn query_error(error: DataFusionError) -> ApiError {
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) {
        return out_of_memory().caused_by(error);
    }
    ApiError::internal(error)
}
