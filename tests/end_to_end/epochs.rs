//! Readers of every summary while events are written: one epoch is one point of the stream, whatever route asks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    client::Client,
    process::{Folder, PASSWORD},
    wait::until,
};

const BATCH: u64 = 40;
const BATCHES: u64 = 36;
const RANGE: &str = "from=2026-03-01&to=2026-08-31";
const ROUTES: [&str; 5] =
    ["/summary", "/summary/weekly", "/summary/monthly", "/summary?grain=quarter", "/summary?tz=Asia/Kathmandu"];

/// The n-th run. All are in one partition, so an epoch has the first so many of them. One in ten is a month late.
fn run(n: u64) -> (String, String, bool, DateTime<Utc>) {
    let first: DateTime<Utc> = "2026-04-15T00:00:00Z".parse().unwrap();
    let late = if n % 10 == 3 { TimeDelta::days(30) } else { TimeDelta::zero() };
    let started_at = first + TimeDelta::minutes(40 * n as i64) - late;
    (format!("run-{n:06}"), format!("job-{}", n % 7), n.is_multiple_of(10), started_at)
}

fn event(n: u64) -> Value {
    let (id, job, has_failed, started_at) = run(n);
    let finished_at = started_at + TimeDelta::seconds(1 + n as i64 % 50);
    json!({
        "specversion": "1.0", "id": id, "source": "/generator", "type": "etl.run.finished", "partitionkey": "one",
        "data": {"run_id": id, "source": "generated", "job": job, "status": if has_failed { "failed" } else { "completed" },
                 "started_at": started_at, "finished_at": finished_at, "records_written": n},
    })
}

/// Runs, completed, failed, records written.
type Sums = [u64; 4];

/// What the first `num` runs come to in the buckets that `label` names.
fn expected(num: u64, label: impl Fn(DateTime<Utc>) -> String) -> BTreeMap<String, Sums> {
    let mut buckets = BTreeMap::new();
    for n in 0..num {
        let (.., has_failed, started_at) = run(n);
        let sums: &mut Sums = buckets.entry(label(started_at)).or_default();
        let more = [1, u64::from(!has_failed), u64::from(has_failed), n];
        sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    buckets
}

fn label(route: &str, started_at: DateTime<Utc>) -> String {
    let date: NaiveDate = started_at.date_naive();
    match route {
        "/summary" => date.to_string(),
        "/summary/weekly" => format!("{}-W{:02}", date.iso_week().year(), date.iso_week().week()),
        "/summary/monthly" => date.to_string()[..7].to_owned(),
        "/summary?grain=quarter" => format!("{}-Q{}", date.year(), date.month().div_ceil(3)),
        _ => (started_at + TimeDelta::minutes(345)).date_naive().to_string(),
    }
}

fn sums(figures: &Value) -> Sums {
    ["runs", "completed", "failed", "records_written"].map(|name| figures[name].as_u64().unwrap())
}

/// What was learnt about the epochs.
#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    /// The newest epoch of any answer that has arrived.
    newest: AtomicU64,
    /// How many runs each epoch has; the first answer of it says so, the others must agree.
    runs: Mutex<BTreeMap<u64, u64>>,
    sync: Mutex<BTreeMap<u64, Value>>,
}

impl Seen {
    /// Asks, and checks that the answer is not of an older epoch than one that was answered before.
    async fn ask(&self, client: &Client, path: &str) -> (u64, Value) {
        let floor = self.newest.load(Ordering::SeqCst);
        let answer = client.data(path).await;
        let epoch = answer["epoch"].as_u64().unwrap();
        assert!(epoch >= floor, "{path}: epoch {epoch} after {floor}");
        self.newest.fetch_max(epoch, Ordering::SeqCst);
        (epoch, answer)
    }

    async fn read_summaries(self: Arc<Self>, client: Client, route: &'static str) -> u64 {
        let separator = if route.contains('?') { '&' } else { '?' };
        let path = format!("/api/v1{route}{separator}{RANGE}");
        let (mut rounds, mut last) = (0, 0);
        while !self.is_over.load(Ordering::Relaxed) {
            let (epoch, answer) = self.ask(&client, &path).await;
            let totals = sums(&answer["totals"]);
            assert!(totals[0] >= last, "{route}: {} runs after {last}", totals[0]);
            last = totals[0];
            let agreed = *self.runs.lock().unwrap().entry(epoch).or_insert(totals[0]);
            assert_eq!(totals[0], agreed, "{route}: epoch {epoch} has two numbers of runs");
            let buckets = answer["buckets"].as_array().unwrap();
            let found: BTreeMap<_, _> =
                buckets.iter().map(|bucket| (bucket["bucket"].as_str().unwrap().to_owned(), sums(bucket))).collect();
            assert_eq!(found, expected(totals[0], |at| label(route, at)), "{route}: epoch {epoch}");
            let all = found.values().fold([0; 4], |all: Sums, one| std::array::from_fn(|at| all[at] + one[at]));
            assert_eq!(all, totals, "{route}: epoch {epoch}");
            rounds += 1;
        }
        rounds
    }

