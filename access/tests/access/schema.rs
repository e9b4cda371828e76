//! The schema that the migrations come to.

use crate::catalogue::{self, Engine, POSTGRES_ONLY};
use crate::support::Instance;

/// What an instance says of its own tables, on every engine: the columns of the file after the last migration.
#[tokio::test]
async fn the_migrations_of_every_engine_come_to_the_same_schema() {
    let instance = Instance::start().await;
    let schema = instance.access.schema().await.unwrap();
    let numbers: Vec<i64> = catalogue::migrations("sqlite").into_iter().map(|(number, _)| number).collect();
    assert_eq!(schema.migrations, numbers, "{}", schema.engine);
    let file = catalogue::folder(&format!("schema.{}.txt", numbers.last().unwrap()));
    let text = std::fs::read_to_string(file).unwrap();
    let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("column ")).collect();
    assert_eq!(schema.columns, expected, "{}", schema.engine);
}

/// One file after each migration, for all engines: what each of them says must equal it, so they equal each other. What
/// only one of them can have is marked there.
#[tokio::test]
async fn after_each_migration_the_engines_are_alike() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::empty(&folder).await;
    let is_postgres = matches!(engine, Engine::Postgres(_));
    let migrations = catalogue::migrations(engine.name());
    for other in ["sqlite", "postgres", "mysql"] {
        assert_eq!(catalogue::migrations(other), migrations, "{other}");
    }
    for (number, _) in &migrations {
        engine.migrate(*number).await;
        let file = catalogue::folder(&format!("schema.{number}.txt"));
        let expected = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let is_meant = |line: &&str| is_postgres || !line.ends_with(POSTGRES_ONLY);
        let expected: Vec<&str> = expected.lines().filter(is_meant).collect();
        assert_eq!(engine.describe().await, expected, "{} after migration {number}", engine.name());
    }
    engine.close().await;
    // They are those that the accounts bring with them.
    let access = karat_access::Access::open(crate::support::settings(&folder)).await.unwrap();
    let numbers: Vec<i64> = migrations.iter().map(|(number, _)| *number).collect();
    assert_eq!(access.schema().await.unwrap().migrations, numbers);
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

/// A database as the first version left it: its audit rows have no hash, and the chain begins behind them.
#[tokio::test]
async fn a_database_of_the_version_before_is_brought_up_to_date_with_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::empty(&folder).await;
    engine.migrate(1).await;
    let row = "INSERT INTO audit_log (at, actor_kind, action, outcome) VALUES (1, 'shell', 'user_create', 'success')";
    for _ in 0..3 {
        engine.execute(row).await;
    }
    engine.close().await;

    let access = karat_access::Access::open(crate::support::settings(&folder)).await.unwrap();
    assert_eq!(access.schema().await.unwrap().migrations, [1, 2, 3, 4]);
    access.register(crate::support::account("maria_77"), &Default::default()).await.unwrap();
    let report = access.verify_audit_log().await.unwrap();
    assert_eq!((report.unchained, report.rows, report.broken), (3, 2, None));
    let newest = access.audit_log(&Default::default(), 1).await.unwrap();
    assert_eq!(newest[0].seq, 5);
}
