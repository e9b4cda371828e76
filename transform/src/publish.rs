//! Keyed public tables: one row a key, brought up to date by rewriting the files that hold touched keys.
//!
//! A *slot* is one data file of a table over time: rewriting it gives a new file of the same slot, which the file's
//! name says (`slot-00017-...parquet`). The state store knows the slot of each key; new keys go to the open slot, the
//! newest, until it is full. So the cost follows the touched slots, and rows written together, which are mostly of one
//! time, stay together.
//!
//! Where the touched keys are all over the table, rewriting the slots at each step would cost what the table is large.
//! Then the changed rows *wait* in the state store, and all of them are written at once after a while (decision 2). A
//! version of the table always has everything up to its position, and nothing behind it.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use karat_lake::{
    DataFile, Table, TransactionId,
    arrow::{
        array::{BooleanArray, RecordBatch, UInt32Array},
        compute::{filter_record_batch, take_record_batch},
    },
};

use crate::{Result, batches::join, gold::GoldChanges, rows::EncodedRows, state::Step, value};

/// Rows of a slot at which it is full: rewriting it stays in the order of ten milliseconds.
const SLOT_ROWS: u64 = 8_192;

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

/// Slots that are written at the same time.
const WRITTEN_TOGETHER: usize = 4;

/// Slots whose rows are kept in memory, newest use first.
const CACHED_SLOTS: usize = 4;

/// A keyed table and the slots that it is made of.
pub struct PublishedTable {
    table: Table,
    key: Vec<String>,
    slots: BTreeMap<u32, Slot>,
    cache: Vec<(u32, RecordBatch)>,
    behind: Option<Behind>,
    /// How long it took to write what waited, the last time.
    took: Duration,
}

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

/// Changes that wait.
struct Behind {
    since: Instant,
    /// At most so many rows: a key that changes again counts again.
    rows: u64,
}

struct Slot {
    path: String,
    rows: u64,
}

