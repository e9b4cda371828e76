//! The transform worker: bronze writers and pipelines, each a named task with one owner.
//!
//! Several workers share one lake and one log: partitions of the topics, and pipelines, each have one of them as owner
//! (`worker::ownership`).
//!
//! A pipeline that cannot go on waits alone (`worker::pipeline`), and so does bronze when its files fail
//! (`worker::ingestion`); any other failing task stops the others, and the error is the
//! worker's. On a stop, bronze commits what it collected, the pipelines take what bronze handed over, and every state
//! store is synced.

mod ingestion;
mod opening;
mod orders;
mod ownership;
mod pipeline;

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use karat_eventlog::{EventLog, TopicSpec};
use karat_lake::{Lake, epochs::Epochs};
use karat_schemas::{
    COMMANDS_TOPIC, COMMITS_TOPIC,
    pipelines::{Pipeline, Pipelines},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

pub(crate) use self::ownership::Owned;
use self::{
    ownership::Ownership,
    pipeline::{Order, PipelineTask},
};
use crate::{
    Error, Result,
    bronze::{BronzeBatch, BronzeSettings},
    checkpoint::CheckpointSettings,
    journal::{self, Entry, Journal, Kind},
    maintenance::{self, MaintenanceSettings},
    runner::RunnerSettings,
    shaper,
};

/// What a worker needs.
#[derive(Clone)]
pub struct WorkerSettings {
    pub lake: Lake,
    pub log: Arc<dyn EventLog>,
    /// Folder of the state stores.
    pub state_folder: PathBuf,
    pub pipelines: Arc<Pipelines>,
    pub bronze: BronzeSettings,
    /// When the state of a pipeline is written into the lake; never when none.
    pub checkpoints: Option<CheckpointSettings>,
    /// What is kept of the tables.
    pub maintenance: MaintenanceSettings,
    /// Consumer group.
    pub group: String,
}

/// An order to a running worker.
#[derive(Debug)]
pub enum Command {
    /// Rebuilds silver and gold of a pipeline from bronze; answers when the new tables are in place. Not begun when nobody
    /// waits for the answer any more.
    Replay { pipeline: String, done: oneshot::Sender<Result<()>> },
}

/// Bronze batches that may wait for a pipeline's shaper. With the group that is being shaped, the shaped one that waits
/// and the one that is being committed, this bounds the memory of the hand-over.
const HAND_OVER: usize = 2;
const SHAPED_AHEAD: usize = 1;

/// Partitions of the topic of the orders: the owner of one owns the pipelines whose names go to it. More than there are
/// processes, so that pipelines are spread.
const OWNERS: u32 = 32;

impl WorkerSettings {
    /// Where the pipeline reads and writes, at its newest epoch.
    pub async fn runner_settings(&self, pipeline: &Pipeline) -> Result<RunnerSettings> {
        let settings = runner_settings(pipeline, &self.pipelines, &self.lake, &self.state_folder).await?;
        Ok(RunnerSettings { checkpoints: self.checkpoints, ..settings })
    }
}

/// Where a pipeline reads and writes, at its newest epoch. Without checkpoints: those are the worker's.
pub async fn runner_settings(
    pipeline: &Pipeline,
    all: &Pipelines,
    lake: &Lake,
    state_folder: &Path,
) -> Result<RunnerSettings> {
    let epoch = Epochs::of(lake, &pipeline.name)?.latest().await?;
    Ok(RunnerSettings {
        lake: lake.clone(),
        tables: lake.clone(),
        state_folder: state_folder.join(&pipeline.name),
        generation: epoch.map_or(0, |epoch| epoch.generation),
        declared: declared_for(pipeline, all),
        writes_epochs: true,
        checkpoints: None,
        publishes_later: false,
        journal: Journal::off(),
    })
}

/// The declared event types, for the one pipeline of a topic that quarantines records of another type.
fn declared_for(pipeline: &Pipeline, all: &Pipelines) -> Option<Arc<HashSet<String>>> {
    let first_of_topic = all.pipelines.iter().find(|other| other.topic == pipeline.topic);
    let is_owner = first_of_topic.is_some_and(|first| first.name == pipeline.name);
    is_owner.then(|| Arc::new(all.events.iter().map(|event| event.event_type.clone()).collect()))
}

/// Creates the topics that the pipelines need.
pub async fn ensure_topics(log: &dyn EventLog, pipelines: &Pipelines) -> Result<()> {
    for topic in &pipelines.topics {
        let spec = TopicSpec { name: topic.name.clone(), partitions: topic.partitions, retention: topic.retention };
        log.ensure_topic(&spec).await?;
    }
    let hour = Some(Duration::from_secs(3600));
    log.ensure_topic(&TopicSpec { name: COMMITS_TOPIC.to_owned(), partitions: 1, retention: hour }).await?;
    let commands = TopicSpec { name: COMMANDS_TOPIC.to_owned(), partitions: OWNERS, retention: None };
    log.ensure_topic(&commands).await?;
    Ok(())
}

/// Runs until `stop` is true, or a task fails.
///
/// Boxed here, so that the engine is compiled once, in this crate, and not again in every binary that awaits it.
pub fn run(
    settings: WorkerSettings,
    stop: watch::Receiver<bool>,
    commands: mpsc::Receiver<Command>,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(run_tasks(settings, stop, commands))
}

async fn run_tasks(
    settings: WorkerSettings,
    stop: watch::Receiver<bool>,
    commands: mpsc::Receiver<Command>,
) -> Result<()> {
    ensure_topics(settings.log.as_ref(), &settings.pipelines).await?;
    let (journal, writer) = journal::start(&settings.lake);
    journal.note(Entry::new(Kind::Start).message(format_args!("version {}", env!("CARGO_PKG_VERSION"))));
    let result = run_pipelines(settings, stop, commands, &journal).await;
    journal.note(match &result {
        Ok(()) => Entry::new(Kind::Stop).state("done"),
        Err(error) => Entry::new(Kind::Stop).state("failed").message(error),
    });
    writer.close().await;
    result
}

async fn run_pipelines(
    settings: WorkerSettings,
    stop: watch::Receiver<bool>,
    commands: mpsc::Receiver<Command>,
    journal: &Journal,
) -> Result<()> {
    let mut ownership = Ownership::new(Arc::clone(&settings.log), &settings.lake, &settings.group).await?;
    let (mut claims, mut orders) = (Vec::new(), BTreeMap::new());
    for pipeline in &settings.pipelines.pipelines {
        let (order, orders_of_pipeline) = mpsc::channel(1);
        let claim = ownership.claim(pipeline, order.clone());
        orders.insert(pipeline.name.clone(), order);
        claims.push((pipeline, claim, orders_of_pipeline));
    }
    let member = ownership.join(stop.clone())?;
    let mut tasks: JoinSet<(String, Result<()>)> = JoinSet::new();
    let mut senders: BTreeMap<&str, Vec<mpsc::Sender<BronzeBatch>>> = BTreeMap::new();
    for (pipeline, claim, orders) in claims {
        let (sender, batches) = mpsc::channel(HAND_OVER);
        senders.entry(&pipeline.topic).or_default().push(sender);
        let (shaped, taken) = mpsc::channel(SHAPED_AHEAD);
        let declared = declared_for(pipeline, &settings.pipelines);
        let Some(owned) = member.owned.of(&pipeline.name) else { continue };
        let shaping = shaper::run(pipeline.clone(), declared, owned, batches, shaped);
        let name = format!("shaper {}", pipeline.name);
        tasks.spawn(async move { (name, shaping.await) });
        let task = PipelineTask::new(settings.clone(), pipeline.clone(), taken, orders, claim, journal.clone());
        let name = format!("pipeline {}", pipeline.name);
        tasks.spawn(async move { (name, task.run().await) });
    }
    let group = format!("{}-{}", settings.group, settings.lake.identity().await?);
    for (topic, senders) in senders {
        let settings = WorkerSettings { group: group.clone(), ..settings.clone() };
        let bronze = ingestion::run(settings, topic.to_owned(), senders, journal.clone(), stop.clone());
        let name = format!("bronze {topic}");
        tasks.spawn(async move { (name, bronze.await) });
    }
    let maintenance = maintenance::run(settings.clone(), member.owned.clone(), stop);
    tasks.spawn(async move { ("maintenance".to_owned(), maintenance.await) });
    let passing = tokio::spawn(pass_orders(commands, orders));
    let result = first_failure(&mut tasks, journal).await;
    passing.abort();
    // Only now: whoever takes over finds everything written.
    member.leave().await;
    result
}

async fn first_failure(tasks: &mut JoinSet<(String, Result<()>)>, journal: &Journal) -> Result<()> {
    while let Some(joined) = tasks.join_next().await {
        let (name, result) = joined?;
        if let Err(error) = result {
            tracing::error!(task = name, %error, "a transform task failed; the worker stops");
            journal.note(Entry::new(Kind::Failure).message(format_args!("{name}: {error}")));
            tasks.shutdown().await;
            return Err(error);
        }
        tracing::debug!(task = name, "stopped");
    }
    Ok(())
}

async fn pass_orders(mut commands: mpsc::Receiver<Command>, orders: BTreeMap<String, mpsc::Sender<Order>>) {
    while let Some(Command::Replay { pipeline, done }) = commands.recv().await {
        match orders.get(&pipeline) {
            Some(order) => {
                if let Err(refused) = order.send(done).await {
                    let _ = refused.0.send(Err(Error::UnknownPipeline(pipeline)));
                }
            }
            None => {
                let _ = done.send(Err(Error::UnknownPipeline(pipeline)));
            }
        }
    }
}
