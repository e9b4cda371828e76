//! The reading thread: polls librdkafka, drops what is below the wanted offset, passes bundles on.
//!
//! The thread never stops polling for long, or the group would throw us out: when the consumer does not take bundles
//! for [`PATIENCE`], the partitions are paused, and polling goes on for rebalances only until there is room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
};
use tokio::sync::mpsc::{Permit, Sender, error::TrySendError};

use super::{
    bundle::{Bundle, fingerprint_of},
    failure,
    rebalance::{Assignment, Place},
    stuck::{Tried, Watch},
};
use crate::{Error, Result};

/// How long an idle poll waits: also the longest that closing takes to be noticed.
const IDLE: Duration = Duration::from_millis(100);
/// How long bundles may wait for the consumer before the partitions are paused.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the topic's identity is looked at: a topic made anew can look like the old one with fewer records.
const IDENTITY_EVERY: Duration = Duration::from_secs(10);

/// Offsets for lag displays.
pub(super) type Display = Vec<(u32, i64)>;

pub(super) struct Reader {
    // First, so that it has left the group when the channel of the bundles ends.
    pub(super) consumer: BaseConsumer<Assignment>,
    pub(super) bundles: Sender<Result<Bundle>>,
    pub(super) displays: Receiver<Display>,
    pub(super) is_closed: Arc<AtomicBool>,
    pub(super) tried: Tried,
}

impl Reader {
    /// Works until the consumer is dropped or something fails for good, then leaves the group.
    pub(super) fn run(self) {
        if let Err(error) = self.read() {
            // The consumer may be gone, and then nobody needs to know.
            drop(self.bundles.blocking_send(Err(error)));
        }
    }

    fn read(&self) -> Result<()> {
        let mut bundle = Bundle::default();
        let mut next_identity_check = Instant::now() + IDENTITY_EVERY;
        let mut watch = Watch::new(Arc::clone(&self.tried));
        while !self.is_closed.load(Ordering::Acquire) {
            let wait = if bundle.is_empty() { IDLE } else { Duration::ZERO };
            let is_drained = !self.poll_into(&mut bundle, wait)?;
            if !bundle.is_full() && !is_drained {
                continue;
            }
            self.pass_on(&mut bundle)?;
            self.show_offsets();
            if is_drained {
                watch.look(&self.consumer)?;
            }
            if Instant::now() >= next_identity_check {
                self.check_identity()?;
                next_identity_check = Instant::now() + IDENTITY_EVERY;
            }
        }
        Ok(())
    }

    /// One poll, which also serves rebalances. False when there was no record.
    fn poll_into(&self, bundle: &mut Bundle, wait: Duration) -> Result<bool> {
        let polled = self.consumer.poll(wait);
        if let Some(error) = self.consumer.context().failure.lock().take() {
            return Err(error);
        }
        match polled {
            Some(Ok(message)) => self.take(&message, bundle)?,
            Some(Err(error)) => {
                self.judge(error)?;
                return Ok(false);
            }
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Keeps a record unless it lies below the wanted offset, or its partition is not ours.
    ///
    /// The first one below is the one that was read last: [`Error::LogReplaced`] when it is not the same. Where compaction
    /// took it, nothing can be said.
    fn take(&self, message: &BorrowedMessage<'_>, bundle: &mut Bundle) -> Result<()> {
        let assignment = self.consumer.context();
        let (partition, offset) = (message.partition().cast_unsigned(), message.offset());
        let mut places = assignment.places.lock();
        let Some(place) = places.get_mut(&partition) else { return Ok(()) };
        if offset >= place.next {
            *place = Place { next: offset + 1, last: None };
            bundle.push(message, assignment.shared.generation());
        } else if let Some(last) = place.last.take_if(|last| last.is_of(offset))
            && last != fingerprint_of(message)
        {
            return Err(Error::LogReplaced { topic: assignment.topic.to_string(), partition, offset });
        }
        Ok(())
    }

    /// Hands the bundle over and leaves an empty one. Waits for room; see the module's text.
    fn pass_on(&self, bundle: &mut Bundle) -> Result<()> {
        if bundle.is_empty() {
            return Ok(());
        }
        let full = match self.bundles.try_send(Ok(std::mem::take(bundle))) {
            Ok(()) | Err(TrySendError::Closed(_)) => return Ok(()),
            Err(TrySendError::Full(full)) => full,
        };
        if let Some(room) = self.wait_for_room() {
            room.send(full);
            return Ok(());
        }
        let room = self.pause_until_room(bundle)?;
        self.each_assigned(|partitions| self.consumer.resume(partitions));
        if let Some(room) = room {
            room.send(full);
        }
        Ok(())
    }

    fn wait_for_room(&self) -> Option<Permit<'_, Result<Bundle>>> {
        let waiting = self.bundles.reserve();
        let waited = self.consumer.context().runtime.block_on(async { tokio::time::timeout(PATIENCE, waiting).await });
        waited.ok()?.ok()
    }

    /// Polls with everything paused, so that hardly anything comes into `bundle`. None when the consumer is gone.
    fn pause_until_room(&self, bundle: &mut Bundle) -> Result<Option<Permit<'_, Result<Bundle>>>> {
        loop {
            // Again each time: partitions may have been added.
            self.each_assigned(|partitions| self.consumer.pause(partitions));
            self.poll_into(bundle, IDLE)?;
            if self.bundles.is_closed() || self.is_closed.load(Ordering::Acquire) {
                return Ok(None);
            }
            if let Ok(room) = self.bundles.try_reserve() {
                return Ok(Some(room));
            }
        }
    }

    fn show_offsets(&self) {
        while let Ok(display) = self.displays.try_recv() {
            let mut offsets = TopicPartitionList::new();
            for (partition, offset) in display {
                let topic = &self.consumer.context().topic;
                drop(offsets.add_partition_offset(topic, partition.cast_signed(), Offset::Offset(offset)));
            }
            // For displays only: a failure is made good by the next one.
            drop(self.consumer.commit(&offsets, CommitMode::Async));
        }
    }

    fn each_assigned(&self, act: impl Fn(&TopicPartitionList) -> rdkafka::error::KafkaResult<()>) {
        if let Err(error) = self.consumer.assignment().and_then(|partitions| act(&partitions)) {
            tracing::warn!(%error, "could not pause or resume reading");
        }
    }

    fn check_identity(&self) -> Result<()> {
        match self.consumer.context().check_identity(&self.consumer) {
            Err(error) if error.is_retriable() => Ok(()),
            outcome => outcome,
        }
    }

    /// Most errors heal by themselves, and librdkafka keeps trying. These do not.
    fn judge(&self, error: KafkaError) -> Result<()> {
        let assignment = self.consumer.context();
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => {
                self.check_identity()?;
                assignment.find_out_of_range(&self.consumer)?;
                Err(Error::Unavailable { reason: format!("reading `{}` was broken off: {error}", assignment.topic) })
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownTopicId) => self.check_identity(),
            Some(code) => match failure::from_code("read", &assignment.topic, code) {
                refused @ Error::Refused { .. } => Err(refused),
                _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                    Err(Error::Unavailable { reason: format!("reading `{}` failed: {error}", assignment.topic) })
                }
                _ => {
                    tracing::debug!(%error, topic = %assignment.topic, "reading is disturbed; trying on");
                    Ok(())
                }
            },
            None => Ok(()),
        }
    }
}
