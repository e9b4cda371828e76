//! Pairs of the state store as rows of the checkpoint, and back.
//!
//! Identities are most of the pairs and never change: many of them are one row, whose value is key after key, each with its
//! content.

use std::{collections::BTreeMap, sync::Arc};

use karat_lake::{
    TableSpec,
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryBuilder, RecordBatch, StringBuilder},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
};

use crate::{
    Error, Result,
    state::{IDENTITIES, META, Writes, identity_of_pair},
};

pub(super) fn table_spec(name: &str) -> TableSpec {
    TableSpec {
        name: name.to_owned(),
        schema: schema(),
        partition_by: Vec::new(),
        stats_columns: Vec::new(),
        append_only: false,
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("keyspace", DataType::Utf8, true),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
    ]))
}

/// Bytes of an identity and its content.
const IDENTITY: usize = 16;
const PAIR: usize = IDENTITY + 8;

/// Bytes of identities at which a row is full.
const FULL: usize = 4096 * PAIR;

/// Collects pairs as rows, in their order.
#[derive(Default)]
pub(super) struct Rows {
    keyspaces: StringBuilder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    identities: Vec<u8>,
}

impl Rows {
    pub(super) fn push(&mut self, keyspace: &str, key: &[u8], value: Option<&[u8]>) {
        if keyspace != IDENTITIES {
            return self.push_row(keyspace, key, value);
        }
        self.identities.extend_from_slice(key);
        self.identities.extend_from_slice(value.unwrap_or_default());
        if self.identities.len() >= FULL {
            self.push_identities();
        }
    }

    fn push_row(&mut self, keyspace: &str, key: &[u8], value: Option<&[u8]>) {
        self.keyspaces.append_value(keyspace);
        self.keys.append_value(key);
        self.values.append_option(value);
    }

    fn push_identities(&mut self) {
        let identities = std::mem::take(&mut self.identities);
        self.push_row(IDENTITIES, &[], Some(&identities));
    }

    pub(super) fn finish(mut self) -> Result<RecordBatch> {
        if !self.identities.is_empty() {
            self.push_identities();
        }
        let columns: Vec<ArrayRef> =
            vec![Arc::new(self.keyspaces.finish()), Arc::new(self.keys.finish()), Arc::new(self.values.finish())];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

/// Adds rows to `writes`; those of the store's own small values go to `meta`, to be written last.
pub(super) fn from_rows(rows: &RecordBatch, writes: &mut Writes, meta: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    let (keyspaces, keys) = (rows.column(0).as_string::<i32>(), rows.column(1).as_binary::<i32>());
    let values = rows.column(2).as_binary::<i32>();
    let damaged = || Error::DamagedState("checkpoint".to_owned());
    for row in 0..rows.num_rows() {
        let (keyspace, key) = (keyspaces.value(row), keys.value(row));
        let value = values.is_valid(row).then(|| values.value(row));
        match keyspace {
            META => {
                meta.insert(key.to_vec(), value.ok_or_else(damaged)?.to_vec());
            }
            IDENTITIES => {
                for pair in value.ok_or_else(damaged)?.chunks(PAIR) {
                    let (identity, content) = pair.split_at_checked(IDENTITY).ok_or_else(damaged)?;
                    let (identity, content) = identity_of_pair(identity, Some(content))?;
                    writes.accept(identity, content);
                }
            }
            _ => writes.set(keyspace, key.to_vec(), value.map(<[u8]>::to_vec)),
        }
    }
    Ok(())
}
