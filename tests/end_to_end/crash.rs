//! SIGKILL while events come in, and ends at named points: what was acknowledged is there, once.

use std::time::Duration;

use crate::{
    client::Client,
    judged::{Judged, publish_until_gone},
};

const KILLS: u64 = 4;

/// Where the process aborts, in the order of an event's life, and then of maintenance. Passings are counted from the start of
/// the process.
#[cfg(debug_assertions)]
const POINTS: [&str; 10] = [
    "file.after@bronze:2",
    "commit.after@bronze:2",
    "bronze.told:2",
    "step.computed:2",
    "commit.after@/gold/:9",
    "step.committed:2",
    "step.published:2",
    "step.applied:2",
    "clean.files@gold",
    "checkpoint.after",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_and_counts_once() {
    let mut judged = Judged::new().await;
    for round in 0..KILLS {
        let mut karat = judged.folder.start(&format!("round-{round}"), &["up", "--listen", "127.0.0.1:0"]);
        let client = Client::new(&karat.url().await, &judged.key);
        let publishing = tokio::spawn(publish_until_gone(client, judged.next, ""));
        // From the middle of a start to the middle of the work.
        tokio::time::sleep(Duration::from_millis(150 + 700 * round)).await;
        karat.kill();
        judged.note_all(publishing.await.unwrap());
    }
    judged.end().await;
}

/// Where the process aborts while it makes one file of many: of silver after 64 steps, of bronze after 128 commits.
#[cfg(debug_assertions)]
const MERGING: [&str; 4] = [
    "exchange.before@silver/run_events",
    "exchange.after@silver/run_events",
    "merge.before@bronze",
    "merge.after@bronze",
];

/// As long as nothing passes a point: merging needs 128 commits.
#[cfg(debug_assertions)]
const PATIENCE: Duration = Duration::from_secs(900);

/// Dies at each of the points in turn, while `query` says how events are published.
#[cfg(debug_assertions)]
async fn die_at(points: &[&str], query: &str) {
    let mut judged = Judged::new().await;
    for (round, spot) in points.iter().enumerate() {
        let variables = [("KARAT_CRASH_AT", *spot)];
        // Maintenance runs every two seconds.
        let words = ["up", "--listen", "127.0.0.1:0", "--keep-versions", "12"];
        let mut karat = judged.folder.start_with(&format!("point-{round}"), &words, &variables);
        let client = Client::new(&karat.url().await, &judged.key);
        let publishing = publish_until_gone(client, judged.next, query);
        let told = tokio::time::timeout(PATIENCE, publishing).await;
        let told = told.unwrap_or_else(|_| panic!("nothing passed `{spot}`\n{}", karat.err()));
        judged.note_all(told);
        karat.ended().await;
    }
    judged.end().await;
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_at_any_point_loses_nothing_and_counts_nothing_twice() {
    die_at(&POINTS, "").await;
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_while_it_merges_files_loses_nothing_and_counts_nothing_twice() {
    die_at(&MERGING, "?wait=gold").await;
}
