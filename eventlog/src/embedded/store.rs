//! The folder on disk: topics, batches and the first offset still held, on the `fjall` storage crate.
//!
//! One store lock guards the folder, so a second process is refused. A batch key is topic id (16 bytes), partition
//! (`u32`), base offset (`u64`), number of records (`u32`) and timestamp (`u64`), all big-endian: batches of a
//! partition lie in offset order, and recovery and retention read keys only. Values go to separate value files, so
//! that merging the key tree never copies records.
//!
//! [`Store::commit`] returns after one fsync of the journal and makes the batches visible only then. A failed write or
//! fsync poisons the store for good: after a failed fsync nobody knows what the disk holds, and trying again may lie.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, PersistMode,
    UserValue,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{codec::Batch, torn};
use crate::{Error, Result};

const TOPIC_AND_PARTITION: usize = 20;
const KEY_BYTES: usize = TOPIC_AND_PARTITION + 20;

/// A topic as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TopicRow {
    pub(super) id: Uuid,
    pub(super) partitions: u32,
    /// Whole milliseconds; absent keeps records for ever.
    pub(super) retention_ms: Option<u64>,
}

impl TopicRow {
    pub(super) fn retention(&self) -> Option<Duration> {
        self.retention_ms.map(Duration::from_millis)
    }
}

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartitionKey {
    pub(super) topic: Uuid,
    pub(super) partition: u32,
}

impl PartitionKey {
    fn prefix(self) -> [u8; TOPIC_AND_PARTITION] {
        let mut prefix = [0; TOPIC_AND_PARTITION];
        prefix[..16].copy_from_slice(self.topic.as_bytes());
        prefix[16..].copy_from_slice(&self.partition.to_be_bytes());
        prefix
    }

    /// The smallest key of a batch with this base offset.
    fn at(self, base: i64) -> Vec<u8> {
        [&self.prefix()[..], &base.to_be_bytes()].concat()
    }
}

/// What a batch key says.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchHead {
    pub(super) base: i64,
    pub(super) count: u32,
    pub(super) timestamp_us: i64,
}

impl BatchHead {
    pub(super) fn end(self) -> i64 {
        self.base + i64::from(self.count)
    }

    fn key(self, partition: PartitionKey) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[..20].copy_from_slice(&partition.prefix());
        key[20..28].copy_from_slice(&self.base.to_be_bytes());
        key[28..32].copy_from_slice(&self.count.to_be_bytes());
        key[32..].copy_from_slice(&self.timestamp_us.to_be_bytes());
        key
    }

    fn parse(key: &[u8]) -> Result<Self> {
        let field = |from: usize, to: usize| key.get(from..to).filter(|_| key.len() == KEY_BYTES);
        let head = || {
            Some(Self {
                base: i64::from_be_bytes(field(20, 28)?.try_into().ok()?),
                count: u32::from_be_bytes(field(28, 32)?.try_into().ok()?),
                timestamp_us: i64::from_be_bytes(field(32, 40)?.try_into().ok()?),
            })
        };
        head().ok_or_else(|| Error::Damaged { detail: format!("a batch key has {} bytes", key.len()) })
    }
}

/// A group of changes that [`Store::commit`] makes durable together.
pub(super) struct Changes(OwnedWriteBatch);

/// The open folder. Cloning gives another handle on it.
#[derive(Clone)]
pub(super) struct Store {
    db: Database,
    topics: Keyspace,
    begins: Keyspace,
    batches: Keyspace,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self> {
        make_whole(path, |making| Self::open_existing(making).map(drop))?;
        Self::open_existing(path)
    }

    fn open_existing(path: &Path) -> Result<Self> {
        let db = match open_database(path) {
            Err(fjall::Error::JournalRecovery(reason)) if torn::cut_torn_tail(path)? => {
                tracing::warn!(?reason, "cut an unfinished write, never acknowledged, off the event log's journal");
                open_database(path)
            }
            opened => opened,
        }
        .map_err(|e| match e {
            fjall::Error::Locked => Error::Locked { path: path.into() },
            other => Error::internal(format!("cannot open the event log in `{}`", path.display()), other),
        })?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(1024 * 1024);
        let large = || {
            // Values are JSON most of the time, but are written once and mostly read from memory: leave them plain.
            let values = KvSeparationOptions::default().compression(CompressionType::None);
            KeyspaceCreateOptions::default().max_memtable_size(32 * 1024 * 1024).with_kv_separation(Some(values))
        };
        let keyspace = |name, options| db.keyspace(name, options).map_err(|e| failed("open a part of it", e));
        let (topics, begins) = (keyspace("topics", small as fn() -> _)?, keyspace("begins", small)?);
        let batches = keyspace("batches", large)?;
        Ok(Self { topics, begins, batches, db })
    }

    /// Every topic by name.
    pub(super) fn topics(&self) -> Result<Vec<(String, TopicRow)>> {
        let read = |guard: fjall::Guard| -> Result<(String, TopicRow)> {
            let (key, value) = guard.into_inner().map_err(|e| failed("list topics", e))?;
            let name = String::from_utf8_lossy(&key).into_owned();
            let row = serde_json::from_slice(&value)
                .map_err(|e| Error::Damaged { detail: format!("topic `{name}` does not read back: {e}") })?;
            Ok((name, row))
        };
        self.topics.iter().map(read).collect()
    }

