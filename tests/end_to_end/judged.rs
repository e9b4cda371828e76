//! An instance whose every event is in the ledger of the judge.

use karat_oracle::{Ledger, LogCopy, Outcome, Verdict, Watched, judge};
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    disks::Disk,
    process::{Folder, PASSWORD},
    sample::assert_no_difference,
    wait::until,
};

/// Events of one request.
pub const BATCH: u64 = 25;

/// Events in a row of which each of four partitions gets some.
const OF_EVERY_PARTITION: u64 = 200;

/// An instance whose every event is in the ledger of the judge.
pub struct Judged {
    /// Under the data folder, when it has one of its own. Let go before the folder.
    pub disk: Option<Disk>,
    pub folder: Folder,
    pub key: String,
    pub ledger: Ledger,
    /// Number of the next event.
    pub next: u64,
    /// Full name of the bronze table.
    pub bronze: String,
}

impl Judged {
    pub async fn new() -> Self {
        Self::on(Folder::new(), None).await
    }

    /// With the data folder on a disk of its own, where the machine lets us.
    pub async fn on_disk(megabytes: u64) -> Self {
        let folder = Folder::new();
        let disk = Disk::new(&folder, megabytes);
        Self::on(folder, disk).await
    }

    /// With its lake elsewhere: `variables` say where.
    pub async fn with(variables: Vec<(String, String)>) -> Self {
        Self::on(Folder::with(variables), None).await
    }

    async fn on(folder: Folder, disk: Option<Disk>) -> Self {
        let key = folder.account("ada", "operator").await;
        Self { disk, folder, key, ledger: Ledger::default(), next: 0, bronze: "bronze.karat_events".to_owned() }
    }

    pub fn note(&mut self, number: u64, outcome: Outcome) {
        let event = run_event(number);
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        self.ledger.note("test", &text("source"), &text("id"), event["data"].to_string().as_bytes(), outcome);
    }

    pub fn note_all(&mut self, told: Vec<(u64, Outcome)>) {
        self.next = told.last().map_or(self.next, |(number, _)| self.next.max(number + 1));
        told.into_iter().for_each(|(number, outcome)| self.note(number, outcome));
    }

    /// Waits for gold and compares everything with what was told; then sends every event again, and compares once more.
    pub async fn end(mut self) {
        let mut karat = self.folder.start("last", &["up", "--listen", "127.0.0.1:0"]);
        let url = karat.url().await;
        let client = Client::new(&url, &self.key);
        self.drain(&client).await;
        self.judge(None).await.assert_clean("before anything is sent again");
        // A publisher that got no answer sends it again: every event counts once in the end.
        for first in (0..self.next).step_by(500) {
            let numbers = first..(first + 500).min(self.next);
            let events: Vec<Value> = numbers.clone().map(run_event).collect();
            // An answer that names another layer says that waiting took too long: they are there once more by then.
            let mut times = 0;
            until("gold has every event", async || {
                times += 1;
                let answer = client.publish(&events, "?wait=gold").await.unwrap();
                let status = answer.status();
                assert!(status.is_success(), "{}\n{}", answer.text().await.unwrap(), karat.err());
                (status == 200).then_some(())
            })
            .await;
            // The door may know that it is there already.
            for _ in 0..times {
                numbers.clone().for_each(|number| self.note(number, Outcome::Unknown));
            }
        }
        self.assert_summary(&url).await;
        karat.stop().await;
        assert_no_difference(&self.folder.run(&["table", "verify", "--format", "json"]).await.json());
        assert!(self.ledger.acknowledged() > 0, "nothing was acknowledged between the faults");
        self.judge(None).await.assert_clean("in the end");
    }

    /// Sends events to every partition and waits until gold has them: then it has everything that came before.
    async fn drain(&mut self, client: &Client) {
        let numbers = self.next..self.next + OF_EVERY_PARTITION;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        until("gold has what was sent last", async || {
            let answer = client.publish(&events, "?wait=gold").await.unwrap();
            let status = answer.status();
            assert!(status.is_success(), "{}", answer.text().await.unwrap());
            self.note_all(numbers.clone().map(|number| (number, Outcome::Acknowledged)).collect());
            (status == 200).then_some(())
        })
        .await;
    }

    /// Compares the tables with what was told, and with what the log holds when a copy of it is given.
    pub async fn judge(&self, log: Option<&LogCopy>) -> Verdict {
        let watched = Watched {
            bronze: self.bronze.clone(),
            silver: vec!["silver.run_events".to_owned()],
            quarantine: "quarantine.etl_runs".to_owned(),
        };
        judge(&self.folder.lake(), &watched, &self.ledger, log).await.unwrap()
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

/// Publishes batch after batch until the process is gone: each event, and what was told of it. `query` is how, such as
/// `?wait=gold` for a step of its own for each batch.
pub async fn publish_until_gone(client: Client, mut next: u64, query: &str) -> Vec<(u64, Outcome)> {
    let mut told = Vec::new();
    loop {
        let numbers = next..next + BATCH;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        next += BATCH;
        let Some((status, answer)) = answer_of(&client, &events, query).await else {
            told.extend(numbers.map(|number| (number, Outcome::Unknown)));
            return told;
        };
        // 202 is also the answer of one that waited in vain.
        let is_taken = status == 202 || status == 200 && !query.is_empty();
        assert!(is_taken && answer["data"]["accepted"] == BATCH, "{status} {answer}");
        told.extend(numbers.map(|number| (number, Outcome::Acknowledged)));
    }
}

/// The whole answer; a cut one is no acknowledgement. Whatever is wrong, the door takes events or says when to send them again.
pub async fn answer_of(client: &Client, events: &[Value], query: &str) -> Option<(reqwest::StatusCode, Value)> {
    let answer = client.publish(events, query).await.ok()?;
    let (status, says_when) = (answer.status(), answer.headers().contains_key("retry-after"));
    let answer = answer.json().await.ok()?;
    assert!(!status.is_server_error() || status == 503 && says_when, "{status} {answer}");
    Some((status, answer))
}
