//! SIGKILL while events come in: what was acknowledged is there, once.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{
    client::{Client, run_event},
    process::{Folder, Karat, PASSWORD},
    sample::assert_no_difference,
    wait::until,
};

const BATCH: u64 = 25;
const KILLS: u64 = 4;

/// Publishes batch after batch until the process is gone; moves `next` on and gives the numbers that were acknowledged.
async fn publish_until_gone(client: Client, mut next: u64) -> (Vec<u64>, u64) {
    let mut acknowledged = Vec::new();
    loop {
        let numbers: Vec<u64> = (next..next + BATCH).collect();
        let events: Vec<Value> = numbers.iter().map(|number| run_event(*number)).collect();
        next += BATCH;
        let Ok(answer) = client.publish(&events, "").await else { return (acknowledged, next) };
        let status = answer.status();
        // A cut answer is no acknowledgement.
        let Ok(answer) = answer.json::<Value>().await else { return (acknowledged, next) };
        assert_eq!((status.as_u16(), &answer["data"]["accepted"]), (202, &BATCH.into()), "{answer}");
        acknowledged.extend(numbers);
    }
}

async fn start(folder: &Folder, round: u64) -> (Karat, String) {
    let mut karat = folder.start(&format!("round-{round}"), &["up", "--listen", "127.0.0.1:0"]);
    let url = karat.url().await;
    (karat, url)
}

/// The run ids of silver, each as often as it is there.
async fn run_ids(folder: &Folder) -> Vec<String> {
    let rows = folder.run(&["query", "SELECT run_id FROM silver.runs", "--format", "json"]).await.json();
    rows.as_array().unwrap().iter().map(|row| row["run_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_and_counts_once() {
    let folder = Folder::new();
    let key = folder.account("ada", "operator").await;
    let (mut acknowledged, mut next) = (Vec::new(), 0);
    for round in 0..KILLS {
        let (karat, url) = start(&folder, round).await;
        let publishing = tokio::spawn(publish_until_gone(Client::new(&url, &key), next));
        // From the middle of a start to the middle of the work.
        tokio::time::sleep(Duration::from_millis(150 + 700 * round)).await;
        karat.kill();
        let (more, after) = publishing.await.unwrap();
        acknowledged.extend(more);
        next = after;
    }
    assert!(!acknowledged.is_empty(), "nothing was published between the kills");

    let (karat, url) = start(&folder, KILLS).await;
    let client = Client::new(&url, &key);
    // The newest of each partition, so that everything before them is in gold too when this answers.
    let newest: Vec<Value> = (next..next + 50).map(run_event).collect();
    next += 50;
    let answer = client.publish(&newest, "?wait=gold").await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let there = run_ids(&folder).await;
    let distinct: BTreeSet<&String> = there.iter().collect();
    assert_eq!(there.len(), distinct.len(), "a run is there twice");
    for number in &acknowledged {
        assert!(distinct.contains(&format!("run-{number:06}")), "run {number} was acknowledged and is lost");
    }

    // A publisher that got no answer sends it again: every event counts once in the end.
    for first in (0..next).step_by(500) {
        let events: Vec<Value> = (first..(first + 500).min(next)).map(run_event).collect();
        let answer = client.publish(&events, "?wait=gold").await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    let ada = Client::log_in(&url, "ada", PASSWORD).await;
    let totals = until("the API has every run", async || {
        let mut answer = ada.data("/api/v1/summary?from=2026-05-04&to=2026-05-04").await;
        (answer["totals"]["runs"] == next).then(|| answer["totals"].take())
    })
    .await;
    assert_eq!(totals["failed"], (0..next).filter(|number| number.is_multiple_of(10)).count());
    assert_eq!(totals["records_written"], (0..next).map(|number| number % 100).sum::<u64>());

    let places = "SELECT count(*) AS records, count(DISTINCT partition * 1000000000 + \"offset\") AS places FROM bronze.karat_events";
    let places = folder.run(&["query", places, "--format", "json"]).await.json();
    assert_eq!(places[0]["records"], places[0]["places"]);
    karat.stop().await;
    assert_no_difference(&folder.run(&["table", "verify", "--format", "json"]).await.json());
}
