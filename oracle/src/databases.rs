//! A fresh accounts database for each test, on the server that `KARAT_TEST_POSTGRES` or `KARAT_TEST_MYSQL` names.
//!
//! Without a server tests use SQLite in a folder of their own: the same tests are the contract of all three. Databases go with the
//! server, which `dev/services.sh` throws away.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};

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

fn name_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("karat_{}_{}", std::process::id(), hex::encode(name))
}
