//! SIGKILL while events come in, and ends at named points: what was acknowledged is there, once.

use std::time::Duration;

use karat_lake::Lake;
use karat_oracle::{Ledger, Outcome, Watched, judge};
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    process::{Folder, PASSWORD},
    sample::assert_no_difference,
    wait::until,
};

const BATCH: u64 = 25;
const KILLS: u64 = 4;

/// Where the process aborts, in the order of an event's life. Passings are counted from the start of the process.
#[cfg(debug_assertions)]
const POINTS: [&str; 8] = [
    "file.after@bronze:2",
    "commit.after@bronze:2",
    "bronze.told:2",
    "step.computed:2",
    "commit.after@/gold/:9",
    "step.committed:2",
    "step.published:2",
    "step.applied:2",
];

/// An instance whose every event is in the ledger of the judge.
struct Judged {
    folder: Folder,
    key: String,
    ledger: Ledger,
    /// Number of the next event.
    next: u64,
}

impl Judged {
    async fn new() -> Self {
        let folder = Folder::new();
        let key = folder.account("ada", "operator").await;
        Self { folder, key, ledger: Ledger::default(), next: 0 }
    }

    fn note(&mut self, number: u64, outcome: Outcome) {
        let event = run_event(number);
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        self.ledger.note("test", &text("source"), &text("id"), event["data"].to_string().as_bytes(), outcome);
    }

    fn note_all(&mut self, told: Vec<(u64, Outcome)>) {
        self.next = told.last().map_or(self.next, |(number, _)| number + 1);
        told.into_iter().for_each(|(number, outcome)| self.note(number, outcome));
    }

    /// Sends every event again, waits for gold, and compares everything with what was told.
    async fn judge(mut self) {
        let mut karat = self.folder.start("last", &["up", "--listen", "127.0.0.1:0"]);
        let url = karat.url().await;
        let client = Client::new(&url, &self.key);
        // A publisher that got no answer sends it again: every event counts once in the end.
        for first in (0..self.next).step_by(500) {
            let numbers = first..(first + 500).min(self.next);
            let events: Vec<Value> = numbers.clone().map(run_event).collect();
            let answer = client.publish(&events, "?wait=gold").await.unwrap();
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
            // The door may know that it is there already.
            numbers.for_each(|number| self.note(number, Outcome::Unknown));
        }
        self.assert_summary(&url).await;
        karat.stop().await;
        assert_no_difference(&self.folder.run(&["table", "verify", "--format", "json"]).await.json());
        let lake = Lake::at(self.folder.path("data/lake").to_str().unwrap()).unwrap();
        let watched = Watched {
            bronze: "bronze.karat_events".to_owned(),
            silver: vec!["silver.run_events".to_owned()],
            quarantine: "quarantine.etl_runs".to_owned(),
        };
        assert!(self.ledger.acknowledged() > 0, "nothing was acknowledged between the kills");
        judge(&lake, &watched, &self.ledger).await.unwrap().assert_clean("after kills");
    }

    async fn assert_summary(&self, url: &str) {
        let ada = Client::log_in(url, "ada", PASSWORD).await;
        let next = self.next;
        let totals = until("the API has every run", async || {
            let mut answer = ada.data("/api/v1/summary?from=2026-05-04&to=2026-05-04").await;
            (answer["totals"]["runs"] == next).then(|| answer["totals"].take())
        })
        .await;
        assert_eq!(totals["failed"], (0..next).filter(|number| number.is_multiple_of(10)).count());
        assert_eq!(totals["records_written"], (0..next).map(|number| number % 100).sum::<u64>());
    }
}

/// Publishes batch after batch until the process is gone: each event, and what was told of it.
async fn publish_until_gone(client: Client, mut next: u64) -> Vec<(u64, Outcome)> {
    let mut told = Vec::new();
    loop {
        let numbers = next..next + BATCH;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        next += BATCH;
        let Some((status, answer)) = answer_of(&client, &events).await else {
            told.extend(numbers.map(|number| (number, Outcome::Unknown)));
            return told;
        };
        assert_eq!((status.as_u16(), &answer["data"]["accepted"]), (202, &BATCH.into()), "{answer}");
        told.extend(numbers.map(|number| (number, Outcome::Acknowledged)));
    }
}

/// The whole answer; a cut one is no acknowledgement.
async fn answer_of(client: &Client, events: &[Value]) -> Option<(reqwest::StatusCode, Value)> {
    let answer = client.publish(events, "").await.ok()?;
    Some((answer.status(), answer.json().await.ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_and_counts_once() {
    let mut judged = Judged::new().await;
    for round in 0..KILLS {
        let mut karat = judged.folder.start(&format!("round-{round}"), &["up", "--listen", "127.0.0.1:0"]);
        let client = Client::new(&karat.url().await, &judged.key);
        let publishing = tokio::spawn(publish_until_gone(client, judged.next));
        // From the middle of a start to the middle of the work.
        tokio::time::sleep(Duration::from_millis(150 + 700 * round)).await;
        karat.kill();
        judged.note_all(publishing.await.unwrap());
    }
    judged.judge().await;
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_point_loses_nothing_and_counts_nothing_twice() {
    let mut judged = Judged::new().await;
    for (round, spot) in POINTS.iter().enumerate() {
        let variables = [("KARAT_CRASH_AT", *spot)];
        let words = ["up", "--listen", "127.0.0.1:0"];
        let mut karat = judged.folder.start_with(&format!("point-{round}"), &words, &variables);
        let client = Client::new(&karat.url().await, &judged.key);
        let publishing = publish_until_gone(client, judged.next);
        let told = tokio::time::timeout(Duration::from_secs(60), publishing).await;
        let told = told.unwrap_or_else(|_| panic!("nothing passed `{spot}`"));
        judged.note_all(told);
        karat.ended().await;
    }
    judged.judge().await;
}
