//! Refresh by merge, with DataFusion's own accumulators: for aggregates that can be added to and not subtracted from.
//!
//! New rows are aggregated to *partial state*, in DataFusion's sense. It is merged with the stored state of the groups
//! that it touches, and what comes out is stored and evaluated: expressions over the aggregates, `HAVING` and windows
//! within a group apply to the result. A batch costs its own rows and the groups that it touches, whatever else the
//! table holds. State of `count(DISTINCT x)`, `median`, `array_agg` and the like holds every value of its group.
//!
//! Guarantees: the state of a group after any batches is the state after one batch of the same rows, for floats up to
//! the order of additions. The layout of the state is DataFusion's and changes with its version, which is therefore
//! part of a pipeline's fingerprint: after an upgrade the state is built anew, never misread.
//!
//! Input must be append-only: rows never change or go away.

mod analyse;
mod physical;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use karat_lake::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
        compute::cast,
        datatypes::{Schema, SchemaRef},
        row::{RowConverter, SortField},
    },
    datafusion::{
        datasource::memory::MemorySourceConfig,
        logical_expr::LogicalPlan,
        physical_plan::{
            ExecutionPlan,
            aggregates::{AggregateExec, AggregateMode},
        },
    },
};
use karat_schemas::pipelines::{Gold, Refresh};

use self::{
    analyse::{groups_schema, key_columns, lowest_aggregate, refuse_undecided, results_over_groups},
    physical::{node, raw_aggregate, state_schema},
};
use super::{
    GoldChanges, Revision, Revisions,
    choose::{Applied, GoldPlan, Source},
    groupwise, with_revision,
};
use crate::{
    Error, Result,
    batches::join,
    query::{Planner, Query, plain_type},
    state::Step,
    value::{self, Column},
};

/// Name under which the rest of the SQL reads the aggregated groups.
const GROUPS: &str = "karat_groups";

/// A planned merge of accumulator state.
pub struct AccumulatePlan {
    name: String,
    source: String,
    source_schema: SchemaRef,
    /// The aggregate over new rows.
    aggregate: Query,
    num_groups: usize,
    /// Group columns, then the state of each aggregate.
    state_schema: SchemaRef,
    converter: RowConverter,
    /// Group columns, then the value of each aggregate.
    groups_schema: SchemaRef,
    /// What the SQL does with the aggregated groups.
    results: Query,
    /// Output columns that are the groups.
    key: Vec<String>,
    revisions: Option<Revisions>,
    schema: SchemaRef,
}

impl AccumulatePlan {
    /// Plans `gold`, or says why its state cannot be kept.
    pub async fn new(gold: &Gold, source: &Source<'_>) -> Result<Self> {
        if !source.is_append_only {
            return Err(refused("rows of the silver table change, and accumulators cannot give up a value"));
        }
        let planner = Planner::new(&[(source.table, source.schema.clone())])?;
        let plan = planner.optimized(&planner.logical(&gold.sql).await?)?;
        let aggregate = lowest_aggregate(&plan)?;
        groupwise::refuse_unless_row_wise(&aggregate.input)?;
        refuse_undecided(&aggregate, gold.refresh == Refresh::Merge)?;
        let num_groups = aggregate.group_expr.len();
        let group_columns = (0..num_groups).map(|index| BTreeSet::from([index])).collect::<Vec<_>>();
        let leaf = |node: &LogicalPlan| {
            matches!(node, LogicalPlan::Aggregate(found) if *found == aggregate).then(|| group_columns.clone())
        };
        let carried = groupwise::carried(&plan, &leaf)?;
        let key = key_columns(&plan, &aggregate, &carried)?;
        let groups_schema = groups_schema(&aggregate, num_groups)?;
        let results = results_over_groups(plan, &aggregate, &groups_schema).await?;
        let aggregate = planner.as_it_is(LogicalPlan::Aggregate(aggregate));
        let state_schema = state_schema(&aggregate, groups_schema.fields().len()).await?;
        let fields: Vec<SortField> =
            state_schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        if !RowConverter::supports_fields(&fields) {
            return Err(refused("the state of one of its aggregates has a type that cannot be stored"));
        }
        let key_schema = results.schema();
        let revisions = gold.bucket.as_ref().map(|bucket| Revisions::new(bucket, &key, key_schema)).transpose()?;
        let mut plan = Self {
            name: gold.name.clone(),
            source: source.table.to_owned(),
            source_schema: source.schema.clone(),
            schema: with_revision(results.schema(), gold.bucket.as_ref()),
            aggregate,
            num_groups,
            converter: RowConverter::new(fields)?,
            state_schema,
            groups_schema,
            results,
            key,
            revisions,
        };
        let works =
            |error: Error| Error::Declaration(format!("DataFusion cannot merge the state of its aggregates: {error}"));
        plan.rehearse().await.map_err(works)?;
        Ok(plan)
    }

