//! One pipeline of a worker: takes batches, poll after poll, replay after replay, for as long as the worker runs.
//!
//! It works while this process owns the pipeline (`worker::ownership`). When the pipeline goes to another process, or
//! another process shows up in its tables, it lets everything go and waits until the pipeline is its own again; then it
//! begins with what the tables say.
//!
//! What fails here is the pipeline's own matter: it *pauses*, which the event log, the status and its epoch say, while
//! ingestion and the other pipelines go on. Nothing is lost by it, because everything is in bronze. A failure that may pass
//! is tried again after a while; SQL that fails, or columns that no table can hold, wait for a better declaration, which is
//! a restart, or for a replay.

use std::time::{Duration, Instant};

use karat_schemas::{epoch::Notice, pipelines::Pipeline};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{WorkerSettings, ownership::Claim};
use crate::{
    Error, Result, bronze,
    journal::{Entry, Journal, Kind},
    rebuild,
    reference::Watch,
    runner::{Runner, RunnerSettings},
    shaper::ShapedBatch,
};

/// How often a pipeline looks for versions that nobody handed over (spec L4): often while other processes write some.
const POLL: Duration = Duration::from_secs(1);
const POLL_OF_BUSY: Duration = Duration::from_millis(100);

/// How often a pipeline looks whether the files of its reference tables changed.
const LOOK_AT_REFERENCES: Duration = Duration::from_secs(5);

/// How long a pipeline waits after a failure that may pass: twice as long after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The same after another process was at work on the tables, while this one is told that it owns the pipeline: who is right shows
/// at the next attempt, and nobody else makes one.
const LONGEST_WAIT_FOR_OTHERS: Duration = Duration::from_secs(5);

/// A replay order: where to tell that it is done.
pub(super) type Order = oneshot::Sender<Result<()>>;

pub(super) struct PipelineTask {
    pub(super) settings: WorkerSettings,
    pub(super) pipeline: Pipeline,
    pub(super) journal: Journal,
    batches: mpsc::Receiver<ShapedBatch>,
    orders: mpsc::Receiver<Order>,
    claim: Claim,
    poll: Duration,
    /// When a batch of this process came that nothing of others lay before.
    fed: Instant,
    wait: Duration,
    /// Why it pauses, as it was noted.
    pub(super) paused_for: Option<String>,
}

/// A rebuild under way: its task, since when, and who waits for it.
struct Rebuild {
    began: Instant,
    task: JoinHandle<Result<Runner>>,
    done: Option<Order>,
}

/// Why the work on a pipeline ended without a failure.
enum Ended {
    Stopped,
    HandedOver,
}

/// How a pause ends.
enum Waited {
    Stopped,
    Ordered(Order),
    LongEnough,
}

impl PipelineTask {
    pub(super) fn new(
        settings: WorkerSettings,
        pipeline: Pipeline,
        batches: mpsc::Receiver<ShapedBatch>,
        orders: mpsc::Receiver<Order>,
        claim: Claim,
        journal: Journal,
    ) -> Self {
        Self {
            settings,
            pipeline,
            journal,
            batches,
            orders,
            claim,
            poll: POLL,
            fed: Instant::now(),
            wait: FIRST_WAIT,
            paused_for: None,
        }
    }

