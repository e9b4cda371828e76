//! What happens when partitions come and go.
//!
//! On assign, the recorded positions are asked for (spec L2) and checked against what the broker holds, and reading
//! starts exactly there, after one look at the record before it: a log that has another one there lost its end, and what it
//! has since at offsets that were read before would be passed over. On revoke, the *generation* goes up: each record carries the generation in which it was
//! read, so those read before their partition was taken away are recognised and dropped wherever they are by then.
//!
//! Everything here runs inside `poll` on the reading thread. A failure is left in [`Assignment::failure`]; the thread
//! ends with it, since going on without a known position could skip records.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    bindings::rd_kafka_resp_err_t as Event,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::KafkaResult,
};
use tokio::{runtime::Handle, sync::Notify};

use super::{REQUEST_DEADLINE, describe, failure};
use crate::{Error, Fingerprint, HANDOVER, Result, StartPositions};

/// The table has this long to say where to start; well below the group's `max.poll.interval.ms`.
const POSITIONS_DEADLINE: Duration = Duration::from_secs(60);

/// A group of partitions taken away, and the generation that began with it.
pub(super) struct Revocation {
    pub(super) generation: u64,
    pub(super) partitions: Vec<u32>,
}

/// What the reading thread and the consumer both see.
#[derive(Default)]
pub(super) struct Shared {
    generation: AtomicU64,
    revocations: Mutex<Vec<Revocation>>,
    pub(super) bell: Notify,
}

impl Shared {
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Revocations since the last call. Asked after a bundle arrived, it gives every one that came before that bundle.
    pub(super) fn take_revocations(&self) -> Vec<Revocation> {
        std::mem::take(&mut *self.revocations.lock())
    }

    fn revoke(&self, partitions: Vec<u32>) {
        let mut revocations = self.revocations.lock();
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        revocations.push(Revocation { generation, partitions });
        drop(revocations);
        self.bell.notify_one();
    }
}

/// Where reading a partition stands.
pub(super) struct Place {
    /// The next offset wanted.
    pub(super) next: i64,
    /// The record before it, as it was read, until the log has shown that it still has it.
    pub(super) last: Option<Fingerprint>,
}

/// The consumer's context: what it owns and where it stands.
pub(super) struct Assignment {
    pub(super) topic: Arc<str>,
    /// The topic's id when the consumer was opened.
    pub(super) topic_id: String,
    pub(super) start: Arc<dyn StartPositions>,
    pub(super) runtime: Handle,
    pub(super) shared: Arc<Shared>,
    /// Where we stand in each partition that we own.
    pub(super) places: Mutex<BTreeMap<u32, Place>>,
    pub(super) failure: Mutex<Option<Error>>,
}

impl ClientContext for Assignment {}

impl ConsumerContext for Assignment {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: Event, partitions: &mut TopicPartitionList) {
        let is_cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let outcome = match event {
            Event::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                let prepared = self.prepare(consumer, partitions);
                let assigned = match is_cooperative {
                    true => consumer.incremental_assign(partitions),
                    false => consumer.assign(partitions),
                };
                if prepared.is_err() {
                    // The group is told that we have them, but nothing is read before the thread ends.
                    drop(consumer.pause(partitions));
                }
                prepared.and(self.check(assigned))
            }
            Event::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                let numbers = numbers(partitions);
                self.places.lock().retain(|partition, _| !numbers.contains(partition));
                self.shared.revoke(numbers.clone());
                self.hand_over(&numbers, consumer.assignment_lost());
                self.check(match is_cooperative {
                    true => consumer.incremental_unassign(partitions),
                    false => consumer.unassign(),
                })
            }
            _ => Ok(()),
        };
        if let Err(error) = outcome {
            self.failure.lock().get_or_insert(error);
        }
    }
}

impl Assignment {
    /// Asks where to start, checks it against the broker, and writes it into the list.
    fn prepare(&self, consumer: &BaseConsumer<Self>, partitions: &mut TopicPartitionList) -> Result<()> {
        let numbers = numbers(partitions);
        if numbers.is_empty() {
            return Ok(());
        }
        self.check_identity(consumer)?;
        let asked = async {
            let wanted = self.start.next_offsets(&self.topic, &numbers).await?;
            Ok::<_, Error>((wanted, self.start.last_records(&self.topic, &numbers).await?))
        };
        let (wanted, known) =
            self.runtime
                .block_on(async { tokio::time::timeout(POSITIONS_DEADLINE, asked).await })
                .map_err(|_| Error::Unavailable { reason: "the start positions did not come in time".into() })??;
        for partition in numbers {
            let (begin, end) = self.range(consumer, partition)?;
            let next = wanted.get(&partition).copied().unwrap_or(begin);
            if next < begin || next > end {
                return Err(self.out_of_range(partition, next, begin, end));
            }
            // Reading begins one before what is wanted, to see that the log still has what was read there.
            let last = known.get(&partition).copied().filter(|last| next > begin && last.is_of(next - 1));
            let first = Offset::Offset(next - i64::from(last.is_some()));
            self.check(partitions.set_partition_offset(&self.topic, partition.cast_signed(), first))?;
            self.places.lock().insert(partition, Place { next, last });
        }
        Ok(())
    }

    /// Lets the caller end what it does with the partitions, before anybody else has them.
    fn hand_over(&self, partitions: &[u32], is_lost: bool) {
        let told = self.start.taken_away(&self.topic, partitions, is_lost);
        let told = self.runtime.block_on(async { tokio::time::timeout(HANDOVER, told).await });
        if told.is_err() {
            tracing::warn!(topic = %self.topic, ?partitions, "partitions are handed over before their owner was done");
        }
    }

    /// Positions of a topic mean nothing in another of the same name.
    pub(super) fn check_identity(&self, consumer: &BaseConsumer<Self>) -> Result<()> {
        let found = describe::describe(consumer.client(), &self.topic, REQUEST_DEADLINE)?.id;
        if found == self.topic_id {
            return Ok(());
        }
        Err(Error::TopicRecreated { topic: self.topic.to_string(), expected: self.topic_id.clone(), found })
    }

    /// The next offset wanted of each partition that we own.
    pub(super) fn positions(&self) -> Vec<(u32, i64)> {
        self.places.lock().iter().map(|(partition, place)| (*partition, place.next)).collect()
    }

    /// The partition whose position the broker does not hold, as an error.
    pub(super) fn find_out_of_range(&self, consumer: &BaseConsumer<Self>) -> Result<()> {
        for (partition, next) in self.positions() {
            let (begin, end) = self.range(consumer, partition)?;
            if next < begin || next > end {
                return Err(self.out_of_range(partition, next, begin, end));
            }
        }
        Ok(())
    }

    fn range(&self, consumer: &BaseConsumer<Self>, partition: u32) -> Result<(i64, i64)> {
        consumer
            .fetch_watermarks(&self.topic, partition.cast_signed(), REQUEST_DEADLINE)
            .map_err(|e| failure::from_client("ask for offsets", &self.topic, e))
    }

    fn out_of_range(&self, partition: u32, wanted: i64, begin: i64, end: i64) -> Error {
        Error::OffsetOutOfRange { topic: self.topic.to_string(), partition, wanted, begin, end }
    }

    fn check(&self, outcome: KafkaResult<()>) -> Result<()> {
        outcome.map_err(|e| failure::from_client("take part in the consumer group", &self.topic, e))
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<u32> {
    partitions.elements().iter().map(|element| element.partition().cast_unsigned()).collect()
}
