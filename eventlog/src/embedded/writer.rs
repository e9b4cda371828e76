//! The one thread that changes the log.
//!
//! Appends wait in a queue bounded by number and bytes. The writer takes all that are waiting, up to
//! [`GROUP_BYTES`], gives them offsets, writes them as one change and answers all of them after *one* fsync (group
//! commit): two hundred concurrent publishers share an fsync, and a lone one pays its own. Creating, deleting and
//! retention go through the same queue, so nothing races with an append.
//!
//! After a failed write the log is poisoned: every later command is answered with [`Error::Poisoned`].

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use karat_schemas::clock;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use uuid::Uuid;

use super::{
    codec::Batch,
    group::{Chunk, Group, Pending},
    retention,
    store::{BatchHead, Changes, Store, TopicRow},
    topic::{Partition, Topic},
};
use crate::{Error, Result, TopicSpec};

/// Appends stop joining a group at this size: a tenth of a second on a disk that writes 80 MB/s.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// How often retention looks.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What a batch in memory takes beside its records: of small ones it is the larger part.
const BATCH_BYTES: usize = 256;

pub(super) type Topics = RwLock<HashMap<String, Arc<Topic>>>;
pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// An append in the queue; answered with the base offset of each chunk.
pub(super) struct Append {
    pub(super) topic: Arc<Topic>,
    pub(super) chunks: Vec<Chunk>,
    pub(super) reply: Reply<Vec<i64>>,
    /// Its share of the queue's bytes, given back when it is answered.
    pub(super) permit: OwnedSemaphorePermit,
}

pub(super) enum Command {
    Append(Append),
    Create(TopicSpec, Reply<()>),
    Delete(String, Reply<()>),
    /// Applies retention now; answered with the number of batches dropped.
    Sweep(Reply<usize>),
}

pub(super) struct Writer {
    store: Store,
    topics: Arc<Topics>,
    tail_bytes_limit: usize,
    tail: VecDeque<(Arc<Partition>, i64, usize)>,
    tail_bytes: usize,
    is_poisoned: bool,
    #[cfg(test)]
    pub(super) fail_next_commit: Arc<std::sync::atomic::AtomicBool>,
}

impl Writer {
    pub(super) fn new(store: Store, topics: Arc<Topics>, tail_bytes_limit: usize) -> Self {
        Self {
            store,
            topics,
            tail_bytes_limit,
            tail: VecDeque::new(),
            tail_bytes: 0,
            is_poisoned: false,
            #[cfg(test)]
            fail_next_commit: Arc::default(),
        }
    }

