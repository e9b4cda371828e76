//! Refresh by keys: the groups that a change touches are computed again from their rows.
//!
//! The state store keeps the silver rows of each group side by side, so a touched group is read without a scan. With
//! `latest`, only the newest rows of a group are kept and seen; `floor` remembers the newest row that was let go, and
//! when a kept row goes away or moves, so that an older one should come back, the group asks to be refilled.

use std::{collections::BTreeSet, sync::Arc};

use karat_lake::arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::{Schema, SchemaRef},
};
use karat_schemas::pipelines::Gold;

use super::{
    GoldChanges,
    choose::{Applied, GoldPlan, Source},
};
use crate::{
    Error, Result,
    origin::require_plain,
    query::{Planner, Query},
    reference::ReferenceRows,
    silver::fold::WEIGHT,
    state::Step,
    value::{self, Column, Value},
};

/// A planned refresh by keys.
pub struct KeysPlan {
    name: String,
    source: String,
    /// The columns of the silver table that are kept: those that the SQL reads, and the order.
    kept: SchemaRef,
    row_key: Vec<String>,
    key: Vec<String>,
    latest: Option<(String, usize)>,
    query: Query,
    /// Reference tables that the SQL joins.
    references: Vec<(String, RecordBatch)>,
    schema: SchemaRef,
}

