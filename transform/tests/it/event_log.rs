//! What the pipelines leave in the event log.

use karat_eventlog::NewRecord;
use serde_json::json;

use crate::support::{World, record};

const TILL: &str = r#"
version = 1

[[topic]]
name = "till.events"
partitions = 1

[[event]]
type = "till.sale"
topic = "till.events"

[[pipeline]]
name = "till"
topic = "till.events"

[[pipeline.input]]
name = "taken"
types = ["till.sale"]
into = "sales"
rescue = false
columns = [
  { name = "sold_at", type = "timestamp", required = true },
  { name = "cents", type = "int64", required = true },
]

[[pipeline.silver]]
name = "sales"
mode = "append"
time = "sold_at"
expect = [
  { name = "is_small", check = "cents < 100", action = "warn" },
  { name = "is_positive", check = "cents > 0", action = "quarantine" },
  { name = "is_credible", check = "cents < 100000", action = "fail" },
]

[[pipeline.gold]]
name = "turnover"
sql = "SELECT date_trunc('day', sold_at) AS day, sum(cents) AS cents FROM sales GROUP BY 1"
"#;

const TABLE: &str = "_karat.event_log";

fn sale(id: &str, cents: i64) -> NewRecord {
    let data = json!({"sold_at": "2026-03-01T09:30:00Z", "cents": cents});
    record("till.sale", "/till", id, id, data.to_string(), None)
}

/// The columns of the rows of one kind, sorted.
async fn of_kind(world: &World, kind: &str, columns: &[&str]) -> Vec<String> {
    let columns: Vec<&str> = ["kind"].into_iter().chain(columns.iter().copied()).collect();
    let start = format!("{kind}|");
    let lines = world.text(TABLE, &columns).await;
    lines.iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_its_commits_and_broken_rules_are_in_the_event_log() {
    let world = World::new(TILL).await;
    let running = world.start();
    world.publish(vec![sale("a", 50), sale("b", 250), sale("c", -1), sale("b", 250)]).await;
    let epoch = world.settled(&running).await;
    running.stop().await;
    let counts = ["pipeline", "state", "epoch", "events", "silver", "duplicates", "quarantined", "dropped"];
    assert_eq!(of_kind(&world, "step", &counts).await, ["till|done|1|4|2|1|1|0"]);
    assert_eq!(of_kind(&world, "step", &["bronze_to"]).await, [epoch.bronze_version.to_string()]);
    let versions: Vec<String> = epoch.tables.iter().map(|(table, version)| format!("{table}|{version}|1")).collect();
    assert_eq!(of_kind(&world, "commit", &["table_name", "table_version", "epoch"]).await, versions);
    assert_eq!(
        of_kind(&world, "commit", &["table_name", "num_rows", "num_deleted"]).await,
        ["gold.turnover|1|0", "quarantine.till|1|0", "silver.sales|2|0"]
    );
    assert_eq!(
        of_kind(&world, "rule", &["table_name", "rule", "num_rows"]).await,
        ["silver.sales|is_positive|1", "silver.sales|is_small|2"]
    );
    assert_eq!(of_kind(&world, "start", &["pipeline", "state"]).await, ["NULL|NULL"]);
    assert_eq!(of_kind(&world, "stop", &["pipeline", "state"]).await, ["NULL|done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_and_the_replay_that_ends_it_are_in_the_event_log() {
    let world = World::new(TILL).await;
    let running = world.start();
    world.publish(vec![sale("a", 5_000_000)]).await;
    world.settled(&running).await;
    running.replay("till").await;
    running.stop().await;
    let pause = ["pipeline", "epoch", "message"];
    assert_eq!(of_kind(&world, "pause", &pause).await, ["till|1|rule `is_credible` was broken"]);
    // The steps of the rebuild are its own affair: the one live step is all there is.
    assert_eq!(of_kind(&world, "step", &["events"]).await, ["1"]);
    assert_eq!(
        of_kind(&world, "replay", &["pipeline", "state", "epoch", "generation", "message"]).await,
        ["till|done|2|1|NULL", "till|started|NULL|NULL|ordered"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_declaration_and_its_columns_are_in_the_event_log() {
    let mut world = World::new(TILL).await;
    let running = world.start();
    world.publish(vec![sale("a", 50)]).await;
    world.settled(&running).await;
    running.stop().await;
    let changed = TILL.replace("sum(cents) AS cents", "sum(cents) AS cents, count(*) AS sales");
    world.settings.pipelines = std::sync::Arc::new(karat_schemas::pipelines::parse(&changed).unwrap());
    let running = world.start();
    world.publish(vec![sale("b", 60)]).await;
    world.settled(&running).await;
    running.stop().await;
    assert_eq!(of_kind(&world, "declaration", &["pipeline"]).await, ["till"]);
    assert_eq!(of_kind(&world, "schema", &["table_name", "message"]).await, ["gold.turnover|`sales` Int64 added"]);
    assert_eq!(of_kind(&world, "replay", &["state"]).await, ["done", "started"]);
    // Each start is told apart.
    let mut workers = of_kind(&world, "start", &["worker"]).await;
    workers.dedup();
    assert_eq!(workers.len(), 2);
}
