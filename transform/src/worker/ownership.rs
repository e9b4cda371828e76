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
//! - The owner of a partition takes the orders on it (`worker::orders`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use karat_eventlog::{ConsumerSettings, EventLog, StartPositions};
use karat_lake::{Lake, orders::OrderPositions, outcomes::Outcomes};
use karat_schemas::{COMMANDS_TOPIC, pipelines::Pipeline};
use tokio::sync::{mpsc, watch};

use super::{
    orders::{Executor, take_part},
    pipeline::Order,
};
use crate::Result;

/// How long nothing is tried after a failure: twice as long after each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A membership that lasted so long did not begin with the failure that ended it.
const AS_IF_NEW: Duration = Duration::from_secs(30);

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
pub(super) struct Held {
    pipeline: String,
    partition: u32,
    owned: watch::Sender<bool>,
    busy: watch::Receiver<bool>,
    pub(super) orders: mpsc::Sender<Order>,
}

impl Held {
    pub(super) fn is_owned(&self) -> bool {
        *self.owned.borrow()
    }

    pub(super) fn losing(&self) -> Losing {
        Losing(self.owned.subscribe())
    }

    fn set(&self, owned: bool) {
        if self.owned.send_replace(owned) != owned {
            tracing::info!(pipeline = self.pipeline, owned, "the owner of a pipeline changed");
        }
    }
}

/// Asks who owns what.
#[derive(Clone)]
pub(crate) struct Owned(Arc<Vec<Held>>);

impl Owned {
    pub(crate) fn is(&self, pipeline: &str) -> bool {
        self.held(pipeline).is_some_and(Held::is_owned)
    }

    pub(super) fn held(&self, pipeline: &str) -> Option<&Held> {
        self.0.iter().find(|held| held.pipeline == pipeline)
    }

    /// Sees one pipeline come and go.
    pub(crate) fn of(&self, pipeline: &str) -> Option<watch::Receiver<bool>> {
        self.held(pipeline).map(|held| held.owned.subscribe())
    }

    fn on(&self, partitions: &[u32]) -> impl Iterator<Item = &Held> {
        self.0.iter().filter(move |held| partitions.contains(&held.partition))
    }

    fn set(&self, partitions: &[u32], owned: bool) {
        for held in self.on(partitions) {
            held.set(owned);
        }
    }

    fn lose_all(&self) {
        for held in self.0.iter() {
            held.set(false);
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
        let (leave, leaving) = watch::channel(false);
        let (log, group) = (self.log, self.group);
        let executor = Arc::new(Executor { owned: owned.clone(), outcomes, positions, lake: self.lake_id, stop });
        Ok(Member { owned, leave, task: tokio::spawn(follow(log, group, executor, leaving)) })
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
    /// Which membership this is, and which is the newest: one that failed leaves the group behind our back, and what it
    /// gives up then may be ours again.
    number: u64,
    newest: Arc<AtomicU64>,
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
        if self.newest.load(Ordering::Acquire) != self.number {
            return;
        }
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
async fn follow(log: Arc<dyn EventLog>, group: String, executor: Arc<Executor>, mut leaving: watch::Receiver<bool>) {
    let mut wait = FIRST_WAIT;
    let newest = Arc::new(AtomicU64::new(0));
    loop {
        let began = tokio::time::Instant::now();
        let start = Arc::new(Start {
            log: Arc::clone(&log),
            owned: executor.owned.clone(),
            positions: executor.positions.clone(),
            number: newest.fetch_add(1, Ordering::AcqRel) + 1,
            newest: Arc::clone(&newest),
        });
        let settings = ConsumerSettings { group: group.clone(), topic: COMMANDS_TOPIC.to_owned(), start };
        let Err(error) = take_part(log.as_ref(), settings, &executor, leaving.clone()).await else { return };
        executor.owned.lose_all();
        tracing::warn!(%error, "who owns which pipeline is not known now; it is asked again");
        if began.elapsed() > AS_IF_NEW {
            wait = FIRST_WAIT;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            _ = leaving.wait_for(|leave| *leave) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use karat_eventlog::{TopicSpec, embedded::EmbeddedLog};

    use super::*;

    async fn start(folder: &std::path::Path) -> (Start, Claim) {
        let log = EmbeddedLog::open(folder.join("log")).unwrap();
        let spec = TopicSpec { name: COMMANDS_TOPIC.to_owned(), partitions: 4, retention: None };
        log.ensure_topic(&spec).await.unwrap();
        let lake = Lake::at(folder.join("lake").to_str().unwrap()).unwrap();
        let (owned, claimed) = watch::channel(false);
        let (busy, worked_on) = watch::channel(false);
        let (orders, _) = mpsc::channel(1);
        let held = Held { pipeline: "shop".to_owned(), partition: 3, owned, busy: worked_on, orders };
        let start = Start {
            log: Arc::new(log),
            owned: Owned(Arc::new(vec![held])),
            positions: OrderPositions::of(&lake).unwrap(),
            number: 1,
            newest: Arc::new(AtomicU64::new(1)),
        };
        (start, Claim { owned: claimed, busy })
    }

    #[tokio::test]
    async fn a_partition_is_given_away_when_its_pipeline_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let (start, mut claim) = start(folder.path()).await;
        start.next_offsets(COMMANDS_TOPIC, &[1, 2]).await.unwrap();
        assert!(!claim.is_held());
        start.next_offsets(COMMANDS_TOPIC, &[3]).await.unwrap();
        claim.held().await;
        let mut losing = claim.losing();
        let given = tokio::spawn(async move { start.taken_away(COMMANDS_TOPIC, &[3], false).await });
        losing.lost().await;
        assert!(!given.is_finished());
        claim.release();
        given.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_lost_or_of_an_old_membership_waits_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (start, mut claim) = start(folder.path()).await;
        start.next_offsets(COMMANDS_TOPIC, &[3]).await.unwrap();
        claim.held().await;
        // The next membership owns it: the old one has nothing to give away.
        start.newest.store(2, Ordering::Release);
        start.taken_away(COMMANDS_TOPIC, &[3], false).await;
        assert!(claim.is_held());
        start.newest.store(1, Ordering::Release);
        start.taken_away(COMMANDS_TOPIC, &[3], true).await;
        assert!(!claim.is_held());
    }
}
