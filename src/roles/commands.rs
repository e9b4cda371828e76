//! Executes the commands on `karat.commands` in the transform role.
//!
//! The outcome of a command is written in the lake, for whoever gave it, and then how far they are executed in a file. A
//! crash before the outcome is written executes a command twice, which has the effect of once.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use karat_eventlog::{ConsumerSettings, EventLog, PollLimits, StartPositions};
use karat_lake::outcomes::Outcomes;
use karat_schemas::{
    COMMANDS_TOPIC,
    command::{self, Outcome},
};
use karat_transform::{rebuild::write_durably, worker::Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::failure::Result;

struct FromFile(PathBuf);

#[async_trait]
impl StartPositions for FromFile {
    async fn next_offsets(&self, _topic: &str, _partitions: &[u32]) -> karat_eventlog::Result<BTreeMap<u32, i64>> {
        let bytes = std::fs::read(&self.0).unwrap_or_default();
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

/// Follows the commands until `stop`.
pub async fn follow(
    log: Arc<dyn EventLog>,
    folder: PathBuf,
    outcomes: Outcomes,
    orders: mpsc::Sender<Command>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("commands.json");
    let start = Arc::new(FromFile(path.clone()));
    let settings = ConsumerSettings { group: "karat-commands".to_owned(), topic: COMMANDS_TOPIC.to_owned(), start };
    let mut consumer = log.consumer(settings).await?;
    let limits = PollLimits { max_records: 10, max_bytes: 1 << 20, max_wait: Duration::from_secs(5) };
    loop {
        let polled = tokio::select! {
            polled = consumer.poll(limits) => polled?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        for record in polled.records {
            match serde_json::from_slice(&record.payload) {
                Ok(command) => {
                    let executed = tokio::select! {
                        biased;
                        _ = stop.wait_for(|stop| *stop) => return Ok(()),
                        executed = execute(command, &orders, &outcomes) => executed?,
                    };
                    if !executed {
                        // The worker is gone. It says why; the command is executed at the next start.
                        let _ = stop.wait_for(|stop| *stop).await;
                        return Ok(());
                    }
                }
                Err(error) => {
                    tracing::warn!(offset = record.offset, %error, "a command does not parse and is left out")
                }
            }
            let next = BTreeMap::from([(record.partition, record.offset + 1)]);
            let (path, bytes) = (path.clone(), serde_json::to_vec(&next)?);
            tokio::task::spawn_blocking(move || write_durably(&path, &bytes)).await??;
        }
    }
}

/// Executes a command and writes its outcome; false when there is no worker any more.
async fn execute(command: command::Command, orders: &mpsc::Sender<Command>, outcomes: &Outcomes) -> Result<bool> {
    let command::Command::Replay { pipeline, id } = command;
    if let Some(id) = &id
        && outcomes.get(id).await?.is_some()
    {
        return Ok(true);
    }
    let (done, finished) = oneshot::channel();
    if orders.send(Command::Replay { pipeline: pipeline.clone(), done }).await.is_err() {
        return Ok(false);
    }
    let Ok(result) = finished.await else { return Ok(false) };
    if let Some(id) = id {
        let ended_at_us = chrono::Utc::now().timestamp_micros();
        let failure = result.err().map(|error| error.for_clients());
        outcomes.put(&Outcome { id, pipeline, ended_at_us, failure }).await?;
    }
    Ok(true)
}
