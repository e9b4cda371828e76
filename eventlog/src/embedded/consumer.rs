//! Reading. A live consumer is served from memory; one that catches up reads the store on a blocking thread.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};

use super::{
    codec::{Batch, BatchReader},
    store::Store,
    topic::{Partition, Topic},
};
use crate::{Consumer, ConsumerSettings, Error, Fingerprint, PollLimits, Polled, Record, Result};

/// Most bytes that one visit to the store fetches for a partition, beyond one batch. A consumer that is behind holds as much of
/// each partition, whose records may wait for seconds.
const FETCH_BYTES: usize = 2 * 1024 * 1024;

pub(super) struct EmbeddedConsumer {
    store: Store,
    topic: Arc<Topic>,
    cursors: Vec<Cursor>,
    /// Where the next poll begins, so that no partition starves another.
    first: usize,
    /// Taken but not yet handed out: outlives a poll that was dropped while it read another partition.
    ready: Vec<Record>,
    bell: watch::Receiver<()>,
}

impl EmbeddedConsumer {
    /// Starts where [`crate::StartPositions`] says.
    pub(super) async fn open(store: Store, topic: Arc<Topic>, settings: &ConsumerSettings) -> Result<Self> {
        let partitions: Vec<u32> = (0..topic.row.partitions).collect();
        let wanted = settings.start.next_offsets(&topic.name, &partitions).await?;
        let known = settings.start.last_records(&topic.name, &partitions).await?;
        let mut cursors = Vec::new();
        for partition in &topic.partitions {
            let number = partition.key.partition;
            let range = partition.range();
            let next = wanted.get(&number).copied().unwrap_or(range.begin);
            if next < range.begin || next > range.end {
                return Err(topic.out_of_range(number, next, range));
            }
            if let Some(last) = known.get(&number).filter(|last| next > range.begin && last.is_of(next - 1)) {
                Cursor::new(partition, next - 1).require(*last, &store, &topic).await?;
            }
            cursors.push(Cursor::new(partition, next));
        }
        Ok(Self { store, bell: topic.bell(), topic, cursors, first: 0, ready: Vec::new() })
    }

    /// Whatever is there now, within the limits.
    async fn read_available(&mut self, limits: PollLimits) -> Result<Vec<Record>> {
        let mut budget = Budget { records: limits.max_records.max(1), bytes: limits.max_bytes.max(1) };
        budget.spend(&self.ready);
        let num_cursors = self.cursors.len();
        for index in 0..num_cursors {
            let Some(cursor) = self.cursors.get_mut((self.first + index) % num_cursors) else { continue };
            while !budget.is_spent() && cursor.prepare(&self.store, &self.topic).await? {
                cursor.take(&self.topic.name, &mut budget, &mut self.ready)?;
            }
        }
        self.first = (self.first + 1) % num_cursors.max(1);
        Ok(std::mem::take(&mut self.ready))
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn poll(&mut self, limits: PollLimits) -> Result<Polled> {
        let deadline = Instant::now() + limits.max_wait;
        loop {
            // Seen before looking, so that an append between looking and waiting still wakes us.
            self.bell.mark_unchanged();
            self.topic.check_alive()?;
            let records = self.read_available(limits).await?;
            if !records.is_empty() {
                return Ok(Polled { records, revoked: Vec::new() });
            }
            if tokio::time::timeout_at(deadline, self.bell.changed()).await.is_err() {
                return Ok(Polled::default());
            }
        }
    }

    async fn commit_for_display(&mut self, _next_offsets: &BTreeMap<u32, i64>) {}
}

/// What a poll may still take.
struct Budget {
    records: usize,
    bytes: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }

    fn spend(&mut self, records: &[Record]) {
        self.records = self.records.saturating_sub(records.len());
        let bytes: usize = records.iter().map(Record::size_bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// The place in one partition.
struct Cursor {
    partition: Arc<Partition>,
    next: i64,
    fetched: VecDeque<Batch>,
    reader: Option<BatchReader>,
}

impl Cursor {
    fn new(partition: &Arc<Partition>, next: i64) -> Self {
        Self { partition: Arc::clone(partition), next, fetched: VecDeque::new(), reader: None }
    }

    /// Refuses another record here than the one that was read, unless retention has just taken it.
    async fn require(mut self, known: Fingerprint, store: &Store, topic: &Topic) -> Result<()> {
        let (partition, offset) = (self.partition.key.partition, self.next);
        match self.prepare(store, topic).await {
            Err(Error::OffsetOutOfRange { .. }) => return Ok(()),
            prepared => {
                prepared?;
            }
        }
        let found = self.reader.as_mut().map(|reader| reader.next(&topic.name, partition)).transpose()?.flatten();
        match found {
            Some(found) if found.fingerprint() != known => {
                Err(Error::LogReplaced { topic: topic.name.to_string(), partition, offset })
            }
            _ => Ok(()),
        }
    }

    /// Makes sure that `reader` stands at `next`; false when nothing is there yet.
    async fn prepare(&mut self, store: &Store, topic: &Topic) -> Result<bool> {
        if self.reader.is_some() {
            return Ok(true);
        }
        let range = self.partition.range();
        if self.next < range.begin {
            return Err(topic.out_of_range(self.partition.key.partition, self.next, range));
        }
        if self.next >= range.end {
            return Ok(false);
        }
        let batch = match self.fetched.pop_front().or_else(|| self.partition.tail_batch(self.next)) {
            Some(batch) => batch,
            None => {
                self.fetched = self.fetch(store).await?;
                match self.fetched.pop_front() {
                    Some(batch) if batch.base <= self.next => batch,
                    // Retention or a deletion came in between.
                    _ => {
                        return Err(topic.out_of_range(
                            self.partition.key.partition,
                            self.next,
                            self.partition.range(),
                        ));
                    }
                }
            }
        };
        self.reader = Some(BatchReader::new(batch, self.next)?);
        Ok(true)
    }

    async fn fetch(&self, store: &Store) -> Result<VecDeque<Batch>> {
        let (store, key, next) = (store.clone(), self.partition.key, self.next);
        tokio::task::spawn_blocking(move || store.read(key, next, FETCH_BYTES))
            .await
            .map_err(|e| Error::internal("reading the event log was broken off", e))?
            .map(VecDeque::from)
    }

    fn take(&mut self, topic: &Arc<str>, budget: &mut Budget, records: &mut Vec<Record>) -> Result<()> {
        while !budget.is_spent() {
            let Some(reader) = self.reader.as_mut() else { return Ok(()) };
            let Some(record) = reader.next(topic, self.partition.key.partition)? else {
                self.reader = None;
                return Ok(());
            };
            self.next = record.offset + 1;
            budget.spend(std::slice::from_ref(&record));
            records.push(record);
        }
        Ok(())
    }
}
