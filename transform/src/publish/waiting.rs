//! Changes that wait until a keyed table is written.
//!
//! What waits is known by its keys: the fold's state has the row that each key has by then. A step's keys are one value in
//! the state store.

use std::{
    collections::HashSet,
    ops::Range,
    time::{Duration, Instant},
};

use fjall::Slice;

use super::{PublishedTable, SLOT_ROWS, keys::WaitingKeys, slot_number};
use crate::{Error, Result, gold::GoldChanges, state::Step};

/// When the files of a table take what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// With the step.
    AtOnce,
    /// With the step where that is cheap, else within this time.
    Within(Duration),
    /// When told, all at once: the rows of a new table.
    Later,
}

/// Rows of touched slots that are rewritten with any step, however little it changes.
const CHEAP_ROWS: u64 = 2 * SLOT_ROWS;

/// Rewritten rows for each changed one that are still cheap.
const CHEAP_SHARE: u64 = 4;

/// Changed keys that may wait: some 50 MiB of them. Where they are all over a table, each writing is of the whole table.
const MOST_WAITING: usize = 1 << 20;

/// Changes wait at least so many times as long as it took to write the last ones that waited: on a busy machine the
/// pipeline goes on with gold rather than write one table again and again.
const PAUSE_FOR_WRITING: u32 = 4;

/// What is to be written now.
pub enum Due {
    /// All of it waits.
    Nothing,
    /// The changes: nothing else waits.
    Changes(GoldChanges),
    /// The rows that these keys have now.
    Keys(WaitingKeys),
}

/// What is to be written of a table that is behind.
pub enum Waiting {
    /// The rows that these keys have now.
    Keys(WaitingKeys),
    /// The rows of all keys after this one, or of all: the table is new, and no keys are remembered.
    Every { after: Option<Vec<u8>> },
}

/// Changes that wait.
pub(super) struct Behind {
    since: Instant,
    waiting: Waiting,
    /// Numbers of the values in the state store that hold the keys. One that is empty stands for all.
    stored: Range<u64>,
}

impl Behind {
    fn new(waiting: Waiting) -> Self {
        Self { since: Instant::now(), waiting, stored: 0..0 }
    }

    /// `took` is how long the last writing took.
    pub(super) fn is_due(&self, when: Publish, took: Duration) -> bool {
        match when {
            Publish::AtOnce => true,
            Publish::Within(time) => {
                let are_many = matches!(&self.waiting, Waiting::Keys(keys) if keys.count() >= MOST_WAITING);
                self.since.elapsed() >= time.max(took * PAUSE_FOR_WRITING) || are_many
            }
            Publish::Later => false,
        }
    }

    fn is_every(&self) -> bool {
        matches!(self.waiting, Waiting::Every { .. })
    }
}

impl PublishedTable {
    /// Puts a step's changes off, or says what is to be written now.
    pub fn due(&mut self, step: &mut Step<'_>, changes: GoldChanges, when: Publish) -> Result<Due> {
        if self.must_wait(step, &changes, when)? {
            self.put_off(step, &changes, when);
            return Ok(Due::Nothing);
        }
        match self.take_waiting(step) {
            Some(Waiting::Keys(mut keys)) => {
                keys.add(changed_keys(&changes));
                Ok(Due::Keys(keys))
            }
            Some(Waiting::Every { .. }) | None => Ok(Due::Changes(changes)),
        }
    }

    /// What waits; none when nothing does. Keys wait no longer after this. Where every row waits, the caller writes some
    /// and says so with [`PublishedTable::written_to`].
    pub fn take_waiting(&mut self, step: &mut Step<'_>) -> Option<Waiting> {
        if let Some(Behind { waiting: Waiting::Every { after }, .. }) = &self.behind {
            return Some(Waiting::Every { after: after.clone() });
        }
        let behind = self.behind.take()?;
        self.forget(step, behind.stored);
        Some(behind.waiting)
    }

