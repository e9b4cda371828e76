//! Refresh by keys: the groups that a change touches are computed again from their rows.
//!
//! The state store keeps the silver rows of each group as one value, so a touched group is read without a
//! scan. With `latest`, only the newest rows of a group are kept and seen; when one of them goes away or moves, so that
//! an older one should come back, the group asks to be refilled.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use karat_lake::{
    arrow::{
        array::{RecordBatch, UInt32Array},
        compute::take_record_batch,
        datatypes::{Schema, SchemaRef},
    },
    datafusion::logical_expr::LogicalPlan,
};
use karat_schemas::pipelines::Gold;

use super::{
    GoldChanges,
    choose::{Applied, GoldPlan, Source},
    group::Group,
    groupwise,
    rows::{self, Cells},
};
use crate::{
    Error, Result,
    query::{Planner, Query},
    reference::ReferenceRows,
    silver::fold::WEIGHT,
    state::Step,
    value::{self, Value},
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
        let joined = references.iter().map(|reference| (reference.name.as_str(), reference.rows.schema()));
        let mut tables: Vec<_> = [(source.table, source.schema.clone())].into_iter().chain(joined).collect();
        let planner = Planner::new(&tables)?;
        let plan = planner.optimized(&planner.logical(&gold.sql).await?)?;
        let latest = gold.latest.as_ref().map(|latest| (latest.by.clone(), latest.keep));
        for name in gold.key.iter().chain(latest.iter().map(|(by, _)| by)) {
            if source.schema.field_with_name(name).is_err() {
                return Err(Error::Declaration(format!("silver table `{}` has no column `{name}`", source.table)));
            }
        }
        refuse_unless_by_key(&plan, source.table, &gold.key)?;
        value::require_kept(source.schema)?;
        if gold.bucket.is_some() {
            return Err(Error::Declaration("`bucket` needs refresh `merge`".to_owned()));
        }
        let read = planner.as_it_is(plan).columns_of(source.table)?;
        let is_kept = |name: &String| read.contains(name) || latest.as_ref().is_some_and(|(by, _)| by == name);
        let fields = source.schema.fields().iter().filter(|field| is_kept(field.name()));
        let kept: SchemaRef = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        tables[0].1 = kept.clone();
        let mut query = Planner::new(&tables)?.select(&gold.sql).await?;
        // What cannot be planned or run is known before there are rows.
        query.run(&[]).await?;
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
        let (mut ready, mut recompute) = (Vec::new(), Vec::new());
        for (key, mut group) in self.changed(step, changes)? {
            if self.trim(&mut group) {
                self.store(step, &key, &group);
                ready.push((key, group));
            } else {
                recompute.push(value::decode_all(&key, &self.name)?);
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
        let groups = encoded(groups);
        let keyspace = GoldPlan::keyspace(&self.name);
        groups.iter().for_each(|key| step.remove(&keyspace, key.clone()));
        let mut found = self.changed(step, rows)?;
        let mut ready = Vec::new();
        for key in groups {
            let mut group = found.remove(&key).unwrap_or_default();
            // Never short of rows: nothing was let go before.
            self.trim(&mut group);
            self.store(step, &key, &group);
            ready.push((key, group));
        }
        self.compute(&ready).await
    }

    /// Those of some rows that belong to the groups.
    pub(super) fn rows_of(&self, groups: &[Vec<Value>], rows: &RecordBatch) -> Result<RecordBatch> {
        let groups = encoded(groups);
        let row_groups = value::row_keys(rows, &self.key)?;
        let wanted = (0..rows.num_rows()).filter(|row| groups.contains(&row_groups[*row]));
        let wanted = UInt32Array::from_iter_values(wanted.filter_map(|row| u32::try_from(row).ok()));
        Ok(take_record_batch(rows, &wanted)?)
    }

    /// The groups that a change touches, with its rows put in and taken out.
    fn changed(&self, step: &Step<'_>, changes: &RecordBatch) -> Result<BTreeMap<Vec<u8>, Group>> {
        let keyspace = GoldPlan::keyspace(&self.name);
        let group_keys = value::row_keys(changes, &self.key)?;
        let row_keys = value::row_keys(changes, &self.row_key)?;
        let order = match &self.latest {
            Some((by, _)) => value::columns(changes, std::slice::from_ref(by))?.pop(),
            None => None,
        };
        let cells = Cells::of(changes, &self.kept)?;
        let weights = value::columns(changes, &[WEIGHT.to_owned()])?;
        let mut groups: BTreeMap<Vec<u8>, Group> = BTreeMap::new();
        for (row, (key, row_key)) in group_keys.into_iter().zip(row_keys).enumerate() {
            let group = match groups.entry(key) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let stored = step.get(&keyspace, entry.key())?;
                    let group = stored.map(|bytes| Group::decode(&bytes, self.kept.fields().len()));
                    let group = group.map(|group| group.ok_or_else(|| Error::DamagedState(keyspace.clone())));
                    entry.insert(group.transpose()?.unwrap_or_default())
                }
            };
            let place = (order.as_ref().map_or(Value::Null, |column| column.value(row)), row_key);
            if weights[0].value(row) == Value::Int(-1) {
                group.remove(&place);
            } else {
                group.put(place, cells.row(row));
            }
        }
        Ok(groups)
    }

    /// False when rows that were let go before might belong to the group now.
    fn trim(&self, group: &mut Group) -> bool {
        self.latest.as_ref().is_none_or(|(_, keep)| group.trim(*keep))
    }

    fn store(&self, step: &mut Step<'_>, key: &[u8], group: &Group) {
        let keyspace = GoldPlan::keyspace(&self.name);
        match group.encode() {
            Some(bytes) => step.put(&keyspace, key.to_vec(), bytes),
            None => step.remove(&keyspace, key.to_vec()),
        }
    }

    /// Runs the SQL over the rows of the groups.
    async fn compute(&mut self, groups: &[(Vec<u8>, Group)]) -> Result<GoldChanges> {
        let rows = rows::batch(&self.kept, groups.iter().flat_map(|(_, group)| group.rows()))?;
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

fn encoded(groups: &[Vec<Value>]) -> BTreeSet<Vec<u8>> {
    groups.iter().map(|values| value::encode_all(values)).collect()
}

/// The rows of a key must depend on the silver rows of that key alone, and carry it unchanged under its name. Reference
/// tables are the same for every key.
fn refuse_unless_by_key(plan: &LogicalPlan, silver: &str, key: &[String]) -> Result<()> {
    let leaf = |node: &LogicalPlan| match node {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() && scan.table_name.table() == silver => {
            let position = |name: &String| scan.projected_schema.index_of_column_by_name(None, name);
            Some(key.iter().map(|name| position(name).into_iter().collect()).collect())
        }
        _ => None,
    };
    let carried = groupwise::carried(plan, &leaf)?;
    for (name, columns) in key.iter().zip(carried) {
        if !columns.iter().any(|index| plan.schema().field(*index).name() == name) {
            return Err(Error::Declaration(format!(
                "its SQL must give the key `{name}` as it is in the silver table: compute it in the layer before"
            )));
        }
    }
    Ok(())
}
