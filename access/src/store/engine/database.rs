//! The pools of the three engines, and reading outside of transactions.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use secrecy::ExposeSecret;
use sqlx::Connection;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Executor};

use super::{Row, Tx, Value, migrations};
use crate::settings::{DatabaseAddress, DatabaseSettings};
use crate::{AccessError, time::BUSY_TIMEOUT};

const SQLITE_READERS: u32 = 4;
/// Pages of 4 KiB in SQLite's write-ahead log after which whoever commits moves them into the file. It bounds the log where
/// [`Database::checkpoint`] does not: beside a writer who never pauses, or in a process without upkeep.
const SQLITE_LOG_PAGES: &str = "8000";

#[derive(Clone)]
pub(crate) enum Database {
    /// Write-ahead log, one writing connection, several reading ones.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// Binds values to a statement of any engine.
macro_rules! bound {
    ($sql:expr, $values:expr) => {
        $values.into_iter().fold(sqlx::query(AssertSqlSafe($sql)), |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Int(number) => query.bind(number),
        })
    };
}
pub(super) use bound;

impl Database {
    /// Connects and brings the schema up to date.
    ///
    /// # Errors
    /// [`AccessError::Unreachable`] naming the address without its password, [`AccessError::Migrate`].
    pub(crate) async fn open(settings: &DatabaseSettings) -> Result<Self, AccessError> {
        let unreachable = |reason: sqlx::Error| AccessError::Unreachable {
            address: settings.address.to_string(),
            reason: reason.to_string(),
        };
        match &settings.address {
            DatabaseAddress::Sqlite(file) => open_sqlite(file).await,
            DatabaseAddress::Postgres(url) => {
                let options: PgConnectOptions = url.expose_secret().parse().map_err(unreachable)?;
                let pool = PgPoolOptions::new()
                    .max_connections(settings.max_connections)
                    .acquire_timeout(settings.acquire_timeout)
                    .idle_timeout(settings.idle_timeout)
                    .max_lifetime(settings.max_lifetime)
                    .connect_with(options.application_name("karat"))
                    .await
                    .map_err(unreachable)?;
                migrations::postgres().run(&pool).await?;
                Ok(Self::Postgres(pool))
            }
            DatabaseAddress::MySql(url) => {
                let url = url.expose_secret();
                // The driver knows one name for both.
                let url =
                    url.strip_prefix("mariadb:").map_or(Cow::Borrowed(url), |rest| format!("mysql:{rest}").into());
                let options: MySqlConnectOptions = url.parse().map_err(unreachable)?;
                let pool = MySqlPoolOptions::new()
                    .max_connections(settings.max_connections)
                    .acquire_timeout(settings.acquire_timeout)
                    .idle_timeout(settings.idle_timeout)
                    .max_lifetime(settings.max_lifetime)
                    .after_connect(|connection, _| {
                        Box::pin(async move {
                            // As PostgreSQL has it: a locking read sees what was committed before it got the lock.
                            let sql = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
                            connection.execute(sql).await.map(drop)
                        })
                    })
                    .connect_with(options.collation("utf8mb4_bin"))
                    .await
                    .map_err(unreachable)?;
                migrations::mysql().run(&pool).await?;
                Ok(Self::MySql(pool))
            }
        }
    }

    /// Begins a writing transaction. On SQLite it holds the write lock from its first moment.
    pub(crate) async fn write(&self) -> Result<Tx, AccessError> {
        Tx::begin(self).await
    }

    /// Moves what SQLite's write-ahead log holds into the database file, beside readers and the writer: otherwise the commit
    /// that makes the log too long does, and waits for the disk twice more. What is committed is in the log or in the file,
    /// synced, at every moment. The servers do the like by themselves.
    pub(crate) async fn checkpoint(&self) -> Result<(), AccessError> {
        if matches!(self, Self::Sqlite { .. }) {
            self.rows("PRAGMA wal_checkpoint(PASSIVE)", Vec::new()).await?;
        }
        Ok(())
    }

