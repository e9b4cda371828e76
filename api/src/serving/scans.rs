//! [`Scans`]: how tables are read for questions that the code builds, those of runs, of profits, of rows and of
//! declared endpoints.
//!
//! All scans share one bounded pool of memory and threads of their own, and a few run at a time; the deadline is that of
//! the answer they are for.

use std::sync::Arc;

use karat_http::ApiError;
use karat_lake::datafusion::{
    catalog::TableProvider,
    error::DataFusionError,
    execution::{
        SessionStateBuilder,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::{SessionConfig, SessionContext},
};

use super::{
    load::ServingCounters,
    threads::{Items, Threads},
    turns::{MAX_WAITING, Turns, out_of_memory},
};

/// Scans at a time; further ones wait, within the deadline of their answer.
const PARALLEL: usize = 4;

/// A table under the name that SQL has for it.
pub(crate) type NamedTable = (String, Arc<dyn TableProvider>);

/// The session of scans, their threads and their turns. Shared by all readers.
pub(crate) struct Scans {
    pub(crate) session: SessionContext,
    threads: Threads,
    turns: Turns,
}

impl Scans {
    /// Scans with at most `memory_bytes` for all of them together.
    ///
    /// # Errors
    /// When the engine cannot be set up, or the system gives no threads.
    pub(super) fn new(memory_bytes: usize, counters: &Arc<ServingCounters>) -> Result<Arc<Self>, ApiError> {
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory_bytes, 1.0).build_arc();
        let session = session(runtime.map_err(ApiError::internal)?);
        let threads = Threads::new("scan", std::thread::available_parallelism().map_or(1, usize::from))?;
        Ok(Arc::new(Self { session, threads, turns: Turns::new(PARALLEL, MAX_WAITING, counters) }))
    }

    /// Waits for a turn, then opens, plans and runs something. It ends soon after this is dropped.
    ///
    /// # Errors
    /// 503 when too many wait; what `work` fails with.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.turns.next().await?;
        self.threads.run(turn, work).await
    }

    /// The same for rows that are read one batch after the other, as long as their reader likes; it has a bound of its own
    /// and needs no turn.
    pub(crate) fn stream<T: Send + 'static>(
        &self,
        open: impl Future<Output = Result<Items<T>, ApiError>> + Send + 'static,
    ) -> Items<T> {
        self.threads.stream(open)
    }

    /// A session that knows these tables by name and nothing else; within the same bound of memory.
    ///
    /// # Errors
    /// When a name is given twice.
    pub(crate) fn session_over(&self, tables: &[NamedTable]) -> Result<SessionContext, DataFusionError> {
        session_over(self.session.runtime_env(), tables)
    }
}

/// The same outside of requests, such as for planning.
///
/// # Errors
/// When a name is given twice.
pub(crate) fn session_over(runtime: Arc<RuntimeEnv>, tables: &[NamedTable]) -> Result<SessionContext, DataFusionError> {
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

/// What it means that a scan failed.
pub(crate) fn query_error(error: DataFusionError) -> ApiError {
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) {
        return out_of_memory().caused_by(error);
    }
    ApiError::internal(error)
}