    /// Works until the queue's other end is gone.
    pub(super) fn run(mut self, queue: &Receiver<Command>) {
        let mut next_sweep = Instant::now() + SWEEP_EVERY;
        loop {
            match queue.recv_timeout(next_sweep.saturating_duration_since(Instant::now())) {
                Ok(first) => self.work_off(first, queue),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.sweep() {
                        tracing::error!(%error, "retention could not drop old records");
                    }
                    next_sweep = Instant::now() + SWEEP_EVERY;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Handles `first` and whatever waits behind it.
    fn work_off(&mut self, first: Command, queue: &Receiver<Command>) {
        let mut group = Vec::new();
        let mut group_bytes = 0;
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                Command::Append(append) => {
                    group_bytes += append.chunks.iter().map(|chunk| chunk.records.len()).sum::<usize>();
                    group.push(append);
                }
                other => {
                    self.append_group(std::mem::take(&mut group));
                    self.administer(other);
                }
            }
            next = if group_bytes < GROUP_BYTES { queue.try_recv().ok() } else { None };
        }
        self.append_group(group);
    }

    fn administer(&mut self, command: Command) {
        // A caller that went away needs no answer.
        match command {
            Command::Append(append) => self.append_group(vec![append]),
            Command::Create(spec, reply) => drop(reply.send(self.create(&spec))),
            Command::Delete(name, reply) => drop(reply.send(self.delete(&name))),
            Command::Sweep(reply) => drop(reply.send(self.sweep())),
        }
    }

    fn append_group(&mut self, appends: Vec<Append>) {
        let (appends, gone): (Vec<_>, Vec<_>) = appends.into_iter().partition(|a| a.topic.check_alive().is_ok());
        for append in gone {
            drop(append.reply.send(Err(Error::UnknownTopic { topic: append.topic.name.to_string() })));
        }
        if appends.is_empty() {
            return;
        }
        let mut group = Group::new(clock::now_us());
        let mut answers = Vec::with_capacity(appends.len());
        for Append { topic, chunks, reply, permit } in appends {
            let bases = chunks.into_iter().map(|chunk| group.add(&topic, chunk)).collect();
            answers.push((reply, bases, permit));
        }
        match self.write(group) {
            Ok(()) => answers.into_iter().for_each(|(reply, bases, _permit)| drop(reply.send(Ok(bases)))),
            Err(error) => {
                tracing::error!(%error, "the event log could not write and stops");
                answers.into_iter().for_each(|(reply, _, _permit)| drop(reply.send(Err(Error::Poisoned))));
            }
        }
    }

    /// Makes a group durable, then readable, then rings.
    fn write(&mut self, mut group: Group) -> Result<()> {
        let mut changes = self.store.changes();
        let mut written = Vec::new();
        for (partition, pending) in group.batches() {
            let Pending { head, value } = pending;
            let value = self.store.put_batch(&mut changes, partition.key, head, value);
            let BatchHead { base, count, timestamp_us } = head;
            written.push((partition, Batch { base, count, timestamp_us, value }));
        }
        self.commit(changes)?;
        for (partition, batch) in written {
            self.remember(partition, batch);
        }
        group.topics().for_each(|topic| topic.ring());
        Ok(())
    }

    fn commit(&mut self, changes: Changes) -> Result<()> {
        if self.is_poisoned {
            return Err(Error::Poisoned);
        }
        #[cfg(test)]
        if self.fail_next_commit.swap(false, std::sync::atomic::Ordering::SeqCst) {
            self.is_poisoned = true;
            return Err(Error::internal("injected", "fsync failed"));
        }
        self.store.commit(changes).inspect_err(|_| self.is_poisoned = true)
    }

    /// Publishes a batch and keeps memory within its bound, oldest first over all partitions.
    fn remember(&mut self, partition: Arc<Partition>, batch: Batch) {
        let bytes = batch.value.len() + BATCH_BYTES;
        self.tail_bytes += bytes;
        self.tail.push_back((partition.clone(), batch.end(), bytes));
        partition.publish(batch);
        while self.tail_bytes > self.tail_bytes_limit {
            let Some((oldest, end, bytes)) = self.tail.pop_front() else { return };
            oldest.forget_tail_below(end);
            self.tail_bytes -= bytes;
        }
    }

    fn create(&mut self, spec: &TopicSpec) -> Result<()> {
        if self.topics.read().contains_key(&spec.name) {
            return Ok(());
        }
        let retention_ms = spec.retention.map(|keep| u64::try_from(keep.as_millis()).unwrap_or(u64::MAX));
        let row = TopicRow { id: Uuid::now_v7(), partitions: spec.partitions, retention_ms };
        let mut changes = self.store.changes();
        self.store.put_topic(&mut changes, &spec.name, &row)?;
        self.commit(changes)?;
        let topic = Arc::new(Topic::load(&spec.name, row, &self.store)?);
        self.topics.write().insert(spec.name.clone(), topic);
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<()> {
        if !self.topics.read().contains_key(name) {
            return Err(Error::UnknownTopic { topic: name.into() });
        }
        let mut changes = self.store.changes();
        self.store.remove_topic(&mut changes, name);
        self.commit(changes)?;
        if let Some(topic) = self.topics.write().remove(name) {
            topic.mark_deleted();
            topic.partitions.iter().for_each(|partition| partition.forget_tail_below(i64::MAX));
        }
        // A crash from here on leaves records that no topic owns; opening the log removes them.
        let owned: Vec<Uuid> = self.topics.read().values().map(|topic| topic.row.id).collect();
        self.store.remove_orphans(|id| owned.contains(&id))
    }

    fn sweep(&mut self) -> Result<usize> {
        let topics: Vec<_> = self.topics.read().values().cloned().collect();
        let mut num_dropped = 0;
        for topic in topics {
            let Some(oldest_kept_us) = retention::oldest_kept_us(topic.row.retention(), clock::now_us()) else {
                continue;
            };
            for partition in &topic.partitions {
                num_dropped += self.sweep_partition(partition, oldest_kept_us)?;
            }
        }
        Ok(num_dropped)
    }

    fn sweep_partition(&mut self, partition: &Partition, oldest_kept_us: i64) -> Result<usize> {
        let mut num_dropped = 0;
        loop {
            let heads = self.store.heads(partition.key, retention::AT_ONCE)?;
            let expired = retention::num_expired(&heads, oldest_kept_us);
            let Some(begin) = expired.checked_sub(1).and_then(|last| heads.get(last)).map(|head| head.end()) else {
                return Ok(num_dropped);
            };
            let mut changes = self.store.changes();
            self.store.remove_front(&mut changes, partition.key, &heads[..expired], begin);
            self.commit(changes)?;
            partition.drop_front(begin);
            num_dropped += expired;
        }
    }
}
