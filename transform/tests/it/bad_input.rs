//! Records that should not have come: each is in quarantine with its reason, and its neighbours are fine.

use karat_eventlog::{Headers, NewRecord};
use karat_lake::arrow::array::{Array, AsArray};
use karat_schemas::{attributes as names, pipelines::BUILT_IN};
use serde_json::{Value, json};

use crate::support::{World, record};

/// All records have one key, so they are neighbours in one partition.
const KEY: &str = "one partition";

fn run(id: &str) -> Value {
    json!({"run_id": id, "source": "crm", "job": "load", "status": "completed",
           "started_at": "2026-02-03T10:00:00Z", "finished_at": "2026-02-03T10:00:05Z", "records_written": 3})
}

fn finished(id: &str, data: impl AsRef<[u8]>) -> NewRecord {
    record("etl.run.finished", "/crm", id, KEY, data, None)
}

fn changed(id: &str, field: &str, value: Value) -> NewRecord {
    let mut data = run(id);
    data[field] = value;
    finished(id, data.to_string())
}

fn good(id: &str) -> NewRecord {
    finished(id, run(id).to_string())
}

/// A value ten objects deep.
fn deep() -> Value {
    (0..10).fold(json!("bottom"), |value, _| json!({"down": value}))
}

async fn settled(events: Vec<NewRecord>) -> World {
    let world = World::new(BUILT_IN).await;
    let running = world.start();
    world.publish(events).await;
    world.settled(&running).await;
    world.assert_verified().await;
    running.stop().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_record_is_quarantined_alone() {
    let nulls: Value = run("x").as_object().unwrap().keys().map(|name| (name.clone(), Value::Null)).collect();
    let lineage = |id: &str, data: Value| record("io.openlineage.event", "/dbt", id, KEY, data.to_string(), None);
    let broken_text = [&br#"{"run_id": ""#[..], b"\xff\xfe", br#""}"#].concat();
    let cases: Vec<(NewRecord, &str)> = vec![
        (finished("no-json", "this is not JSON"), "decode|invalid_json"),
        (finished("empty", ""), "decode|invalid_json"),
        (finished("cut", &run("cut").to_string()[..60]), "decode|invalid_json"),
        (finished("no-utf8", broken_text), "decode|invalid_utf8"),
        (finished("list", "[1, 2]"), "decode|wrong_type"),
        (finished("nulls", nulls.to_string()), "decode|missing_value"),
        (changed("number", "job", json!(7)), "decode|wrong_type"),
        (changed("text", "records_written", json!("3")), "decode|wrong_type"),
        (changed("fraction", "records_written", json!(1.5)), "decode|inexact_value"),
        (changed("deep-text", "job", deep()), "decode|wrong_type"),
        (changed("no-time", "started_at", json!("yesterday")), "decode|wrong_type"),
        (finished("twice", r#"{"run_id": "a", "run_id": "b"}"#), "decode|duplicate_key"),
        (changed("year-9999", "finished_at", json!("9999-12-31T23:59:59Z")), "expectation|time_in_future"),
        (changed("year-1979", "started_at", json!("1979-12-31T23:59:59Z")), "expectation|time_too_old"),
        (changed("backwards", "finished_at", json!("2026-02-03T09:00:00Z")), "expectation|finishes_after_start"),
        (changed("status", "status", json!("paused")), "expectation|status_is_known"),
        (changed("nameless", "source", json!("")), "expectation|source_is_named"),
        (changed("negative", "records_failed", json!(-1)), "expectation|records_are_not_negative"),
        (lineage("run-number", json!({"run": {"runId": 5}})), "decode|wrong_type"),
        (lineage("run-text", json!({"run": "r"})), "decode|wrong_type"),
    ];
    let mut events = vec![good("first")];
    for (index, (bad, _)) in cases.iter().enumerate() {
        events.push(bad.clone());
        events.push(good(&format!("neighbour-{index}")));
    }
    let world = settled(events).await;
    let mut expected: Vec<String> = cases
        .iter()
        .map(|(record, reason)| {
            format!("{}|{reason}|open", String::from_utf8_lossy(record.headers.get(names::CE_ID).unwrap()))
        })
        .collect();
    expected.sort();
    assert_eq!(world.text("quarantine.etl_runs", &["ce_id", "stage", "rules", "state"]).await, expected);
    assert_eq!(world.rows("silver.runs").await.num_rows(), cases.len() + 1);

    let quarantine = world.rows("quarantine.etl_runs").await;
    let (ids, raw) = (quarantine["ce_id"].as_string::<i32>(), quarantine["raw"].as_binary::<i32>());
    for (record, _) in &cases {
        let id = record.headers.get(names::CE_ID).unwrap();
        let row = (0..ids.len()).find(|row| ids.value(*row).as_bytes() == id).unwrap();
        assert_eq!(raw.value(row), record.payload.as_ref(), "the bytes are kept as they came");
    }
    assert_eq!(
        world.text("gold.daily_summary", &["bucket_start", "source", "runs", "completed", "records_written"]).await,
        [format!("2026-02-03T00:00:00Z|crm|{0}|{0}|{1}", cases.len() + 1, 3 * (cases.len() + 1))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_harms_nothing() {
    let events = vec![
        changed("deep", "extra", deep()),
        // Dataset and job events, and events of nulls, are no runs: bronze keeps them.
        record(
            "io.openlineage.event",
            "/dbt",
            "dataset",
            KEY,
            r#"{"eventTime": "2026-02-03T10:00:00Z", "dataset": {}}"#,
            None,
        ),
        record(
            "io.openlineage.event",
            "/dbt",
            "null",
            KEY,
            r#"{"eventTime": null, "eventType": null, "run": null, "job": null}"#,
            None,
        ),
    ];
    let world = settled(events).await;
    assert_eq!(world.text("silver.runs", &["run_id", "status"]).await, ["deep|completed"]);
    assert_eq!(world.rows("quarantine.etl_runs").await.num_rows(), 0);
    assert_eq!(world.rows("bronze.karat_events").await.num_rows(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_an_unknown_or_no_type_is_quarantined() {
    let bare =
        NewRecord { key: Some(KEY.into()), headers: Headers::default(), payload: run("bare").to_string().into() };
    let events = vec![record("shop.sale", "/shop", "sale", KEY, "{}", None), bare, good("neighbour")];
    let world = settled(events).await;
    assert_eq!(
        world.text("quarantine.etl_runs", &["ce_id", "ce_type", "stage", "rules"]).await,
        ["NULL|NULL|type|unknown_type", "sale|shop.sale|type|unknown_type"]
    );
    assert_eq!(world.text("silver.runs", &["run_id"]).await, ["neighbour"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_events_of_one_identity_the_first_stays_and_another_content_is_quarantined() {
    let world = World::new(BUILT_IN).await;
    let running = world.start();
    world.publish(vec![good("r1"), changed("r2", "records_written", json!(8))]).await;
    world.settled(&running).await;
    // The same content in another form, then other contents, one of them twice.
    let spaced = run("r1").to_string().replace(':', " : ").replace(",\"", " ,\n \"");
    let spaced = spaced.replace("10 : 00 : 0", "10:00:0");
    let conflict = |status: &str| {
        let mut data = run("r1");
        data["status"] = json!(status);
        finished("r1", data.to_string())
    };
    world
        .publish(vec![finished("r1", spaced), conflict("failed"), conflict("aborted"), good("r3"), conflict("failed")])
        .await;
    world.settled(&running).await;
    assert_eq!(
        world.text("silver.runs", &["run_id", "status", "records_written", "events"]).await,
        ["r1|completed|3|1", "r2|completed|8|1", "r3|completed|3|1"]
    );
    assert_eq!(
        world.text("quarantine.etl_runs", &["ce_id", "stage", "rules"]).await,
        ["r1|identity|conflicting_duplicate"; 2]
    );
    assert_eq!(world.recount().await.duplicates, 2);
    world.assert_verified().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_saw_only_bad_records_starts_again() {
    let world = World::new(BUILT_IN).await;
    let running = world.start();
    world.publish(vec![finished("no-json", "this is not JSON")]).await;
    world.settled(&running).await;
    running.stop().await;
    let running = world.start();
    world.publish(vec![good("r1")]).await;
    world.settled(&running).await;
    assert_eq!(world.text("silver.runs", &["run_id"]).await, ["r1"]);
    assert_eq!(world.rows("quarantine.etl_runs").await.num_rows(), 1);
    world.assert_verified().await;
    running.stop().await;
}

/// Bronze is partitioned by the clock of the door, whatever publishers say that the time is (decision 18).
#[tokio::test(flavor = "multi_thread")]
async fn clocks_of_publishers_make_no_partitions_of_bronze() {
    let times = ["1970-01-01T00:00:00Z", "2026-02-03T10:00:00Z", "2099-12-31T23:59:59Z", "9999-12-31T23:59:59Z"];
    let events = times.iter().enumerate().map(|(number, time)| {
        let id = format!("at-{number}");
        record("etl.run.finished", "/crm", &id, KEY, run(&id).to_string(), Some(time))
    });
    let before = chrono::Utc::now().date_naive();
    let world = settled(events.collect()).await;
    let after = chrono::Utc::now().date_naive();
    let days = world.text("bronze.karat_events", &["ingest_date"]).await;
    assert_eq!(days.len(), times.len());
    assert!(days.iter().all(|day| *day == before.to_string() || *day == after.to_string()), "{days:?}");
}
