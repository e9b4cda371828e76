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
