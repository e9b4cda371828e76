//! A database that is migrated step by step, and what its engine then says of it, in words that are the same for all.

use crate::support::settings;
use karat_access::DatabaseAddress;
use karat_oracle::databases;
use secrecy::ExposeSecret;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, MySqlPool, PgPool, SqlSafeStr, SqlitePool};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Behind a line of what only this engine can have.
pub const POSTGRES_ONLY: &str = " (PostgreSQL)";

pub enum Engine {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// The folder of the migrations of an engine, or that with what they come to.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(name)
}

/// Numbers and names of an engine's migrations, in order.
pub fn migrations(engine: &str) -> Vec<(i64, String)> {
    let entries = std::fs::read_dir(folder(engine)).unwrap();
    let mut found: Vec<(i64, String)> = entries
        .map(|entry| {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let (number, name) = file.strip_suffix(".sql").unwrap().split_once('_').unwrap();
            (number.parse().unwrap(), name.to_owned())
        })
        .collect();
    found.sort();
    found
}

impl Engine {
    /// The database of the folder of a test, with nothing in it.
    pub async fn empty(folder: &tempfile::TempDir) -> Self {
        databases::create(folder.path()).await.unwrap();
        match settings(folder).database.address {
            DatabaseAddress::Sqlite(file) => {
                let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
                Self::Sqlite(SqlitePool::connect_with(options).await.unwrap())
            }
            DatabaseAddress::Postgres(url) => Self::Postgres(PgPool::connect(url.expose_secret()).await.unwrap()),
            DatabaseAddress::MySql(url) => Self::MySql(MySqlPool::connect(url.expose_secret()).await.unwrap()),
        }
    }

    /// As its migrations call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::MySql(_) => "mysql",
        }
    }

    /// Applies the migrations up to this number.
    pub async fn migrate(&self, last: i64) {
        let read = |(number, name): (i64, String)| {
            let file = folder(self.name()).join(format!("{number:04}_{name}.sql"));
            let sql = AssertSqlSafe(std::fs::read_to_string(file).unwrap()).into_sql_str();
            Migration::new(number, name.into(), MigrationType::Simple, sql, false)
        };
        let wanted = migrations(self.name()).into_iter().filter(|(number, _)| *number <= last);
        let migrator = Migrator::with_migrations(wanted.map(read).collect());
        match self {
            Self::Sqlite(pool) => migrator.run(pool).await.unwrap(),
            Self::Postgres(pool) => migrator.run(pool).await.unwrap(),
            Self::MySql(pool) => migrator.run(pool).await.unwrap(),
        }
    }

    pub async fn execute(&self, sql: &'static str) {
        match self {
            Self::Sqlite(pool) => sqlx::query(sql).execute(pool).await.map(drop),
            Self::Postgres(pool) => sqlx::query(sql).execute(pool).await.map(drop),
            Self::MySql(pool) => sqlx::query(sql).execute(pool).await.map(drop),
        }
        .unwrap();
    }

    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
            Self::MySql(pool) => pool.close().await,
        }
    }

    /// Columns, keys, indexes, what is unique, foreign keys and triggers, a line each; sorted.
    pub async fn describe(&self) -> Vec<String> {
        let queries = match self {
            Self::Sqlite(_) => &SQLITE,
            Self::Postgres(_) => &POSTGRES,
            Self::MySql(_) => &MYSQL,
        };
        let foreign = self.texts(queries.foreign).await;
        let mut lines = indexes(&self.texts(queries.indexes).await, &foreign);
        lines.extend(foreign);
        lines.extend(self.texts(queries.columns).await);
        lines.extend(self.texts(queries.triggers).await);
        lines.sort();
        lines
    }

    /// The one column of a query.
    async fn texts(&self, sql: &'static str) -> Vec<String> {
        match self {
            Self::Sqlite(pool) => sqlx::query_scalar::<_, String>(sql).fetch_all(pool).await.unwrap(),
            Self::Postgres(pool) => sqlx::query_scalar::<_, String>(sql).fetch_all(pool).await.unwrap(),
            Self::MySql(pool) => sqlx::query_scalar::<_, String>(sql).fetch_all(pool).await.unwrap(),
        }
    }
}

/// From `kind|table|name|position|column`, a part of an index each.
fn indexes(parts: &[String], foreign: &[String]) -> Vec<String> {
    let mut found = BTreeMap::<(&str, &str, &str), BTreeMap<u32, &str>>::new();
    for part in parts {
        let fields: Vec<&str> = part.split('|').collect();
        let [kind, table, name, position, column] = fields[..] else { panic!("{part}") };
        found.entry((kind, table, name)).or_default().insert(position.parse().unwrap(), column);
    }
    let mut lines = Vec::new();
    for ((kind, table, name), columns) in found {
        let columns = columns.into_values().collect::<Vec<_>>().join(", ");
        let is_of_foreign_key =
            || foreign.iter().any(|line| line.starts_with(&format!("foreign {table} ({columns}) ")));
        // Names of ours say by what; each engine names by itself what a table declares.
        if kind != "index" {
            lines.push(format!("{kind} {table} ({columns})"));
        } else if name.contains("_by_") || !is_of_foreign_key() {
            lines.push(format!("index {name} on {table} ({columns})"));
        }
        // Else InnoDB made it for a foreign key that has no other.
    }
    lines
}

/// What to ask a catalogue.
struct Queries {
    columns: &'static str,
    indexes: &'static str,
    foreign: &'static str,
    triggers: &'static str,
}

