//! Tables of the lake for those who ask by name: what they are, their rows by typed filters, and read-only SQL.
//!
//! A question is about versions that an epoch names, or older ones, and never about what a pipeline is writing. Filters are
//! expressions over the columns of a table with values of their types; only `sql` reads text as a query, in a context of
//! its own. Everything has a deadline, a bounded pool of memory and a bound on what runs at a time.
//!
//! - `tables` opens versions and keeps the last ones.
//! - `filter` and `literal` understand the parameters of a request, `scope` adds whose rows the caller sees.
//! - `json` writes rows.
//! - `declared` is what `pipelines.toml` says of a table.

pub mod declared;
pub(crate) mod filter;
pub(crate) mod json;
pub(crate) mod literal;
pub(crate) mod rows;
pub(crate) mod scope;
pub mod sql;
pub(crate) mod tables;
pub(crate) mod types;

use std::time::Duration;

use karat_http::ApiError;
use karat_lake::datafusion::{
    execution::{SessionStateBuilder, runtime_env::RuntimeEnvBuilder},
    prelude::{SessionConfig, SessionContext},
};
use poem::http::StatusCode;

/// A session for questions that the code builds, with at most `memory_bytes` for all of them together.
///
/// # Errors
/// When the engine cannot be set up.
pub(crate) fn bounded_session(memory_bytes: usize) -> Result<SessionContext, ApiError> {
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory_bytes, 1.0).build_arc();
    let config = SessionConfig::new().with_target_partitions(2).with_information_schema(false);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime.map_err(ApiError::internal)?)
        .with_default_features()
        .build();
    Ok(SessionContext::new_with_state(state))
}

/// The answer when a question took longer than it may.
pub(crate) fn too_slow(deadline: Duration) -> ApiError {
    let message =
        format!("the answer took longer than {} s: ask for fewer rows, or a shorter time", deadline.as_secs());
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
}
