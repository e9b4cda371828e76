//! Numbered files for each engine, applied in order and never changed once released.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::{Database, args};
use crate::AccessError;

macro_rules! files {
    ($engine:literal) => {
        [
            (1, "accounts", include_str!(concat!("../../../migrations/", $engine, "/0001_accounts.sql"))),
            (2, "complete", include_str!(concat!("../../../migrations/", $engine, "/0002_complete.sql"))),
            (3, "truncate", include_str!(concat!("../../../migrations/", $engine, "/0003_truncate.sql"))),
            (4, "passkeys", include_str!(concat!("../../../migrations/", $engine, "/0004_passkeys.sql"))),
            (5, "keys", include_str!(concat!("../../../migrations/", $engine, "/0005_keys.sql"))),
            (6, "settings", include_str!(concat!("../../../migrations/", $engine, "/0006_settings.sql"))),
            (7, "speed", include_str!(concat!("../../../migrations/", $engine, "/0007_speed.sql"))),
            (8, "backup", include_str!(concat!("../../../migrations/", $engine, "/0008_backup.sql"))),
        ]
    };
}

pub(super) fn sqlite() -> Migrator {
    migrator(&files!("sqlite"))
}

pub(super) fn postgres() -> Migrator {
    migrator(&files!("postgres"))
}

pub(super) fn mysql() -> Migrator {
    migrator(&files!("mysql"))
}

fn migrator(files: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(files.iter().map(migration).collect())
}

/// What a database holds, in words that are the same for every engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// Name of the engine.
    pub engine: &'static str,
    /// `table.column kind`, and `null` where a value may be absent; sorted.
    pub columns: Vec<String>,
    /// Numbers of the migrations that were applied.
    pub migrations: Vec<i64>,
}

impl Database {
    /// Reads the schema from the engine's own catalogue.
    pub(crate) async fn schema(&self) -> Result<Schema, AccessError> {
        let sql = match self {
            Self::Sqlite { .. } => {
                "SELECT m.name AS t, p.name AS c, p.type AS k, CASE p.\"notnull\" WHEN 1 THEN 'NO' ELSE 'YES' END AS n \
                 FROM sqlite_master m JOIN pragma_table_info(m.name) p \
                 WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx%'"
            }
            Self::Postgres(_) => {
                "SELECT table_name::text AS t, column_name::text AS c, data_type::text AS k, is_nullable::text AS n \
                 FROM information_schema.columns WHERE table_schema = current_schema() AND table_name NOT LIKE '_sqlx%'"
            }
            Self::MySql(_) => {
                "SELECT CAST(table_name AS CHAR) AS t, CAST(column_name AS CHAR) AS c, CAST(data_type AS CHAR) AS k, \
                 CAST(is_nullable AS CHAR) AS n FROM information_schema.columns \
                 WHERE table_schema = database() AND table_name NOT LIKE '_sqlx%'"
            }
        };
        let mut columns = Vec::new();
        for row in self.rows(sql, args![]).await? {
            let kind = match row.text("k")?.to_ascii_lowercase().as_str() {
                "integer" | "bigint" => "integer".to_owned(),
                "text" | "varchar" | "character varying" => "text".to_owned(),
                other => other.to_owned(),
            };
            // SQLite reports its row-id keys as nullable; none of them is.
            let is_key = row.text("c")? == "seq";
            let nullable = !is_key && row.text("n")? == "YES";
            let mark = if nullable { " null" } else { "" };
            columns.push(format!("{}.{} {kind}{mark}", row.text("t")?, row.text("c")?));
        }
        columns.sort();
        let applied = self.rows("SELECT version FROM _sqlx_migrations ORDER BY version", args![]).await?;
        let migrations = applied.iter().map(|row| row.int("version")).collect::<Result<_, _>>()?;
        Ok(Schema { engine: self.engine(), columns, migrations })
    }
}
