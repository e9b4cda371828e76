//! A worker over an embedded log in a temporary folder.

use std::{io::Read, sync::Arc, time::Duration};

use karat_eventlog::{EventLog, Headers, NewRecord, embedded::EmbeddedLog};
use karat_lake::{
    Lake,
    arrow::{array::RecordBatch, compute::concat_batches},
    epochs::Epochs,
};
use karat_schemas::{attributes as names, epoch::Epoch, pipelines};
use karat_transform::{
    bronze::BronzeSettings,
    verify::{TableReport, verify},
    worker::{self, Command, WorkerSettings},
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub struct World {
    pub folder: tempfile::TempDir,
    pub settings: WorkerSettings,
}

/// A worker that runs.
pub struct Running {
    stop: watch::Sender<bool>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<karat_transform::Result<()>>,
}

impl World {
    pub async fn new(declaration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&folder.path().join("log")).unwrap());
        let pipelines = Arc::new(pipelines::parse(declaration).map_err(|problems| problems.to_string()).unwrap());
        let settings = WorkerSettings {
            lake: Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap(),
            log,
            state_folder: folder.path().join("state"),
            pipelines,
            bronze: BronzeSettings { max_latency: Duration::from_millis(20), ..BronzeSettings::default() },
            group: "test".to_owned(),
        };
        worker::ensure_topics(settings.log.as_ref(), &settings.pipelines).await.unwrap();
        Self { folder, settings }
    }

    pub fn start(&self) -> Running {
        let (stop, stopped) = watch::channel(false);
        let (commands, orders) = mpsc::channel(1);
        Running { stop, commands, task: tokio::spawn(worker::run(self.settings.clone(), stopped, orders)) }
    }

    pub async fn publish(&self, records: Vec<NewRecord>) {
        for part in records.chunks(500) {
            self.settings.log.append("karat.events", part.to_vec()).await.unwrap();
        }
    }

    /// Waits until the pipeline's epoch covers everything in the log.
    pub async fn settled(&self, running: &Running) -> Epoch {
        let pipeline = &self.settings.pipelines.pipelines[0];
        let epochs = Epochs::of(&self.settings.lake, &pipeline.name).unwrap();
        let info = self.settings.log.topic(&pipeline.topic).await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
        loop {
            assert!(!running.task.is_finished(), "the worker ended");
            if let Some(epoch) = epochs.latest().await.unwrap() {
                let is_covered = |(partition, range): (usize, &karat_eventlog::PartitionRange)| {
                    let position = epoch.positions.get(&u32::try_from(partition).unwrap()).copied().unwrap_or(0);
                    position >= range.end
                };
                if info.partitions.iter().enumerate().all(is_covered) {
                    return epoch;
                }
            }
            assert!(tokio::time::Instant::now() < deadline, "not settled in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn rows(&self, table: &str) -> RecordBatch {
        let table = self.settings.lake.open(table).await.unwrap();
        concat_batches(table.schema(), &table.read_all().await.unwrap()).unwrap()
    }

    pub async fn verify(&self) -> Vec<TableReport> {
        let pipeline = &self.settings.pipelines.pipelines[0];
        let settings = self.settings.runner_settings(pipeline).await.unwrap();
        let scratch = tempfile::tempdir().unwrap();
        verify(pipeline, &settings, scratch.path()).await.unwrap()
    }

    pub async fn assert_verified(&self) {
        for report in self.verify().await {
            assert_eq!(report.differences, 0, "{report:?}");
        }
    }
}

impl Running {
    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap().unwrap();
    }

    pub async fn replay(&self, pipeline: &str) {
        let (done, finished) = oneshot::channel();
        self.commands.send(Command::Replay { pipeline: pipeline.to_owned(), done }).await.unwrap();
        finished.await.unwrap().unwrap();
    }
}

/// The recorded OpenLineage events, as the door would log them.
pub fn airline() -> Vec<NewRecord> {
    let compressed = include_bytes!("../../../examples/openlineage-airline.ndjson.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut text).unwrap();
    text.lines().enumerate().map(|(index, line)| lineage(index, line)).collect()
}

fn lineage(index: usize, line: &str) -> NewRecord {
    let event: Value = serde_json::from_str(line).unwrap();
    let id = format!("event-{index}");
    let run = event["run"]["runId"].as_str().unwrap();
    record("io.openlineage.event", event["job"]["namespace"].as_str().unwrap(), &id, run, line, event["eventTime"].as_str())
}

pub fn record(event_type: &str, source: &str, id: &str, key: &str, data: &str, time: Option<&str>) -> NewRecord {
    let mut headers = vec![
        (names::CE_TYPE, event_type.as_bytes()),
        (names::CE_SOURCE, source.as_bytes()),
        (names::CE_ID, id.as_bytes()),
        (names::PUBLISHER, b"tester".as_slice()),
    ];
    headers.extend(time.map(|time| (names::CE_TIME, time.as_bytes())));
    NewRecord {
        key: Some(key.to_owned().into()),
        headers: Headers::from_pairs(headers),
        payload: data.to_owned().into(),
    }
}
