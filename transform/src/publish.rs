//! Keyed public tables: one row a key, brought up to date by rewriting the files that hold touched keys.
//!
//! A *slot* is one data file of a table over time: rewriting it gives a new file of the same slot, which the file's
//! name says (`slot-00017-...parquet`). The state store knows the slot of each key; new keys go to the open slot, the
//! newest, until it is full. Slots of gold begin small, since nearly every step writes the newest one. So the cost follows the
//! touched slots, and rows written together, which are mostly of one time, stay together.
//!
//! Where the touched keys are all over the table, rewriting the slots at each step would cost what the table is large.
//! Then the changes *wait*, and all of them are written at once after a while (decision 2). A version of the table always has everything up to its position, and nothing behind it.

mod keys;
mod waiting;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, try_join_all};
use karat_lake::{
    DataFile, Table, TransactionId,
    arrow::{
        array::{BooleanArray, RecordBatch, UInt32Array},
        compute::{filter_record_batch, take_record_batch},
        datatypes::SchemaRef,
    },
};
use karat_schemas::trace::Traces;

pub use self::waiting::{Due, Publish, Waiting};
use self::{keys::WaitingKeys, waiting::Behind};
use crate::{
    Result,
    batches::join,
    gold::GoldChanges,
    packed_keys::PackedKeys,
    parallel::{PART_KEYS, in_parts},
    state::Step,
    value,
};

/// Rows of a slot at which it is full: rewriting it stays in the order of ten milliseconds.
const SLOT_ROWS: u64 = 8_192;

/// The same of a gold table that is small: its newest slot is written by nearly every step.
const SMALL_SLOT_ROWS: u64 = 512;

/// Slots of a growing gold table at which they get larger.
const MANY_SLOTS: u64 = 64;

/// Slots that are written at the same time.
const WRITTEN_TOGETHER: usize = 4;

/// Keys whose rows are read at the same time, of one slot at least. In the order of the keys, rows that lie beside each other
/// in the state store are read together, and those of a slot are from all over it: the more at a time, the cheaper each.
const READ_TOGETHER: usize = 1 << 16;

/// The same in bytes of the slots' files, which are compressed: texts of one array are 2 GiB at most, and a file may be a
/// twentieth of its rows.
const READ_BYTES: u64 = 64 << 20;

/// Slots whose rows are kept in memory, newest use first.
const CACHED_SLOTS: usize = 8;

/// A keyed table and the slots that it is made of.
pub struct PublishedTable {
    table: Table,
    key: Vec<String>,
    slots: BTreeMap<u32, Slot>,
    cache: Vec<(u32, RecordBatch)>,
    behind: Option<Behind>,
    /// How long it took to write what waited, the last time.
    took: Duration,
    of_gold: bool,
}

struct Slot {
    path: String,
    rows: u64,
    bytes: u64,
}

impl Slot {
    /// What a row takes in the file, and never nothing.
    fn row_bytes(&self) -> u64 {
        (self.bytes / self.rows.max(1)).max(1)
    }
}

/// Staged files by slot, ready to be committed; none for a slot that goes.
#[derive(Default)]
pub struct Prepared(BTreeMap<u32, Option<DataFile>>);

impl Prepared {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where the rows of keys that waited come from.
pub trait CurrentRows: Send {
    /// The rows that the keys have now; those that have none are deleted.
    fn rows_of<'a>(&'a mut self, step: &'a Step<'_>, keys: &'a [&'a [u8]]) -> BoxFuture<'a, Result<GoldChanges>>;
}

impl PublishedTable {
    /// Takes over an open table; the slots are read from its file names. Those of a table `of_gold` begin small.
    pub fn new(table: Table, key: Vec<String>, of_gold: bool) -> Self {
        let slots = table.files().filter_map(|file| Some((slot_of(file.path())?, slot(file)))).collect();
        Self { table, key, slots, cache: Vec::new(), behind: None, took: Duration::ZERO, of_gold }
    }

    /// Name of the keyspace that holds the slot of each key.
    pub fn keyspace(name: &str) -> String {
        format!("slots.{name}")
    }

