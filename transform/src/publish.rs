//! Keyed public tables: one row a key, brought up to date by rewriting the files that hold touched keys.
//!
//! A *slot* is one data file of a table over time: rewriting it gives a new file of the same slot, which the file's
//! name says (`slot-00017-...parquet`). The state store knows the slot of each key; new keys go to the open slot, the
//! newest, until it is full. So the cost follows the touched slots, and rows written together, which are mostly of one
//! time, stay together.

use std::collections::{BTreeMap, HashMap, HashSet};

use karat_lake::{
    DataFile, Table, TransactionId,
    arrow::{
        array::{BooleanArray, RecordBatch},
        compute::filter_record_batch,
    },
};

use crate::{Result, batches::join, state::Step, value};

/// Rows of a slot at which it is full: rewriting it stays in the order of ten milliseconds.
const SLOT_ROWS: u64 = 8_192;

/// Slots whose rows are kept in memory, newest use first.
const CACHED_SLOTS: usize = 4;

/// A keyed table and the slots that it is made of.
pub struct PublishedTable {
    table: Table,
    key: Vec<String>,
    slots: BTreeMap<u32, Slot>,
    cache: Vec<(u32, RecordBatch)>,
}

struct Slot {
    path: String,
    rows: u64,
}

/// Staged files, ready to be committed.
pub struct Prepared {
    removed: Vec<String>,
    added: Vec<DataFile>,
    slots: Vec<(u32, Option<Slot>)>,
}

impl Prepared {
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }
}

impl PublishedTable {
    /// Takes over an open table; the slots are read from its file names.
    pub fn new(table: Table, key: Vec<String>) -> Self {
        let slots = table.files().filter_map(|file| Some((slot_of(file.path())?, slot(file)))).collect();
        Self { table, key, slots, cache: Vec::new() }
    }

    /// Name of the keyspace that holds the slot of each key.
    pub fn keyspace(name: &str) -> String {
        format!("slots.{name}")
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Writes the files that hold `upserts` and no longer hold `deleted`. Nothing is visible yet.
    pub async fn prepare(
        &mut self,
        step: &mut Step<'_>,
        upserts: &RecordBatch,
        upsert_keys: &[Vec<u8>],
        deleted: &[Vec<u8>],
    ) -> Result<Prepared> {
        let keyspace = Self::keyspace(self.table.name());
        let open = self.open_slot();
        let mut touched: HashMap<u32, HashSet<&[u8]>> = HashMap::new();
        let mut upserts_of: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (row, key) in upsert_keys.iter().enumerate() {
            let slot = match step.get(&keyspace, key)? {
                Some(bytes) => slot_number(&bytes),
                None => {
                    step.put(&keyspace, key.clone(), open.to_le_bytes().to_vec());
                    open
                }
            };
            touched.entry(slot).or_default().insert(key);
            upserts_of.entry(slot).or_default().push(row);
        }
        for key in deleted {
            if let Some(bytes) = step.get(&keyspace, key)? {
                touched.entry(slot_number(&bytes)).or_default().insert(key);
                step.remove(&keyspace, key.clone());
            }
        }
        let mut prepared = Prepared { removed: Vec::new(), added: Vec::new(), slots: Vec::new() };
        for (number, keys) in touched {
            let rows = upserts_of.remove(&number).unwrap_or_default();
            self.rewrite(number, &keys, upserts, &rows, &mut prepared).await?;
        }
        Ok(prepared)
    }

    /// Makes prepared files visible, with the table's position.
    pub async fn commit(&mut self, prepared: Prepared, positions: &[TransactionId]) -> Result<u64> {
        let committed = self.table.commit(prepared.removed, prepared.added, positions).await?;
        for (number, slot) in prepared.slots {
            match slot {
                Some(slot) => self.slots.insert(number, slot),
                None => self.slots.remove(&number),
            };
        }
        Ok(committed.version())
    }

    /// Writes the slot of each key anew, from the files: after a crash left the table ahead of the state store.
    pub async fn reindex(&mut self, step: &mut Step<'_>) -> Result<()> {
        let keyspace = Self::keyspace(self.table.name());
        for (key, _) in step.scan(&keyspace)? {
            step.remove(&keyspace, key);
        }
        self.slots = self.table.files().filter_map(|file| Some((slot_of(file.path())?, slot(file)))).collect();
        self.cache.clear();
        let numbers: Vec<u32> = self.slots.keys().copied().collect();
        for number in numbers {
            let rows = self.rows(number).await?;
            for key in value::row_keys(&rows, &self.key)? {
                step.put(&keyspace, key, number.to_le_bytes().to_vec());
            }
        }
        Ok(())
    }

    async fn rewrite(
        &mut self,
        number: u32,
        keys: &HashSet<&[u8]>,
        upserts: &RecordBatch,
        rows: &[usize],
        prepared: &mut Prepared,
    ) -> Result<()> {
        let before = self.rows(number).await?;
        let before_keys = value::row_keys(&before, &self.key)?;
        let survives: BooleanArray = before_keys.iter().map(|key| Some(!keys.contains(key.as_slice()))).collect();
        let indices = rows.iter().filter_map(|row| u32::try_from(*row).ok());
        let indices = karat_lake::arrow::array::UInt32Array::from_iter_values(indices);
        let fresh = karat_lake::arrow::compute::take_record_batch(upserts, &indices)?;
        let schema = self.table.schema().clone();
        let after = join(&schema, vec![filter_record_batch(&before, &survives)?, fresh.with_schema(schema.clone())?])?;
        if let Some(slot) = self.slots.get(&number) {
            prepared.removed.push(slot.path.clone());
        }
        let staged = self.table.stage(&format!("slot-{number:05}"), &[], std::slice::from_ref(&after)).await?;
        prepared.slots.push((number, staged.as_ref().map(slot)));
        prepared.added.extend(staged);
        self.cache.retain(|(cached, _)| *cached != number);
        self.cache.insert(0, (number, after));
        self.cache.truncate(CACHED_SLOTS);
        Ok(())
    }

    async fn rows(&self, number: u32) -> Result<RecordBatch> {
        if let Some((_, rows)) = self.cache.iter().find(|(cached, _)| *cached == number) {
            return Ok(rows.clone());
        }
        let file = self.slots.get(&number).and_then(|slot| self.table.file(&slot.path));
        let batches = match file {
            Some(file) => self.table.read(file, None).await?,
            None => Vec::new(),
        };
        join(self.table.schema(), batches)
    }

    fn open_slot(&self) -> u32 {
        match self.slots.last_key_value() {
            Some((number, slot)) if slot.rows < SLOT_ROWS => *number,
            Some((number, _)) => number + 1,
            None => 0,
        }
    }
}

fn slot(file: &DataFile) -> Slot {
    Slot { path: file.path().to_owned(), rows: file.rows().unwrap_or_default() }
}

fn slot_of(path: &str) -> Option<u32> {
    path.strip_prefix("slot-")?.split('-').next()?.parse().ok()
}

fn slot_number(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
