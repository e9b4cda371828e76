//! What is known in memory of a topic: bounds and the newest batches of each partition.
//!
//! The writer alone changes these; consumers and doors read them. A topic also carries the bell that wakes consumers.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
};

use parking_lot::RwLock;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    codec::Batch,
    store::{PartitionKey, Store, TopicRow},
};
use crate::{Error, PartitionRange, Result, TopicInfo};

/// The partition of a key: the same for ever, which `stable_hash_of_keys` pins.
pub(super) fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (xxh3_64(key) % u64::from(partitions.max(1))) as u32
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) row: TopicRow,
    pub(super) partitions: Vec<Arc<Partition>>,
    next_keyless: AtomicU32,
    is_deleted: AtomicBool,
    bell: watch::Sender<()>,
}

impl Topic {
    /// Reads the bounds of each partition.
    pub(super) fn load(name: &str, row: TopicRow, store: &Store) -> Result<Self> {
        let partitions = (0..row.partitions)
            .map(|partition| Partition::load(PartitionKey { topic: row.id, partition }, store).map(Arc::new))
            .collect::<Result<_>>()?;
        Ok(Self {
            name: name.into(),
            row,
            partitions,
            next_keyless: AtomicU32::new(0),
            is_deleted: AtomicBool::new(false),
            bell: watch::Sender::new(()),
        })
    }

    pub(super) fn info(&self) -> TopicInfo {
        TopicInfo {
            name: self.name.to_string(),
            id: self.row.id.to_string(),
            partitions: self.partitions.iter().map(|partition| partition.range()).collect(),
        }
    }

    /// The partition of a key.
    pub(super) fn partition_of(&self, key: &[u8]) -> u32 {
        partition_of(key, self.row.partitions)
    }

    /// The partition for the keyless records of one append.
    pub(super) fn next_keyless_partition(&self) -> u32 {
        self.next_keyless.fetch_add(1, Ordering::Relaxed) % self.row.partitions
    }

    pub(super) fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    pub(super) fn ring(&self) {
        self.bell.send_replace(());
    }

    pub(super) fn mark_deleted(&self) {
        self.is_deleted.store(true, Ordering::Release);
        self.ring();
    }

    pub(super) fn check_alive(&self) -> Result<()> {
        match self.is_deleted.load(Ordering::Acquire) {
            true => Err(Error::UnknownTopic { topic: self.name.to_string() }),
            false => Ok(()),
        }
    }

    pub(super) fn out_of_range(&self, partition: u32, wanted: i64, range: PartitionRange) -> Error {
        let PartitionRange { begin, end } = range;
        Error::OffsetOutOfRange { topic: self.name.to_string(), partition, wanted, begin, end }
    }
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) key: PartitionKey,
    begin: AtomicI64,
    end: AtomicI64,
    tail: RwLock<VecDeque<Batch>>,
}

impl Partition {
    fn load(key: PartitionKey, store: &Store) -> Result<Self> {
        let (begin, end) = store.bounds(key)?;
        Ok(Self { key, begin: begin.into(), end: end.into(), tail: RwLock::default() })
    }

    pub(super) fn range(&self) -> PartitionRange {
        // The begin first: it never passes an end that was read later.
        let begin = self.begin.load(Ordering::Acquire);
        PartitionRange { begin, end: self.end.load(Ordering::Acquire) }
    }

    /// Makes a durable batch readable.
    pub(super) fn publish(&self, batch: Batch) {
        let end = batch.end();
        self.tail.write().push_back(batch);
        self.end.store(end, Ordering::Release);
    }

    /// Forgets everything below `begin`.
    pub(super) fn drop_front(&self, begin: i64) {
        self.begin.store(begin, Ordering::Release);
        self.forget_tail_below(begin);
    }

    /// Drops batches that end at or before `offset` from memory.
    pub(super) fn forget_tail_below(&self, offset: i64) {
        let mut tail = self.tail.write();
        while tail.front().is_some_and(|batch| batch.end() <= offset) {
            tail.pop_front();
        }
    }

    /// The batch that holds `offset`, if it is in memory.
    pub(super) fn tail_batch(&self, offset: i64) -> Option<Batch> {
        let tail = self.tail.read();
        let index = tail.partition_point(|batch| batch.end() <= offset);
        tail.get(index).filter(|batch| batch.base <= offset).cloned()
    }
}