    /// Name of the keyspace that holds the keys that wait, those of a step under a number.
    pub fn waiting_keyspace(name: &str) -> String {
        format!("waiting.{name}")
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Whether there is anything that waits and should not any more; `all` asks for whatever waits.
    pub fn is_due(&self, when: Publish, all: bool) -> bool {
        self.behind.as_ref().is_some_and(|behind| all || behind.is_due(when, self.took))
    }

    /// Writes the files that hold the changes. Nothing is visible yet.
    pub async fn prepare(&mut self, step: &mut Step<'_>, changes: GoldChanges) -> Result<Prepared> {
        let (mut prepared, mut open) = (Prepared::default(), self.open_slot());
        self.add(step, &changes, None, &mut open, &mut prepared).await?;
        Ok(prepared)
    }

    /// Writes the files that hold the keys, with the rows that they have now: those of some slots at a time, so that memory is
    /// bounded. Nothing is visible yet.
    pub async fn prepare_keys(
        &mut self,
        step: &mut Step<'_>,
        keys: WaitingKeys,
        rows: &mut dyn CurrentRows,
    ) -> Result<Prepared> {
        let began = Instant::now();
        let keyspace = Self::keyspace(self.table.name());
        let (before, sorted) = (&*step, keys.sorted());
        let slots = in_parts(&sorted, PART_KEYS, |keys| {
            keys.iter().map(|key| place(before, &keyspace, key, None)).collect::<Result<Vec<_>>>()
        })?;
        let slots: Vec<Option<u32>> = slots.into_iter().flatten().collect();
        let (mut prepared, mut open) = (Prepared::default(), self.open_slot());
        for range in read_together(&slots, |slot| self.slots.get(&slot).map_or(1, Slot::row_bytes)) {
            let of_range = sorted.iter().zip(&slots).filter_map(|(key, slot)| {
                let slot = slot.filter(|slot| range.contains(slot))?;
                Some((*key, slot))
            });
            let (keys, slots): (Vec<&[u8]>, Vec<u32>) = of_range.unzip();
            let places: Places<'_> = keys.iter().copied().zip(slots).collect();
            let changes = rows.rows_of(step, &keys).await?;
            self.add(step, &changes, Some(&places), &mut open, &mut prepared).await?;
        }
        let new = sorted.iter().zip(&slots).filter(|(_, slot)| slot.is_none());
        let new: Vec<&[u8]> = new.map(|(key, _)| *key).collect();
        for keys in new.chunks(self.new_together()) {
            let changes = rows.rows_of(step, keys).await?;
            self.add(step, &changes, Some(&Places::default()), &mut open, &mut prepared).await?;
        }
        self.took = began.elapsed();
        Ok(prepared)
    }

    /// `places` are the slots of all keys that have one; without it they are looked up.
    async fn add(
        &mut self,
        step: &mut Step<'_>,
        changes: &GoldChanges,
        places: Option<&Places<'_>>,
        open: &mut OpenSlot,
        prepared: &mut Prepared,
    ) -> Result<()> {
        let keyspace = Self::keyspace(self.table.name());
        let mut touched: BTreeMap<u32, Touched<'_>> = BTreeMap::new();
        for (row, key) in changes.upsert_keys.iter().enumerate() {
            let slot = match place(step, &keyspace, key, places)? {
                Some(slot) => slot,
                None => {
                    let slot = open.next();
                    step.put(&keyspace, key.clone(), slot.to_le_bytes().to_vec());
                    slot
                }
            };
            let touched = touched.entry(slot).or_default();
            touched.keys.insert(key);
            touched.rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        for key in &changes.deleted_keys {
            if let Some(slot) = place(step, &keyspace, key, places)? {
                touched.entry(slot).or_default().keys.insert(key);
                step.remove(&keyspace, key.clone());
            }
        }
        let touched: Vec<(u32, Touched<'_>)> = touched.into_iter().collect();
        for together in touched.chunks(WRITTEN_TOGETHER) {
            let prepared_before = &*prepared;
            let before = together.iter().map(|(number, _)| self.rows(*number, prepared_before)).collect::<Vec<_>>();
            let before = try_join_all(before).await?;
            let slots: Vec<(&Touched<'_>, RecordBatch)> =
                together.iter().map(|(_, touched)| touched).zip(before).collect();
            // As much work as encoding the files, which has threads of its own.
            let (schema, key) = (self.table.schema(), self.key.as_slice());
            let after = in_parts(&slots, 1, |slots| {
                let after =
                    slots.iter().map(|(touched, before)| touched.put_into(before, schema, key, &changes.upserts));
                after.collect::<Result<Vec<_>>>()
            })?;
            let after: Vec<RecordBatch> = after.into_iter().flatten().collect();
            let staged =
                together.iter().zip(&after).map(|((number, _), rows)| self.stage(*number, rows)).collect::<Vec<_>>();
            let staged = try_join_all(staged).await?;
            for (((number, _), after), staged) in together.iter().zip(after).zip(staged) {
                let number = *number;
                prepared.0.insert(number, staged);
                self.cache.retain(|(cached, _)| *cached != number);
                self.cache.insert(0, (number, after));
                self.cache.truncate(CACHED_SLOTS);
            }
        }
        Ok(())
    }

    /// Makes prepared files visible, with the table's position and the traces of the rows.
    pub async fn commit(&mut self, prepared: Prepared, positions: &[TransactionId], traces: &Traces) -> Result<u64> {
        let removed = prepared.0.keys().filter_map(|number| Some(self.slots.get(number)?.path.clone())).collect();
        let slots: Vec<(u32, Option<Slot>)> =
            prepared.0.iter().map(|(number, file)| (*number, file.as_ref().map(slot))).collect();
        let added = prepared.0.into_values().flatten().collect();
        let committed = self.table.commit_traced(removed, added, positions, traces).await?;
        for (number, slot) in slots {
            match slot {
                Some(slot) => self.slots.insert(number, slot),
                None => self.slots.remove(&number),
            };
        }
        Ok(committed.version())
    }

    /// Takes the table as an earlier attempt of the same step left it: it has what waited, and its own slots.
    pub async fn take_over(&mut self, step: &mut Step<'_>) -> Result<()> {
        let keyspace = Self::waiting_keyspace(self.table.name());
        for (key, _) in step.scan(&keyspace)? {
            step.remove(&keyspace, key);
        }
        self.behind = None;
        self.reindex(step).await
    }

    /// Writes the slot of each key anew, from the files: after a crash left the table ahead of the state store.
    async fn reindex(&mut self, step: &mut Step<'_>) -> Result<()> {
        let keyspace = Self::keyspace(self.table.name());
        for (key, _) in step.scan(&keyspace)? {
            step.remove(&keyspace, key);
        }
        self.slots = self.table.files().filter_map(|file| Some((slot_of(file.path())?, slot(file)))).collect();
        self.cache.clear();
        let numbers: Vec<u32> = self.slots.keys().copied().collect();
        for number in numbers {
            let rows = self.rows(number, &Prepared::default()).await?;
            for key in value::row_keys(&rows, &self.key)? {
                step.put(&keyspace, key, number.to_le_bytes().to_vec());
            }
        }
        Ok(())
    }

    /// Writes the rows of a slot to a file that no version names yet.
    async fn stage(&self, number: u32, rows: &RecordBatch) -> Result<Option<DataFile>> {
        Ok(self.table.staging().stage(&format!("slot-{number:05}"), &[], std::slice::from_ref(rows)).await?)
    }

    /// The rows of a slot as they are prepared, or else committed.
    async fn rows(&self, number: u32, prepared: &Prepared) -> Result<RecordBatch> {
        if let Some((_, rows)) = self.cache.iter().find(|(cached, _)| *cached == number) {
            return Ok(rows.clone());
        }
        let file = match prepared.0.get(&number) {
            Some(staged) => staged.as_ref(),
            None => self.slots.get(&number).and_then(|slot| self.table.file(&slot.path)),
        };
        let batches = match file {
            Some(file) => self.table.read(file, None).await?,
            None => Vec::new(),
        };
        join(self.table.schema(), batches)
    }

    /// New keys whose rows are read at the same time: rows as large as the largest that there are.
    fn new_together(&self) -> usize {
        let row_bytes = self.slots.values().map(Slot::row_bytes).max().unwrap_or(1);
        let rows = (READ_BYTES / row_bytes).clamp(1, WRITTEN_TOGETHER as u64 * SLOT_ROWS);
        usize::try_from(rows).unwrap_or(1)
    }

    fn open_slot(&self) -> OpenSlot {
        let full = if self.of_gold {
            let rows: u64 = self.slots.values().map(|slot| slot.rows).sum();
            (rows / MANY_SLOTS).clamp(SMALL_SLOT_ROWS, SLOT_ROWS)
        } else {
            SLOT_ROWS
        };
        match self.slots.last_key_value() {
            Some((number, slot)) if slot.rows < full => OpenSlot { number: *number, rows: slot.rows, full },
            Some((number, _)) => OpenSlot { number: number + 1, rows: 0, full },
            None => OpenSlot { number: 0, rows: 0, full },
        }
    }
}

/// What changes in a slot.
#[derive(Default)]
struct Touched<'k> {
    /// Keys whose row of before goes.
    keys: HashSet<&'k [u8]>,
    /// Indexes of the rows that come.
    rows: Vec<u32>,
}

impl Touched<'_> {
    /// The rows of the slot after the changes.
    fn put_into(
        &self,
        before: &RecordBatch,
        schema: &SchemaRef,
        key: &[String],
        upserts: &RecordBatch,
    ) -> Result<RecordBatch> {
        let before_keys = PackedKeys::of(before, key)?;
        let survives: BooleanArray = before_keys.iter().map(|key| Some(!self.keys.contains(key))).collect();
        let fresh = take_record_batch(upserts, &UInt32Array::from(self.rows.clone()))?;
        join(schema, vec![filter_record_batch(before, &survives)?, fresh.with_schema(schema.clone())?])
    }
}

/// The slot of each key.
type Places<'k> = HashMap<&'k [u8], u32>;

/// Where new keys go.
struct OpenSlot {
    number: u32,
    rows: u64,
    /// Rows at which the next one is begun.
    full: u64,
}

impl OpenSlot {
    fn next(&mut self) -> u32 {
        if self.rows >= self.full {
            *self = Self { number: self.number + 1, rows: 0, full: self.full };
        }
        self.rows += 1;
        self.number
    }
}

/// Slots that are neighbours, and have so few and small rows to be read that those of all of them are read at the same time;
/// `slots` has one a key, `row_bytes` says what a row of a slot takes.
fn read_together(slots: &[Option<u32>], row_bytes: impl Fn(u32) -> u64) -> Vec<RangeInclusive<u32>> {
    let mut keys = BTreeMap::<u32, usize>::new();
    slots.iter().flatten().for_each(|slot| *keys.entry(*slot).or_default() += 1);
    let mut together: Vec<(RangeInclusive<u32>, usize, u64)> = Vec::new();
    for (slot, keys) in keys {
        let bytes = row_bytes(slot).saturating_mul(keys as u64);
        match together.last_mut() {
            Some((range, sum, sum_bytes))
                if *sum + keys <= READ_TOGETHER && sum_bytes.saturating_add(bytes) <= READ_BYTES =>
            {
                (*range, *sum, *sum_bytes) = (*range.start()..=slot, *sum + keys, *sum_bytes + bytes);
            }
            _ => together.push((slot..=slot, keys, bytes)),
        }
    }
    together.into_iter().map(|(range, ..)| range).collect()
}

fn place(step: &Step<'_>, keyspace: &str, key: &[u8], places: Option<&Places<'_>>) -> Result<Option<u32>> {
    match places {
        Some(places) => Ok(places.get(key).copied()),
        None => Ok(step.get(keyspace, key)?.map(|bytes| slot_number(&bytes))),
    }
}

fn slot(file: &DataFile) -> Slot {
    let bytes = u64::try_from(file.size_bytes()).unwrap_or_default();
    Slot { path: file.path().to_owned(), rows: file.rows().unwrap_or_default(), bytes }
}

fn slot_of(path: &str) -> Option<u32> {
    path.strip_prefix("slot-")?.split('-').next()?.parse().ok()
}

fn slot_number(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
