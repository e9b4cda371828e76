//! The last row of each key, by sequence: the state of an `upsert`.
//!
//! Stored of a key: the length of its order, the order (the values of the sequence columns and the event's hash), and
//! the row, encoded. What is not the last by its order is put aside without looking at the row.

use std::cmp::Ordering;

use karat_lake::arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::SchemaRef,
};

use super::Keyed;
use crate::{
    Error, Result,
    rows::EncodedRows,
    state::Step,
    value::{self, Column, Value},
};

/// Keeps the last row of each key.
pub(super) struct LastRows {
    /// Columns that order the rows of a key.
    pub(super) order: Vec<String>,
    /// The key columns first.
    pub(super) schema: SchemaRef,
    pub(super) num_keys: usize,
}

impl LastRows {
    /// Takes rows with the key of each; gives the rows that went and those that came.
    pub(super) fn take(
        &self,
        step: &mut Step<'_>,
        keyspace: &str,
        keys: Vec<Vec<u8>>,
        rows: &RecordBatch,
    ) -> Result<(Keyed, Keyed)> {
        let order = value::columns(rows, &self.order)?;
        let names: Vec<String> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        let cells = value::columns(rows, &names[self.num_keys..])?;
        let mut old = EncodedRows::new(&self.schema)?;
        let (mut old_keys, mut new_keys, mut came) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = Vec::new();
        for (key, row) in last_of_each(keys, &order) {
            let stored = step.get(keyspace, &key)?;
            let stored = stored.as_deref().map(|bytes| Stored::read(bytes, keyspace)).transpose()?;
            if stored.as_ref().is_some_and(|stored| compare_with(&order, row, &stored.order) != Ordering::Greater) {
                continue;
            }
            bytes.clear();
            bytes.resize(LENGTH, 0);
            order.iter().for_each(|column| column.encode(row, &mut bytes));
            let length = u32::try_from(bytes.len() - LENGTH).unwrap_or(u32::MAX);
            bytes[..LENGTH].copy_from_slice(&length.to_le_bytes());
            let row_at = bytes.len();
            cells.iter().for_each(|column| column.encode(row, &mut bytes));
            let is_changed = stored.as_ref().is_none_or(|stored| stored.row != &bytes[row_at..]);
            if is_changed {
                if let Some(stored) = &stored {
                    old.push(&[&key, stored.row], keyspace)?;
                    old_keys.push(key.clone());
                }
                new_keys.push(key.clone());
                came.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
            step.put(keyspace, key, bytes.clone());
        }
        let columns: Result<Vec<usize>, _> = names.iter().map(|name| rows.schema().index_of(name)).collect();
        let new = take_record_batch(&rows.project(&columns?)?, &UInt32Array::from(came))?;
        let new = Keyed { keys: new_keys, rows: new.with_schema(self.schema.clone())? };
        Ok((Keyed { keys: old_keys, rows: old.take()? }, new))
    }

    /// The kept rows of pairs of the state store.
    pub(super) fn stored(&self, pairs: Vec<(Vec<u8>, Vec<u8>)>, keyspace: &str) -> Result<Keyed> {
        let (mut rows, mut keys) = (EncodedRows::new(&self.schema)?, Vec::with_capacity(pairs.len()));
        for (key, bytes) in pairs {
            rows.push(&[&key, Stored::read(&bytes, keyspace)?.row], keyspace)?;
            keys.push(key);
        }
        Ok(Keyed { keys, rows: rows.take()? })
    }
}

/// Bytes of the length before the order.
const LENGTH: usize = 4;

struct Stored<'b> {
    order: Vec<Value>,
    row: &'b [u8],
}

impl<'b> Stored<'b> {
    fn read(bytes: &'b [u8], keyspace: &str) -> Result<Self> {
        let damaged = || Error::DamagedState(keyspace.to_owned());
        let (length, rest) = bytes.split_first_chunk::<LENGTH>().ok_or_else(damaged)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (order, row) = rest.split_at_checked(length).ok_or_else(damaged)?;
        Ok(Self { order: value::decode_all(order, keyspace)?, row })
    }
}

/// The last row of each key, in the order of the keys: neighbours in the state store are then read and written together.
fn last_of_each(keys: Vec<Vec<u8>>, order: &[Column]) -> Vec<(Vec<u8>, usize)> {
    let mut rows: Vec<(Vec<u8>, usize)> = keys.into_iter().zip(0..).collect();
    rows.sort_unstable_by(|(key, row), (other_key, other)| {
        key.cmp(other_key).then_with(|| compare(order, *other, *row)).then(row.cmp(other))
    });
    rows.dedup_by(|other, last| other.0 == last.0);
    rows
}

fn compare(order: &[Column], row: usize, other: usize) -> Ordering {
    let orders = order.iter().map(|column| column.value(row).cmp(&column.value(other)));
    orders.fold(Ordering::Equal, Ordering::then)
}

fn compare_with(order: &[Column], row: usize, stored: &[Value]) -> Ordering {
    let orders = order.iter().zip(stored).map(|(column, stored)| column.value(row).cmp(stored));
    orders.fold(Ordering::Equal, Ordering::then)
}
