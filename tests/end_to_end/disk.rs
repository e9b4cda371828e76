//! A full disk: everything lies on a small disk of its own, which is filled under load and emptied again.
//!
//! Without a disk of its own ([`crate::disks`]) the test says so and ends.

use std::time::Duration;

use karat_oracle::Outcome;
use serde_json::{Value, json};

use crate::{
    client::{Client, http, run_event},
    judged::{BATCH, Judged, answer_of},
    process::PASSWORD,
    wait::until,
};

/// Sends events and keeps what was said of them; the status.
async fn publish(judged: &mut Judged, client: &Client) -> u16 {
    let numbers = judged.next..judged.next + BATCH;
    let events: Vec<Value> = numbers.clone().map(run_event).collect();
    let (status, answer) = answer_of(client, &events, "").await.unwrap();
    let outcome = match status.as_u16() {
        202 => Outcome::Acknowledged,
        503 => Outcome::Unknown,
        other => panic!("{other} {answer}"),
    };
    judged.note_all(numbers.map(|number| (number, outcome)).collect());
    status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_events_keeps_what_it_took_and_serves_what_it_has() {
    let mut judged = Judged::on_disk(384).await;
    if judged.disk.is_none() {
        eprintln!("skipped: a disk of its own needs root, a loop device, mkfs.ext4 and perl");
        return;
    }
    for round in 0..2 {
        let mut karat = judged.folder.start(&format!("full-{round}"), &["up", "--listen", "127.0.0.1:0"]);
        let url = karat.url().await;
        let client = Client::new(&url, &judged.key);
        let ada = Client::log_in(&url, "ada", PASSWORD).await;
        assert_eq!(publish(&mut judged, &client).await, 202);
        until("the events are served", async || {
            let totals = &ada.data("/api/v1/summary?from=2026-05-04&to=2026-05-04").await["totals"];
            (totals["runs"].as_u64()? > 0).then_some(())
        })
        .await;
        // The room between the files of the log is used up bit by bit.
        let mut refused = 0;
        until("the door refuses events", async || {
            judged.disk.as_ref().unwrap().fill();
            refused += u32::from(publish(&mut judged, &client).await == 503);
            (refused == 3).then_some(())
        })
        .await;
        let totals = &ada.data("/api/v1/summary?from=2026-05-04&to=2026-05-04").await["totals"];
        assert!(totals["runs"].as_u64().unwrap() > 0, "what is there is served");
        // The database may have room in its own files; what is said must be true.
        let name = format!("bob_{round}");
        let words = ["user", "create", "--username", &name, "--role", "user", "--password-stdin"];
        let is_made = judged.folder.run_with(&words, &format!("{PASSWORD}\n")).await.code == 0;
        // A log-in writes too; this one may be refused.
        let body = json!({"username": "ada", "password": PASSWORD});
        http().post(format!("{url}/api/v1/auth/login")).json(&body).send().await.unwrap();
        karat.assert_alive();
        judged.disk.as_ref().unwrap().empty();
        Client::log_in(&url, "ada", PASSWORD).await;
        let body = json!({"username": name, "password": PASSWORD});
        let answer = http().post(format!("{url}/api/v1/auth/login")).json(&body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), if is_made { 200 } else { 401 }, "{name}");
        // What the log had taken goes on to gold by itself.
        until("bronze has what was acknowledged", async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let verdict = judged.judge(None).await;
            verdict.lost.is_empty().then_some(())
        })
        .await;
        karat.stop().await;
        assert_eq!(judged.folder.run(&["table", "fsck"]).await.ok(), "nothing is damaged");
    }
    judged.end().await;
}