    async fn read_sync_status(self: Arc<Self>, client: Client) -> u64 {
        let mut rounds = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let (epoch, answer) = self.ask(&client, "/api/v1/sync-status").await;
            assert_eq!(answer["pipelines"][0]["epoch"], epoch);
            self.sync.lock().unwrap().insert(epoch, answer["jobs"].clone());
            rounds += 1;
        }
        rounds
    }

    /// Whether an epoch with so many runs or more was answered by summaries and by sync status.
    fn has_both(&self, least: u64) -> bool {
        let (runs, sync) = (self.runs.lock().unwrap(), self.sync.lock().unwrap());
        runs.iter().any(|(epoch, runs)| *runs >= least && sync.contains_key(epoch))
    }

    /// Sync status of each epoch is that of as many runs as its summaries count.
    fn compare_sync_status(&self) -> usize {
        let (runs, sync) = (self.runs.lock().unwrap(), self.sync.lock().unwrap());
        let both = sync.iter().filter_map(|(epoch, jobs)| Some((epoch, jobs, *runs.get(epoch)?)));
        both.map(|(epoch, jobs, num)| {
            let found: Vec<_> = jobs
                .as_array()
                .unwrap()
                .iter()
                .map(|job| json!([job["job"], job["last_run_id"], job["last_status"], job["consecutive_failures"]]))
                .collect();
            assert_eq!(found, sync_status(num), "epoch {epoch} of {num} runs");
        })
        .count()
    }
}

/// Job, its last run, how that went, and failures since the last success, after the first `num` runs.
fn sync_status(num: u64) -> Vec<Value> {
    let mut by_job: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for n in 0..num {
        let (id, job, has_failed, started_at) = run(n);
        by_job.entry(job).or_default().push((started_at, id, has_failed));
    }
    let status = |(job, mut runs): (String, Vec<(DateTime<Utc>, String, bool)>)| {
        runs.sort();
        let (_, id, has_failed) = runs.last().unwrap();
        let failures = runs.iter().rev().take_while(|run| run.2).count();
        json!([job, id, if *has_failed { "failed" } else { "completed" }, failures])
    };
    by_job.into_iter().map(status).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn summaries_and_sync_status_of_one_epoch_agree_while_events_are_written() {
    let folder = Folder::new();
    let key = folder.account("ada", "operator").await;
    let mut karat = folder.start("up", &["up", "--listen", "127.0.0.1:0", "--without-limits"]);
    let url = karat.url().await;
    let ada = Client::log_in(&url, "ada", PASSWORD).await;
    let seen = Arc::new(Seen::default());
    let mut readers = vec![tokio::spawn(Arc::clone(&seen).read_sync_status(ada.clone()))];
    readers.extend(ROUTES.map(|route| tokio::spawn(Arc::clone(&seen).read_summaries(ada.clone(), route))));

    let publisher = Client::new(&url, &key);
    for batch in 0..BATCHES {
        let events: Vec<Value> = (batch * BATCH..(batch + 1) * BATCH).map(event).collect();
        // Some epochs have one batch, others what came while they were made.
        let query = if batch % 3 == 0 { "?wait=gold" } else { "" };
        let answer = publisher.publish(&events, query).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        assert!(!readers.iter().any(|reader| reader.is_finished()), "a reader failed while batch {batch} was written");
        if batch % 3 == 0 {
            // Readers that are slower than the pipeline would see few of the epochs.
            until("readers have come so far", async || {
                assert!(!readers.iter().any(|reader| reader.is_finished()), "a reader failed");
                seen.has_both((batch + 1) * BATCH).then_some(())
            })
            .await;
        }
    }
    let last = until("a reader has every run", async || {
        assert!(!readers.iter().any(|reader| reader.is_finished()), "a reader failed");
        let runs = seen.runs.lock().unwrap();
        runs.last_key_value().filter(|(_, runs)| **runs == BATCHES * BATCH).map(|(epoch, _)| *epoch)
    });
    let last = last.await;
    until("sync status has the last epoch", async || seen.sync.lock().unwrap().contains_key(&last).then_some(())).await;
    seen.is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0, "a reader had no answer");
    }
    let num_epochs = seen.runs.lock().unwrap().len();
    let num_compared = seen.compare_sync_status();
    assert!(num_epochs > 10 && num_compared > 5, "{num_epochs} epochs were seen, {num_compared} of them by all routes");
    karat.stop().await;
}
