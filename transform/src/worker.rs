//! The transform worker: bronze writers and pipelines, each a named task with one owner.
//!
//! A failing task stops the others; the error is the worker's. On a stop, bronze commits what it collected, the
//! pipelines take what bronze handed over, and every state store is synced.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use karat_eventlog::{EventLog, TopicSpec};
use karat_lake::{Lake, epochs::Epochs};
use karat_schemas::{
    COMMANDS_TOPIC, COMMITS_TOPIC,
    epoch::Notice,
    pipelines::{Pipeline, Pipelines},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use crate::{
    Error, Result,
    bronze::{self, BronzeSettings, BronzeWriter},
    journal::{self, Entry, Journal, Kind, column_changes},
    rebuild,
    reference::Watch,
    runner::{Runner, RunnerSettings},
    shaper::{self, ShapedBatch},
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
    /// Consumer group.
    pub group: String,
}

/// An order to a running worker.
#[derive(Debug)]
pub enum Command {
    /// Rebuilds silver and gold of a pipeline from bronze; answers when the new tables are in place.
    Replay { pipeline: String, done: oneshot::Sender<Result<()>> },
}

/// Bronze batches that may wait for a pipeline's shaper. With the group that is being shaped, the shaped one that waits
/// and the one that is being committed, this bounds the memory of the hand-over.
const HAND_OVER: usize = 2;
const SHAPED_AHEAD: usize = 1;

/// How often a pipeline looks for versions that nobody told it of (spec L4).
const POLL: Duration = Duration::from_secs(1);

/// How often a pipeline looks whether the files of its reference tables changed.
const LOOK_AT_REFERENCES: Duration = Duration::from_secs(5);

impl WorkerSettings {
    /// Where the pipeline reads and writes, at its newest epoch.
    pub async fn runner_settings(&self, pipeline: &Pipeline) -> Result<RunnerSettings> {
        runner_settings(pipeline, &self.pipelines, &self.lake, &self.state_folder).await
    }
}

/// Where a pipeline reads and writes, at its newest epoch.
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
    log.ensure_topic(&TopicSpec { name: COMMANDS_TOPIC.to_owned(), partitions: 1, retention: None }).await?;
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
    let mut tasks: JoinSet<(String, Result<()>)> = JoinSet::new();
    let mut orders = BTreeMap::new();
    let topics: HashSet<&str> = settings.pipelines.pipelines.iter().map(|pipeline| pipeline.topic.as_str()).collect();
    for topic in topics {
        let mut senders = Vec::new();
        for pipeline in settings.pipelines.pipelines.iter().filter(|pipeline| pipeline.topic == topic) {
            let (sender, batches) = mpsc::channel(HAND_OVER);
            let (order, orders_of_pipeline) = mpsc::channel(1);
            senders.push(sender);
            orders.insert(pipeline.name.clone(), order);
            let (shaped, taken) = mpsc::channel(SHAPED_AHEAD);
            let declared = declared_for(pipeline, &settings.pipelines);
            let shaping = shaper::run(pipeline.clone(), declared, batches, shaped);
            let name = format!("shaper {}", pipeline.name);
            tasks.spawn(async move { (name, shaping.await) });
            let task = PipelineTask {
                settings: settings.clone(),
                pipeline: pipeline.clone(),
                batches: taken,
                orders: orders_of_pipeline,
                journal: journal.clone(),
            };
            let name = format!("pipeline {}", pipeline.name);
            tasks.spawn(async move { (name, task.run().await) });
        }
        let log = Arc::clone(&settings.log);
        let writer = BronzeWriter::open(topic, settings.bronze, log, &settings.lake, senders).await?;
        let (group, stop) = (settings.group.clone(), stop.clone());
        let name = format!("bronze {topic}");
        tasks.spawn(async move { (name, writer.run(&group, stop).await) });
    }
    let passing = tokio::spawn(pass_orders(commands, orders));
    let result = first_failure(&mut tasks, journal).await;
    passing.abort();
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

/// A replay order: where to tell that it is done.
type Order = oneshot::Sender<Result<()>>;

struct PipelineTask {
    settings: WorkerSettings,
    pipeline: Pipeline,
    batches: mpsc::Receiver<ShapedBatch>,
    orders: mpsc::Receiver<Order>,
    journal: Journal,
}

/// A rebuild under way: its task, since when, and who waits for it.
struct Rebuild {
    began: Instant,
    runner: oneshot::Receiver<Result<Runner>>,
    done: Option<Order>,
}

impl PipelineTask {
    async fn run(mut self) -> Result<()> {
        let mut runner = self.open().await?;
        let mut rebuild: Option<Rebuild> = None;
        // A broken `fail` rule pauses after its batch is committed, until a restart or a replay.
        let mut is_paused = false;
        let mut watch = Watch::new(&self.pipeline.references);
        let mut look = tokio::time::interval(LOOK_AT_REFERENCES);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                batch = self.batches.recv() => match batch {
                    // What a paused pipeline leaves is in bronze: it goes on from there.
                    Some(_) if is_paused => {}
                    Some(batch) => {
                        let taken = self.take(&mut runner, batch).await;
                        is_paused = self.cannot_go_on(taken)? || self.has_paused(&runner);
                    }
                    None => break,
                },
                Some(done) = self.orders.recv(), if rebuild.is_none() => {
                    rebuild = Some(self.start_rebuild(&runner, Some(done), "ordered"));
                }
                _ = look.tick(), if rebuild.is_none() && !watch.is_empty() => {
                    if self.references_changed(&mut watch).await? {
                        rebuild = Some(self.start_rebuild(&runner, None, "a reference table changed"));
                    }
                }
                (built, began, done) = built(&mut rebuild) => {
                    rebuild = None;
                    let result = match built {
                        Ok(shadow) => {
                            runner = self.swap(runner, shadow).await?;
                            is_paused = false;
                            Ok(())
                        }
                        Err(error) => Err(error),
                    };
                    self.note_replayed(&runner, began, result.as_ref().err());
                    tell(done, result, &self.pipeline.name);
                }
                () = tokio::time::sleep(POLL), if !is_paused => {
                    let before = runner.position();
                    loop {
                        let more = runner.catch_up().await;
                        let is_more = matches!(more, Ok(true));
                        is_paused = self.cannot_go_on(more.map(drop))? || self.has_paused(&runner);
                        if is_paused || !is_more {
                            break;
                        }
                    }
                    if runner.position() != before {
                        self.announce(&runner).await;
                    }
                }
            }
        }
        runner.close()
    }

    /// SQL that fails on the rows of a table, not of one record, is the pipeline's own fault: it waits for a better
    /// declaration, and ingestion and readers go on. Other errors end the worker.
    fn cannot_go_on(&self, result: Result<()>) -> Result<bool> {
        match result {
            Ok(()) => Ok(false),
            Err(error @ (Error::Sql(_) | Error::Arrow(_) | Error::Declaration(_))) => {
                tracing::error!(pipeline = self.pipeline.name, %error, "paused; correct pipelines.toml and restart");
                self.journal.note(Entry::of(Kind::Pause, &self.pipeline.name).message(&error));
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn has_paused(&self, runner: &Runner) -> bool {
        let reason = runner.last_epoch().paused.as_deref();
        if let Some(reason) = reason {
            let epoch = Some(runner.last_epoch().epoch);
            self.journal.note(Entry { epoch, ..Entry::of(Kind::Pause, &self.pipeline.name).message(reason) });
            tracing::error!(pipeline = self.pipeline.name, reason, "paused; it goes on after a restart or a replay");
        }
        reason.is_some()
    }

    /// Opens the runner; ends an interrupted swap, and rebuilds when the declaration changed.
    async fn open(&self) -> Result<Runner> {
        if rebuild::finish_pending(&self.pipeline, &self.runner_settings().await?).await? {
            let entry = Entry::of(Kind::Replay, &self.pipeline.name).state("done");
            self.journal.note(entry.message("a swap that was interrupted is finished"));
        }
        let settings = self.runner_settings().await?;
        let is_stale = match Runner::open(&self.pipeline, settings.clone()).await {
            Ok(mut runner) => {
                if runner.is_current().await? {
                    return Ok(runner);
                }
                runner.close()?;
                true
            }
            Err(Error::Lake(karat_lake::Error::Schema { table, reason })) => {
                tracing::info!(table, reason, "the columns of a table changed");
                true
            }
            Err(error) => return Err(error),
        };
        if is_stale {
            tracing::info!(
                pipeline = self.pipeline.name,
                "the declaration changed or the state is gone: silver and gold are rebuilt from bronze"
            );
            self.note_stale().await?;
        }
        let began = Instant::now();
        let mut shadow = rebuild::start(&self.pipeline, &settings).await?;
        while shadow.catch_up().await? {}
        rebuild::swap(&self.pipeline, &settings, shadow).await?;
        let runner = Runner::open(&self.pipeline, self.runner_settings().await?).await?;
        self.announce(&runner).await;
        self.note_replayed(&runner, began, None);
        Ok(runner)
    }

    /// Where the pipeline reads, writes and notes, at its newest epoch.
    async fn runner_settings(&self) -> Result<RunnerSettings> {
        let settings = self.settings.runner_settings(&self.pipeline).await?;
        Ok(RunnerSettings { journal: self.journal.clone(), ..settings })
    }

    /// Notes that the tables are of another declaration, what changes in their columns, and the rebuild that follows.
    async fn note_stale(&self) -> Result<()> {
        let name = &self.pipeline.name;
        let mut entries =
            vec![Entry::of(Kind::Declaration, name).message("the declaration changed or the state is gone")];
        let changes = column_changes(&self.pipeline, &self.settings.lake).await?;
        entries.extend(
            changes
                .into_iter()
                .map(|(table, change)| Entry { table: Some(table), ..Entry::of(Kind::Schema, name).message(change) }),
        );
        entries.push(
            Entry::of(Kind::Replay, name).state("started").message("the declaration changed or the state is gone"),
        );
        self.journal.note_all(entries);
        Ok(())
    }

    fn note_replayed(&self, runner: &Runner, began: Instant, failure: Option<&Error>) {
        let entry = Entry {
            epoch: Some(runner.last_epoch().epoch),
            generation: Some(runner.last_epoch().generation),
            bronze_to: Some(runner.position()),
            duration_us: u64::try_from(began.elapsed().as_micros()).ok(),
            ..Entry::of(Kind::Replay, &self.pipeline.name)
        };
        self.journal.note(match failure {
            None => entry.state("done"),
            Some(error) => entry.state("failed").message(error),
        });
    }

    /// Processes a shaped batch.
    async fn take(&mut self, runner: &mut Runner, batch: ShapedBatch) -> Result<()> {
        if batch.version <= runner.position() {
            return Ok(());
        }
        if batch.after == runner.position() {
            runner.advance(batch.version, batch.shaped?, batch.positions).await?;
        } else {
            // Another process wrote versions in between, or a batch was not handed over: the files have them all.
            runner.catch_up_to(batch.version).await?;
        }
        self.announce(runner).await;
        Ok(())
    }

    /// Takes other contents of reference files into the declaration; true when there were some.
    async fn references_changed(&mut self, watch: &mut Watch) -> Result<bool> {
        let known = self.pipeline.references.clone();
        let mut looking = std::mem::replace(watch, Watch::new(&[]));
        let looked = tokio::task::spawn_blocking(move || {
            let changed = looking.changed(&known);
            (looking, changed)
        });
        let (looked, changed) = looked.await?;
        *watch = looked;
        let Some(references) = changed else { return Ok(false) };
        tracing::info!(
            pipeline = self.pipeline.name,
            "a reference table changed: silver and gold are rebuilt from bronze"
        );
        self.pipeline.references = references;
        Ok(true)
    }

    fn start_rebuild(&self, runner: &Runner, done: Option<Order>, why: &str) -> Rebuild {
        let (sender, receiver) = oneshot::channel();
        let (pipeline, settings) = (self.pipeline.clone(), runner.settings().clone());
        self.journal.note(Entry::of(Kind::Replay, &pipeline.name).state("started").message(why));
        tokio::spawn(async move {
            let _ = sender.send(build(&pipeline, &settings).await);
        });
        Rebuild { began: Instant::now(), runner: receiver, done }
    }

    /// Brings the rebuild to the live position and puts it in place. Ingestion goes on; this pipeline waits.
    async fn swap(&self, live: Runner, mut shadow: Runner) -> Result<Runner> {
        let settings = live.settings().clone();
        shadow.catch_up_to(live.position()).await?;
        live.close()?;
        rebuild::swap(&self.pipeline, &settings, shadow).await?;
        let runner = Runner::open(&self.pipeline, self.runner_settings().await?).await?;
        self.announce(&runner).await;
        Ok(runner)
    }

    async fn announce(&self, runner: &Runner) {
        let notice = Notice::Epoch { pipeline: self.pipeline.name.clone(), epoch: runner.last_epoch().epoch };
        bronze::writer::announce(self.settings.log.as_ref(), &self.pipeline.name, &notice).await;
    }
}

async fn build(pipeline: &Pipeline, settings: &RunnerSettings) -> Result<Runner> {
    let mut shadow = rebuild::start(pipeline, settings).await?;
    while shadow.catch_up().await? {}
    Ok(shadow)
}

/// Waits for a rebuild under way; for ever when there is none.
async fn built(rebuild: &mut Option<Rebuild>) -> (Result<Runner>, Instant, Option<Order>) {
    match rebuild {
        Some(rebuild) => {
            let built = (&mut rebuild.runner).await;
            let gone = || Err(Error::Declaration("the rebuild ended early".to_owned()));
            (built.unwrap_or_else(|_| gone()), rebuild.began, rebuild.done.take())
        }
        None => std::future::pending().await,
    }
}

fn tell(done: Option<Order>, result: Result<()>, pipeline: &str) {
    match &result {
        Ok(()) => tracing::info!(pipeline, "replay done"),
        Err(error) => tracing::error!(pipeline, %error, "replay failed; the tables are as they were"),
    }
    if let Some(done) = done {
        let _ = done.send(result);
    }
}
