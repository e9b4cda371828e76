//! Power cuts: everything lies on an ext4 file system of its own, which is shut down under load as a power cut would, and
//! mounted again. What was acknowledged is there.
//!
//! Without a disk of its own ([`crate::disks`]) the test says so and ends.

use std::time::Duration;

use karat_oracle::Outcome;
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    disks::Cut,
    judged::{BATCH, Judged, answer_of},
    process::PASSWORD,
};

/// Cuts, and how long after the last answer: ext4 writes its journal by itself every five seconds.
const CUTS: [(Cut, Duration); 4] = [
    (Cut::AtOnce, Duration::ZERO),
    (Cut::FlushingJournal, Duration::ZERO),
    (Cut::AtOnce, Duration::from_secs(7)),
    (Cut::AtOnce, Duration::from_millis(300)),
];

/// Publishes until there is no acknowledgement any more, or told to stop.
async fn publish_until_cut(
    client: Client,
    mut next: u64,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Vec<(u64, Outcome)> {
    let mut told = Vec::new();
    while !*stop.borrow() {
        let numbers = next..next + BATCH;
        let events: Vec<Value> = numbers.clone().map(run_event).collect();
        next += BATCH;
        let answer = answer_of(&client, &events, "").await;
        let outcome = match &answer {
            Some((status, answer)) if status.as_u16() == 202 && answer["data"]["accepted"] == BATCH => {
                Outcome::Acknowledged
            }
            _ => Outcome::Unknown,
        };
        told.extend(numbers.map(|number| (number, outcome)));
        if outcome == Outcome::Unknown {
            break;
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_power_cuts() {
    let mut judged = Judged::on_disk(1024).await;
    if judged.disk.is_none() {
        eprintln!("skipped: a disk of its own needs root, a loop device, mkfs.ext4 and perl");
        return;
    }
    for (round, (cut, after)) in CUTS.into_iter().enumerate() {
        let mut karat = judged.folder.start(&format!("power-{round}"), &["up", "--listen", "127.0.0.1:0"]);
        let client = Client::new(&karat.url().await, &judged.key);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let publishing = tokio::spawn(publish_until_cut(client, judged.next, stopped));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let name = format!("user_{round}");
        let words = ["user", "create", "--username", &name, "--role", "user", "--password-stdin"];
        judged.folder.run_with(&words, &format!("{PASSWORD}\n")).await.ok();
        if after > Duration::ZERO {
            stop.send(true).unwrap();
            tokio::time::sleep(after).await;
        }
        judged.disk.as_ref().unwrap().cut(cut);
        karat.kill();
        judged.note_all(publishing.await.unwrap());
        judged.disk.as_ref().unwrap().start_again().await;
        let users = judged.folder.run(&["user", "list", "--format", "json"]).await.ok();
        assert!(users.contains(&name), "after {cut:?}: {users}");
        assert_eq!(judged.folder.run(&["table", "fsck"]).await.ok(), "nothing is damaged", "after {cut:?}");
    }
    judged.end().await;
}
