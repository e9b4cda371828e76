//! The clock of the machine jumps under load, by decades and in both directions: nothing is lost, dropped as too old or put
//! aside as of the future, and bronze has no partition of another year.
//!
//! `libfaketime` moves the clock of a running process; without it the test says so and ends.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use chrono::{NaiveDate, Utc};
use karat_oracle::Outcome;
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    judged::{BATCH, Judged},
    process::Folder,
    wait::until,
};

/// A clock that a test sets, for the processes that are started with its variables.
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// Right at first; none without the library.
    pub fn new(folder: &Folder) -> Option<Self> {
        // Where Debian has it.
        let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
        let library = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())?;
        let clock = Self { library, offset: folder.path("offset") };
        clock.set(0);
        Some(clock)
    }

    /// So many days off.
    pub fn set(&self, days: i64) {
        // Whole at every moment.
        fs::write(self.offset.with_extension("new"), format!("{days:+}d\n")).unwrap();
        fs::rename(self.offset.with_extension("new"), &self.offset).unwrap();
    }

    pub fn variables(&self) -> [(&'static str, String); 4] {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.offset)),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

async fn publish(judged: &mut Judged, client: &Client) {
    let numbers = judged.next..judged.next + BATCH;
    let events: Vec<Value> = numbers.clone().map(run_event).collect();
    client.arrive(&events, "gold").await;
    judged.note_all(numbers.map(|number| (number, Outcome::Acknowledged)).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_loses_no_event_and_opens_no_partition_of_another_year() {
    let mut judged = Judged::new().await;
    let Some(clock) = Clock::new(&judged.folder) else {
        eprintln!("left out, because there is no libfaketime: Debian has it as `faketime`");
        return;
    };
    let variables = clock.variables();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut karat = judged.folder.start_with("jumping", &["up", "--listen", "127.0.0.1:0"], &variables);
    let client = Client::new(&karat.url().await, &judged.key);
    for days in [0, 26_000, -9_000, 0] {
        clock.set(days);
        for _ in 0..2 {
            publish(&mut judged, &client).await;
        }
    }
    for words in ["the clock of this machine jumped", "the clock of this machine is followed again"] {
        until(&format!("it says: {words}"), async || karat.err().contains(words).then_some(())).await;
    }
    karat.stop().await;
    let today = Utc::now().date_naive();
    let days: BTreeSet<NaiveDate> = fs::read_dir(judged.folder.path("data/lake/bronze/karat_events"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_prefix("ingest_date=")?.parse().ok())
        .collect();
    // Yesterday where midnight came meanwhile.
    let is_now = |day: &NaiveDate| (0..=1).contains(&(today - *day).num_days());
    assert!(!days.is_empty() && days.iter().all(is_now), "{days:?}");
    let put_aside = judged.folder.run(&["query", "SELECT count(*) AS n FROM quarantine.etl_runs", "--format", "json"]);
    assert_eq!(put_aside.await.json()[0]["n"], 0);
    judged.end().await;
}
