//! Commands to the transform workers: records on `karat.commands` (decision 14).

use serde::{Deserialize, Serialize};

/// What a transform worker is told to do. Executing one twice has the effect of once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Rebuild silver and gold of a pipeline from bronze.
    Replay { pipeline: String },
}
