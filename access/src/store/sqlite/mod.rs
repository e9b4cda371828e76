//! The store on SQLite: write-ahead log, one writing connection, several reading ones.
//!
//! Other processes (the command line) may write at the same time: every writing transaction takes the lock when it
//! begins and waits for it, so none fails half-way. A committed transaction is on disk.

mod api_keys;
mod changes;
mod decode;
mod sessions;
mod users;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlSafeStr, Sqlite as Engine, Transaction};

use crate::AccessError;

/// How long a statement waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

pub(super) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    pub(super) async fn open(file: &Path) -> Result<Self, AccessError> {
        let lock_file = file.with_extension("lock");
        let database = file.to_owned();
        // Held until the schema is up to date, so that processes that start together do not migrate together.
        let lock = tokio::task::spawn_blocking(move || lock_for_start(&database, &lock_file))
            .await?
            .map_err(|e| AccessError::Store(sqlx::Error::Io(e)))?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = || SqlitePoolOptions::new().acquire_timeout(BUSY_TIMEOUT * 2);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        migrations().run(&writer).await?;
        drop(lock);
        let readers = pool().max_connections(READERS).connect_with(options.pragma("query_only", "on")).await?;
        Ok(Self { writer, readers })
    }

    /// A transaction that holds the write lock from its first moment.
    async fn write(&self) -> Result<Transaction<'static, Engine>, AccessError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Numbered files, applied in order and never changed once released.
fn migrations() -> Migrator {
    let files = [(1, "accounts", include_str!("../../../migrations/sqlite/0001_accounts.sql"))];
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(files.into_iter().map(migration).collect())
}

fn lock_for_start(database: &Path, lock_file: &Path) -> std::io::Result<std::fs::File> {
    if let Some(folder) = database.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let private = |path: &Path| OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    // SQLite gives its side files the mode of the database file.
    private(database)?;
    let lock = private(lock_file)?;
    lock.lock()?;
    Ok(lock)
}
