//! Which pipelines this process owns, and the orders to them.
//!
//! Silver, gold, epochs, the checkpoint and the orders of a pipeline have one owner at a time (decision 8). Who that is
//! the consumer group of `karat.commands` decides: the owner of the partition that the pipeline's name goes to. On the embedded
//! log that is always this process.
//!
//! - A partition that goes to another process waits, for some seconds, until its pipelines have written their checkpoint.
//! - A process that was thrown out of the group, and does not know it yet, may still believe that it owns a pipeline. It is
//!   fenced by the tables: each commit and each epoch is put-if-absent on what it knows. Ownership saves work; it is not
//!   what correctness rests on.
//! - An order is executed by the owner of its pipeline, and counts as executed when its outcome is in the lake. One that is
//!   given up because the pipeline goes to another process is executed there.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use karat_eventlog::{ConsumerSettings, EventLog, PollLimits, StartPositions};
use karat_lake::{Lake, orders::OrderPositions, outcomes::Outcomes};
use karat_schemas::{
    COMMANDS_TOPIC,
    command::{Command, Outcome},
    pipelines::Pipeline,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};

use super::pipeline::Order;
use crate::{Error, Result, bronze::writer::now_us};

/// Orders that may wait in memory: people give them.
const MOST_ORDERS: usize = 100;

/// How long nothing is tried after a failure: twice as long after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A pipeline's side of its ownership.
pub(super) struct Claim {
    owned: watch::Receiver<bool>,
    busy: watch::Sender<bool>,
}

/// Ends when the pipeline goes to another process.
pub(super) struct Losing(watch::Receiver<bool>);

impl Claim {
    pub(super) fn is_held(&self) -> bool {
        *self.owned.borrow()
    }

    /// Waits until the pipeline is ours, and marks it as worked on.
    pub(super) async fn held(&mut self) {
        loop {
            if self.owned.wait_for(|owned| *owned).await.is_err() {
                // Nobody gives ownership any more: the worker is stopping.
                return std::future::pending().await;
            }
            self.busy.send_replace(true);
            // It may have gone before it was marked, when nobody waited for us.
            if self.is_held() {
                return;
            }
            self.release();
        }
    }

    /// Says that nothing of the pipeline is worked on any more: the next owner may have it.
    pub(super) fn release(&self) {
        self.busy.send_replace(false);
    }

    pub(super) fn losing(&self) -> Losing {
        Losing(self.owned.clone())
    }
}

impl Losing {
    pub(super) async fn lost(&mut self) {
        let _ = self.0.wait_for(|owned| !*owned).await;
    }
}

/// A pipeline as the group sees it.
struct Held {
    pipeline: String,
    partition: u32,
    owned: watch::Sender<bool>,
    busy: watch::Receiver<bool>,
    orders: mpsc::Sender<Order>,
}

/// Asks who owns what.
#[derive(Clone)]
pub(crate) struct Owned(Arc<Vec<Held>>);

impl Owned {
    pub(crate) fn is(&self, pipeline: &str) -> bool {
        self.0.iter().any(|held| held.pipeline == pipeline && *held.owned.borrow())
    }

    /// Sees one pipeline come and go.
    pub(crate) fn of(&self, pipeline: &str) -> Option<watch::Receiver<bool>> {
        self.0.iter().find(|held| held.pipeline == pipeline).map(|held| held.owned.subscribe())
    }

    fn on(&self, partitions: &[u32]) -> impl Iterator<Item = &Held> {
        self.0.iter().filter(move |held| partitions.contains(&held.partition))
    }

    fn set(&self, partitions: &[u32], owned: bool) {
        for held in self.on(partitions) {
            if held.owned.send_replace(owned) != owned {
                tracing::info!(pipeline = held.pipeline, owned, "the owner of a pipeline changed");
            }
        }
    }

    fn lose_all(&self) {
        for held in self.0.iter() {
            held.owned.send_replace(false);
        }
    }
}

/// Membership in the group of owners.
pub(super) struct Ownership {
    log: Arc<dyn EventLog>,
    lake: Lake,
    lake_id: String,
    group: String,
    partitions: u32,
    held: Vec<Held>,
}