const SQLITE: Queries = Queries {
    columns: "SELECT 'column ' || m.name || '.' || p.name || ' ' || lower(p.type) \
                || CASE WHEN p.\"notnull\" = 1 OR p.pk > 0 THEN '' ELSE ' null' END \
              FROM sqlite_master m JOIN pragma_table_info(m.name) p \
              WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx%'",
    indexes: "SELECT CASE i.\"unique\" WHEN 1 THEN 'unique' ELSE 'index' END \
                || '|' || m.name || '|' || i.name || '|' || c.seqno || '|' || c.name \
              FROM sqlite_master m JOIN pragma_index_list(m.name) i JOIN pragma_index_info(i.name) c \
              WHERE m.type = 'table' AND m.name NOT LIKE '_sqlx%' AND i.origin <> 'pk' \
              UNION ALL \
              SELECT 'primary|' || m.name || '|primary|' || p.pk || '|' || p.name \
              FROM sqlite_master m JOIN pragma_table_info(m.name) p \
              WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx%' AND p.pk > 0",
    foreign: "SELECT 'foreign ' || m.name || ' (' || f.\"from\" || ') to ' || f.\"table\" || ' (' || f.\"to\" \
                || ') on delete ' || lower(f.on_delete) \
              FROM sqlite_master m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'",
    triggers: "SELECT 'trigger ' || name || ' on ' || tbl_name || CASE WHEN sql LIKE '% BEFORE UPDATE ON %' \
                 THEN ' before update' WHEN sql LIKE '% BEFORE DELETE ON %' THEN ' before delete' \
                 ELSE ' at another time' END \
               FROM sqlite_master WHERE type = 'trigger'",
};

const POSTGRES: Queries = Queries {
    columns: "SELECT 'column ' || table_name::text || '.' || column_name::text || ' ' \
                || CASE data_type::text WHEN 'bigint' THEN 'integer' ELSE data_type::text END \
                || CASE is_nullable::text WHEN 'YES' THEN ' null' ELSE '' END \
              FROM information_schema.columns WHERE table_schema = current_schema() AND table_name NOT LIKE '_sqlx%'",
    indexes: "SELECT CASE WHEN i.indisprimary THEN 'primary' WHEN i.indisunique THEN 'unique' ELSE 'index' END \
                || '|' || t.relname::text || '|' || x.relname::text || '|' || k.position::text || '|' || a.attname::text \
              FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid \
              JOIN pg_namespace n ON n.oid = t.relnamespace \
              CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attribute, position) \
              JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attribute \
              WHERE n.nspname = current_schema() AND t.relname NOT LIKE '_sqlx%'",
    foreign: "SELECT 'foreign ' || t.relname::text || ' (' || a.attname::text || ') to ' || u.relname::text || ' (' \
                || b.attname::text || ') on delete ' || CASE c.confdeltype WHEN 'c' THEN 'cascade' \
                WHEN 'a' THEN 'no action' WHEN 'r' THEN 'restrict' WHEN 'n' THEN 'set null' ELSE 'set default' END \
              FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class u ON u.oid = c.confrelid \
              JOIN pg_namespace n ON n.oid = t.relnamespace \
              JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (c.conkey) \
              JOIN pg_attribute b ON b.attrelid = u.oid AND b.attnum = ANY (c.confkey) \
              WHERE c.contype = 'f' AND n.nspname = current_schema()",
    triggers: "SELECT 'trigger ' || g.tgname::text || ' on ' || t.relname::text \
                 || CASE WHEN (g.tgtype & 2) = 2 THEN ' before ' ELSE ' after ' END || CASE (g.tgtype & 60) \
                 WHEN 16 THEN 'update' WHEN 8 THEN 'delete' WHEN 32 THEN 'truncate (PostgreSQL)' ELSE 'another' END \
               FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid JOIN pg_namespace n ON n.oid = t.relnamespace \
               WHERE NOT g.tgisinternal AND n.nspname = current_schema()",
};

const MYSQL: Queries = Queries {
    columns: "SELECT CAST(CONCAT('column ', table_name, '.', column_name, ' ', CASE data_type WHEN 'bigint' \
                THEN 'integer' WHEN 'varchar' THEN 'text' ELSE data_type END, \
                CASE is_nullable WHEN 'YES' THEN ' null' ELSE '' END) AS CHAR) \
              FROM information_schema.columns WHERE table_schema = database() AND table_name NOT LIKE '_sqlx%'",
    indexes: "SELECT CAST(CONCAT_WS('|', CASE WHEN index_name = 'PRIMARY' THEN 'primary' WHEN non_unique = 0 \
                THEN 'unique' ELSE 'index' END, table_name, index_name, seq_in_index, column_name) AS CHAR) \
              FROM information_schema.statistics WHERE table_schema = database() AND table_name NOT LIKE '_sqlx%'",
    foreign: "SELECT CAST(CONCAT('foreign ', k.table_name, ' (', k.column_name, ') to ', k.referenced_table_name, \
                ' (', k.referenced_column_name, ') on delete ', LOWER(r.delete_rule)) AS CHAR) \
              FROM information_schema.key_column_usage k JOIN information_schema.referential_constraints r \
                ON r.constraint_schema = k.constraint_schema AND r.constraint_name = k.constraint_name \
                AND r.table_name = k.table_name \
              WHERE k.table_schema = database() AND k.referenced_table_name IS NOT NULL",
    triggers: "SELECT CAST(CONCAT('trigger ', trigger_name, ' on ', event_object_table, ' ', LOWER(action_timing), ' ', \
                 LOWER(event_manipulation)) AS CHAR) \
               FROM information_schema.triggers WHERE trigger_schema = database()",
};
