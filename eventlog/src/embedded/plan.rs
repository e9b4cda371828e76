//! An append as its publisher prepares it: records grouped by partition and encoded, before offsets are known.
//!
//! This is the part of an append that costs time by the byte, so it runs on the publisher's task and not on the one
//! writer thread.

use super::{
    codec,
    group::{BATCH_BYTES, Chunk},
    topic::Topic,
};
use crate::{NewRecord, Position};

/// Chunks for the writer, and where each record lies in them.
pub(super) struct Plan {
    pub(super) chunks: Vec<Chunk>,
    /// For each record its chunk and its place in that chunk.
    places: Vec<(u32, u32)>,
    partitions: Vec<u32>,
}

impl Plan {
    pub(super) fn new(topic: &Topic, records: &[NewRecord]) -> Self {
        let mut plan = Self { chunks: Vec::new(), places: Vec::with_capacity(records.len()), partitions: Vec::new() };
        let mut open: Vec<Option<u32>> = vec![None; topic.partitions.len()];
        let mut keyless = None;
        for record in records {
            let partition = match &record.key {
                Some(key) => topic.partition_of(key),
                None => *keyless.get_or_insert_with(|| topic.next_keyless_partition()),
            };
            let index = match open[partition as usize] {
                Some(index) if plan.chunks[index as usize].records.len() < BATCH_BYTES => index,
                _ => plan.open_chunk(partition),
            };
            open[partition as usize] = Some(index);
            let chunk = &mut plan.chunks[index as usize];
            plan.places.push((index, chunk.count));
            codec::encode(record, &mut chunk.records);
            chunk.count += 1;
        }
        plan
    }

    fn open_chunk(&mut self, partition: u32) -> u32 {
        self.chunks.push(Chunk { partition, count: 0, records: Vec::new() });
        self.partitions.push(partition);
        (self.chunks.len() - 1) as u32
    }

    /// One position a record, once the writer has said where each chunk begins.
    pub(super) fn positions(&self, bases: &[i64]) -> Vec<Position> {
        let position = |&(chunk, place): &(u32, u32)| {
            let (partition, base) = (self.partitions[chunk as usize], bases[chunk as usize]);
            Position { partition, offset: base + i64::from(place) }
        };
        self.places.iter().map(position).collect()
    }
}
