//! One aggregate a column, of the events of each key: the state of a `fold`.

use fjall::Slice;
use karat_lake::arrow::{array::RecordBatch, datatypes::SchemaRef};

use super::{
    Keyed,
    aggregate::{AggregatePlan, AggregateState, Prepared},
    parts::{Part, put_together},
};
use crate::{
    Error, Result,
    packed_keys::PackedKeys,
    parallel::{PART_KEYS, in_parts},
    rows::EncodedRows,
    state::Step,
    value::{self, Value},
};

/// Folds the rows of each key.
pub(super) struct Aggregates {
    pub(super) plans: Vec<AggregatePlan>,
    /// The key columns, then one column an aggregate.
    pub(super) schema: SchemaRef,
}

impl Aggregates {
    /// Takes rows with the key of each; gives the folded rows that went and those that came.
    pub(super) fn take(
        &self,
        step: &mut Step<'_>,
        keyspace: &str,
        keys: &PackedKeys,
        rows: &RecordBatch,
    ) -> Result<(Vec<RecordBatch>, Keyed)> {
        let columns = self.plans.iter().map(|plan| plan.prepare(rows)).collect::<Result<Vec<_>>>()?;
        let sorted = keys.sorted(|_, _| std::cmp::Ordering::Equal);
        let by_key: Vec<&[usize]> = sorted.chunk_by(|row, other| keys.get(*row) == keys.get(*other)).collect();
        let before = &*step;
        let parts = in_parts(&by_key, PART_KEYS, |by_key| self.take_part(before, keyspace, keys, &columns, by_key))?;
        Ok(put_together(parts, step, keyspace))
    }

    /// Folds the rows of some keys into what is stored.
    fn take_part(
        &self,
        step: &Step<'_>,
        keyspace: &str,
        keys: &PackedKeys,
        columns: &[Prepared],
        by_key: &[&[usize]],
    ) -> Result<Part> {
        let (mut old, mut new) = (EncodedRows::new(&self.schema)?, EncodedRows::new(&self.schema)?);
        let (mut new_keys, mut writes) = (Vec::new(), Vec::with_capacity(by_key.len()));
        for rows in by_key {
            let Some(key) = rows.first().map(|row| keys.get(*row)) else { continue };
            let stored = step.get(keyspace, key)?;
            let mut states = match &stored {
                Some(bytes) => self.decode(bytes, keyspace)?,
                None => self.plans.iter().map(AggregatePlan::empty).collect(),
            };
            let before = stored.is_some().then(|| values(&states));
            for row in *rows {
                for (state, columns) in states.iter_mut().zip(columns) {
                    state.update(columns, *row);
                }
            }
            let encoded = AggregateState::encode_all(&states);
            if stored.as_deref() == Some(encoded.as_slice()) {
                continue;
            }
            writes.push((key.to_vec(), Slice::from(encoded)));
            let after = values(&states);
            if before.as_ref() == Some(&after) {
                continue;
            }
            if let Some(before) = before {
                old.push(&[key, &value::encode_all(&before)], keyspace)?;
            }
            new.push(&[key, &value::encode_all(&after)], keyspace)?;
            new_keys.push(key.to_vec());
        }
        Ok(Part { old: old.take()?, new: new.take()?, new_keys, stored: writes })
    }

    /// Adds the row of what is stored of a key.
    pub(super) fn push(&self, rows: &mut EncodedRows, key: &[u8], stored: &[u8], keyspace: &str) -> Result<()> {
        let values = values(&self.decode(stored, keyspace)?);
        rows.push(&[key, &value::encode_all(&values)], keyspace)
    }

    fn decode(&self, bytes: &[u8], keyspace: &str) -> Result<Vec<AggregateState>> {
        let states = AggregateState::decode_all(bytes).filter(|states| states.len() == self.plans.len());
        states.ok_or_else(|| Error::DamagedState(keyspace.to_owned()))
    }
}