impl Ownership {
    /// The topic of the orders must exist.
    pub(super) async fn new(log: Arc<dyn EventLog>, lake: &Lake, group: &str) -> Result<Self> {
        let partitions = u32::try_from(log.topic(COMMANDS_TOPIC).await?.partitions.len()).unwrap_or(1);
        let lake_id = lake.identity().await?;
        // Each lake has owners of its own, whatever else is on the brokers.
        let group = format!("{group}-owners-{lake_id}");
        Ok(Self { log, lake: lake.clone(), lake_id, group, partitions, held: Vec::new() })
    }

    /// Takes part for a pipeline, whose orders go to `orders`.
    pub(super) fn claim(&mut self, pipeline: &Pipeline, orders: mpsc::Sender<Order>) -> Claim {
        let partition = self.log.partition_of(pipeline.name.as_bytes(), self.partitions);
        let (owned, claimed) = watch::channel(false);
        let (busy, worked_on) = watch::channel(false);
        self.held.push(Held { pipeline: pipeline.name.clone(), partition, owned, busy: worked_on, orders });
        Claim { owned: claimed, busy }
    }

    /// Joins the group. An order that is given up after `stop` is left to whoever owns the pipeline next.
    pub(super) fn join(self, stop: watch::Receiver<bool>) -> Result<Member> {
        let (positions, outcomes) = (OrderPositions::of(&self.lake)?, Outcomes::of(&self.lake)?);
        let owned = Owned(Arc::new(self.held));
        let start = Arc::new(Start { log: Arc::clone(&self.log), owned: owned.clone(), positions: positions.clone() });
        let (leave, leaving) = watch::channel(false);
        let (log, group) = (self.log, self.group);
        let executor = Arc::new(Executor { owned: owned.clone(), outcomes, positions, lake: self.lake_id, stop });
        Ok(Member { owned, leave, task: tokio::spawn(follow(log, group, start, executor, leaving)) })
    }
}