    /// Goes through a merge with one row of NULLs, so that what cannot be merged is known before there are rows.
    async fn rehearse(&mut self) -> Result<()> {
        let columns = self.source_schema.fields().iter().map(|field| new_null_array(field.data_type(), 1));
        let row = RecordBatch::try_new(as_nullable(&self.source_schema), columns.collect())?;
        let (plan, first) = self.partial(row).await?;
        let aggregate = raw_aggregate(&plan)?;
        let encoded = self.converter.convert_columns(first.columns())?;
        let stored = self.converter.convert_rows(encoded.iter())?;
        let stored = with_types(&self.state_schema, &stored, first.num_rows())?;
        let merged = self.merge(aggregate, stored, first).await?;
        let values = self.evaluate(aggregate, merged).await?;
        self.finish(values, &BTreeSet::new(), &BTreeMap::new()).await.map(drop)
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn key(&self) -> &[String] {
        &self.key
    }

    pub(super) async fn apply(&mut self, step: &mut Step<'_>, changes: &RecordBatch, now_us: i64) -> Result<Applied> {
        let columns: Vec<usize> = (0..self.source_schema.fields().len()).collect();
        let (plan, partial) = self.partial(changes.project(&columns)?).await?;
        let aggregate = raw_aggregate(&plan)?;
        let touched: BTreeSet<Vec<u8>> = self.keys(&partial)?.into_iter().collect();
        let (stored, revisions) = self.load(step, &touched)?;
        let merged = self.merge(aggregate, stored, partial).await?;
        let revisions = self.store(step, &merged, &revisions, now_us)?;
        let values = self.evaluate(aggregate, merged).await?;
        let changes = self.finish(values, &touched, &revisions).await?;
        Ok(Applied { changes, recompute: Vec::new() })
    }

    /// The state of `rows` by themselves, and the plan that made it.
    async fn partial(&self, rows: RecordBatch) -> Result<(Arc<dyn ExecutionPlan>, RecordBatch)> {
        let plan = self.aggregate.physical(&[(&self.source, rows)]).await?;
        let aggregate = raw_aggregate(&plan)?;
        let partial = node(aggregate, AggregateMode::Partial, Arc::clone(aggregate.input()))?;
        let partial = self.states(self.aggregate.collect(partial).await?)?;
        Ok((plan, partial))
    }

    /// One row of state a group. What is stored comes first, so that aggregates without an order see rows in the order
    /// of their arrival.
    async fn merge(&self, aggregate: &AggregateExec, stored: RecordBatch, new: RecordBatch) -> Result<RecordBatch> {
        let merged = node(aggregate, AggregateMode::PartialReduce, self.memory(vec![stored, new])?)?;
        self.states(self.aggregate.collect(merged).await?)
    }

    async fn evaluate(&self, aggregate: &AggregateExec, merged: RecordBatch) -> Result<Vec<RecordBatch>> {
        let values = node(aggregate, AggregateMode::Final, self.memory(vec![merged])?)?;
        self.aggregate.collect(values).await
    }

    /// The stored state of the groups that have some, and the revision of each.
    fn load(&self, step: &Step<'_>, touched: &BTreeSet<Vec<u8>>) -> Result<(RecordBatch, BTreeMap<Vec<u8>, Revision>)> {
        let keyspace = GoldPlan::keyspace(&self.name);
        let (mut rows, mut revisions) = (Vec::new(), BTreeMap::new());
        for key in touched {
            let Some(bytes) = step.get(&keyspace, key)? else { continue };
            let (revision, row) = decode(&bytes).ok_or_else(|| Error::DamagedState(keyspace.clone()))?;
            revisions.insert(key.clone(), revision);
            rows.push(row);
        }
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
        Ok((with_types(&self.state_schema, &columns, rows.len())?, revisions))
    }

    /// Stores merged state, one row a group; gives the revision of each.
    fn store(
        &self,
        step: &mut Step<'_>,
        merged: &RecordBatch,
        before: &BTreeMap<Vec<u8>, Revision>,
        now_us: i64,
    ) -> Result<BTreeMap<Vec<u8>, Revision>> {
        let keyspace = GoldPlan::keyspace(&self.name);
        let rows = self.converter.convert_columns(merged.columns())?;
        let mut revisions = BTreeMap::new();
        for (row, key) in self.keys(merged)?.into_iter().enumerate() {
            let mut revision = before.get(&key).cloned().unwrap_or_default();
            if let Some(rule) = &self.revisions {
                rule.revise(&mut revision, &value::decode_all(&key, &keyspace)?, now_us);
            }
            step.put(&keyspace, key.clone(), encode(&revision, rows.row(row).as_ref()));
            if revisions.insert(key, revision).is_some() {
                return Err(Error::Declaration(format!(
                    "gold table `{}`: two of its groups are the same where the table writes them: cast times to \
                     microseconds in its GROUP BY",
                    self.name
                )));
            }
        }
        Ok(revisions)
    }

    /// Rows of the table from aggregated groups. Touched groups that give no row, because of `HAVING`, are deleted.
    async fn finish(
        &mut self,
        values: Vec<RecordBatch>,
        touched: &BTreeSet<Vec<u8>>,
        revisions: &BTreeMap<Vec<u8>, Revision>,
    ) -> Result<GoldChanges> {
        let values = values.iter().map(|batch| with_types(&self.groups_schema, batch.columns(), batch.num_rows()));
        let groups = join(&self.groups_schema, values.collect::<Result<_>>()?)?;
        let rows = self.results.run(&[(GROUPS, groups)]).await?;
        let upsert_keys = value::row_keys(&rows, &self.key)?;
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if self.revisions.is_some() {
            let of_rows: Vec<Revision> =
                upsert_keys.iter().map(|key| revisions.get(key).cloned().unwrap_or_default()).collect();
            columns.extend(Revision::columns(&of_rows)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let upserts = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        let present: BTreeSet<&Vec<u8>> = upsert_keys.iter().collect();
        let deleted_keys = touched.iter().filter(|key| !present.contains(key)).cloned().collect();
        Ok(GoldChanges { upserts, upsert_keys, deleted_keys })
    }

    /// The key of each row of state.
    fn keys(&self, states: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let groups = &states.columns()[..self.num_groups];
        let plain = groups.iter().map(|column| Column::new(&cast(column, &plain_type(column.data_type()))?));
        let columns = plain.collect::<Result<Vec<_>>>()?;
        let key = |row| {
            let mut out = Vec::with_capacity(16 * columns.len());
            columns.iter().for_each(|column| column.encode(row, &mut out));
            out
        };
        Ok((0..states.num_rows()).map(key).collect())
    }

    fn states(&self, batches: Vec<RecordBatch>) -> Result<RecordBatch> {
        let batches = batches.iter().map(|batch| with_types(&self.state_schema, batch.columns(), batch.num_rows()));
        join(&self.state_schema, batches.collect::<Result<_>>()?)
    }

    fn memory(&self, mut batches: Vec<RecordBatch>) -> Result<Arc<dyn ExecutionPlan>> {
        // Some accumulators panic when they merge nothing.
        batches.retain(|batch| batch.num_rows() > 0);
        Ok(MemorySourceConfig::try_new_exec(&[batches], self.state_schema.clone(), None)?)
    }
}

fn encode(revision: &Revision, row: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(row.len() + 32);
    revision.encode(&mut out);
    // The row format trusts its bytes, so they are checked before it reads them.
    out.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(row).to_le_bytes());
    out.extend_from_slice(row);
    out
}

fn decode(mut bytes: &[u8]) -> Option<(Revision, Vec<u8>)> {
    let revision = Revision::decode(&mut bytes)?;
    let (digest, row) = bytes.split_first_chunk::<8>()?;
    (xxhash_rust::xxh3::xxh3_64(row) == u64::from_le_bytes(*digest)).then(|| (revision, row.to_vec()))
}

fn as_nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn with_types(schema: &SchemaRef, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
    let columns = columns.iter().zip(schema.fields()).map(|(column, field)| -> Result<ArrayRef> {
        let is_same = column.data_type() == field.data_type();
        Ok(if is_same { Arc::clone(column) } else { cast(column, field.data_type())? })
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_>>()?, &options)?)
}

fn refused(reason: &str) -> Error {
    Error::Declaration(reason.to_owned())
}

#[cfg(test)]
mod tests;
