//! Changes that wait until a keyed table is written.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use super::{PublishedTable, SLOT_ROWS, slot_number};
use crate::{Result, batches::join, gold::GoldChanges, rows::EncodedRows, state::Step, value};

/// When the files of a table take what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// With the step.
    AtOnce,
    /// With the step where that is cheap, else within this time.
    Within(Duration),
    /// When told.
    Later,
}

/// Rows of touched slots that are rewritten with any step, however little it changes.
const CHEAP_ROWS: u64 = 2 * SLOT_ROWS;

/// Rewritten rows for each changed one that are still cheap.
const CHEAP_SHARE: u64 = 4;

/// Changed rows that may wait: they are in memory together when they are written.
const MOST_WAITING: u64 = 1 << 18;

/// Changes wait at least so many times as long as it took to write the last ones that waited: on a busy machine the
/// pipeline goes on with gold rather than write one table again and again.
const PAUSE_FOR_WRITING: u32 = 4;

/// Waiting rows that are made into columns at a time.
const CHUNK_ROWS: usize = 8_192;

/// Changes that wait.
pub(super) struct Behind {
    since: Instant,
    /// At most so many rows: a key that changes again counts again.
    rows: u64,
}

impl Behind {
    /// `took` is how long the last writing took.
    pub(super) fn is_due(&self, when: Publish, took: Duration) -> bool {
        match when {
            Publish::AtOnce => true,
            Publish::Within(time) => {
                self.since.elapsed() >= time.max(took * PAUSE_FOR_WRITING) || self.rows >= MOST_WAITING
            }
            Publish::Later => false,
        }
    }
}

impl PublishedTable {
    /// Finds what waited when the process ended. The files may be ahead of the store's slots: those are read anew.
    pub async fn find_waiting(&mut self, step: &mut Step<'_>) -> Result<bool> {
        let rows = step.scan(&Self::waiting_keyspace(self.table.name()))?.len() as u64;
        if rows == 0 {
            return Ok(false);
        }
        self.reindex(step).await?;
        self.behind = Some(Behind { since: Instant::now(), rows });
        Ok(true)
    }

    pub(super) fn must_wait(&self, step: &Step<'_>, changes: &GoldChanges, when: Publish) -> Result<bool> {
        match (&self.behind, when) {
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

    pub(super) fn put_off(&mut self, step: &mut Step<'_>, changes: &GoldChanges) -> Result<()> {
        let keyspace = Self::waiting_keyspace(self.table.name());
        let columns = changes.upserts.columns().iter().map(value::Column::new).collect::<Result<Vec<_>>>()?;
        for (row, key) in changes.upsert_keys.iter().enumerate() {
            let mut bytes = Vec::with_capacity(columns.len() * 16);
            columns.iter().for_each(|column| column.encode(row, &mut bytes));
            step.put(&keyspace, key.clone(), bytes);
        }
        for key in &changes.deleted_keys {
            step.put(&keyspace, key.clone(), Vec::new());
        }
        let rows = (changes.upsert_keys.len() + changes.deleted_keys.len()) as u64;
        if rows > 0 {
            self.behind.get_or_insert_with(|| Behind { since: Instant::now(), rows: 0 }).rows += rows;
        }
        Ok(())
    }

    /// What waits, and over it the changes of this step; nothing waits afterwards.
    pub(super) fn with_waiting(&mut self, step: &mut Step<'_>, changes: GoldChanges) -> Result<GoldChanges> {
        if self.behind.take().is_none() {
            return Ok(changes);
        }
        let keyspace = Self::waiting_keyspace(self.table.name());
        let waiting = step.scan(&keyspace)?;
        let newer: HashSet<Vec<u8>> = changes.upsert_keys.iter().chain(&changes.deleted_keys).cloned().collect();
        let schema = self.table.schema().clone();
        let (mut batches, mut chunk) = (Vec::new(), EncodedRows::new(&schema)?);
        let GoldChanges { upserts, mut upsert_keys, mut deleted_keys } = changes;
        let mut waiting_keys = Vec::new();
        for (key, bytes) in waiting {
            step.remove(&keyspace, key.clone());
            if newer.contains(&key) {
                continue;
            }
            if bytes.is_empty() {
                deleted_keys.push(key);
                continue;
            }
            chunk.push(&[&bytes], &keyspace)?;
            waiting_keys.push(key);
            if chunk.num_rows() == CHUNK_ROWS {
                batches.push(chunk.take()?);
            }
        }
        batches.push(chunk.take()?);
        batches.push(upserts.with_schema(schema.clone())?);
        waiting_keys.append(&mut upsert_keys);
        Ok(GoldChanges { upserts: join(&schema, batches)?, upsert_keys: waiting_keys, deleted_keys })
    }
}
