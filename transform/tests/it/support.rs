//! A worker over an embedded log in a temporary folder.

use std::{io::Read, sync::Arc, time::Duration};

use karat_eventlog::{EventLog, Headers, NewRecord, embedded::EmbeddedLog};
use karat_lake::{
    Lake,
    arrow::{
        array::RecordBatch,
        compute::concat_batches,
        util::display::{ArrayFormatter, FormatOptions},
    },
    epochs::Epochs,
};
use karat_schemas::{
    attributes as names,
    epoch::Epoch,
    pipelines::{self, Pipeline},
};
use karat_transform::{
    bronze::BronzeSettings,
    checkpoint::CheckpointSettings,
    maintenance::MaintenanceSettings,
    runner::{Runner, RunnerSettings},
    step::StepCounts,
    verify::{TableReport, verify},
    worker::{self, Command, WorkerSettings},
};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

/// Enough for a development build on a busy machine; nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(300);

pub struct World {
    folder: tempfile::TempDir,
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
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(folder.path().join("log")).unwrap());
        let pipelines = Arc::new(pipelines::parse(declaration).map_err(|problems| problems.to_string()).unwrap());
        let settings = WorkerSettings {
            lake: Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap(),
            log,
            state_folder: folder.path().join("state"),
            pipelines,
            bronze: BronzeSettings { max_latency: Duration::from_millis(20), ..BronzeSettings::default() },
            checkpoints: Some(CheckpointSettings::default()),
            maintenance: MaintenanceSettings::default(),
            group: "test".to_owned(),
        };
        worker::ensure_topics(settings.log.as_ref(), &settings.pipelines).await.unwrap();
        Self { folder, settings }
    }

    /// Takes another declaration for the next worker.
    pub fn redeclare(&mut self, declaration: &str) {
        let pipelines = pipelines::parse(declaration).map_err(|problems| problems.to_string()).unwrap();
        self.settings.pipelines = Arc::new(pipelines);
    }

    /// Everything of this world is below it.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn start(&self) -> Running {
        self.start_on(&Handle::current())
    }

    /// Starts the worker on a runtime of the caller, who can drop that with everything in it.
    pub fn start_on(&self, runtime: &Handle) -> Running {
        start_on(self.settings.clone(), runtime)
    }

    pub fn pipeline(&self) -> &Pipeline {
        &self.settings.pipelines.pipelines[0]
    }

    pub async fn publish(&self, records: Vec<NewRecord>) {
        for part in records.chunks(500) {
            self.settings.log.append(&self.pipeline().topic, part.to_vec()).await.unwrap();
        }
    }

    /// Waits until the pipeline's epoch covers everything in the log.
    pub async fn settled(&self, running: &Running) -> Epoch {
        let pipeline = self.pipeline();
        let epochs = self.epochs();
        let info = self.settings.log.topic(&pipeline.topic).await.unwrap();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            if running.is_over() {
                panic!("the worker ended: {:?}", self.text("_karat.event_log", &["at", "kind", "message"]).await);
            }
            if let Some(epoch) = epochs.latest().await.unwrap() {
                let covers = epoch.covers();
                let is_covered = |(partition, range): (usize, &karat_eventlog::PartitionRange)| {
                    let position = covers.get(&u32::try_from(partition).unwrap()).copied().unwrap_or(0);
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

    /// The rows of a table as text, the given columns separated by `|`, sorted.
    pub async fn text(&self, table: &str, columns: &[&str]) -> Vec<String> {
        let rows = self.rows(table).await;
        let options = FormatOptions::new().with_null("NULL");
        let cells: Vec<ArrayFormatter<'_>> = columns
            .iter()
            .map(|name| rows.column_by_name(name).unwrap_or_else(|| panic!("`{table}` has no column `{name}`")))
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        let line = |row| cells.iter().map(|cell| cell.value(row).to_string()).collect::<Vec<_>>().join("|");
        let mut lines: Vec<String> = (0..rows.num_rows()).map(line).collect();
        lines.sort();
        lines
    }

    pub fn epochs(&self) -> Epochs {
        Epochs::of(&self.settings.lake, &self.pipeline().name).unwrap()
    }

    /// What became of every event of bronze, counted by a run of its own over tables of its own.
    pub async fn recount(&self) -> StepCounts {
        let scratch = tempfile::tempdir().unwrap();
        let settings = RunnerSettings {
            tables: Lake::at(scratch.path().join("tables").to_str().unwrap()).unwrap(),
            state_folder: scratch.path().join("state"),
            generation: 0,
            writes_epochs: false,
            publishes_later: false,
            ..self.settings.runner_settings(self.pipeline()).await.unwrap()
        };
        let mut runner = Runner::open(self.pipeline(), settings).await.unwrap();
        while runner.catch_up().await.unwrap() {}
        let counts = runner.totals().clone();
        runner.close().unwrap();
        counts
    }

    pub async fn verify(&self) -> Vec<TableReport> {
        let pipeline = self.pipeline();
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

/// Starts a worker with settings of its own.
pub fn start(settings: WorkerSettings) -> Running {
    start_on(settings, &Handle::current())
}

fn start_on(settings: WorkerSettings, runtime: &Handle) -> Running {
    let (stop, stopped) = watch::channel(false);
    let (commands, orders) = mpsc::channel(1);
    Running { stop, commands, task: runtime.spawn(worker::run(settings, stopped, orders)) }
}

impl Running {
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for its end by itself.
    pub async fn ended(self) -> karat_transform::Result<()> {
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap()
    }

    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap().unwrap();
    }

    /// Orders a replay; does not wait for it.
    pub async fn order_replay(&self, pipeline: &str) {
        let (done, ended) = oneshot::channel();
        // An order that nobody waits for is not carried out.
        tokio::spawn(ended);
        self.commands.send(Command::Replay { pipeline: pipeline.to_owned(), done }).await.unwrap();
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
    record(
        "io.openlineage.event",
        event["job"]["namespace"].as_str().unwrap(),
        &id,
        run,
        line,
        event["eventTime"].as_str(),
    )
}

/// One record of the log. `data` goes in as it is, also when it is no JSON.
pub fn record(
    event_type: &str,
    source: &str,
    id: &str,
    key: &str,
    data: impl AsRef<[u8]>,
    time: Option<&str>,
) -> NewRecord {
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
        payload: data.as_ref().to_vec().into(),
    }
}
