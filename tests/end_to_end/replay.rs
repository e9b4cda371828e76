//! Replays from the shell: what they would do, and how they end.

use serde_json::json;

use crate::{
    client::{Client, run_event},
    process::Folder,
    wait::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_the_events_of_an_interval_and_changes_nothing() {
    let folder = Folder::new();
    let key = folder.account("ada", "operator").await;
    let mut karat = folder.start("karat", &["up", "--listen", "127.0.0.1:0"]);
    let client = Client::new(&karat.url().await, &key);
    let at = |number: u64, time: &str| {
        let mut event = run_event(number);
        event["time"] = json!(time);
        event
    };
    // The last has the time of its arrival.
    let events =
        [at(1, "2026-05-04T10:00:00Z"), at(2, "2026-05-04T23:59:59.999Z"), at(3, "2026-05-05T00:00:00Z"), run_event(4)];
    client.arrive(&events, "gold").await;

    let epoch = folder.run(&["status", "--format", "json"]).await.json()[0]["epoch"].clone();
    let plan = ["replay", "plan", "etl_runs", "--format", "json"];
    let day =
        folder.run(&[&plan[..], &["--from", "2026-05-04", "--to", "2026-05-05T02:00:00+02:00"]].concat()).await.json();
    let interval = &day["interval"];
    assert_eq!((&interval["from"], &interval["to"]), (&"2026-05-04T00:00:00Z".into(), &"2026-05-05T00:00:00Z".into()));
    let bytes: usize = events[..2].iter().map(|event| event["data"].to_string().len()).sum();
    assert_eq!(interval["events"], json!([{"type": "etl.run.finished", "rows": 2, "bytes": bytes}]));
    assert_eq!((&day["reads"]["rows"], &interval["rows"]), (&4.into(), &2.into()));
    let all = folder.run(&[&plan[..], &["--all"]].concat()).await.json();
    assert_eq!((&all["interval"], &all["rebuilds"]), (&json!(null), &day["rebuilds"]));
    let since = folder.run(&["replay", "plan", "etl_runs", "--from", "2026-05-05", "--to", "2100-01-01"]).await.ok();
    assert!(since.contains("etl.run.finished: 2 rows") && since.contains("as a whole"), "{since}");
    assert_eq!(folder.run(&["status", "--format", "json"]).await.json()[0]["epoch"], epoch);

    // The tables as a whole, so the rows outside of the interval are there again too.
    let said = folder.run(&["replay", "start", "etl_runs", "--from", "2026-05-04", "--to", "2026-05-05"]).await;
    assert!(said.err.contains("the whole tables"), "{said:?}");
    said.ok();
    let runs = folder.run(&["query", "SELECT count(*) AS runs FROM silver.runs", "--format", "json"]).await.json();
    assert_eq!(runs, json!([{"runs": 4}]));
    karat.stop().await;

    // What happened can be asked of a table, also when nothing runs; a replay then is there too.
    folder.run(&["replay", "start", "etl_runs", "--all"]).await.ok();
    let happened = "SELECT state FROM _karat.event_log WHERE kind = 'replay' ORDER BY at";
    let states = folder.run(&["query", happened, "--format", "json"]).await.json();
    let state = |state: &str| json!({"state": state});
    assert_eq!(states, json!([state("started"), state("done"), state("started"), state("done")]));
    let tables = folder.run(&["table", "ls"]).await.ok();
    assert!(tables.contains("_karat.event_log"), "{tables}");
}

/// Orders, of which none may have a count of zero: the figures divide by it.
const SHOP: &str = r#"
version = 1
[[topic]]
name = "shop"
[[event]]
type = "order"
topic = "shop"
[[pipeline]]
name = "shop"
topic = "shop"
[[pipeline.input]]
name = "ordered"
types = ["order"]
into = "orders"
columns = [{ name = "item", type = "string" }, { name = "count", type = "int64" }]
[[pipeline.silver]]
name = "orders"
mode = "append"
[[pipeline.gold]]
name = "shares"
refresh = "keys"
key = ["item"]
sql = "SELECT item, 100 / min(count) AS largest_share FROM orders GROUP BY item"
"#;

fn ordered(id: &str, count: i64) -> serde_json::Value {
    json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "order", "data": {"item": "tea", "count": count}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_fails_in_the_instance_ends_the_command_with_the_reason() {
    let folder = Folder::new();
    let key = folder.account("ada", "operator").await;
    let path = folder.text("pipelines.toml");
    std::fs::write(&path, SHOP).unwrap();
    let mut karat = folder.start("karat", &["up", "--pipelines", &path, "--listen", "127.0.0.1:0"]);
    let client = Client::new(&karat.url().await, &key);
    let start = ["replay", "start", "shop", "--all", "--pipelines", &path];
    client.arrive(&[ordered("1", 4)], "gold").await;
    folder.run(&start).await.ok();

    client.arrive(&[ordered("2", 0)], "bronze").await;
    let said = folder.run(&start).await;
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("`shop` failed") && said.err.contains("correct pipelines.toml"), "{said:?}");
    assert!(!said.err.to_lowercase().contains("divide"), "internal text: {said:?}");
    // The instance goes on, and readers have what they had.
    let shares = ["query", "SELECT * FROM gold.shares", "--format", "json", "--pipelines", &path];
    assert_eq!(folder.run(&shares).await.json(), json!([{"item": "tea", "largest_share": 25}]));

    // Who may not order a replay may not ask how one ended.
    let id = "0198f2c4-0000-7000-8000-000000000000";
    let answer = client.request(&format!("/api/v1/admin/replays/{id}")).send().await.unwrap();
    assert_eq!(answer.status(), 403, "{}", answer.text().await.unwrap());
    let ada = Client::log_in(&karat.url().await, "ada", crate::process::PASSWORD).await;
    assert_eq!(ada.data(&format!("/api/v1/admin/replays/{id}")).await["state"], "pending");
    karat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_another_bronze_are_named_and_rebuilt_by_the_command_that_is_named() {
    let folder = Folder::new();
    let key = folder.account("ada", "operator").await;
    let up = ["up", "--listen", "127.0.0.1:0"];
    let mut karat = folder.start("first", &up);
    let client = Client::new(&karat.url().await, &key);
    for number in 0..3 {
        client.arrive(&[run_event(number)], "gold").await;
    }
    karat.stop().await;
    std::fs::remove_dir_all(folder.path("data/lake/bronze")).unwrap();

    // Bronze is read from the log again, in other commits. The pipeline waits; the door does not.
    let mut karat = folder.start("second", &up);
    let client = Client::new(&karat.url().await, &key);
    let state = until("the pipeline pauses", async || {
        let rows = folder.run(&["status", "--format", "json"]).await.json();
        let state = rows[0]["state"].as_str()?.to_owned();
        state.starts_with("paused: ").then_some(state)
    })
    .await;
    let named = state.split('`').find(|text| text.starts_with("karat replay")).unwrap_or_else(|| panic!("{state}"));
    let words: Vec<&str> = named.split_whitespace().skip(1).collect();
    let rebuilt = folder.run(&words).await;
    assert_eq!(rebuilt.code, 0, "{rebuilt:?}");
    client.arrive(&[run_event(3)], "gold").await;
    let runs = folder.run(&["query", "SELECT count(*) AS runs FROM silver.runs", "--format", "json"]).await.json();
    assert_eq!(runs, json!([{"runs": 4}]));
    karat.stop().await;
    crate::sample::assert_no_difference(&folder.run(&["table", "verify", "--format", "json"]).await.json());
}
