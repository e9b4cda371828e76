//! A pipeline that cannot go on waits alone, says why, and goes on when it can.

use std::{fs, path::PathBuf, time::Duration};

use karat_eventlog::NewRecord;
use karat_lake::epochs::Epochs;
use karat_schemas::epoch::Epoch;
use serde_json::json;

use crate::support::{DEADLINE, World, record};

/// Two pipelines over the same events, each with a silver and a gold table.
fn pair() -> String {
    let pipeline = |name: &str| {
        format!(
            r#"
[[pipeline]]
name = "{name}"
topic = "till.events"

[[pipeline.input]]
name = "taken"
types = ["till.sale"]
into = "{name}_sales"
rescue = false
columns = [
  {{ name = "sold_at", type = "timestamp", required = true }},
  {{ name = "cents", type = "int64", required = true }},
]

[[pipeline.silver]]
name = "{name}_sales"
mode = "append"
time = "sold_at"
expect = [{{ name = "is_credible", check = "cents < 100000", action = "fail" }}]

[[pipeline.gold]]
name = "{name}_turnover"
sql = "SELECT date_trunc('day', sold_at) AS day, sum(cents) AS cents FROM {name}_sales GROUP BY 1"
"#
        )
    };
    let head = "version = 1\n[[topic]]\nname = \"till.events\"\npartitions = 1\n\
                [[event]]\ntype = \"till.sale\"\ntopic = \"till.events\"\n";
    format!("{head}{}{}", pipeline("good"), pipeline("other"))
}

fn sale(id: &str, cents: i64) -> NewRecord {
    let data = json!({"sold_at": "2026-03-01T09:30:00Z", "cents": cents});
    record("till.sale", "/till", id, id, data.to_string(), None)
}

/// Waits until the newest epoch of a pipeline is as asked.
async fn epoch_that(world: &World, pipeline: &str, is_it: impl Fn(&Epoch) -> bool) -> Epoch {
    let epochs = Epochs::of(&world.settings.lake, pipeline).unwrap();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let epoch = epochs.latest().await.unwrap().unwrap_or_default();
        if is_it(&epoch) {
            return epoch;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain; the newest is {epoch:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn newest_commit(world: &World, table: &str) -> PathBuf {
    let folder = world.folder().join("lake").join(table).join("_delta_log");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "json")).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_whose_table_does_not_open_waits_alone_and_goes_on_once_it_does() {
    let world = World::new(&pair()).await;
    let running = world.start();
    world.publish(vec![sale("a", 1)]).await;
    world.settled(&running).await;
    epoch_that(&world, "other", |epoch| epoch.positions.get(&0) == Some(&1)).await;
    running.stop().await;

    let commit = newest_commit(&world, "gold/other_turnover");
    let whole = fs::read(&commit).unwrap();
    fs::write(&commit, &whole[..whole.len() / 2]).unwrap();
    let running = world.start();
    world.publish(vec![sale("b", 2)]).await;
    world.settled(&running).await;
    let paused = epoch_that(&world, "other", |epoch| epoch.paused.is_some()).await;
    let reason = paused.paused.unwrap();
    assert!(reason.contains("`gold.other_turnover`") && !reason.contains("_delta_log"), "{reason}");
    assert_eq!(paused.positions.get(&0), Some(&1));

    fs::write(&commit, &whole).unwrap();
    let epoch = epoch_that(&world, "other", |epoch| epoch.positions.get(&0) == Some(&2)).await;
    assert_eq!(epoch.paused, None);
    assert_eq!(world.text("gold.other_turnover", &["cents"]).await, ["3"]);
    running.stop().await;
    let log = world.text("_karat.event_log", &["kind", "pipeline", "message"]).await;
    let pauses: Vec<&String> = log.iter().filter(|line| line.starts_with("pause|other|")).collect();
    assert_eq!(pauses.len(), 1, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_gets_a_waiting_pipeline_going_when_its_state_is_damaged() {
    let world = World::new(&pair()).await;
    let running = world.start();
    world.publish(vec![sale("a", 1)]).await;
    world.settled(&running).await;
    epoch_that(&world, "other", |epoch| epoch.positions.get(&0) == Some(&1)).await;
    running.stop().await;

    // A file where the folder of the state should be.
    let state = world.settings.state_folder.join("other/g0");
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "no folder").unwrap();
    let running = world.start();
    world.publish(vec![sale("b", 2)]).await;
    world.settled(&running).await;
    epoch_that(&world, "other", |epoch| epoch.paused.is_some()).await;
    running.replay("other").await;
    let epoch = epoch_that(&world, "other", |epoch| epoch.positions.get(&0) == Some(&2)).await;
    assert_eq!((epoch.paused, epoch.generation), (None, 1));
    assert_eq!(world.text("gold.other_turnover", &["cents"]).await, ["3"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_broken_rule_a_restart_goes_on_also_when_nothing_comes_for_a_while() {
    let world = World::new(&pair()).await;
    let running = world.start();
    world.publish(vec![sale("a", 1), sale("b", 100_000)]).await;
    epoch_that(&world, "good", |epoch| epoch.paused.is_some()).await;
    running.stop().await;
    let running = world.start();
    let resumed = epoch_that(&world, "good", |epoch| epoch.paused.is_none() && epoch.epoch > 0).await;
    // Longer than the pipeline waits before it looks by itself.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    world.publish(vec![sale("c", 5)]).await;
    let epoch = world.settled(&running).await;
    assert!(epoch.epoch > resumed.epoch && epoch.paused.is_none());
    assert_eq!(world.text("gold.good_turnover", &["cents"]).await, ["6"]);
    running.stop().await;
}