    /// Runs until the worker stops.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut order = None;
        while self.own().await {
            let ended = self.work(order.take()).await;
            let is_held = self.claim.is_held();
            self.claim.release();
            let error = match ended {
                Ok(Ended::Stopped) => break,
                Ok(Ended::HandedOver) => continue,
                // Whoever has the pipeline now says how it is.
                Err(error) if !is_held => {
                    tracing::info!(pipeline = self.pipeline.name, %error, "the pipeline is another process's now");
                    continue;
                }
                Err(error) => error,
            };
            if error.is_other_owner() {
                tracing::warn!(
                    pipeline = self.pipeline.name,
                    %error,
                    "another process was at work on the tables; this one begins again with what they say"
                );
            } else {
                self.pause(&error).await;
            }
            order = match self.wait_after(&error).await {
                Waited::Stopped => break,
                Waited::Ordered(done) => Some(done),
                Waited::LongEnough => None,
            };
        }
        Ok(())
    }

    /// Waits until the pipeline is ours; false when the worker stops. What is handed over meanwhile is in bronze.
    async fn own(&mut self) -> bool {
        loop {
            tokio::select! {
                biased;
                () = self.claim.held() => return true,
                batch = self.batches.recv() => if batch.is_none() {
                    return false;
                },
            }
        }
    }

    async fn work(&mut self, order: Option<Order>) -> Result<Ended> {
        let (mut losing, began) = (self.claim.losing(), Instant::now());
        let open = async {
            match order {
                Some(done) => self.open_rebuilt(done).await,
                None => self.open().await,
            }
        };
        let runner = tokio::select! {
            biased;
            () = losing.lost() => return Ok(Ended::HandedOver),
            opened = open => opened?,
        };
        let (version, took) = (runner.position(), began.elapsed());
        tracing::info!(
            pipeline = self.pipeline.name,
            version,
            ?took,
            "the pipeline goes on from this version of bronze"
        );
        let mut rebuild = None;
        let ended = self.drive(runner, &mut rebuild).await;
        if let Some(rebuild) = rebuild {
            self.give_up(rebuild).await;
        }
        ended
    }

    async fn drive(&mut self, mut runner: Runner, rebuild: &mut Option<Rebuild>) -> Result<Ended> {
        if runner.resume().await? {
            self.announce(&runner).await;
        }
        let mut losing = self.claim.losing();
        // A broken `fail` rule pauses after its batch is committed, until a restart or a replay.
        let mut is_paused = false;
        let mut watch = Watch::new(&self.pipeline.references);
        let mut look = tokio::time::interval(LOOK_AT_REFERENCES);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = losing.lost() => {
                    runner.finish().await?;
                    return Ok(Ended::HandedOver);
                }
                batch = self.batches.recv() => match batch {
                    // What a paused pipeline leaves is in bronze: it goes on from there.
                    Some(_) if is_paused => {}
                    Some(batch) => {
                        self.take(&mut runner, batch).await?;
                        is_paused = self.has_paused(&runner);
                    }
                    None => break,
                },
                // Nobody waits for one that another process executes.
                Some(done) = self.orders.recv(), if rebuild.is_none() => if !done.is_closed() {
                    *rebuild = Some(self.start_rebuild(&runner, Some(done), "ordered"));
                },
                _ = look.tick(), if rebuild.is_none() && !watch.is_empty() => {
                    if self.references_changed(&mut watch).await? {
                        *rebuild = Some(self.start_rebuild(&runner, None, "a reference table changed"));
                    }
                }
                (built, began, done) = built(rebuild) => {
                    *rebuild = None;
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
                () = tokio::time::sleep(self.poll), if !is_paused => is_paused = self.look_for_versions(&mut runner).await?,
            }
        }
        runner.publish(true).await?;
        runner.finish().await?;
        Ok(Ended::Stopped)
    }

    /// Waits until there is a reason to try again. What is handed over meanwhile is in bronze.
    async fn wait_after(&mut self, error: &Error) -> Waited {
        let longest = if error.is_other_owner() { LONGEST_WAIT_FOR_OTHERS } else { LONGEST_WAIT };
        let wait = self.wait.min(longest);
        self.wait = (wait * 2).min(longest);
        let is_over =
            async { if error.may_pass() { tokio::time::sleep(wait).await } else { std::future::pending().await } };
        tokio::pin!(is_over);
        let mut losing = self.claim.losing();
        loop {
            tokio::select! {
                batch = self.batches.recv() => if batch.is_none() {
                    return Waited::Stopped;
                },
                Some(done) = self.orders.recv() => if !done.is_closed() {
                    return Waited::Ordered(done);
                },
                () = &mut is_over => return Waited::LongEnough,
                () = losing.lost() => return Waited::LongEnough,
            }
        }
    }

    /// Takes what other processes wrote, or nobody handed over; true when a rule paused the pipeline.
    async fn look_for_versions(&mut self, runner: &mut Runner) -> Result<bool> {
        let before = runner.position();
        let mut is_paused = false;
        while !is_paused && self.claim.is_held() && runner.catch_up().await? {
            is_paused = self.has_paused(runner);
        }
        let has_moved = runner.position() != before;
        // What this process wrote itself is on its way already, and shaped.
        let is_of_others = has_moved && self.fed.elapsed() >= POLL;
        self.poll = if is_of_others { POLL_OF_BUSY } else { (self.poll * 2).min(POLL) };
        if runner.publish(false).await? || has_moved {
            self.went_on();
            self.announce(runner).await;
        }
        Ok(is_paused)
    }

    /// Processes a shaped batch.
    async fn take(&mut self, runner: &mut Runner, batch: ShapedBatch) -> Result<()> {
        if batch.after <= runner.position() {
            self.fed = Instant::now();
        }
        if batch.version <= runner.position() {
            return Ok(());
        }
        // Another process wrote versions in between, or a batch was not handed over: the files have them all.
        while runner.position() < batch.after && self.claim.is_held() {
            runner.catch_up_part(batch.after).await?;
        }
        if batch.after == runner.position() {
            runner.advance(batch.version, batch.shaped?, batch.positions).await?;
        } else {
            while runner.position() < batch.version && self.claim.is_held() {
                runner.catch_up_part(batch.version).await?;
            }
        }
        // A step without changes of a table leaves what waits there.
        runner.publish(false).await?;
        self.went_on();
        self.announce(runner).await;
        Ok(())
    }

    fn went_on(&mut self) {
        self.wait = FIRST_WAIT;
        self.paused_for = None;
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
        let (pipeline, settings) = (self.pipeline.clone(), runner.settings().clone());
        self.journal.note(Entry::of(Kind::Replay, &pipeline.name).state("started").message(why));
        let task = tokio::spawn(async move { build(&pipeline, &settings).await });
        Rebuild { began: Instant::now(), task, done }
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

    /// Ends a rebuild whose pipeline does not go on. Its folder is free afterwards.
    async fn give_up(&self, rebuild: Rebuild) {
        rebuild.task.abort();
        let _ = rebuild.task.await;
        tell(rebuild.done, Err(Error::ReplayGivenUp), &self.pipeline.name);
    }

    pub(super) async fn announce(&self, runner: &Runner) {
        self.announce_epoch(runner.last_epoch().epoch).await;
    }

    pub(super) async fn announce_epoch(&self, epoch: u64) {
        let notice = Notice::Epoch { pipeline: self.pipeline.name.clone(), epoch };
        bronze::writer::announce(self.settings.log.as_ref(), &self.pipeline.name, &notice).await;
    }
}

pub(super) async fn build(pipeline: &Pipeline, settings: &RunnerSettings) -> Result<Runner> {
    let mut shadow = rebuild::start(pipeline, settings).await?;
    while shadow.catch_up().await? {}
    Ok(shadow)
}

/// Waits for a rebuild under way; for ever when there is none.
async fn built(rebuild: &mut Option<Rebuild>) -> (Result<Runner>, Instant, Option<Order>) {
    match rebuild {
        Some(rebuild) => {
            let built = (&mut rebuild.task).await;
            (built.unwrap_or_else(|error| Err(error.into())), rebuild.began, rebuild.done.take())
        }
        None => std::future::pending().await,
    }
}

pub(super) fn tell(done: Option<Order>, result: Result<()>, pipeline: &str) {
    match &result {
        Ok(()) => tracing::info!(pipeline, "replay done"),
        Err(error) => tracing::error!(pipeline, %error, "replay failed; the tables are as they were"),
    }
    if let Some(done) = done {
        let _ = done.send(result);
    }
}
