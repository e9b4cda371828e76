//! Executes the commands on `karat.commands` in the transform role.
//!
//! How far they are executed is remembered in a file; a crash before it is written executes a command twice, which has
//! the effect of once.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use karat_eventlog::{ConsumerSettings, EventLog, PollLimits, StartPositions};
use karat_schemas::{COMMANDS_TOPIC, command};
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
                Ok(command::Command::Replay { pipeline }) => {
                    let (done, finished) = oneshot::channel();
                    if orders.send(Command::Replay { pipeline, done }).await.is_err() {
                        return Ok(());
                    }
                    tokio::select! {
                        _ = finished => {}
                        _ = stop.wait_for(|stop| *stop) => return Ok(()),
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
