//! What can go wrong in a measurement, said so that the person at the terminal knows what to do.

use std::{path::PathBuf, process::ExitCode};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the measuring programs. They end the program: a measurement is not worth repairing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("file `{}`: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Usage(String),
    /// The server does not answer, or not in HTTP/1.1 as this client reads it.
    #[error("server `{address}`: {reason}")]
    Server { address: String, reason: String },
    /// The figures are not what they must be, so the times mean nothing.
    #[error("wrong result: {0}")]
    WrongResult(String),
    #[error("pipelines file: {0}")]
    Pipelines(#[from] karat_schemas::pipelines::Problems),
    #[error(transparent)]
    Access(#[from] karat_access::AccessError),
    #[error("the application: {0}")]
    Api(#[from] karat_http::ApiError),
    #[error(transparent)]
    Log(#[from] karat_eventlog::Error),
    #[error(transparent)]
    Lake(#[from] karat_lake::Error),
    #[error(transparent)]
    Transform(#[from] karat_transform::Error),
    #[error(transparent)]
    Arrow(#[from] karat_lake::arrow::error::ArrowError),
    #[error(transparent)]
    Parquet(#[from] karat_lake::parquet::errors::ParquetError),
    #[error("a background task ended early: {0}")]
    Join(#[from] tokio::task::JoinError),
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// Names the file that an operation failed on.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// Ends a program: prints the error, if any, on standard error. 2 for a wrong result, 1 for everything else.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, Error::WrongResult(_)) { 2 } else { 1 })
        }
    }
}
