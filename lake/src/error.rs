//! What can go wrong in the lake.

use deltalake::DeltaTableError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of the lake. None of their texts may reach a client: they name files and libraries.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another writer owns the table now: this one must stop and load the table again.
    #[error(
        "table `{table}` was committed to by another writer: expected version {expected} to be free, found `{found}` there"
    )]
    Fenced { table: String, expected: u64, found: String },
    /// The storage failed in a way that may pass.
    #[error("storage of table `{table}` failed: {source}")]
    Storage { table: String, source: Box<DeltaTableError> },
    /// A data or commit file is missing, empty or does not parse.
    #[error("table `{table}`: file `{file}` is damaged: {reason}; `karat table fsck` says what can be done")]
    Damaged { table: String, file: String, reason: String },
    /// A file waited so long for its commit that cleaning removed it: it must be written again.
    #[error("table `{table}`: file `{file}` was cleaned up before a commit named it; it is written again")]
    CleanedUp { table: String, file: String },
    /// Rows do not fit the table.
    #[error("rows do not fit table `{table}`: {reason}")]
    Schema { table: String, reason: String },
    #[error("the lake has no table `{0}`")]
    UnknownTable(String),
    #[error("the location `{0}` is no folder, and no file:// or s3://BUCKET/PREFIX address")]
    Location(String),
    /// Its store has not what Karat rests on, or not with these settings: nothing changes by itself.
    #[error("`{location}` cannot be used: {reason}")]
    Unusable { location: String, reason: String },
    #[error("`{location}` does not answer: {reason}")]
    Unreachable { location: String, reason: String },
    #[error(transparent)]
    Object(#[from] object_store::Error),
    #[error(transparent)]
    Arrow(#[from] deltalake::arrow::error::ArrowError),
    #[error("a background task ended early: {0}")]
    Join(#[from] tokio::task::JoinError),
    #[error("an epoch manifest does not parse: {0}")]
    Manifest(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn storage(table: &str, source: impl Into<DeltaTableError>) -> Self {
        Self::Storage { table: table.to_owned(), source: Box::new(source.into()) }
    }
}
