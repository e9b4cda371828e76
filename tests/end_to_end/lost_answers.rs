//! A broker whose answers get lost, come late or not at all: nothing is doubled, memory is bounded, and it heals by itself.

use std::time::Duration;

use karat_oracle::{Outcome, Proxy, Weather};
use serde_json::Value;

use crate::{
    client::run_event,
    fleet::{Fleet, broker},
    judged::BATCH,
    wait::until,
};

async fn waits_for(proxy: &Proxy, lost: u64) {
    let least = proxy.lost() + lost;
    until("answers are lost", async || (proxy.lost() >= least).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_cut_connections_double_nothing() {
    let Some(broker) = broker() else { return };
    let proxy = Proxy::open(&broker).await.unwrap();
    let mut fleet = Fleet::new(&proxy.address(), &proxy.address()).await;
    fleet.start(0);
    fleet.start(1);
    fleet.drain("at first").await;
    for weather in [
        Weather::LosesAnswers { one_in: 3 },
        Weather::Resets { one_in: 25 },
        Weather::LosesAnswers { one_in: 1 },
        Weather::Slow(Duration::from_millis(150)),
    ] {
        let load = fleet.load();
        proxy.set(weather);
        match weather {
            Weather::Slow(_) => tokio::time::sleep(Duration::from_secs(3)).await,
            _ => waits_for(&proxy, 10).await,
        }
        proxy.set(Weather::Fair);
        let told = load.end().await;
        fleet.judged.note_all(told);
        fleet.drain(&format!("after {weather:?}")).await;
    }
    fleet.end().await;
}

/// Requests at once while nothing answers, and how often: more bytes altogether than the process may take.
const REQUESTS: u64 = 600;
const WAVES: u64 = 5;
const MOST_BYTES: u64 = 512 << 20;

/// A batch from this number on.
fn large_events(first: u64) -> Vec<Value> {
    let mut events: Vec<Value> = (first..first + BATCH).map(run_event).collect();
    for event in &mut events {
        event["data"]["error"] = Value::from("x".repeat(9_000));
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_is_said_in_the_answer_and_costs_no_memory() {
    let Some(broker) = broker() else { return };
    let proxy = Proxy::open(&broker).await.unwrap();
    let mut fleet = Fleet::new(&proxy.address(), &proxy.address()).await;
    fleet.start(0);
    fleet.drain("at first").await;
    let before = fleet.ingest.memory();
    proxy.set(Weather::Stalled);
    let (mut sent, mut most) = (0, 0);
    for _ in 0..WAVES {
        // Made before anything is sent: the door waits only so long for the head of a request.
        let requests = (0..REQUESTS).map(|request| large_events(fleet.judged.next + request * BATCH));
        let requests: Vec<Vec<Value>> = requests.collect();
        let mut asking = tokio::task::JoinSet::new();
        for events in requests {
            let client = fleet.client.clone();
            asking.spawn(async move {
                let answer = client.publish(&events, "").await.unwrap();
                let retry = answer.headers().get("retry-after").is_some();
                (events, answer.status().as_u16(), retry)
            });
        }
        while let Some(answered) = asking.join_next().await {
            let (events, status, has_retry_after) = answered.unwrap();
            assert!(status == 503 && has_retry_after, "{status}");
            most = most.max(fleet.ingest.memory());
            for event in events {
                let text = |name: &str| event[name].as_str().unwrap();
                let payload = event["data"].to_string();
                sent += payload.len() as u64;
                fleet.judged.ledger.note("big", text("source"), text("id"), payload.as_bytes(), Outcome::Unknown);
            }
        }
        fleet.judged.next += REQUESTS * BATCH;
    }
    // The log's queue takes 128 MiB, and bodies in flight their budget.
    assert!(sent > MOST_BYTES && most < before + MOST_BYTES, "{sent} bytes sent, from {before} to {most} bytes");
    proxy.set(Weather::Fair);
    fleet.drain("it goes on").await;
    fleet.end().await;
}