impl KeysPlan {
    /// Plans `gold`, whose SQL may join `references`.
    pub async fn new(gold: &Gold, source: &Source<'_>, references: &[&ReferenceRows]) -> Result<Self> {
        let planner_over = |silver: &SchemaRef| {
            let joined = references.iter().map(|reference| (reference.name.as_str(), reference.rows.schema()));
            let tables: Vec<_> = [(source.table, silver.clone())].into_iter().chain(joined).collect();
            Planner::new(&tables)
        };
        let planner = planner_over(source.schema)?;
        let plan = planner.logical(&gold.sql).await?;
        let latest = gold.latest.as_ref().map(|latest| (latest.by.clone(), latest.keep));
        for name in gold.key.iter().chain(latest.iter().map(|(by, _)| by)) {
            if source.schema.field_with_name(name).is_err() {
                return Err(Error::Declaration(format!("silver table `{}` has no column `{name}`", source.table)));
            }
        }
        require_plain(&plan, source.table, &gold.key)?;
        value::require_kept(source.schema)?;
        if gold.bucket.is_some() {
            return Err(Error::Declaration("`bucket` needs refresh `merge`".to_owned()));
        }
        let read = planner.query(plan)?.columns_of(source.table)?;
        let is_kept = |name: &String| read.contains(name) || latest.as_ref().is_some_and(|(by, _)| by == name);
        let fields = source.schema.fields().iter().filter(|field| is_kept(field.name()));
        let kept: SchemaRef = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        let query = planner_over(&kept)?.select(&gold.sql).await?;
        Ok(Self {
            name: gold.name.clone(),
            source: source.table.to_owned(),
            kept,
            row_key: source.key.to_vec(),
            key: gold.key.clone(),
            latest,
            references: references.iter().map(|reference| (reference.name.clone(), reference.rows.clone())).collect(),
            schema: query.schema().clone(),
            query,
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn key(&self) -> &[String] {
        &self.key
    }

    pub(super) async fn apply(&mut self, step: &mut Step<'_>, changes: &RecordBatch) -> Result<Applied> {
        let touched = self.keep_rows(step, changes)?;
        let (mut ready, mut recompute) = (Vec::new(), Vec::new());
        for group in touched {
            match self.trim(step, &group)? {
                Some(rows) => ready.push((group, rows)),
                None => recompute.push(value::decode_all(&group, &self.name)?),
            }
        }
        Ok(Applied { changes: self.compute(&ready).await?, recompute })
    }

    pub(super) async fn recompute(
        &mut self,
        step: &mut Step<'_>,
        groups: &[Vec<Value>],
        rows: &RecordBatch,
    ) -> Result<GoldChanges> {
        let groups: BTreeSet<Vec<u8>> = groups.iter().map(|values| value::encode_all(values)).collect();
        let keyspace = GoldPlan::keyspace(&self.name);
        for group in &groups {
            for (key, _) in step.prefix(&keyspace, group)? {
                step.remove(&keyspace, key);
            }
        }
        let group_keys = value::row_keys(rows, &self.key)?;
        let wanted = (0..rows.num_rows()).filter(|row| groups.contains(&group_keys[*row]));
        let wanted =
            karat_lake::arrow::array::UInt32Array::from_iter_values(wanted.filter_map(|row| u32::try_from(row).ok()));
        let rows = karat_lake::arrow::compute::take_record_batch(rows, &wanted)?;
        self.keep_rows(step, &rows)?;
        let mut ready = Vec::new();
        for group in groups {
            // Nothing was let go before: every row was just put there.
            if let Some(rows) = self.trim(step, &group)? {
                ready.push((group, rows));
            }
        }
        self.compute(&ready).await
    }

    /// Writes the rows of a change beside those of their group; gives the touched groups.
    fn keep_rows(&self, step: &mut Step<'_>, changes: &RecordBatch) -> Result<BTreeSet<Vec<u8>>> {
        let keyspace = GoldPlan::keyspace(&self.name);
        let groups = value::row_keys(changes, &self.key)?;
        let rows = value::row_keys(changes, &self.row_key)?;
        let orders = match &self.latest {
            Some((by, _)) => value::row_keys(changes, std::slice::from_ref(by))?,
            None => vec![Vec::new(); changes.num_rows()],
        };
        let names: Vec<String> = self.kept.fields().iter().map(|field| field.name().clone()).collect();
        let cells = value::columns(changes, &names)?;
        let weights = value::columns(changes, &[WEIGHT.to_owned()])?;
        let mut touched = BTreeSet::new();
        for row in 0..changes.num_rows() {
            let key = row_place(&groups[row], &orders[row], &rows[row]);
            if weights[0].value(row) == Value::Int(-1) {
                step.remove(&keyspace, key);
            } else {
                let values: Vec<Value> = cells.iter().map(|column: &Column| column.value(row)).collect();
                step.put(&keyspace, key, value::encode_all(&values));
            }
            touched.insert(groups[row].clone());
        }
        Ok(touched)
    }

    /// Keeps the newest rows of a group and gives them; none when rows that were let go might belong to them now.
    fn trim(&self, step: &mut Step<'_>, group: &[u8]) -> Result<Option<Vec<Row>>> {
        let rows = self.rows_of(step, group)?;
        let Some((by, keep)) = &self.latest else {
            return Ok(Some(rows.into_iter().map(|(_, values)| values).collect()));
        };
        let keyspace = GoldPlan::keyspace(&self.name);
        let floor_key = [group, FLOOR].concat();
        let by = self.kept.index_of(by)?;
        let mut kept: Vec<((Value, Vec<u8>), Row)> =
            rows.into_iter().map(|(key, values)| ((values[by].clone(), key), values)).collect();
        kept.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let floor = step.get(&keyspace, &floor_key)?.map(|bytes| value::decode_all(&bytes, &keyspace)).transpose()?;
        let floor = floor.map(|values| {
            (values[0].clone(), if let Some(Value::Bytes(key)) = values.get(1) { key.to_vec() } else { Vec::new() })
        });
        // Below the floor rows have been let go before: what arrives there cannot be judged beside them.
        if let Some(floor) = &floor {
            let above = kept.iter().filter(|(place, _)| place > floor).count();
            if above < *keep {
                return Ok(None);
            }
        }
        let excess = kept.len().saturating_sub(*keep);
        if excess > 0 {
            let mut new_floor = (Value::Null, Vec::new());
            for (place, _) in kept.drain(..excess) {
                step.remove(&keyspace, place.1.clone());
                new_floor = place;
            }
            let highest = floor.map_or(new_floor.clone(), |floor| floor.max(new_floor));
            step.put(&keyspace, floor_key, value::encode_all(&[highest.0, Value::Bytes(highest.1.into())]));
        }
        // In the order in which they are stored, so that the SQL sees what a recomputation would see.
        kept.sort_unstable_by(|((_, one), _), ((_, other), _)| one.cmp(other));
        Ok(Some(kept.into_iter().map(|(_, values)| values).collect()))
    }

    /// The rows of a group with their keys, in the order of those.
    fn rows_of(&self, step: &Step<'_>, group: &[u8]) -> Result<Vec<(Vec<u8>, Row)>> {
        let keyspace = GoldPlan::keyspace(&self.name);
        let pairs = step.prefix(&keyspace, group)?.into_iter();
        let rows = pairs.filter(|(key, _)| key.get(group.len()) == Some(&ROW_MARK));
        rows.map(|(key, bytes)| Ok((key, value::decode_all(&bytes, &keyspace)?))).collect()
    }

    /// Runs the SQL over the rows of the groups.
    async fn compute(&mut self, groups: &[(Vec<u8>, Vec<Row>)]) -> Result<GoldChanges> {
        let mut cells: Vec<Vec<Value>> = vec![Vec::new(); self.kept.fields().len()];
        for values in groups.iter().flat_map(|(_, rows)| rows) {
            cells.iter_mut().zip(values).for_each(|(cell, value)| cell.push(value.clone()));
        }
        let types = self.kept.fields().iter();
        let columns =
            types.zip(&cells).map(|(field, cell)| value::to_array(field.data_type(), cell)).collect::<Result<_>>()?;
        let count = groups.iter().map(|(_, rows)| rows.len()).sum();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(self.kept.clone(), columns, &options)?;
        let references = self.references.iter().map(|(name, rows)| (name.as_str(), rows.clone()));
        let inputs: Vec<_> = [(self.source.as_str(), rows)].into_iter().chain(references).collect();
        let upserts = self.query.run(&inputs).await?;
        let upsert_keys = value::row_keys(&upserts, &self.key)?;
        let present: BTreeSet<&Vec<u8>> = upsert_keys.iter().collect();
        let deleted_keys =
            groups.iter().map(|(group, _)| group).filter(|group| !present.contains(group)).cloned().collect();
        Ok(GoldChanges { upserts, upsert_keys, deleted_keys })
    }
}

/// The values of a silver row.
type Row = Vec<Value>;

/// Follows the group in the key of a row, and of a floor: no value's encoding starts with them.
const ROW_MARK: u8 = 0xfe;
const FLOOR: &[u8] = &[0xff];

fn row_place(group: &[u8], order: &[u8], row: &[u8]) -> Vec<u8> {
    [group, &[ROW_MARK], order, row].concat()
}