fn values(states: &[AggregateState]) -> Vec<Value> {
    states.iter().map(AggregateState::value).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use karat_lake::arrow::{
        array::{ArrayRef, Int64Array},
        datatypes::{DataType, Field, Schema},
    };
    use karat_schemas::pipelines::Aggregate;

    use super::*;
    use crate::{batches::join, state::StateStore};

    /// A key, and the sum, number and largest of its values.
    type Row = (i64, [i64; 3]);

    const KEYSPACE: &str = "fold.t";

    fn batch(rows: &[(i64, i64)]) -> RecordBatch {
        let ints =
            |pick: fn(&(i64, i64)) -> i64| -> ArrayRef { Arc::new(rows.iter().map(pick).collect::<Int64Array>()) };
        let columns = [("k", ints(|row| row.0)), ("v", ints(|row| row.1))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    /// Rows in the order of their encoded keys.
    fn expected(schema: &SchemaRef, rows: Vec<Row>) -> (Vec<Vec<u8>>, RecordBatch) {
        let keys: Vec<(i64, i64)> = rows.iter().map(|(key, _)| (*key, 0)).collect();
        let keyed = value::row_keys(&batch(&keys), &["k".to_owned()]).unwrap().into_iter().zip(rows);
        let keyed: BTreeMap<Vec<u8>, Row> = keyed.collect();
        let (keys, rows): (Vec<Vec<u8>>, Vec<Row>) = keyed.into_iter().unzip();
        let ints = |pick: fn(&Row) -> i64| -> ArrayRef { Arc::new(rows.iter().map(pick).collect::<Int64Array>()) };
        let columns = vec![ints(|row| row.0), ints(|row| row.1[0]), ints(|row| row.1[1]), ints(|row| row.1[2])];
        (keys, RecordBatch::try_new(schema.clone(), columns).unwrap())
    }

    #[test]
    fn keys_of_several_parts_are_folded_as_if_each_came_alone() {
        let declared = [
            Aggregate::Sum { sum: "v".to_owned() },
            Aggregate::Count { count: "*".to_owned() },
            Aggregate::Max { max: "v".to_owned() },
        ];
        let fields = ["k", "sum", "count", "max"].map(|name| Field::new(name, DataType::Int64, true)).to_vec();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let plans = declared.iter().map(AggregatePlan::new).collect();
        let aggregates = Aggregates { plans, schema: schema.clone() };
        let folder = tempfile::tempdir().unwrap();
        let mut store = StateStore::open(folder.path(), &[KEYSPACE.to_owned()]).unwrap();
        let mut model: BTreeMap<i64, [i64; 3]> = BTreeMap::new();
        // Three parts, of which the last is not full. Seven does not divide it, so each key comes twice, and not in its order.
        let many = i64::try_from(3 * PART_KEYS).unwrap() - 100;
        for first in [0, many / 2] {
            let of_step = |model: &BTreeMap<i64, [i64; 3]>| -> Vec<Row> {
                model.range(first..first + many).map(|(key, row)| (*key, *row)).collect()
            };
            let gone = of_step(&model);
            let rows: Vec<(i64, i64)> = (0..2 * many).map(|number| (first + number * 7 % many, number)).collect();
            for (key, value) in &rows {
                let [sum, count, max] = model.entry(*key).or_insert([0, 0, i64::MIN]);
                (*sum, *count, *max) = (*sum + *value, *count + 1, (*max).max(*value));
            }
            let rows = batch(&rows);
            let keys = PackedKeys::of(&rows, &["k".to_owned()]).unwrap();
            let mut step = store.begin();
            let (old, new) = aggregates.take(&mut step, KEYSPACE, &keys, &rows).unwrap();
            let writes = step.into_writes();
            store.apply(&writes).unwrap();
            assert_eq!(join(&schema, old).unwrap(), expected(&schema, gone).1);
            let new_rows = join(&schema, new.rows).unwrap();
            assert_eq!((new.keys, new_rows), expected(&schema, of_step(&model)));
        }
    }
}
