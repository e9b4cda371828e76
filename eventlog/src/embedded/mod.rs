//! The embedded log: a folder of this machine, for one process.
//!
//! Guarantees, beyond those of [`EventLog`]:
//! - An append that was answered is on disk (fsync) and is there after `kill -9` or a power cut. One that was not may be
//!   there, whole or not at all in each partition.
//! - Appends share fsyncs. A full queue answers [`Error::Busy`] at once; memory stays bounded.
//! - Consumers see a record only when it is durable, and are woken at once. The newest batches stay in memory, so a
//!   live consumer never touches the disk.
//! - After a failed write the log takes nothing more ([`Error::Poisoned`]) until it is opened again.
//!
//! Records of one key go to one partition (xxh3 of the key); the keyless records of one append go to one partition,
//! the next append's to the next. Timestamps are the system clock's, without its jumps ([`karat_schemas::clock`]).

mod codec;
mod consumer;
mod group;
mod plan;
mod retention;
mod store;
#[cfg(test)]
mod tests;
mod topic;
mod torn;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use self::{
    consumer::EmbeddedConsumer,
    plan::Plan,
    store::Store,
    topic::Topic,
    writer::{Append, Command, Reply, Topics, Writer},
};
use crate::{
    Consumer, ConsumerSettings, Error, EventLog, NewRecord, Position, Result, TopicInfo, TopicSpec, Waiting, limits,
};

/// An append that the disk does not answer within this is reported as unavailable, its outcome unknown.
const APPEND_DEADLINE: Duration = Duration::from_secs(30);
/// Closing waits this long for the disk, then leaves the writer to itself.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
const KIB: usize = 1024;

/// Bounds of memory. The defaults suit a laptop and a server alike.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedOptions {
    /// Appends that may wait for the writer; the next is [`Error::Busy`].
    pub queue_appends: usize,
    /// Bytes that may wait for the writer; an append above it is [`Error::Busy`]. At least one largest append fits.
    pub queue_bytes: usize,
    /// Newest batches kept in memory for live consumers, all topics together.
    pub tail_bytes: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { queue_appends: 16_384, queue_bytes: 64 * KIB * KIB, tail_bytes: 64 * KIB * KIB }
    }
}

/// The open log. Dropping it answers what is queued and closes the folder.
pub struct EmbeddedLog {
    store: Store,
    topics: Arc<Topics>,
    queue: Option<SyncSender<Command>>,
    queue_bytes: Arc<Semaphore>,
    /// Permits of the queue when nothing waits.
    queue_room: usize,
    /// Its other end goes with the writer.
    writer_ended: Mutex<Receiver<()>>,
    writer: Option<JoinHandle<()>>,
    #[cfg(test)]
    fail_next_commit: Arc<std::sync::atomic::AtomicBool>,
}

impl EmbeddedLog {
    /// Opens the log in a folder, creating it if needed. Blocks for as long as the disk needs.
    ///
    /// [`Error::Locked`] when another process has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, EmbeddedOptions::default())
    }

    /// As [`EmbeddedLog::open`], with bounds.
    pub fn open_with(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self> {
        let store = Store::open(path.as_ref())?;
        let topics = Arc::new(load_topics(&store)?);
        let (queue, commands) = sync_channel(options.queue_appends.max(1));
        let writer = Writer::new(store.clone(), topics.clone(), options.tail_bytes);
        #[cfg(test)]
        let fail_next_commit = writer.fail_next_commit.clone();
        let queue_room = permits(options.queue_bytes.max(limits::MAX_APPEND_BYTES * 2));
        let (alive, writer_ended) = sync_channel(1);
        let writer = std::thread::Builder::new()
            .name("event-log-writer".into())
            .spawn(move || {
                let _alive: SyncSender<()> = alive;
                writer.run(&commands);
            })
            .map_err(|e| Error::internal("cannot start the event log's writer", e))?;
        Ok(Self {
            store,
            topics,
            queue: Some(queue),
            queue_bytes: Arc::new(Semaphore::new(queue_room)),
            queue_room,
            writer_ended: Mutex::new(writer_ended),
            writer: Some(writer),
            #[cfg(test)]
            fail_next_commit,
        })
    }

    /// Drops what is older than its topic's retention now, instead of within the next minute. Gives the number of
    /// batches dropped.
    pub async fn apply_retention(&self) -> Result<usize> {
        self.command(Command::Sweep).await
    }

    fn find(&self, name: &str) -> Result<Arc<Topic>> {
        self.topics.read().get(name).cloned().ok_or_else(|| Error::UnknownTopic { topic: name.into() })
    }

    fn enqueue(&self, command: Command) -> Result<()> {
        // The writer ends only when the log is dropped, or if it panicked.
        let queue = self.queue.as_ref().ok_or(Error::Poisoned)?;
        queue.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Poisoned,
        })
    }

    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(command(reply))?;
        answer.await.map_err(|_| Error::Poisoned)?
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.queue = None;
        if self.writer_ended.get_mut().recv_timeout(CLOSE_DEADLINE) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the disk does not answer: the event log is closed without waiting for it");
            return;
        }
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the event log's writer panicked");
        }
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        limits::check_spec(spec)?;
        if self.topics.read().contains_key(&spec.name) {
            return Ok(());
        }
        self.command(|reply| Command::Create(spec.clone(), reply)).await
    }

    async fn delete_topic(&self, name: &str) -> Result<()> {
        self.command(|reply| Command::Delete(name.into(), reply)).await
    }

    async fn topic(&self, name: &str) -> Result<TopicInfo> {
        self.find(name).map(|topic| topic.info())
    }

    async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let topic = self.find(topic)?;
        let bytes = limits::check_sizes(&records)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let needed = u32::try_from(permits(bytes)).unwrap_or(u32::MAX);
        let permit = self.queue_bytes.clone().try_acquire_many_owned(needed).map_err(|_| Error::Busy)?;
        let mut plan = Plan::new(&topic, &records);
        drop(records);
        let (reply, answer) = oneshot::channel();
        let chunks = std::mem::take(&mut plan.chunks);
        self.enqueue(Command::Append(Append { topic, chunks, reply, permit }))?;
        let bases = tokio::time::timeout(APPEND_DEADLINE, answer)
            .await
            .map_err(|_| Error::Unavailable { reason: "the disk does not answer".into() })?
            .map_err(|_| Error::Poisoned)??;
        Ok(plan.positions(&bases))
    }

    fn waiting(&self) -> Waiting {
        let taken = self.queue_room.saturating_sub(self.queue_bytes.available_permits());
        Waiting { records: None, bytes: Some((taken * KIB) as u64) }
    }

    fn partition_of(&self, key: &[u8], partitions: u32) -> u32 {
        topic::partition_of(key, partitions)
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>> {
        let topic = self.find(&settings.topic)?;
        Ok(Box::new(EmbeddedConsumer::open(self.store.clone(), topic, &settings).await?))
    }
}

/// Reads every topic and removes what deleted ones left.
fn load_topics(store: &Store) -> Result<Topics> {
    let topics = store
        .topics()?
        .into_iter()
        .map(|(name, row)| Ok((name.clone(), Arc::new(Topic::load(&name, row, store)?))))
        .collect::<Result<std::collections::HashMap<_, _>>>()?;
    let owned: std::collections::HashSet<_> = topics.values().map(|topic| topic.row.id).collect();
    store.remove_orphans(|id| owned.contains(&id))?;
    Ok(Topics::new(topics))
}

/// Bytes in the unit of the queue's semaphore, whose count is limited on small machines.
fn permits(bytes: usize) -> usize {
    bytes / KIB + 1
}
