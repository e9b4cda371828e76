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
    /// What the table should have: the value of each key that is there.
    rows: BTreeMap<i64, i64>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap();
        let names = [PublishedTable::keyspace(NAME), PublishedTable::waiting_keyspace(NAME)];
        let store = StateStore::open(&folder.path().join("state"), &names).unwrap();
        let table = open(&lake).await;
        Self { folder, lake, store, table, rows: BTreeMap::new() }
    }

    /// Puts rows in and takes keys out, and keeps what the step wrote.
    async fn change(&mut self, rows: &[(i64, i64)], gone: &[i64], when: Publish) -> bool {
        self.rows.extend(rows.iter().copied());
        self.rows.retain(|number, _| !gone.contains(number));
        let mut step = self.store.begin();
        let prepared = match self.table.due(&mut step, changes(rows, gone), when).unwrap() {
            Due::Nothing => None,
            Due::Changes(changes) => Some(self.table.prepare(&mut step, changes).await.unwrap()),
            Due::Keys(keys) => Some(self.table.prepare_keys(&mut step, keys, &mut self.rows).await.unwrap()),
        };
        let is_published = prepared.is_some();
        if let Some(prepared) = prepared {
            self.table.commit(prepared, &[], &Traces::default()).await.unwrap();
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
        commit_waiting(&mut self.table, &mut step, &mut self.rows).await;
        let writes = step.into_writes();
        self.store.apply(&writes).unwrap();
    }
}

/// As the fold's state gives them.
impl CurrentRows for BTreeMap<i64, i64> {
    fn rows_of<'a>(&'a mut self, _: &'a Step<'_>, keys: &'a [&'a [u8]]) -> BoxFuture<'a, Result<GoldChanges>> {
        let there = self.iter().map(|(number, value)| (*number, *value));
        let there: Vec<(i64, i64)> = there.filter(|(number, _)| keys.contains(&key(*number).as_slice())).collect();
        let mut changes = changes(&there, &[]);
        let keys = keys.iter().map(|key| key.to_vec());
        changes.deleted_keys = keys.filter(|key| !changes.upsert_keys.contains(key)).collect();
        Box::pin(async { Ok(changes) })
    }
}

async fn commit_waiting(table: &mut PublishedTable, step: &mut Step<'_>, rows: &mut BTreeMap<i64, i64>) {
    let Some(Waiting::Keys(keys)) = table.take_waiting(step) else { panic!("keys wait") };
    let prepared = table.prepare_keys(step, keys, rows).await.unwrap();
    table.commit(prepared, &[], &Traces::default()).await.unwrap();
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
    PublishedTable::new(lake.open_or_create(&spec).await.unwrap(), vec!["k".to_owned()], false)
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
        let last = 3 * SLOT_ROWS as i64;
        world.change(&(0..last).map(|number| (number, 0)).collect::<Vec<_>>(), &[], Publish::AtOnce).await;
        let spread: Vec<(i64, i64)> = (0..3).map(|slot| (slot * SLOT_ROWS as i64, 1)).collect();
        assert!(!world.change(&spread, &[1], SOON).await);
        assert!(!world.change(&[(0, 2), (last, 3)], &[2], SOON).await);
        if files_have_it {
            // The commit is there, what the step wrote to the store is not.
            let mut step = world.store.begin();
            commit_waiting(&mut world.table, &mut step, &mut world.rows).await;
        }
        world.table = open(&world.lake).await;
        let mut step = world.store.begin();
        assert!(world.table.find_waiting(&mut step).await.unwrap());
        let writes = step.into_writes();
        world.store.apply(&writes).unwrap();
        world.publish_waiting().await;
        let rows: Vec<(i64, i64)> = world.rows.clone().into_iter().collect();
        assert_eq!(world.published().await, rows, "{files_have_it}");
        let mut step = world.store.begin();
        assert!(!world.table.find_waiting(&mut step).await.unwrap());
        drop(step);
        drop(world.folder);
    }
}

#[tokio::test]
async fn a_new_table_that_takes_rows_when_told_remembers_no_keys_and_later_does() {
    let mut world = World::new().await;
    assert!(!world.change(&[(1, 1), (2, 2)], &[], Publish::Later).await);
    assert!(!world.change(&[(1, 3), (5, 5)], &[2], Publish::Later).await);
    // As after a crash.
    world.table = open(&world.lake).await;
    for last in [Some(key(1)), None] {
        let mut step = world.store.begin();
        world.table.find_waiting(&mut step).await.unwrap();
        assert!(world.table.is_due(Publish::Later, true));
        let Some(Waiting::Every { after: None }) = world.table.take_waiting(&mut step) else { panic!("every row") };
        let keys: Vec<Vec<u8>> = world.rows.keys().take(if last.is_some() { 1 } else { 9 }).copied().map(key).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let rows = world.rows.rows_of(&step, &keys).await.unwrap();
        let prepared = world.table.prepare(&mut step, rows).await.unwrap();
        world.table.commit(prepared, &[], &Traces::default()).await.unwrap();
        world.table.written_to(&mut step, last.clone());
        assert_eq!(world.table.is_behind(), last.is_some());
        let writes = step.into_writes();
        world.store.apply(&writes).unwrap();
    }
    assert_eq!(world.published().await, [(1, 3), (5, 5)]);
    assert!(!world.change(&[(1, 4)], &[], Publish::Later).await);
    world.publish_waiting().await;
    assert_eq!(world.published().await, [(1, 4), (5, 5)]);
}