    /// Reads outside of a transaction.
    pub(crate) async fn rows(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, AccessError> {
        Ok(match self {
            Self::Sqlite { readers, .. } => {
                bound!(sql, values).fetch_all(readers).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(pool) => {
                bound!(numbered(sql), values).fetch_all(pool).await?.into_iter().map(Row::Postgres).collect()
            }
            Self::MySql(pool) => bound!(sql, values).fetch_all(pool).await?.into_iter().map(Row::MySql).collect(),
        })
    }

    /// The first row, if there is one.
    pub(crate) async fn row(&self, sql: &'static str, values: Vec<Value>) -> Result<Option<Row>, AccessError> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// The name of the engine, for people.
    pub(crate) fn engine(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
            Self::MySql(_) => "MySQL",
        }
    }
}

/// PostgreSQL counts its places. No statement of ours has a `?` in a text.
pub(super) fn numbered(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 16);
    let mut place = 0_u32;
    for c in sql.chars() {
        if c == '?' {
            place += 1;
            out.push('$');
            out.push_str(&place.to_string());
        } else {
            out.push(c);
        }
    }
    out
}

async fn open_sqlite(file: &Path) -> Result<Database, AccessError> {
    let lock_file = file.with_extension("lock");
    let database = file.to_owned();
    // Held until the schema is up to date, so that processes that start together do not migrate together.
    let lock = tokio::task::spawn_blocking(move || lock_for_start(&database, &lock_file))
        .await?
        .map_err(|error| AccessError::Unreachable { address: file.display().to_string(), reason: error.to_string() })?;
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", SQLITE_LOG_PAGES);
    // A commit that fails on a full disk ends the transaction in SQLite, and not in the connection, which could never begin another
    // one: such a connection is replaced.
    let pool = || {
        // A connection is a thread of this process, looked at when it comes back: it does not go away in between.
        let options = SqlitePoolOptions::new().acquire_timeout(BUSY_TIMEOUT * 2).test_before_acquire(false);
        options.before_acquire(|connection, _| {
            let is_usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(is_usable) })
        })
    };
    let writer = pool().max_connections(1).connect_with(options.clone()).await?;
    migrations::sqlite().run(&writer).await?;
    drop(lock);
    let readers = pool().max_connections(SQLITE_READERS).connect_with(options.pragma("query_only", "on")).await?;
    Ok(Database::Sqlite { writer, readers })
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

#[cfg(test)]
mod tests {
    use super::super::args;
    use super::*;

    #[test]
    fn places_are_numbered_in_order() {
        assert_eq!(numbered("SELECT a FROM t WHERE a = ? AND b = ?"), "SELECT a FROM t WHERE a = $1 AND b = $2");
        assert_eq!(numbered("SELECT 1"), "SELECT 1");
    }

    #[tokio::test]
    async fn after_a_checkpoint_the_file_alone_has_what_was_committed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("accounts.db");
        let database = open_sqlite(&file).await.unwrap();
        let is_in_file = async |copy: &str| {
            let copy = folder.path().join(copy);
            std::fs::copy(&file, &copy).unwrap();
            let alone = open_sqlite(&copy).await.unwrap();
            let sql = "SELECT name FROM attempts WHERE name = ?";
            alone.row(sql, args!["counted"]).await.unwrap().is_some()
        };
        let mut tx = database.write().await.unwrap();
        let sql = "INSERT INTO attempts (name, failures, next_at, expires_at) VALUES (?, 1, 0, 0)";
        tx.later(sql, args!["counted"]);
        tx.commit().await.unwrap();
        assert!(!is_in_file("before.db").await, "a commit writes to the log");
        database.checkpoint().await.unwrap();
        assert!(is_in_file("after.db").await);
        // Nothing is left to move, and that is well.
        database.checkpoint().await.unwrap();
    }
}
