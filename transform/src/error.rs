//! What can go wrong while events become tables.

use karat_lake::{arrow::error::ArrowError, datafusion::error::DataFusionError};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the transform workers. None of their texts may reach a client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lake(#[from] karat_lake::Error),
    #[error(transparent)]
    Log(#[from] karat_eventlog::Error),
    #[error("state store: {0}")]
    State(#[from] fjall::Error),
    #[error(
        "stored state of `{0}` does not parse: stop, remove the pipeline's `state` folder and start again to rebuild it"
    )]
    DamagedState(String),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Sql(#[from] DataFusionError),
    /// A pipeline declares something that cannot work; `validate` says the same.
    #[error("{0}")]
    Declaration(String),
    /// The bronze table is not the one that the tables were made from.
    #[error(
        "table `{table}` was made from another bronze table: its commit {version} differs; \
         run `karat replay start {pipeline} --all` to rebuild it"
    )]
    ForeignBronze { table: String, pipeline: String, version: i64 },
    #[error("epoch {epoch} of pipeline `{pipeline}` was written by another process")]
    EpochTaken { pipeline: String, epoch: u64 },
    #[error("no pipeline is named `{0}`")]
    UnknownPipeline(String),
    #[error("a background task ended early: {0}")]
    Join(#[from] tokio::task::JoinError),
    #[error("file `{path}`: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}