#[tokio::test]
async fn slots_of_gold_begin_small_and_grow_with_the_table() {
    let mut world = World::new().await;
    world.table = PublishedTable::new(world.lake.open(NAME).await.unwrap(), vec!["k".to_owned()], true);
    let rows = |numbers: std::ops::Range<i64>| numbers.map(|number| (number, 0)).collect::<Vec<_>>();
    world.change(&rows(0..600), &[], Publish::AtOnce).await;
    assert_eq!(world.table.slots.values().map(|slot| slot.rows).collect::<Vec<_>>(), [512, 88]);
    world.change(&rows(600..700), &[], Publish::AtOnce).await;
    assert_eq!(world.table.slots.values().map(|slot| slot.rows).collect::<Vec<_>>(), [512, 188]);
    world.change(&rows(700..70_000), &[], Publish::AtOnce).await;
    let before = world.table.slots.len();
    world.change(&rows(70_000..73_000), &[], Publish::AtOnce).await;
    assert!(world.table.slots.len() - before <= 3, "slots of 1,093 rows");
    assert_eq!(world.published().await.len(), 73_000);
}

#[test]
fn rows_of_neighbouring_slots_are_read_together_up_to_a_number_of_keys_and_of_bytes() {
    let slots = |keys: &[(u32, usize)]| {
        let slots = keys.iter().flat_map(|(slot, keys)| std::iter::repeat_n(Some(*slot), *keys));
        // As in the order of their keys: every slot all over, and new keys among them.
        let mut slots: Vec<Option<u32>> = slots.chain([None, None]).collect();
        slots.reverse();
        slots
    };
    let small = |_: u32| 1_u64;
    assert_eq!(read_together(&slots(&[(2, 1), (5, READ_TOGETHER - 1), (6, 1)]), small), [2..=5, 6..=6]);
    let large = READ_TOGETHER + 1;
    assert_eq!(read_together(&slots(&[(0, 1), (1, large), (3, 1), (9, 1)]), small), [0..=0, 1..=1, 3..=9]);
    let half = |slot: u32| if slot == 5 { READ_BYTES / 2 } else { 1 };
    assert_eq!(read_together(&slots(&[(2, 1), (5, 1), (6, 1), (7, 1)]), half), [2..=7]);
    assert_eq!(read_together(&slots(&[(2, 1), (5, 2), (6, 1), (7, 1)]), half), [2..=2, 5..=5, 6..=7]);
    assert_eq!(read_together(&slots(&[(5, 3), (6, 1)]), |_: u32| u64::MAX), [5..=5, 6..=6]);
}

#[tokio::test]
async fn new_keys_are_read_in_parts_that_are_smaller_where_rows_are_large() {
    let mut world = World::new().await;
    let most = WRITTEN_TOGETHER * SLOT_ROWS as usize;
    assert_eq!(world.table.new_together(), most);
    world.change(&[(1, 1)], &[], Publish::AtOnce).await;
    world.table.slots.values_mut().for_each(|slot| slot.bytes = READ_BYTES / 10 * slot.rows);
    assert_eq!(world.table.new_together(), 10);
    world.table.slots.values_mut().for_each(|slot| slot.bytes = u64::MAX);
    assert_eq!(world.table.new_together(), 1);
}

#[tokio::test]
async fn rows_of_a_slot_are_written_in_the_order_of_their_keys_behind_those_that_stay() {
    let mut world = World::new().await;
    let rows: Vec<(i64, i64)> = (0..3 * SLOT_ROWS as i64).map(|number| (number, 0)).collect();
    world.change(&rows, &[], Publish::AtOnce).await;
    let spread: Vec<(i64, i64)> = (0..6).rev().map(|number| (number * SLOT_ROWS as i64 / 2 + 256, 1)).collect();
    assert!(!world.change(&spread, &[], SOON).await);
    world.publish_waiting().await;
    assert_eq!(world.table.slots.len(), 3);
    for number in 0..3 {
        let rows = world.table.rows(number, &Prepared::default()).await.unwrap();
        let keys = value::row_keys(&rows, &["k".to_owned()]).unwrap();
        let ends = &keys[keys.len() - 2..];
        assert!(ends.is_sorted() && ends.iter().all(|last| spread.iter().any(|(number, _)| key(*number) == *last)));
        assert_eq!(keys.len() as u64, SLOT_ROWS);
    }
}
