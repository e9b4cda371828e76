//! The last row of each key, by sequence: the state of an `upsert`.
//!
//! Stored of a key: the length of its order, the order (the values of the sequence columns and the event's hash), and
//! the row, encoded. What is not the last by its order is put aside without looking at the row.

use std::cmp::Ordering;

use fjall::Slice;
use karat_lake::arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::SchemaRef,
};

use super::{
    Keyed,
    parts::{Part, put_together},
};
use crate::{
    Error, Result,
    packed_keys::PackedKeys,
    parallel::{PART_KEYS, in_parts},
    rows::EncodedRows,
    state::Step,
    value::{self, Column, Raw},
};

/// Keeps the last row of each key.
pub(super) struct LastRows {
    /// Columns that order the rows of a key.
    pub(super) order: Vec<String>,
    /// The key columns first.
    pub(super) schema: SchemaRef,
    pub(super) num_keys: usize,
}

/// A batch, ready for access by row.
struct Came<'b> {
    keys: &'b PackedKeys,
    order: Vec<Column>,
    /// The columns behind the key.
    cells: Vec<Column>,
    rows: RecordBatch,
}

impl LastRows {
    /// Takes rows with the key of each; gives the rows that went and those that came.
    pub(super) fn take(
        &self,
        step: &mut Step<'_>,
        keyspace: &str,
        keys: &PackedKeys,
        rows: &RecordBatch,
    ) -> Result<(Vec<RecordBatch>, Keyed)> {
        let names: Vec<String> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        let columns: Result<Vec<usize>, _> = names.iter().map(|name| rows.schema().index_of(name)).collect();
        let came = Came {
            keys,
            order: value::columns(rows, &self.order)?,
            cells: value::columns(rows, &names[self.num_keys..])?,
            rows: rows.project(&columns?)?.with_schema(self.schema.clone())?,
        };
        let last = came.last_of_each();
        // Nearly all of this is reading what is stored of each key, one after the other: so the parts are read at once.
        let before = &*step;
        let parts = in_parts(&last, PART_KEYS, |part| self.take_part(before, keyspace, &came, part))?;
        Ok(put_together(parts, step, keyspace))
    }

    /// Compares the last rows of some keys with what is stored.
    fn take_part(&self, step: &Step<'_>, keyspace: &str, came: &Came<'_>, last: &[usize]) -> Result<Part> {
        let mut old = EncodedRows::new(&self.schema)?;
        let (mut new_keys, mut new_rows, mut writes) = (Vec::new(), Vec::new(), Vec::with_capacity(last.len()));
        let mut bytes = Vec::new();
        for row in last.iter().copied() {
            let key = came.keys.get(row);
            let stored = step.get(keyspace, key)?;
            let stored = stored.as_deref().map(|bytes| Stored::read(bytes, keyspace)).transpose()?;
            if let Some(stored) = &stored
                && !came.is_later(row, stored.order, keyspace)?
            {
                continue;
            }
            let row_at = came.encode(row, &mut bytes);
            if stored.as_ref().is_none_or(|stored| stored.row != &bytes[row_at..]) {
                if let Some(stored) = &stored {
                    old.push(&[key, stored.row], keyspace)?;
                }
                new_keys.push(key.to_vec());
                new_rows.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
            writes.push((key.to_vec(), Slice::from(bytes.as_slice())));
        }
        let new = take_record_batch(&came.rows, &UInt32Array::from(new_rows))?;
        Ok(Part { old: old.take()?, new, new_keys, stored: writes })
    }

    /// Adds the row that is stored of a key.
    pub(super) fn push(rows: &mut EncodedRows, key: &[u8], stored: &[u8], keyspace: &str) -> Result<()> {
        rows.push(&[key, Stored::read(stored, keyspace)?.row], keyspace)
    }
}

impl Came<'_> {
    /// The last row of each key, in the order of the keys: neighbours in the state store are then read and written together.
    fn last_of_each(&self) -> Vec<usize> {
        let mut rows = self.keys.sorted(|row, other| self.compare(other, row));
        rows.dedup_by(|other, last| self.keys.get(*other) == self.keys.get(*last));
        rows
    }

    fn compare(&self, row: usize, other: usize) -> Ordering {
        let orders = self.order.iter().map(|column| column.raw(row).compare(column.raw(other)));
        orders.fold(Ordering::Equal, Ordering::then)
    }

    /// Whether a row is later than what is stored.
    fn is_later(&self, row: usize, mut stored: &[u8], keyspace: &str) -> Result<bool> {
        for column in &self.order {
            let value = Raw::read(&mut stored).ok_or_else(|| Error::DamagedState(keyspace.to_owned()))?;
            match column.raw(row).compare(value) {
                Ordering::Equal => {}
                unequal => return Ok(unequal == Ordering::Greater),
            }
        }
        Ok(false)
    }

    /// Writes what is stored of a row over `bytes`; gives where in it the row begins.
    fn encode(&self, row: usize, bytes: &mut Vec<u8>) -> usize {
        bytes.clear();
        bytes.resize(LENGTH, 0);
        self.order.iter().for_each(|column| column.encode(row, bytes));
        let row_at = bytes.len();
        let length = u32::try_from(row_at - LENGTH).unwrap_or(u32::MAX);
        bytes[..LENGTH].copy_from_slice(&length.to_le_bytes());
        self.cells.iter().for_each(|column| column.encode(row, bytes));
        row_at
    }
}

/// Bytes of the length before the order.
const LENGTH: usize = 4;