/// Staged files, ready to be committed.
#[derive(Default)]
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
        Self { table, key, slots, cache: Vec::new(), behind: None, took: Duration::ZERO }
    }

    /// Name of the keyspace that holds the slot of each key.
    pub fn keyspace(name: &str) -> String {
        format!("slots.{name}")
    }

    /// Name of the keyspace that holds the changed rows that wait, by key: the encoded row, or nothing for one that goes.
    pub fn waiting_keyspace(name: &str) -> String {
        format!("waiting.{name}")
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Writes the files that hold the changes, or lets them wait. Nothing is visible yet.
    pub async fn prepare(&mut self, step: &mut Step<'_>, changes: GoldChanges, when: Publish) -> Result<Prepared> {
        if self.must_wait(step, &changes, when)? {
            self.put_off(step, &changes)?;
            return Ok(Prepared::default());
        }
        self.prepare_all(step, changes).await
    }

    /// Whether there is anything that waits and should not any more; `all` asks for whatever waits.
    pub fn is_due(&self, when: Publish, all: bool) -> bool {
        self.behind.as_ref().is_some_and(|behind| all || behind.is_due(when, self.took))
    }

    /// Writes the files that hold what waits.
    pub async fn prepare_waiting(&mut self, step: &mut Step<'_>) -> Result<Prepared> {
        let nothing = GoldChanges {
            upserts: RecordBatch::new_empty(self.table.schema().clone()),
            upsert_keys: Vec::new(),
            deleted_keys: Vec::new(),
        };
        self.prepare_all(step, nothing).await
    }

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

    fn must_wait(&self, step: &Step<'_>, changes: &GoldChanges, when: Publish) -> Result<bool> {
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

    fn put_off(&mut self, step: &mut Step<'_>, changes: &GoldChanges) -> Result<()> {
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
    fn with_waiting(&mut self, step: &mut Step<'_>, changes: GoldChanges) -> Result<GoldChanges> {
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

    async fn prepare_all(&mut self, step: &mut Step<'_>, changes: GoldChanges) -> Result<Prepared> {
        let (began, waited) = (Instant::now(), self.behind.is_some());
        let changes = self.with_waiting(step, changes)?;
        let keyspace = Self::keyspace(self.table.name());
        let mut open = self.open_slot();
        let mut touched: BTreeMap<u32, Touched<'_>> = BTreeMap::new();
        for (row, key) in changes.upsert_keys.iter().enumerate() {
            let slot = match step.get(&keyspace, key)? {
                Some(bytes) => slot_number(&bytes),
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
            if let Some(bytes) = step.get(&keyspace, key)? {
                touched.entry(slot_number(&bytes)).or_default().keys.insert(key);
                step.remove(&keyspace, key.clone());
            }
        }
        let mut prepared = Prepared::default();
        let touched: Vec<(u32, Touched<'_>)> = touched.into_iter().collect();
        for together in touched.chunks(WRITTEN_TOGETHER) {
            let written = together.iter().map(|(number, touched)| self.rewrite(*number, touched, &changes.upserts));
            for (number, after, staged) in try_join_all(written).await? {
                if let Some(slot) = self.slots.get(&number) {
                    prepared.removed.push(slot.path.clone());
                }
                prepared.slots.push((number, staged.as_ref().map(slot)));
                prepared.added.extend(staged);
                self.cache.retain(|(cached, _)| *cached != number);
                self.cache.insert(0, (number, after));
                self.cache.truncate(CACHED_SLOTS);
            }
        }
        if waited {
            self.took = began.elapsed();
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
            let rows = self.rows(number).await?;
            for key in value::row_keys(&rows, &self.key)? {
                step.put(&keyspace, key, number.to_le_bytes().to_vec());
            }
        }
        Ok(())
    }

    /// The rows of a slot after the changes, in a file that no version names yet.
    async fn rewrite(
        &self,
        number: u32,
        touched: &Touched<'_>,
        upserts: &RecordBatch,
    ) -> Result<(u32, RecordBatch, Option<DataFile>)> {
        let before = self.rows(number).await?;
        let before_keys = value::row_keys(&before, &self.key)?;
        let survives: BooleanArray =
            before_keys.iter().map(|key| Some(!touched.keys.contains(key.as_slice()))).collect();
        let fresh = take_record_batch(upserts, &UInt32Array::from(touched.rows.clone()))?;
        let schema = self.table.schema().clone();
        let after = join(&schema, vec![filter_record_batch(&before, &survives)?, fresh.with_schema(schema.clone())?])?;
        let staged = self.table.stage(&format!("slot-{number:05}"), &[], std::slice::from_ref(&after)).await?;
        Ok((number, after, staged))
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

    fn open_slot(&self) -> OpenSlot {
        match self.slots.last_key_value() {
            Some((number, slot)) if slot.rows < SLOT_ROWS => OpenSlot { number: *number, rows: slot.rows },
            Some((number, _)) => OpenSlot { number: number + 1, rows: 0 },
            None => OpenSlot { number: 0, rows: 0 },
        }
    }
}

impl Behind {
    /// `took` is how long the last writing took.
    fn is_due(&self, when: Publish, took: Duration) -> bool {
        match when {
            Publish::AtOnce => true,
            Publish::Within(time) => {
                self.since.elapsed() >= time.max(took * PAUSE_FOR_WRITING) || self.rows >= MOST_WAITING
            }
            Publish::Later => false,
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

/// Where new keys go.
struct OpenSlot {
    number: u32,
    rows: u64,
}

impl OpenSlot {
    fn next(&mut self) -> u32 {
        if self.rows >= SLOT_ROWS {
            *self = Self { number: self.number + 1, rows: 0 };
        }
        self.rows += 1;
        self.number
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::{
        Lake, TableSpec,
        arrow::{
            array::{AsArray, Int64Array},
            datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
        },
    };

    use super::*;
    use crate::{state::StateStore, value::Value};

    const NAME: &str = "silver.t";

    struct World {
        folder: tempfile::TempDir,
        lake: Lake,
        store: StateStore,
        table: PublishedTable,
    }

    impl World {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let lake = Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap();
            let names = [PublishedTable::keyspace(NAME), PublishedTable::waiting_keyspace(NAME)];
            let store = StateStore::open(&folder.path().join("state"), &names).unwrap();
            let table = open(&lake).await;
            Self { folder, lake, store, table }
        }

        /// Puts rows in and takes keys out, and keeps what the step wrote.
        async fn change(&mut self, rows: &[(i64, i64)], gone: &[i64], when: Publish) -> bool {
            let mut step = self.store.begin();
            let prepared = self.table.prepare(&mut step, changes(rows, gone), when).await.unwrap();
            let is_published = !prepared.is_empty();
            if is_published {
                self.table.commit(prepared, &[]).await.unwrap();
            }
            let writes = step.into_writes();
            self.store.apply(&writes).unwrap();
            is_published
        }

        async fn published(&self) -> Vec<(i64, i64)> {
            let rows = self.lake.open(NAME).await.unwrap().read_all().await.unwrap();
            let pairs = rows.iter().flat_map(|batch| {
                let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
                column(0).into_iter().zip(column(1))
            });
            let mut pairs: Vec<(i64, i64)> = pairs.collect();
            pairs.sort_unstable();
            pairs
        }

        async fn publish_waiting(&mut self) {
            let mut step = self.store.begin();
            let prepared = self.table.prepare_waiting(&mut step).await.unwrap();
            self.table.commit(prepared, &[]).await.unwrap();
            let writes = step.into_writes();
            self.store.apply(&writes).unwrap();
        }
    }

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]))
    }

    async fn open(lake: &Lake) -> PublishedTable {
        let spec = TableSpec {
            name: NAME.to_owned(),
            schema: schema(),
            partition_by: Vec::new(),
            stats_columns: Vec::new(),
            append_only: false,
        };
        PublishedTable::new(lake.open_or_create(&spec).await.unwrap(), vec!["k".to_owned()])
    }

    fn key(number: i64) -> Vec<u8> {
        value::encode_all(&[Value::Int(number)])
    }

    fn changes(rows: &[(i64, i64)], gone: &[i64]) -> GoldChanges {
        let column = |pick: fn(&(i64, i64)) -> i64| Arc::new(rows.iter().map(pick).collect::<Int64Array>());
        GoldChanges {
            upserts: RecordBatch::try_new(schema(), vec![column(|row| row.0), column(|row| row.1)]).unwrap(),
            upsert_keys: rows.iter().map(|row| key(row.0)).collect(),
            deleted_keys: gone.iter().map(|number| key(*number)).collect(),
        }
    }

    const SOON: Publish = Publish::Within(Duration::from_secs(3600));

    #[tokio::test]
    async fn changes_all_over_a_large_table_wait_and_are_written_together() {
        let mut world = World::new().await;
        let rows: Vec<(i64, i64)> = (0..3 * SLOT_ROWS as i64).map(|number| (number, 0)).collect();
        assert!(world.change(&rows, &[], SOON).await, "an empty table takes rows at once");
        assert_eq!(world.table.slots.len(), 3);
        let spread: Vec<(i64, i64)> = (0..3).map(|slot| (slot * SLOT_ROWS as i64, 1)).collect();
        assert!(world.change(&spread[..1], &[], SOON).await, "one slot is cheap");
        assert!(!world.change(&spread, &[1], SOON).await, "three slots for three rows are dear");
        assert!(!world.change(&[(2, 2), (-1, 7)], &[], SOON).await, "what follows waits too");
        assert_eq!(world.published().await[..2], [(0, 1), (1, 0)]);
        assert!(!world.table.is_due(SOON, false) && world.table.is_due(SOON, true));
        assert!(world.change(&[(2, 3)], &[], Publish::AtOnce).await);
        let published = world.published().await;
        assert_eq!(published[..4], [(-1, 7), (0, 1), (2, 3), (3, 0)], "the newest change of a key wins");
        assert_eq!(published.len(), rows.len());
        assert_eq!(published.iter().filter(|row| row.1 == 1).count(), 3);
        assert!(!world.table.is_due(SOON, true));
    }

    #[tokio::test]
    async fn what_waits_is_published_after_a_crash_once_whether_the_files_have_it_or_not() {
        for files_have_it in [false, true] {
            let mut world = World::new().await;
            world.change(&[(1, 1), (2, 2)], &[], Publish::AtOnce).await;
            world.change(&[(2, 3), (4, 4)], &[1], Publish::Later).await;
            if files_have_it {
                // The commit is there, what the step wrote to the store is not.
                let mut step = world.store.begin();
                let prepared = world.table.prepare_waiting(&mut step).await.unwrap();
                world.table.commit(prepared, &[]).await.unwrap();
            }
            world.table = open(&world.lake).await;
            let mut step = world.store.begin();
            assert!(world.table.find_waiting(&mut step).await.unwrap());
            let writes = step.into_writes();
            world.store.apply(&writes).unwrap();
            world.publish_waiting().await;
            assert_eq!(world.published().await, [(2, 3), (4, 4)], "{files_have_it}");
            let mut step = world.store.begin();
            assert!(!world.table.find_waiting(&mut step).await.unwrap());
            drop(step);
            drop(world.folder);
        }
    }
}