    /// First and next offset of a partition.
    pub(super) fn bounds(&self, partition: PartitionKey) -> Result<(i64, i64)> {
        let stored = self.begins.get(partition.prefix()).map_err(|e| failed("read a first offset", e))?;
        let begin = stored.and_then(|value| value[..].try_into().ok().map(i64::from_be_bytes)).unwrap_or(0);
        let last = self.batches.prefix(partition.prefix()).next_back().map(head_of).transpose()?;
        Ok((begin, last.map_or(begin, |head| head.end().max(begin))))
    }

    /// Batches from the one that holds `offset` on, at least one if there is any, up to about `max_bytes`.
    pub(super) fn read(&self, partition: PartitionKey, offset: i64, max_bytes: usize) -> Result<Vec<Batch>> {
        let first = self
            .batches
            .range(partition.at(0)..partition.at(offset.saturating_add(1)))
            .next_back()
            .map(head_of)
            .transpose()?
            .map_or(offset, |head| head.base);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for guard in self.batches.range(partition.at(first)..partition.at(i64::MAX)) {
            let (key, value) = guard.into_inner().map_err(|e| failed("read", e))?;
            let BatchHead { base, count, timestamp_us } = BatchHead::parse(&key)?;
            let batch = Batch { base, count, timestamp_us, value: Bytes::from_owner(value) };
            if batch.end() <= offset {
                continue;
            }
            bytes += batch.value.len();
            found.push(batch);
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(found)
    }

    /// The heads of a partition's batches, oldest first, at most `limit`.
    pub(super) fn heads(&self, partition: PartitionKey, limit: usize) -> Result<Vec<BatchHead>> {
        self.batches.prefix(partition.prefix()).take(limit).map(head_of).collect()
    }

    pub(super) fn changes(&self) -> Changes {
        Changes(self.db.batch())
    }

    pub(super) fn put_topic(&self, changes: &mut Changes, name: &str, row: &TopicRow) -> Result<()> {
        let value = serde_json::to_vec(row).map_err(|e| Error::internal("cannot write a topic", e))?;
        changes.0.insert(&self.topics, name, value);
        Ok(())
    }

    pub(super) fn remove_topic(&self, changes: &mut Changes, name: &str) {
        changes.0.remove(&self.topics, name);
    }

    /// Adds a batch; gives back its bytes, shared with the store.
    pub(super) fn put_batch(
        &self,
        changes: &mut Changes,
        partition: PartitionKey,
        head: BatchHead,
        value: Vec<u8>,
    ) -> Bytes {
        let value = UserValue::from(value);
        changes.0.insert(&self.batches, head.key(partition), value.clone());
        Bytes::from_owner(value)
    }

    /// Removes batches from the front of a partition, whose first offset is `begin` from then on.
    pub(super) fn remove_front(&self, changes: &mut Changes, partition: PartitionKey, heads: &[BatchHead], begin: i64) {
        for head in heads {
            changes.0.remove(&self.batches, head.key(partition));
        }
        changes.0.insert(&self.begins, partition.prefix(), begin.to_be_bytes());
    }

    /// Removes everything that no topic owns: what a deleted topic left, whole or in part.
    pub(super) fn remove_orphans(&self, owned: impl Fn(Uuid) -> bool) -> Result<()> {
        for keyspace in [&self.batches, &self.begins] {
            let mut from = Vec::new();
            while let Some(guard) = keyspace.range(from.clone()..).next() {
                let key = guard.key().map_err(|e| failed("look for leftovers", e))?;
                let id: [u8; 16] = key
                    .get(..16)
                    .and_then(|id| id.try_into().ok())
                    .ok_or_else(|| Error::Damaged { detail: format!("a key has {} bytes", key.len()) })?;
                if !owned(Uuid::from_bytes(id)) {
                    self.remove_prefix(keyspace, &id)?;
                }
                // The next topic: the smallest key above every key with this id.
                match u128::from_be_bytes(id).checked_add(1) {
                    Some(next) => from = next.to_be_bytes().to_vec(),
                    None => break,
                }
            }
        }
        Ok(())
    }

    fn remove_prefix(&self, keyspace: &Keyspace, prefix: &[u8]) -> Result<()> {
        const AT_ONCE: usize = 10_000;
        loop {
            let mut changes = self.db.batch();
            for guard in keyspace.prefix(prefix).take(AT_ONCE) {
                changes.remove(keyspace, guard.key().map_err(|e| failed("look for leftovers", e))?);
            }
            let is_last = changes.len() < AT_ONCE;
            changes.commit().map_err(|e| failed("remove leftovers", e))?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Writes everything and returns after the fsync.
    pub(super) fn commit(&self, changes: Changes) -> Result<()> {
        changes.0.durability(Some(PersistMode::SyncAll)).commit().map_err(|e| failed("write", e))
    }
}

/// Makes a new store under another name first: one that a crash or a full disk left half made never opens again.
fn make_whole(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |e| Error::internal(format!("cannot create the folder `{}`", path.display()), e);
    std::fs::create_dir_all(path).map_err(failed)?;
    if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Ok(());
    }
    let making = path.with_extension("new");
    match std::fs::remove_dir_all(&making) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    make(&making)?;
    std::fs::rename(&making, path).map_err(failed)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(parent).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn open_database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(16 * 1024 * 1024)
        .journal_compression(CompressionType::None)
        .worker_threads(2)
        .open()
}

fn head_of(guard: fjall::Guard) -> Result<BatchHead> {
    BatchHead::parse(&guard.key().map_err(|e| failed("read", e))?)
}

fn failed(action: &str, error: fjall::Error) -> Error {
    match error {
        fjall::Error::Poisoned => Error::Poisoned,
        other => Error::internal(format!("the event log could not {action}"), other),
    }
}
