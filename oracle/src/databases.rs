//! A fresh accounts database for each test, on the server that `KARAT_TEST_POSTGRES` or `KARAT_TEST_MYSQL` names.
//!
//! Without a server tests use SQLite in a folder of their own: the same tests are the contract of all three. Databases go with the
//! server, which `dev/services.sh` throws away.
//!
//! The file of a test on SQLite can also be looked at and changed past the accounts ([`rows_of`], [`tamper`]).

use std::{collections::BTreeMap, path::Path};

use sqlx::{
    AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection, SqlSafeStr, Sqlite, SqliteConnection,
    SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::SqliteConnectOptions,
};

/// The server to run on.
pub fn server() -> Option<String> {
    ["KARAT_TEST_POSTGRES", "KARAT_TEST_MYSQL"].into_iter().find_map(|name| std::env::var(name).ok())
}

/// Address of the database of the test whose folder this is; none without a server.
pub fn address_of(folder: &Path) -> Option<String> {
    let server = server()?;
    let (server, _) = server.rsplit_once('/')?;
    Some(format!("{server}/{}", name_of(folder)))
}

/// Creates that database, where there is a server.
///
/// # Errors
/// The server refuses it.
pub async fn create(folder: &Path) -> Result<(), sqlx::Error> {
    let Some(server) = server() else { return Ok(()) };
    let sql = format!("CREATE DATABASE {}", name_of(folder));
    if server.starts_with("postgres") {
        // The template is locked while it is copied; whoever comes then is refused, not made to wait.
        let mut connection = PgConnection::connect(&server).await?;
        connection.execute("SELECT pg_advisory_lock(77)").await?;
        connection.execute(AssertSqlSafe(sql)).await?;
    } else {
        let mut connection = MySqlConnection::connect(&server).await?;
        connection.execute(AssertSqlSafe(sql)).await?;
    }
    Ok(())
}

/// Every row of every table of a SQLite file, by table, with values as SQL writes them.
///
/// # Errors
/// The file is not there, or is no database.
pub async fn rows_of(file: &Path) -> Result<BTreeMap<String, Vec<String>>, sqlx::Error> {
    let mut connection = open(file).await?;
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table'";
    let tables: Vec<String> = sqlx::query_scalar::<Sqlite, String>(tables).fetch_all(&mut connection).await?;
    let mut rows = BTreeMap::new();
    for table in tables {
        let columns = "SELECT name FROM pragma_table_info(?)";
        let columns = sqlx::query_scalar::<Sqlite, String>(columns).bind(table.clone());
        let columns: Vec<String> = columns.fetch_all(&mut connection).await?;
        let values: Vec<String> = columns.iter().map(|column| format!("quote(\"{column}\")")).collect();
        let sql = format!("SELECT {} AS line FROM \"{table}\" ORDER BY line", values.join(" || ', ' || "));
        let lines = sqlx::query_scalar::<Sqlite, String>(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
        rows.insert(table, lines);
    }
    connection.close().await?;
    Ok(rows)
}

/// Runs statements on a SQLite file, past the accounts: what whoever has the file could do. Foreign keys are not looked at.
///
/// # Errors
/// The file is not there, or refuses them.
pub async fn tamper(file: &Path, sql: &str) -> Result<(), sqlx::Error> {
    let mut connection = open(file).await?;
    connection.execute(AssertSqlSafe(sql.to_owned())).await?;
    connection.close().await
}

/// Makes a SQLite file as an earlier version left it, which had only these migrations: their names and texts, from the first on.
///
/// # Errors
/// A migration fails.
pub async fn of_an_earlier_version(
    file: &Path,
    migrations: &[(&'static str, &'static str)],
) -> Result<(), MigrateError> {
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(file).create_if_missing(true)).await?;
    let migration = |(version, (name, sql)): (i64, &(&'static str, &'static str))| {
        Migration::new(version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(migrations).map(migration).collect()).run(&pool).await?;
    pool.close().await;
    Ok(())
}

async fn open(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file).foreign_keys(false)).await
}

fn name_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("karat_{}_{}", std::process::id(), hex::encode(name))
}