    /// Of a table of which every row waits: the last key whose row is written, or none when all are.
    pub fn written_to(&mut self, step: &mut Step<'_>, last: Option<Vec<u8>>) {
        match (last, &mut self.behind) {
            (Some(last), Some(behind)) => behind.waiting = Waiting::Every { after: Some(last) },
            _ => {
                let behind = self.behind.take();
                behind.into_iter().for_each(|behind| self.forget(step, behind.stored));
            }
        }
    }

    /// Whether anything waits.
    pub fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Finds what waited when the process ended. The files may be ahead of the store's slots: those are read anew.
    pub async fn find_waiting(&mut self, step: &mut Step<'_>) -> Result<bool> {
        let keyspace = Self::waiting_keyspace(self.table.name());
        let damaged = || Error::DamagedState(keyspace.clone());
        let (mut waiting, mut stored, mut is_every) = (WaitingKeys::default(), 0..0, false);
        for (number, keys) in step.scan(&keyspace)? {
            let number = u64::from_be_bytes(number.try_into().map_err(|_| damaged())?);
            stored = if stored.is_empty() { number..number + 1 } else { stored.start..number + 1 };
            is_every |= keys.is_empty();
            waiting.add_stored(Slice::from(keys)).ok_or_else(damaged)?;
        }
        if stored.is_empty() {
            return Ok(false);
        }
        self.reindex(step).await?;
        let waiting = if is_every { Waiting::Every { after: None } } else { Waiting::Keys(waiting) };
        self.behind = Some(Behind { stored, ..Behind::new(waiting) });
        Ok(true)
    }

    fn must_wait(&self, step: &Step<'_>, changes: &GoldChanges, when: Publish) -> Result<bool> {
        match (&self.behind, when) {
            (Some(behind), _) if behind.is_every() => Ok(true),
            (_, Publish::AtOnce) => Ok(false),
            (Some(behind), when) => Ok(!behind.is_due(when, self.took)),
            (None, Publish::Later) => Ok(true),
            (None, Publish::Within(_)) => self.is_dear(step, changes),
        }
    }

    /// Whether the changes are all over the table.
    fn is_dear(&self, step: &Step<'_>, changes: &GoldChanges) -> Result<bool> {
        let keys = changes.upsert_keys.iter().chain(&changes.deleted_keys);
        let limit = CHEAP_ROWS.max(CHEAP_SHARE * (changes.upsert_keys.len() + changes.deleted_keys.len()) as u64);
        let keyspace = Self::keyspace(self.table.name());
        let (mut touched, mut rows) = (HashSet::new(), 0);
        for key in keys {
            let Some(bytes) = step.get(&keyspace, key)? else { continue };
            let slot = slot_number(&bytes);
            if touched.insert(slot) {
                rows += self.slots.get(&slot).map_or(0, |slot| slot.rows);
                if rows > limit {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn put_off(&mut self, step: &mut Step<'_>, changes: &GoldChanges, when: Publish) {
        if changes.upsert_keys.is_empty() && changes.deleted_keys.is_empty() {
            return;
        }
        let is_new = when == Publish::Later && self.slots.is_empty();
        let behind = self.behind.get_or_insert_with(|| {
            Behind::new(if is_new { Waiting::Every { after: None } } else { Waiting::Keys(WaitingKeys::default()) })
        });
        let keys = match &mut behind.waiting {
            Waiting::Every { .. } if !behind.stored.is_empty() => return,
            Waiting::Every { .. } => Slice::from(Vec::<u8>::new()),
            Waiting::Keys(keys) => keys.add(changed_keys(changes)),
        };
        let number = behind.stored.end.to_be_bytes().to_vec();
        behind.stored.end += 1;
        step.put_all(&Self::waiting_keyspace(self.table.name()), vec![(number, keys)]);
    }

    fn forget(&self, step: &mut Step<'_>, stored: Range<u64>) {
        let keyspace = Self::waiting_keyspace(self.table.name());
        stored.for_each(|number| step.remove(&keyspace, number.to_be_bytes().to_vec()));
    }
}

fn changed_keys(changes: &GoldChanges) -> impl Iterator<Item = &[u8]> + Clone {
    changes.upsert_keys.iter().chain(&changes.deleted_keys).map(Vec::as_slice)
}
