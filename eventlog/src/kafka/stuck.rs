//! Notices partitions that are ours and are not read.
//!
//! After a broker was away, librdkafka can leave a partition unread for good while it reads the others (its issue 4492 is of that
//! kind): nothing fails, and its records are simply not there. So a partition that stands still is compared with what the
//! broker holds, and when there is more at several looks, reading begins anew with a client of its own.
//!
//! Where the last offsets of a partition are marks of transactions, or belong to one that is open, there is more and nothing to
//! read: so the same partition is tried again only after a while, and the same place after a longer one.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::rebalance::Assignment;
use crate::{Error, Result};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(5);
/// At so many looks in turn a partition must have stood still behind the broker: it may be slow to come, once.
const LOOKS: u32 = 2;
/// A broker that does not answer soon is away: that is no matter of one partition.
const DEADLINE: Duration = Duration::from_secs(1);

/// The same place is not tried again before.
const AGAIN: Duration = Duration::from_secs(600);
/// Nor is another place of the same partition before this.
const AGAIN_ELSEWHERE: Duration = Duration::from_secs(60);

/// Where reading was begun anew, by topic and partition: every consumer of a process knows.
pub(super) type Tried = Arc<Mutex<BTreeMap<(Arc<str>, u32), (i64, Instant)>>>;

/// What was seen at the last look.
pub(super) struct Watch {
    next_look: Instant,
    seen: BTreeMap<u32, Seen>,
    tried: Tried,
}

#[derive(Clone, Copy)]
struct Seen {
    next: i64,
    /// Looks in turn at which it stood there, and the broker had more.
    behind: u32,
}

impl Watch {
    pub(super) fn new(tried: Tried) -> Self {
        Self { next_look: Instant::now() + EVERY, seen: BTreeMap::new(), tried }
    }

    /// To be called when everything that was fetched is taken. [`Error::Unavailable`] when a partition is left unread.
    pub(super) fn look(&mut self, consumer: &BaseConsumer<Assignment>) -> Result<()> {
        if Instant::now() < self.next_look {
            return Ok(());
        }
        let assignment = consumer.context();
        let (mut seen, mut has_failed) = (BTreeMap::new(), false);
        for (partition, next) in assignment.positions() {
            let before = self.seen.get(&partition).filter(|seen| seen.next == next);
            let behind = match before {
                Some(before) => match consumer.fetch_watermarks(&assignment.topic, partition.cast_signed(), DEADLINE) {
                    Ok((_, end)) if end > next => before.behind + 1,
                    Ok(_) => 0,
                    // One that has no leader, or the broker is away: not for long, as others wait.
                    Err(_) if has_failed => break,
                    Err(_) => {
                        has_failed = true;
                        before.behind
                    }
                },
                None => 0,
            };
            if behind >= LOOKS && self.is_new(&assignment.topic, partition, next) {
                let topic = &assignment.topic;
                let reason = format!(
                    "`{topic}` partition {partition} is not read on from offset {next}, and the broker has more"
                );
                return Err(Error::Unavailable { reason });
            }
            seen.insert(partition, Seen { next, behind });
        }
        self.seen = seen;
        self.next_look = Instant::now() + EVERY;
        Ok(())
    }

    fn is_new(&self, topic: &Arc<str>, partition: u32, next: i64) -> bool {
        let now = Instant::now();
        let mut tried = self.tried.lock();
        let key = (Arc::clone(topic), partition);
        let is_early = |(place, at): &(i64, Instant)| {
            now.duration_since(*at) < if *place == next { AGAIN } else { AGAIN_ELSEWHERE }
        };
        if tried.get(&key).is_some_and(is_early) {
            return false;
        }
        tried.insert(key, (next, now));
        true
    }
}
