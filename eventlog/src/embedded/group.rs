//! What one fsync writes: the chunks of all waiting appends, merged into batches by partition, with their offsets.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    codec::VERSION,
    store::BatchHead,
    topic::{Partition, Topic},
};

/// A stored batch takes further chunks until it has this many bytes: large enough to read fast, small enough to drop
/// and to hold in memory one by one.
pub(super) const BATCH_BYTES: usize = 1024 * 1024;

/// Encoded records for one partition.
pub(super) struct Chunk {
    pub(super) partition: u32,
    pub(super) count: u32,
    pub(super) records: Vec<u8>,
}

/// A batch that is being put together.
pub(super) struct Pending {
    pub(super) head: BatchHead,
    pub(super) value: Vec<u8>,
}

/// The batches of one fsync, by partition.
pub(super) struct Group {
    now_us: i64,
    topics: HashMap<Uuid, Arc<Topic>>,
    partitions: HashMap<(Uuid, u32), (Arc<Partition>, Vec<Pending>)>,
}

impl Group {
    pub(super) fn new(now_us: i64) -> Self {
        Self { now_us, topics: HashMap::new(), partitions: HashMap::new() }
    }

    /// Adds a chunk and gives its base offset.
    pub(super) fn add(&mut self, topic: &Arc<Topic>, chunk: Chunk) -> i64 {
        let (id, partition) = (topic.row.id, chunk.partition);
        if let Entry::Vacant(vacant) = self.topics.entry(id) {
            vacant.insert(topic.clone());
        }
        let (shared, batches) = self
            .partitions
            .entry((id, partition))
            .or_insert_with(|| (topic.partitions[partition as usize].clone(), Vec::new()));
        let base = batches.last().map_or_else(|| shared.range().end, |last| last.head.end());
        match batches.last_mut().filter(|last| last.value.len() < BATCH_BYTES) {
            Some(last) => {
                last.value.extend_from_slice(&chunk.records);
                last.head.count += chunk.count;
            }
            None => {
                let mut value = Vec::with_capacity(1 + chunk.records.len());
                value.push(VERSION);
                value.extend_from_slice(&chunk.records);
                let head = BatchHead { base, count: chunk.count, timestamp_us: self.now_us };
                batches.push(Pending { head, value });
            }
        }
        base
    }

    /// The topics that get something.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// Takes the batches out, those of a partition in order.
    pub(super) fn batches(&mut self) -> impl Iterator<Item = (Arc<Partition>, Pending)> {
        let partitions = std::mem::take(&mut self.partitions);
        partitions.into_values().flat_map(|(shared, batches)| {
            batches.into_iter().map(move |pending| (shared.clone(), pending)).collect::<Vec<_>>()
        })
    }
}
