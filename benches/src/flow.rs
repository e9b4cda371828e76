//! The log, the bronze writer and a pipeline in one process: the product's own path, without the HTTP door.
//!
//! Progress is seen as any reader sees it: an epoch is announced on the log, and its manifest says which offsets it
//! covers. So a measured time ends when the figures can be read, not when a call returns.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use karat_eventlog::{
    Consumer, ConsumerSettings, EventLog, Headers, NewRecord, PollLimits, StartPositions, embedded::EmbeddedLog,
};
use karat_lake::{Lake, epochs::Epochs};
use karat_schemas::{
    COMMITS_TOPIC, attributes,
    epoch::{Epoch, Notice},
    pipelines::{self, Pipelines},
};
use karat_transform::{
    bronze::BronzeSettings,
    checkpoint::CheckpointSettings,
    maintenance::MaintenanceSettings,
    worker::{self, WorkerSettings},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{Error, Result};

/// An epoch that does not come within this is a failure, not a slow machine.
const LONGEST_STEP: Duration = Duration::from_secs(120);

/// An open log and lake in one folder, for pipelines of one topic.
pub struct Flow {
    pub log: Arc<EmbeddedLog>,
    pub lake: Lake,
    pipelines: Arc<Pipelines>,
    state_folder: PathBuf,
}

/// A worker that runs.
pub struct Running {
    stop: watch::Sender<bool>,
    worker: JoinHandle<karat_transform::Result<()>>,
    _commands: mpsc::Sender<worker::Command>,
    notices: Box<dyn Consumer>,
    pipeline: String,
    epochs: Epochs,
    last: Epoch,
}

impl Flow {
    /// Opens, or makes, everything below `folder`; `text` is a pipelines file whose first pipeline is measured.
    pub async fn open(folder: &Path, text: &str) -> Result<Self> {
        let pipelines = pipelines::parse(text)?;
        if pipelines.pipelines.is_empty() {
            return Err(Error::Usage("the pipelines file declares no pipeline".to_owned()));
        }
        let log_folder = folder.join("log");
        let log = tokio::task::spawn_blocking(move || EmbeddedLog::open(log_folder)).await??;
        let flow = Self {
            log: Arc::new(log),
            lake: Lake::at(&folder.join("lake").to_string_lossy())?,
            pipelines: Arc::new(pipelines),
            state_folder: folder.join("state"),
        };
        worker::ensure_topics(flow.log.as_ref(), &flow.pipelines).await?;
        Ok(flow)
    }

    /// The topic of the measured pipeline.
    pub fn topic(&self) -> &str {
        &self.pipelines.pipelines[0].topic
    }

    /// Puts one record a line into the log.
    pub async fn append(&self, event_type: &str, lines: Vec<Bytes>) -> Result<()> {
        let headers = Headers::from_pairs([(attributes::CE_TYPE, event_type.as_bytes())]);
        let record = |payload| NewRecord { key: None, headers: headers.clone(), payload };
        self.log.append(self.topic(), lines.into_iter().map(record).collect()).await?;
        Ok(())
    }

    /// Starts the worker. What the log holds already is processed at once.
    pub async fn start(&self, bronze: BronzeSettings) -> Result<Running> {
        let settings = WorkerSettings {
            lake: self.lake.clone(),
            log: self.log.clone(),
            state_folder: self.state_folder.clone(),
            pipelines: Arc::clone(&self.pipelines),
            bronze,
            checkpoints: Some(CheckpointSettings::default()),
            maintenance: MaintenanceSettings::default(),
            group: "benches".to_owned(),
        };
        let from_the_end = ConsumerSettings {
            group: "benches.notices".to_owned(),
            topic: COMMITS_TOPIC.to_owned(),
            start: Arc::new(FromTheEnd(self.log.clone())),
        };
        let notices = self.log.consumer(from_the_end).await?;
        let (stop, stopped) = watch::channel(false);
        let (commands, orders) = mpsc::channel(1);
        let pipeline = self.pipelines.pipelines[0].name.clone();
        let epochs = Epochs::of(&self.lake, &pipeline)?;
        let last = epochs.latest().await?.unwrap_or_default();
        let worker = tokio::spawn(worker::run(settings, stopped, orders));
        Ok(Running { stop, worker, _commands: commands, notices, pipeline, epochs, last })
    }

    /// Closes the log, which waits for the disk.
    pub async fn close(self) -> Result<()> {
        let log = self.log;
        Ok(tokio::task::spawn_blocking(move || drop(log)).await?)
    }
}

impl Running {
    /// Waits until an epoch covers the first `num_events` of the topic.
    pub async fn processed(&mut self, num_events: u64) -> Result<()> {
        while covered(&self.last) < num_events {
            let limits = PollLimits { max_records: 1_000, max_bytes: 1 << 20, max_wait: LONGEST_STEP };
            let polled = tokio::select! {
                polled = self.notices.poll(limits) => polled?,
                ended = &mut self.worker => return Err(ended_early(ended?)),
            };
            if polled.records.is_empty() {
                let (seconds, done) = (LONGEST_STEP.as_secs(), covered(&self.last));
                let message = format!("no epoch within {seconds} s: {done} of {num_events} events are processed");
                return Err(Error::WrongResult(message));
            }
            let newest = polled.records.iter().filter_map(|record| self.epoch_of(&record.payload)).max();
            if let Some(newest) = newest.filter(|newest| *newest > self.last.epoch)
                && let Some(epoch) = self.epochs.get(newest).await?
            {
                self.last = epoch;
            }
        }
        Ok(())
    }

    /// The newest epoch seen.
    pub fn epoch(&self) -> &Epoch {
        &self.last
    }

    /// Stops the worker and waits for it.
    pub async fn finish(self) -> Result<()> {
        let _ = self.stop.send(true);
        Ok(self.worker.await??)
    }

    fn epoch_of(&self, notice: &[u8]) -> Option<u64> {
        match serde_json::from_slice(notice).ok()? {
            Notice::Epoch { pipeline, epoch } if pipeline == self.pipeline => Some(epoch),
            Notice::Epoch { .. } | Notice::Bronze { .. } => None,
        }
    }
}

/// Events that an epoch covers. Offsets of the embedded log have no gaps, so next offsets count them.
fn covered(epoch: &Epoch) -> u64 {
    epoch.positions.values().map(|next| next.unsigned_abs()).sum()
}

fn ended_early(result: karat_transform::Result<()>) -> Error {
    match result {
        Ok(()) => Error::WrongResult("the worker stopped by itself".to_owned()),
        Err(error) => error.into(),
    }
}

/// Notices of earlier runs say nothing new.
struct FromTheEnd(Arc<EmbeddedLog>);

#[async_trait]
impl StartPositions for FromTheEnd {
    async fn next_offsets(&self, topic: &str, _: &[u32]) -> karat_eventlog::Result<BTreeMap<u32, i64>> {
        let info = self.0.topic(topic).await?;
        Ok((0..).zip(info.partitions.iter().map(|partition| partition.end)).collect())
    }
}
