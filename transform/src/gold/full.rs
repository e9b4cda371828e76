//! Full refresh, the last resort: any SQL, run over every silver row whenever one changed.
//!
//! The state store keeps a copy of the silver rows, so that a step that runs again after a crash sees the rows of that
//! step and none of a later one, wherever the silver table is by then. It also keeps a digest of the published rows of
//! each key; only keys whose rows differ are published, so readers and files see what changed, not the whole table.
//!
//! Cost and memory of a step follow the whole silver table.

use std::collections::BTreeMap;

use karat_lake::arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::SchemaRef,
};
use karat_schemas::pipelines::Gold;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    GoldChanges,
    choose::{Applied, GoldPlan, Source},
    rows::{self, Cells, Row},
};
use crate::{
    Error, Result,
    query::{Planner, Query},
    silver::fold::WEIGHT,
    state::Step,
    value::{self, Value},
};

/// A planned full refresh.
pub struct FullPlan {
    name: String,
    source: String,
    source_schema: SchemaRef,
    row_key: Vec<String>,
    key: Vec<String>,
    query: Query,
}

/// First byte of a kept row's key, of a published key's digest, and the key of the note that the table was computed.
const ROW: u8 = b'r';
const DIGEST: u8 = b'd';
const COMPUTED: &[u8] = b"c";

impl FullPlan {
    pub async fn new(gold: &Gold, source: &Source<'_>) -> Result<Self> {
        let planner = Planner::new(&[(source.table, source.schema.clone())])?;
        let mut query = planner.select(&gold.sql).await?;
        // What cannot be planned or run is known before there are rows.
        query.run(&[]).await?;
        if gold.bucket.is_some() {
            return Err(Error::Declaration("`bucket` needs refresh `merge`".to_owned()));
        }
        if gold.latest.is_some() {
            return Err(Error::Declaration("`latest` needs refresh `keys`".to_owned()));
        }
        for name in &gold.key {
            if query.schema().field_with_name(name).is_err() {
                return Err(Error::Declaration(format!("its SQL must give the key column `{name}`")));
            }
        }
        let all = || query.schema().fields().iter().map(|field| field.name().clone()).collect();
        let key = if gold.key.is_empty() { all() } else { gold.key.clone() };
        // Finds out now whether the key's types can be encoded.
        value::row_keys(&RecordBatch::new_empty(query.schema().clone()), &key)?;
        Ok(Self {
            name: gold.name.clone(),
            source: source.table.to_owned(),
            source_schema: source.schema.clone(),
            row_key: source.key.to_vec(),
            key,
            query,
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        self.query.schema()
    }

    pub fn key(&self) -> &[String] {
        &self.key
    }

    pub(super) async fn apply(&mut self, step: &mut Step<'_>, changes: &RecordBatch) -> Result<Applied> {
        let keyspace = GoldPlan::keyspace(&self.name);
        if changes.num_rows() == 0 && step.get(&keyspace, COMPUTED)?.is_some() {
            let nothing = GoldChanges {
                upserts: RecordBatch::new_empty(self.schema().clone()),
                upsert_keys: Vec::new(),
                deleted_keys: Vec::new(),
            };
            return Ok(Applied { changes: nothing, recompute: Vec::new() });
        }
        self.keep_rows(step, changes)?;
        let kept = step.prefix(&keyspace, &[ROW])?;
        tracing::info!(table = self.name, rows = kept.len(), "full refresh, as declared: every silver row is read");
        let kept: Vec<Row> =
            kept.iter().map(|(_, bytes)| value::decode_all(bytes, &keyspace)).collect::<Result<_>>()?;
        let silver = rows::batch(&self.source_schema, kept.iter())?;
        drop(kept);
        let table = self.query.run(&[(&self.source, silver)]).await?;
        step.put(&keyspace, COMPUTED.to_vec(), Vec::new());
        Ok(Applied { changes: self.differences(step, &table)?, recompute: Vec::new() })
    }

    fn keep_rows(&self, step: &mut Step<'_>, changes: &RecordBatch) -> Result<()> {
        let keyspace = GoldPlan::keyspace(&self.name);
        let keys = value::row_keys(changes, &self.row_key)?;
        let cells = Cells::of(changes, &self.source_schema)?;
        let weights = value::columns(changes, &[WEIGHT.to_owned()])?;
        for (row, key) in keys.into_iter().enumerate() {
            let place = [&[ROW], key.as_slice()].concat();
            if weights[0].value(row) == Value::Int(-1) {
                step.remove(&keyspace, place);
            } else {
                step.put(&keyspace, place, cells.encoded(row));
            }
        }
        Ok(())
    }

    /// The rows of keys that are not as they were published, and the keys that are gone.
    fn differences(&self, step: &mut Step<'_>, table: &RecordBatch) -> Result<GoldChanges> {
        let keyspace = GoldPlan::keyspace(&self.name);
        let cells = Cells::of(table, self.schema())?;
        let keys = value::row_keys(table, &self.key)?;
        let mut rows_of: BTreeMap<&[u8], Vec<(Vec<u8>, u32)>> = BTreeMap::new();
        for (row, key) in keys.iter().enumerate() {
            let number = u32::try_from(row).map_err(|_| Error::Declaration("more than 2^32 rows".to_owned()))?;
            rows_of.entry(key).or_default().push((cells.encoded(row), number));
        }
        let published = step.prefix(&keyspace, &[DIGEST])?;
        let deleted = published.iter().map(|(key, _)| &key[1..]).filter(|key| !rows_of.contains_key(key));
        let deleted_keys: Vec<Vec<u8>> = deleted.map(<[u8]>::to_vec).collect();
        let published: BTreeMap<&[u8], &[u8]> =
            published.iter().map(|(key, digest)| (&key[1..], digest.as_slice())).collect();
        let (mut changed, mut upsert_keys) = (Vec::new(), Vec::new());
        for (key, mut rows) in rows_of {
            rows.sort_unstable();
            let mut bytes = Vec::new();
            for (cells, _) in &rows {
                bytes.extend_from_slice(cells);
                bytes.push(ROW);
            }
            let digest = xxh3_128(&bytes).to_le_bytes();
            if published.get(key) != Some(&digest.as_slice()) {
                step.put(&keyspace, [&[DIGEST], key].concat(), digest.to_vec());
                upsert_keys.extend(rows.iter().map(|_| key.to_vec()));
                changed.extend(rows.iter().map(|(_, row)| *row));
            }
        }
        for key in &deleted_keys {
            step.remove(&keyspace, [&[DIGEST], key.as_slice()].concat());
        }
        Ok(GoldChanges { upserts: take_record_batch(table, &UInt32Array::from(changed))?, upsert_keys, deleted_keys })
    }
}
