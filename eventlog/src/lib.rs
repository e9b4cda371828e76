//! The durable event log: one interface, two implementations.
//!
//! A log holds *topics*; a topic holds *partitions*; a partition is an append-only sequence of *records*, each with an
//! *offset*. [`embedded`] keeps them in a folder of this machine for one process; [`kafka`] speaks to Apache Kafka.
//!
//! Guarantees that both give, and that everything above relies on:
//! - [`EventLog::append`] returns only when the records are durable (embedded: fsync; Kafka: `acks=all`, idempotent producer).
//! - Offsets of a partition grow by one from zero on the embedded log; on Kafka they grow, with gaps.
//! - A [`Consumer`] starts where [`StartPositions`] says, not where a broker remembers (spec L2), and drops anything below.
//! - A topic has an identity ([`TopicInfo::id`]) that changes when it is deleted and created again (spec L3).
//! - A log that lost its end, and gave its offsets to other records, is recognised by the record before the position.

pub mod embedded;
mod error;
mod headers;
pub mod kafka;
mod limits;
mod record;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use error::{Error, Result};
pub use headers::Headers;
pub use limits::{MAX_APPEND_BYTES, MAX_RECORD_BYTES};
pub use record::{Fingerprint, NewRecord, Record};

/// What a topic should look like when it is created. An existing topic is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: u32,
    /// How long records are kept; `None` keeps them for ever.
    pub retention: Option<Duration>,
}

/// The offsets that a partition holds: `begin..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRange {
    pub begin: i64,
    /// The offset that the next record will get.
    pub end: i64,
}

/// A topic as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub name: String,
    /// Changes when the topic is deleted and created again.
    pub id: String,
    /// Indexed by partition number.
    pub partitions: Vec<PartitionRange>,
}

/// Where one record ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub partition: u32,
    pub offset: i64,
}

/// How full the queue before the log is; none where that is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    pub records: Option<u64>,
    pub bytes: Option<u64>,
}

/// Says at which offset a consumer starts in a partition that it was given.
///
/// Asked at start and at every rebalance, so that the answer always comes from the table that holds the data.
#[async_trait]
pub trait StartPositions: Send + Sync + 'static {
    /// The next offset wanted of each listed partition; a missing one starts at the beginning.
    async fn next_offsets(&self, topic: &str, partitions: &[u32]) -> Result<BTreeMap<u32, i64>>;

    /// Of the listed partitions, the record before the offset that [`Self::next_offsets`] gave, where that is known. A log
    /// that still has a record there must have the same one, or it is another log than the one that was read:
    /// [`Error::LogReplaced`]. One that is of another offset is ignored.
    async fn last_records(&self, _topic: &str, _partitions: &[u32]) -> Result<BTreeMap<u32, Fingerprint>> {
        Ok(BTreeMap::new())
    }

    /// Called when partitions go to another consumer. The group waits for the answer, up to [`HANDOVER`], so that what
    /// is under way can be ended first. When they are `lost`, somebody may have them already, and nobody waits.
    async fn taken_away(&self, _topic: &str, _partitions: &[u32], _lost: bool) {}
}

/// How long partitions that are taken away wait for their old owner: well below the time after which a group throws out
/// a member that holds everybody up.
pub const HANDOVER: Duration = Duration::from_secs(15);

/// Bounds of one [`Consumer::poll`]: it returns when the first is reached.
#[derive(Debug, Clone, Copy)]
pub struct PollLimits {
    pub max_records: usize,
    pub max_bytes: usize,
    /// Waits at most this long for the first record.
    pub max_wait: Duration,
}

/// What a consumer reads.
pub struct ConsumerSettings {
    /// The consumer group; the embedded log, which has one process, gives every partition to each consumer.
    pub group: String,
    pub topic: String,
    pub start: Arc<dyn StartPositions>,
}

/// What a poll gave.
#[derive(Debug, Default)]
pub struct Polled {
    /// In offset order within each partition.
    pub records: Vec<Record>,
    /// Partitions taken away since the last poll: the caller must drop what it holds of them uncommitted.
    pub revoked: Vec<u32>,
}

/// The log.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Creates the topic if it is not there; never changes an existing one.
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()>;

    /// Deletes a topic with its records. [`Error::UnknownTopic`] when there is none. Consumers of it fail from then on.
    async fn delete_topic(&self, name: &str) -> Result<()>;

    /// Identity and offsets of a topic. [`Error::UnknownTopic`] when there is none.
    async fn topic(&self, name: &str) -> Result<TopicInfo>;

    /// Appends all records, or says why not; returns one position a record, in the order given.
    ///
    /// A record with a key goes to the partition of its key; one without, to any. After an error some of the records
    /// may be in the log: the outcome is unknown, and publishing again is safe because silver keeps one of each identity.
    async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>>;

    /// What was handed over and is not durable yet, for displays.
    fn waiting(&self) -> Waiting {
        Waiting::default()
    }

    /// The partition, of so many, that records of a key go to.
    fn partition_of(&self, key: &[u8], partitions: u32) -> u32;

    /// Opens a consumer.
    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>>;
}

/// Reads the partitions that it owns.
#[async_trait]
pub trait Consumer: Send {
    /// The next records, possibly none after `max_wait`. Apply [`Polled::revoked`] before [`Polled::records`]: a
    /// partition that went away and came back is in both, and its records start at the newly asked position.
    ///
    /// Dropping the future loses nothing. After an error the consumer is finished: open another, which asks
    /// [`StartPositions`] again.
    async fn poll(&mut self, limits: PollLimits) -> Result<Polled>;

    /// Tells the broker how far the tables are, for lag displays only (spec L2). Failures do not matter.
    async fn commit_for_display(&mut self, next_offsets: &BTreeMap<u32, i64>);

    /// Leaves the group: others have the partitions when this returns, or a few seconds later if the broker does not answer.
    /// Dropping a consumer does the same behind the caller's back.
    async fn close(self: Box<Self>) {}
}
