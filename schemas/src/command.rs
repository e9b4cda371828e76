//! Commands to the transform workers: records on `karat.commands` (decision 14), and how they ended.

use serde::{Deserialize, Serialize};

/// What a transform worker is told to do. Executing one twice has the effect of once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Rebuild silver and gold of a pipeline from bronze.
    Replay {
        pipeline: String,
        /// Under this name the outcome is found; nobody asks when there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Name of the lake whose pipeline is meant; that of whoever reads it when there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lake: Option<String>,
    },
}

/// How a command ended. It is written once, before the command counts as executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of the command.
    pub id: String,
    pub pipeline: String,
    /// Microseconds since 1970 UTC.
    pub ended_at_us: i64,
    /// Why it failed and what to do, fit for clients; none when it succeeded.
    pub failure: Option<String>,
}
