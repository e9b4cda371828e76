//! The schema that the migrations come to.

use crate::support::Instance;

/// One file for all engines: what each of them says about its own tables must equal it, so they equal each other.
const EXPECTED: &str = include_str!("../../migrations/schema.txt");

#[tokio::test]
async fn the_migrations_of_every_engine_come_to_the_same_schema() {
    let instance = Instance::start().await;
    let schema = instance.access.schema().await.unwrap();
    assert_eq!(schema.migrations, [1, 2], "{}", schema.engine);
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
