//! [`Scans`]: how tables are read for questions that the code builds, those of runs and those of rows.
//!
//! All scans share one bounded pool of memory, and a few run at a time; the deadline is that of the answer they are for.

use std::sync::Arc;

use karat_http::ApiError;
use karat_lake::datafusion::{
    error::DataFusionError,
    execution::{SessionStateBuilder, runtime_env::RuntimeEnvBuilder},
    prelude::{SessionConfig, SessionContext},
};

use super::{
    load::ServingCounters,
    turns::{MAX_WAITING, Turn, Turns, out_of_memory},
};

/// Scans at a time; further ones wait, within the deadline of their answer.
const PARALLEL: usize = 4;

/// The session of scans and their turns. Shared by all readers.
pub(crate) struct Scans {
    pub(crate) session: SessionContext,
    turns: Turns,
}

impl Scans {
    /// Scans with at most `memory_bytes` for all of them together.
    ///
    /// # Errors
    /// When the engine cannot be set up.
    pub(super) fn new(memory_bytes: usize, counters: &Arc<ServingCounters>) -> Result<Arc<Self>, ApiError> {
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory_bytes, 1.0).build_arc();
        let config = SessionConfig::new().with_target_partitions(2).with_information_schema(false);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime.map_err(ApiError::internal)?)
            .with_default_features()
            .build();
        let session = SessionContext::new_with_state(state);
        Ok(Arc::new(Self { session, turns: Turns::new(PARALLEL, MAX_WAITING, counters) }))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// 503 when too many wait.
    pub(crate) async fn turn(&self) -> Result<Turn, ApiError> {
        self.turns.next().await
    }
}

/// What it means that a scan failed.
pub(crate) fn query_error(error: DataFusionError) -> ApiError {
    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) {
        return out_of_memory().caused_by(error);
    }
    ApiError::internal(error)
}
