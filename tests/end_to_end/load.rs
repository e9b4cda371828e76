//! Publishing in the background, beside what a test does to the processes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use karat_oracle::Outcome;
use serde_json::Value;

use crate::{
    client::{Client, run_event},
    judged::{BATCH, answer_of},
    wait::until,
};

/// Batch after batch, each answered before the next, until it is ended.
pub struct Load {
    is_over: Arc<AtomicBool>,
    /// Requests that were acknowledged.
    acknowledged: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<(u64, Outcome)>>,
}

impl Load {
    /// Ends by itself with the first batch that is not acknowledged.
    pub fn until_unanswered(client: &Client, next: u64) -> Self {
        Self::start(client, next, Duration::from_millis(5), false)
    }

    pub fn whatever_the_answers(client: &Client, next: u64) -> Self {
        Self::start(client, next, Duration::from_millis(20), true)
    }

    fn start(client: &Client, mut next: u64, pause: Duration, goes_on: bool) -> Self {
        let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, taken, client) = (Arc::clone(&is_over), Arc::clone(&acknowledged), client.clone());
        let task = tokio::spawn(async move {
            let mut told = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let numbers = next..next + BATCH;
                next += BATCH;
                let events: Vec<Value> = numbers.clone().map(run_event).collect();
                let outcome = match answer_of(&client, &events, "").await {
                    Some((status, _)) if status.as_u16() == 202 => {
                        taken.fetch_add(1, Ordering::Relaxed);
                        Outcome::Acknowledged
                    }
                    // Nobody answered, or the log did not: nothing of it may be there, or all of it.
                    _ => Outcome::Unknown,
                };
                told.extend(numbers.map(|number| (number, outcome)));
                if outcome == Outcome::Unknown && !goes_on {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            told
        });
        Self { is_over, acknowledged, task }
    }

    /// Waits until some requests are acknowledged.
    pub async fn is_under_way(&self) {
        until("events are taken", async || (self.acknowledged.load(Ordering::Relaxed) >= 5).then_some(())).await;
    }

    /// Each event, and what was told of it.
    pub async fn end(self) -> Vec<(u64, Outcome)> {
        self.is_over.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