/// Takes part in the group until it leaves, or is dropped.
pub(super) struct Member {
    pub(super) owned: Owned,
    leave: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Member {
    /// What leaves the group is free for others at once. Nothing may be worked on any more.
    pub(super) async fn leave(mut self) {
        let _ = self.leave.send(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
        self.owned.lose_all();
    }
}

/// Orders begin where the lake says; being asked means owning.
struct Start {
    log: Arc<dyn EventLog>,
    owned: Owned,
    positions: OrderPositions,
}

#[async_trait]
impl StartPositions for Start {
    async fn next_offsets(&self, topic: &str, partitions: &[u32]) -> karat_eventlog::Result<BTreeMap<u32, i64>> {
        let ranges = self.log.topic(topic).await?.partitions;
        let mut offsets = BTreeMap::new();
        for partition in partitions {
            let next = self.positions.next(*partition).await;
            let next = next.map_err(|error| karat_eventlog::Error::internal("position of the orders", error))?;
            let range = usize::try_from(*partition).ok().and_then(|index| ranges.get(index));
            // A topic that was made anew has other orders; those of the old one are executed or gone.
            offsets.extend(next.zip(range).map(|(next, range)| (*partition, next.clamp(range.begin, range.end))));
        }
        self.owned.set(partitions, true);
        Ok(offsets)
    }

    async fn taken_away(&self, _topic: &str, partitions: &[u32], lost: bool) {
        self.owned.set(partitions, false);
        if lost {
            return;
        }
        for held in self.owned.on(partitions) {
            let _ = held.busy.clone().wait_for(|busy| !*busy).await;
        }
    }
}

/// Stays in the group, through every failure, until it is told to leave.
async fn follow(
    log: Arc<dyn EventLog>,
    group: String,
    start: Arc<Start>,
    executor: Arc<Executor>,
    mut leaving: watch::Receiver<bool>,
) {
    let mut wait = FIRST_WAIT;
    loop {
        let began = tokio::time::Instant::now();
        let settings =
            ConsumerSettings { group: group.clone(), topic: COMMANDS_TOPIC.to_owned(), start: start.clone() };
        let Err(error) = take_part(log.as_ref(), settings, &executor, leaving.clone()).await else { return };
        executor.owned.lose_all();
        tracing::warn!(%error, "who owns which pipeline is not known now; it is asked again");
        wait = if began.elapsed() > LONGEST_WAIT { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = leaving.wait_for(|leave| *leave) => return,
        }
    }
}

/// Takes orders until it is told to leave.
async fn take_part(
    log: &dyn EventLog,
    settings: ConsumerSettings,
    executor: &Arc<Executor>,
    mut leaving: watch::Receiver<bool>,
) -> Result<()> {
    let mut consumer = log.consumer(settings).await?;
    let limits = PollLimits { max_records: 10, max_bytes: 1 << 20, max_wait: Duration::from_secs(1) };
    let mut waiting: BTreeMap<u32, VecDeque<(i64, Command)>> = BTreeMap::new();
    let mut busy = BTreeSet::new();
    let mut executing = JoinSet::new();
    loop {
        for (partition, queue) in &mut waiting {
            if !busy.contains(partition)
                && let Some((offset, command)) = queue.pop_front()
            {
                busy.insert(*partition);
                let (executor, partition) = (Arc::clone(executor), *partition);
                executing.spawn(async move {
                    let is_done = executor.execute(partition, offset, &command).await;
                    (partition, offset, command, is_done)
                });
            }
        }
        let has_room = waiting.values().map(VecDeque::len).sum::<usize>() < MOST_ORDERS;
        tokio::select! {
            biased;
            _ = leaving.wait_for(|leave| *leave) => break,
            Some(ended) = executing.join_next() => {
                let (partition, offset, command, is_done) = ended?;
                busy.remove(&partition);
                if !is_done && let Some(queue) = waiting.get_mut(&partition)
                    && queue.front().is_none_or(|(next, _)| *next > offset)
                {
                    queue.push_front((offset, command));
                }
            }
            polled = consumer.poll(limits), if has_room => {
                let polled = polled?;
                waiting.retain(|partition, _| !polled.revoked.contains(partition));
                for record in polled.records {
                    match serde_json::from_slice(&record.payload) {
                        Ok(command) => waiting.entry(record.partition).or_default().push_back((record.offset, command)),
                        Err(error) => {
                            tracing::warn!(offset = record.offset, %error, "an order does not parse and is left out");
                        }
                    }
                }
            }
        }
    }
    consumer.close().await;
    Ok(())
}

struct Executor {
    owned: Owned,
    outcomes: Outcomes,
    positions: OrderPositions,
    lake: String,
    stop: watch::Receiver<bool>,
}

impl Executor {
    /// Executes one order; false when it is to be tried again, here or by another owner.
    async fn execute(&self, partition: u32, offset: i64, command: &Command) -> bool {
        let executed = match self.carry_out(command).await {
            Ok(true) => self.positions.put(partition, offset + 1).await.map(|()| true).map_err(Error::from),
            other => other,
        };
        let is_done = executed.unwrap_or_else(|error| {
            tracing::warn!(partition, offset, %error, "the outcome of an order is not written; it is tried again");
            false
        });
        if !is_done {
            tokio::time::sleep(FIRST_WAIT).await;
        }
        is_done
    }

    async fn carry_out(&self, command: &Command) -> Result<bool> {
        let Command::Replay { pipeline, id, lake } = command;
        if lake.as_ref().is_some_and(|lake| *lake != self.lake) {
            return Ok(true);
        }
        if let Some(id) = id
            && self.outcomes.get(id).await?.is_some()
        {
            return Ok(true);
        }
        let Some(failure) = self.replay(pipeline).await else { return Ok(false) };
        if let Some(id) = id {
            let failure = failure.map(|error| error.for_clients());
            let (id, pipeline) = (id.clone(), pipeline.clone());
            self.outcomes.put(&Outcome { id, pipeline, ended_at_us: now_us(), failure }).await?;
        }
        Ok(true)
    }

    /// How a replay ended; none when the pipeline went to another process first, or the worker stops.
    async fn replay(&self, pipeline: &str) -> Option<Option<Error>> {
        let Some(held) = self.owned.0.iter().find(|held| held.pipeline == pipeline) else {
            return Some(Some(Error::UnknownPipeline(pipeline.to_owned())));
        };
        let mut losing = Losing(held.owned.subscribe());
        let (done, ended) = oneshot::channel();
        let ended = async {
            held.orders.send(done).await.ok()?;
            ended.await.ok()
        };
        let result = tokio::select! {
            biased;
            () = losing.lost() => return None,
            result = ended => result?,
        };
        let is_over = *self.stop.borrow() || !*held.owned.borrow();
        match result {
            Err(Error::ReplayGivenUp) if is_over => None,
            result => Some(result.err()),
        }
    }
}
