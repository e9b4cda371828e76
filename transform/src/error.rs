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
    /// The topic is not the one that the bronze table was filled from.
    #[error(
        "table `{table}` was filled from another topic `{topic}` than the one there is now, which was created since: \
         if that is meant, stop every transform process and run `karat topic accept {topic}`, which goes on with it from its beginning"
    )]
    ForeignTopic { topic: String, table: String },
    #[error("epoch {epoch} of pipeline `{pipeline}` was written by another process")]
    EpochTaken { pipeline: String, epoch: u64 },
    #[error("the replay was given up because the pipeline paused or the worker stopped; order it again")]
    ReplayGivenUp,
    #[error("no pipeline is named `{0}`")]
    UnknownPipeline(String),
    #[error("a background task ended early: {0}")]
    Join(#[from] tokio::task::JoinError),
    #[error("file `{path}`: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// Whether somebody else owns the tables now: this process must leave them alone.
    pub fn is_other_owner(&self) -> bool {
        matches!(self, Self::Lake(karat_lake::Error::Fenced { .. }) | Self::EpochTaken { .. })
    }

    /// Whether the same work may succeed later with nothing changed but the world around it.
    pub fn may_pass(&self) -> bool {
        !matches!(
            self,
            Self::Sql(_) | Self::Arrow(_) | Self::Declaration(_) | Self::Lake(karat_lake::Error::Schema { .. })
        )
    }

    /// Why work failed and what to do, fit for clients: without SQL, paths or texts of libraries.
    pub fn for_clients(&self) -> String {
        match self {
            Self::Sql(_) | Self::Arrow(_) | Self::Declaration(_) => {
                "the SQL of the pipeline fails on the events in bronze: correct pipelines.toml, restart, and order it \
                 again; the log of the transform process names the place"
                    .to_owned()
            }
            Self::ForeignBronze { .. } | Self::ForeignTopic { .. } | Self::UnknownPipeline(_) | Self::ReplayGivenUp => {
                self.to_string()
            }
            Self::Lake(
                karat_lake::Error::Schema { table, .. }
                | karat_lake::Error::Damaged { table, .. }
                | karat_lake::Error::Storage { table, .. },
            ) => {
                format!(
                    "table `{table}` cannot be opened, read or written; the log of the transform process has the reason"
                )
            }
            Self::Lake(_)
            | Self::Log(_)
            | Self::State(_)
            | Self::DamagedState(_)
            | Self::EpochTaken { .. }
            | Self::Join(_)
            | Self::File { .. }
            | Self::Json(_) => "the log of the transform process has the reason".to_owned(),
        }
    }
}