struct Stored<'b> {
    /// Values, encoded.
    order: &'b [u8],
    row: &'b [u8],
}

impl<'b> Stored<'b> {
    fn read(bytes: &'b [u8], keyspace: &str) -> Result<Self> {
        let damaged = || Error::DamagedState(keyspace.to_owned());
        let (length, rest) = bytes.split_first_chunk::<LENGTH>().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (order, row) = rest.split_at_checked(length).ok_or_else(damaged)?;
        Ok(Self { order, row })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use karat_lake::arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{DataType, Field, Schema},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::{batches::join, state::StateStore};

    /// Key, sequence, text and hash of a row.
    type Row = (i64, i64, u8, i64);

    const KEYSPACE: &str = "fold.t";

    fn batch(rows: &[Row]) -> RecordBatch {
        let ints = |pick: fn(&Row) -> i64| -> ArrayRef { Arc::new(rows.iter().map(pick).collect::<Int64Array>()) };
        let text = rows.iter().map(|row| Some(format!("text {}", row.2)));
        let text: ArrayRef = Arc::new(text.collect::<StringArray>());
        let columns: [(&str, ArrayRef); 4] =
            [("v", text), ("k", ints(|row| row.0)), ("s", ints(|row| row.1)), ("h", ints(|row| row.3))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    fn last_rows() -> LastRows {
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
        let fields = vec![field("k", DataType::Int64), field("s", DataType::Int64), field("v", DataType::Utf8)];
        LastRows { order: vec!["s".to_owned(), "h".to_owned()], schema: Arc::new(Schema::new(fields)), num_keys: 1 }
    }

    /// Rows in the order of their encoded keys.
    fn expected(plan: &LastRows, rows: &[Row]) -> (Vec<Vec<u8>>, RecordBatch) {
        let keyed = value::row_keys(&batch(rows), &["k".to_owned()]).unwrap().into_iter().zip(rows.iter().copied());
        let keyed: BTreeMap<Vec<u8>, Row> = keyed.collect();
        let (keys, rows): (Vec<Vec<u8>>, Vec<Row>) = keyed.into_iter().unzip();
        let columns: Vec<ArrayRef> =
            ["k", "s", "v"].map(|name| batch(&rows).column_by_name(name).unwrap().clone()).to_vec();
        (keys, RecordBatch::try_new(plan.schema.clone(), columns).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn each_key_has_its_last_row_whatever_the_steps_and_parts(
            steps in proptest::collection::vec(
                proptest::collection::vec((0_i64..7_000, 0_i64..3, 0_u8..2, 0_i64..3), 0..9_000),
                1..4,
            ),
        ) {
            let plan = last_rows();
            let folder = tempfile::tempdir().unwrap();
            let mut store = StateStore::open(folder.path(), &[KEYSPACE.to_owned()]).unwrap();
            let mut model: BTreeMap<i64, Row> = BTreeMap::new();
            for rows in steps {
                let before = model.clone();
                for row in &rows {
                    let is_later = |kept: &Row| (row.1, row.3) > (kept.1, kept.3);
                    if model.get(&row.0).is_none_or(is_later) {
                        model.insert(row.0, *row);
                    }
                }
                let changed = model.iter().filter(|(key, row)| {
                    before.get(*key).is_none_or(|before| (before.1, before.2) != (row.1, row.2))
                });
                let changed: Vec<Row> = changed.map(|(_, row)| *row).collect();
                let gone: Vec<Row> = changed.iter().filter_map(|row| before.get(&row.0)).copied().collect();
                let rows = batch(&rows);
                let keys = PackedKeys::of(&rows, &["k".to_owned()]).unwrap();
                let mut step = store.begin();
                let (old, new) = plan.take(&mut step, KEYSPACE, &keys, &rows).unwrap();
                let writes = step.into_writes();
                store.apply(&writes).unwrap();
                prop_assert_eq!(join(&plan.schema, old).unwrap(), expected(&plan, &gone).1);
                let new_rows = join(&plan.schema, new.rows).unwrap();
                prop_assert_eq!((new.keys, new_rows), expected(&plan, &changed));
            }
            let kept: Vec<Row> = model.into_values().collect();
            let (keys, rows) = expected(&plan, &kept);
            let mut found = EncodedRows::new(&plan.schema).unwrap();
            let pairs = store.begin().scan(KEYSPACE).unwrap();
            prop_assert!(pairs.iter().map(|(key, _)| key).eq(&keys));
            for (key, stored) in &pairs {
                LastRows::push(&mut found, key, stored, KEYSPACE).unwrap();
            }
            prop_assert_eq!(found.take().unwrap(), rows);
        }
    }

    #[test]
    fn a_damaged_order_is_named() {
        let rows = batch(&[(1, 1, 0, 0)]);
        let order = value::columns(&rows, &["s".to_owned(), "h".to_owned()]).unwrap();
        let keys = PackedKeys::of(&rows, &["k".to_owned()]).unwrap();
        let came = Came { keys: &keys, order, cells: Vec::new(), rows };
        let order = value::encode_all(&[value::Value::Int(1), value::Value::Int(-1)]);
        assert!(came.is_later(0, &order, KEYSPACE).unwrap());
        let cut = came.is_later(0, &order[..order.len() - 1], KEYSPACE);
        assert!(matches!(cut, Err(Error::DamagedState(what)) if what == KEYSPACE));
        assert!(Stored::read(&[9, 0, 0, 0, 1], KEYSPACE).is_err());
    }
}
