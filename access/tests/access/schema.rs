//! The schema that the migrations come to.

use crate::support::Instance;

/// One file for all engines: what each of them says about its own tables must equal it, so they equal each other.
const EXPECTED: &str = include_str!("../../migrations/schema.txt");

#[tokio::test]
async fn the_migrations_of_every_engine_come_to_the_same_schema() {
    let instance = Instance::start().await;
    let schema = instance.access.schema().await.unwrap();
    assert_eq!(schema.migrations, [1, 2, 3], "{}", schema.engine);
    let found = schema.columns.join("\n") + "\n";
    assert_eq!(found, EXPECTED, "{}", schema.engine);
}

#[tokio::test]
async fn opening_a_database_again_changes_nothing() {
    let instance = Instance::start().await;
    let before = instance.access.schema().await.unwrap();
    instance.register("maria_77").await;
    let again = instance.second_process().await;
    assert_eq!(again.schema().await.unwrap(), before);
    assert_eq!(again.list_users(None, 10).await.unwrap().len(), 1);
}

/// A folder as the version before left it: its audit rows have no hash, and the chain begins behind them.
#[tokio::test]
async fn a_database_of_the_version_before_is_brought_up_to_date_with_its_rows() {
    use sqlx::SqlSafeStr;
    use sqlx::migrate::{Migration, MigrationType, Migrator};
    if karat_oracle::databases::server().is_some() {
        return; // Only SQLite has had a version before.
    }
    let folder = tempfile::tempdir().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new();
    let options = options.filename(folder.path().join("accounts.db")).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let sql = include_str!("../../migrations/sqlite/0001_accounts.sql").into_sql_str();
    let first = Migration::new(1, "accounts".into(), MigrationType::Simple, sql, false);
    Migrator::with_migrations(vec![first]).run(&pool).await.unwrap();
    let row = "INSERT INTO audit_log (at, actor_kind, action, outcome) VALUES (1, 'shell', 'user_create', 'success')";
    for _ in 0..3 {
        sqlx::query(row).execute(&pool).await.unwrap();
    }
    pool.close().await;

    let access = karat_access::Access::open(crate::support::settings(&folder)).await.unwrap();
    assert_eq!(access.schema().await.unwrap().migrations, [1, 2, 3]);
    access.register(crate::support::account("maria_77"), &Default::default()).await.unwrap();
    let report = access.verify_audit_log().await.unwrap();
    assert_eq!((report.unchained, report.rows, report.broken), (3, 2, None));
    let newest = access.audit_log(&Default::default(), 1).await.unwrap();
    assert_eq!(newest[0].seq, 5);
}
