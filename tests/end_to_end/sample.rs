//! The sample data, and the figures that another engine computed from it.

use std::{collections::BTreeMap, io::Read};

use chrono::{Datelike, NaiveDate};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{client::Client, wait::until};

/// All days of the sample.
pub const RANGE: &str = "from=2026-08-24&to=2026-11-30";

pub fn days() -> Vec<Value> {
    serde_json::from_str(include_str!("../../examples/openlineage-airline.daily.json")).unwrap()
}

pub fn total_runs() -> i64 {
    days().iter().map(|day| day["runs"].as_i64().unwrap()).sum()
}

const COUNTS: [&str; 5] = ["runs", "completed", "failed", "aborted", "running"];

/// Day, week and month figures equal the recorded ones, source by source, as soon as every run is there.
pub async fn assert_served(client: &Client) {
    until("the API has every run", async || {
        let answer = client.data(&format!("/api/v1/summary?{RANGE}")).await;
        (answer["totals"]["runs"] == total_runs() && answer["data_state"] == "complete").then_some(())
    })
    .await;
    let answer = client.data(&format!("/api/v1/summary?{RANGE}&group_by=source")).await;
    let buckets = answer["buckets"].as_array().unwrap();
    let expected = days();
    assert_eq!(buckets.len(), expected.len());
    for (bucket, day) in buckets.iter().zip(&expected) {
        let place = (&day["bucket"], &day["source"]);
        assert_eq!((&bucket["bucket"], &bucket["source"]), place);
        assert_eq!(bucket["bucket_start"], day["bucket"]);
        for name in COUNTS.iter().chain(&["jobs"]) {
            assert_eq!(bucket[name], day[name], "{name} of {place:?}");
        }
        let average = |value: &Value| value["avg_duration_ms"].as_f64().unwrap();
        assert!((average(bucket) - average(day)).abs() < 0.001, "average of {place:?}: {}", average(bucket));
    }
    assert_folded(client, "weekly", |date| format!("{}-W{:02}", date.iso_week().year(), date.iso_week().week())).await;
    assert_folded(client, "monthly", |date| date.format("%Y-%m").to_string()).await;
    assert_eq!(answer["totals"]["runs"], total_runs());
}

/// The longer buckets are the sums of their days.
async fn assert_folded(client: &Client, grain: &str, label: impl Fn(NaiveDate) -> String) {
    let mut expected: BTreeMap<(String, String), [i64; 5]> = BTreeMap::new();
    for day in days() {
        let date: NaiveDate = day["bucket"].as_str().unwrap().parse().unwrap();
        let sums = expected.entry((label(date), day["source"].as_str().unwrap().to_owned())).or_default();
        for (sum, name) in sums.iter_mut().zip(COUNTS) {
            *sum += day[name].as_i64().unwrap();
        }
    }
    let answer = client.data(&format!("/api/v1/summary/{grain}?{RANGE}&group_by=source")).await;
    let text = |bucket: &Value, name: &str| bucket[name].as_str().unwrap().to_owned();
    let found: BTreeMap<_, _> = answer["buckets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bucket| {
            ((text(bucket, "bucket"), text(bucket, "source")), COUNTS.map(|name| bucket[name].as_i64().unwrap()))
        })
        .collect();
    assert_eq!(found, expected, "{grain}");
    assert_eq!(answer["totals"]["runs"], total_runs(), "{grain}");
}

/// An answer that the client has already costs a 304 without a body.
pub async fn assert_not_modified(client: &Client) {
    let path = format!("/api/v1/summary?{RANGE}");
    let first = client.request(&path).send().await.unwrap();
    let etag = first.headers()["etag"].clone();
    let again = client.request(&path).header("if-none-match", &etag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(again.headers()["etag"], etag);
    assert!(again.bytes().await.unwrap().is_empty());
    let other = client.request(&path).header("if-none-match", "\"another\"").send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
}

/// The report of `karat table verify --format json` names tables and no difference.
pub fn assert_no_difference(reports: &Value) {
    let reports = reports.as_array().unwrap();
    assert!(reports.iter().any(|report| report["table"] == "gold.daily_summary"), "{reports:?}");
    for report in reports {
        assert_eq!(report["differences"], json!(0), "{report}");
    }
}

/// The events themselves.
pub fn events() -> Vec<Value> {
    let compressed = include_bytes!("../../examples/openlineage-airline.ndjson.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Repeats enough events to reach every partition until gold has them, and so all that came before.
///
/// The door gives up after half a minute, when a worker that died is still a member of its group on the broker.
pub async fn wait_for_gold(publisher: &Client) {
    let repeats = events().split_off(1600);
    until("gold has everything", async || {
        let answer = publisher.post("/api/v1/lineage/batch?wait=gold").json(&repeats).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        (status == StatusCode::OK).then_some(())
    })
    .await;
}
