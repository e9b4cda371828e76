//! Refresh by merge: weighted changes are aggregated, and the result is added to stored state.
//!
//! The declared SQL must be one `SELECT` of groups and aggregates over the silver table. Its aggregates are taken apart
//! into *parts* that can be added and subtracted: a count is a sum of weights, an average a sum and a count, a
//! percentile an order-free histogram, a distinct count a set with weights. A batch costs what it changed: one
//! aggregation of the changed rows, then one read and write of each touched group.
//!
//! `min` and `max` can be added to, not subtracted from: they are merged over append-only tables alone.

mod coarser;
mod parts;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use karat_lake::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array},
        compute::take_record_batch,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    datafusion::{
        common::{
            DFSchema,
            tree_node::{Transformed, TreeNode},
        },
        functions_aggregate::expr_fn::sum,
        logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, cast, col},
    },
};
use karat_schemas::pipelines::Gold;

pub use self::coarser::Coarser;
use self::parts::{FinalPlan, PartState};
use super::{
    GoldChanges, Revision, Revisions,
    choose::{Applied, GoldPlan, Source},
    groupwise, with_revision,
};
use crate::{
    Error, Result,
    query::{Planner, Query, plain_type},
    silver::fold::{WEIGHT, weighted_schema},
    state::Step,
    value::{self, Column, Value},
};

/// Name under which the final projection reads the aggregated groups.
const GROUPS: &str = "karat_groups";
/// The part that counts the rows of a group: at zero the group is gone.
const ROWS: &str = "karat_rows";

/// A planned merge.
pub struct MergePlan {
    name: String,
    source: String,
    /// Aggregates changed rows to groups and parts.
    delta: Query,
    /// What `delta` does, as it was written.
    changed: Changed,
    num_groups: usize,
    finals: Vec<FinalPlan>,
    /// Groups and final values, as the projection reads them.
    groups_schema: SchemaRef,
    projection: Query,
    /// Output columns that are the groups.
    key: Vec<String>,
    revisions: Option<Revisions>,
    schema: SchemaRef,
}

/// Groups and parts over changed rows, without their names.
struct Changed {
    input: LogicalPlan,
    groups: Vec<Expr>,
    parts: Vec<Expr>,
}

/// A group's stored state.
struct Group {
    rows: i64,
    revision: Revision,
    parts: Vec<PartState>,
}

impl Group {
    /// Adds what a row says: the number of rows, then each part. None when a value is not of its part's kind.
    fn add(&mut self, parts: &[Column], row: usize) -> Option<()> {
        let (rows, parts) = parts.split_first()?;
        self.rows += int(&rows.value(row));
        self.parts.iter_mut().zip(parts).try_for_each(|(state, column)| state.merge(&column.value(row)))
    }
}

impl MergePlan {
    /// Plans `gold`, or says why it cannot be merged.
    pub async fn new(gold: &Gold, source: &Source<'_>) -> Result<Self> {
        let planner = Planner::new(&[(source.table, weighted_schema(source.schema))])?;
        let plan = planner.logical(&gold.sql).await?;
        let LogicalPlan::Projection(Projection { expr: outputs, input, .. }) = plan else {
            return Err(refused("its SQL is not one SELECT of groups and aggregates"));
        };
        let LogicalPlan::Aggregate(aggregate) = input.as_ref() else {
            return Err(refused(
                "its SQL does not end in GROUP BY (HAVING, DISTINCT, ORDER BY and LIMIT are not merged)",
            ));
        };
        if aggregate.input.schema().index_of_column_by_name(None, WEIGHT).is_none() {
            return Err(refused("it aggregates something else than the silver table itself"));
        }
        groupwise::refuse_unless_row_wise(&aggregate.input)?;
        let mut delta: Vec<Expr> = vec![sum(col(WEIGHT)).alias(ROWS)];
        let mut finals = Vec::new();
        let num_groups = aggregate.group_expr.len();
        for (index, expr) in aggregate.aggr_expr.iter().enumerate() {
            let result = aggregate.schema.field(num_groups + index).data_type();
            let input = argument_type(expr, aggregate.input.schema());
            finals.push(FinalPlan::take_apart(expr, result, &input, source.is_append_only, &mut delta)?);
        }
        let groups = aggregate.group_expr.iter().enumerate();
        let groups = groups.map(|(index, expr)| Ok(in_microseconds(expr, aggregate)?.alias(format!("g{index}"))));
        let groups = groups.collect::<Result<Vec<_>>>()?;
        let changed = Changed {
            input: aggregate.input.as_ref().clone(),
            groups: aggregate.group_expr.iter().map(|expr| expr.clone().unalias()).collect(),
            parts: delta.iter().map(|expr| expr.clone().unalias()).collect(),
        };
        let delta = LogicalPlanBuilder::from(aggregate.input.as_ref().clone()).aggregate(groups, delta)?;
        let groups_schema = groups_schema(aggregate)?;
        let projection_planner = Planner::new(&[(GROUPS, groups_schema.clone())])?;
        let scan = projection_planner.scan(GROUPS)?;
        let rewritten = outputs.iter().map(|expr| over_groups(expr, aggregate)).collect::<Result<Vec<_>>>()?;
        let key = key_columns(&outputs, aggregate)?;
        let projection = LogicalPlanBuilder::from(scan).project(rewritten)?.build()?;
        let projection = projection_planner.query(projection)?;
        let mut delta = planner.query(delta.build()?)?;
        // What cannot be planned or run is known before there are rows.
        delta.run(&[]).await?;
        let revisions =
            gold.bucket.as_ref().map(|bucket| Revisions::new(bucket, &key, projection.schema())).transpose()?;
        Ok(Self {
            name: gold.name.clone(),
            source: source.table.to_owned(),
            schema: with_revision(projection.schema(), gold.bucket.as_ref()),
            delta,
            changed,
            num_groups,
            finals,
            groups_schema,
            projection,
            key,
            revisions,
        })
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// Changed rows by group: the groups, then the parts of each.
    pub(super) async fn grouped(&mut self, changes: &RecordBatch) -> Result<RecordBatch> {
        self.delta.run(&[(&self.source, changes.clone())]).await
    }

    /// Rows by group, as [`MergePlan::grouped`], of the `groups` alone: those of many parts of a table are put together.
    pub(super) async fn grouped_of(&mut self, groups: &[Vec<Value>], rows: &RecordBatch) -> Result<RecordBatch> {
        let all = self.grouped(rows).await?;
        let columns = all.columns()[..self.num_groups].iter().map(Column::new).collect::<Result<Vec<_>>>()?;
        let wanted: HashSet<Vec<u8>> = groups.iter().map(|values| value::encode_all(values)).collect();
        let is_wanted = |row: &usize| {
            let values: Vec<Value> = columns.iter().map(|column| column.value(*row)).collect();
            wanted.contains(&value::encode_all(&values))
        };
        let places = (0..all.num_rows()).filter(is_wanted).filter_map(|row| u32::try_from(row).ok());
        Ok(take_record_batch(&all, &UInt32Array::from_iter_values(places))?)
    }

    /// Takes changes by group; a group may have several rows.
    pub(super) async fn apply(&mut self, step: &mut Step<'_>, changes: &RecordBatch, now_us: i64) -> Result<Applied> {
        let columns = changes.columns().iter().map(Column::new).collect::<Result<Vec<_>>>()?;
        let keyspace = GoldPlan::keyspace(&self.name);
        let (mut groups, mut places) = (Vec::new(), HashMap::new());
        for row in 0..changes.num_rows() {
            let values: Vec<Value> = columns[..self.num_groups].iter().map(|column| column.value(row)).collect();
            let key = value::encode_all(&values);
            let place = match places.entry(key) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let stored = step.get(&keyspace, new.key())?;
                    let group = match &stored {
                        Some(bytes) => self.decode(bytes)?,
                        None => self.empty(),
                    };
                    groups.push((new.key().clone(), values, group, stored));
                    *new.insert(groups.len() - 1)
                }
            };
            let group: &mut Group = &mut groups[place].2;
            group.add(&columns[self.num_groups..], row).ok_or_else(|| Error::DamagedState(keyspace.clone()))?;
        }
        let (mut touched, mut deleted) = (Vec::new(), Vec::new());
        for (key, values, group, stored) in groups {
            // A table without groups has a row over no rows, too.
            if group.rows <= 0 && self.num_groups > 0 {
                step.remove(&keyspace, key.clone());
                deleted.extend(stored.is_some().then_some(key));
                continue;
            }
            touched.push((key, values, group, stored));
        }
        let (mut present, mut recompute) = (Vec::new(), Vec::new());
        // Computing a group again reads every row of the silver table. Then all take part that would need it soon.
        let reads_rows = touched.iter().any(|(_, _, group, _)| group.parts.iter().any(PartState::lost_exactness));
        for (key, values, mut group, stored) in touched {
            if reads_rows && group.parts.iter().any(PartState::could_keep_values) {
                recompute.push(values);
                continue;
            }
            self.revise(&mut group, &values, now_us);
            let encoded = encode(&group);
            if self.num_groups == 0 && stored.as_deref() == Some(encoded.as_slice()) {
                continue;
            }
            step.put(&keyspace, key.clone(), encoded);
            present.push((key, values, group));
        }
        Ok(Applied { changes: self.finish(present, deleted).await?, recompute })
    }

    /// Computes groups from all of their rows by group; a group may have several rows.
    pub(super) async fn recompute(
        &mut self,
        step: &mut Step<'_>,
        all: &RecordBatch,
        now_us: i64,
    ) -> Result<GoldChanges> {
        let columns = all.columns().iter().map(Column::new).collect::<Result<Vec<_>>>()?;
        let keyspace = GoldPlan::keyspace(&self.name);
        let (mut present, mut places) = (Vec::new(), HashMap::new());
        for row in 0..all.num_rows() {
            let values: Vec<Value> = columns[..self.num_groups].iter().map(|column| column.value(row)).collect();
            let key = value::encode_all(&values);
            let place = match places.entry(key) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    // Revisions are history, not figures: they go on from what is stored.
                    let before = step.get(&keyspace, new.key())?.map(|bytes| self.decode(&bytes)).transpose()?;
                    let revision = before.map(|before| before.revision).unwrap_or_default();
                    present.push((new.key().clone(), values, Group { revision, ..self.empty() }));
                    *new.insert(present.len() - 1)
                }
            };
            let group: &mut Group = &mut present[place].2;
            group.add(&columns[self.num_groups..], row).ok_or_else(|| Error::DamagedState(keyspace.clone()))?;
        }
        for (key, values, group) in &mut present {
            self.revise(group, values, now_us);
            step.put(&keyspace, key.clone(), encode(group));
        }
        self.finish(present, Vec::new()).await
    }

    /// A change after the end of the bucket counts as a revision.
    fn revise(&self, group: &mut Group, values: &[Value], now_us: i64) {
        if let Some(rule) = &self.revisions {
            rule.revise(&mut group.revision, values, now_us);
        }
    }

    /// Rows of the table from groups.
    async fn finish(
        &mut self,
        present: Vec<(Vec<u8>, Vec<Value>, Group)>,
        deleted_keys: Vec<Vec<u8>>,
    ) -> Result<GoldChanges> {
        let mut cells: Vec<Vec<Value>> = vec![Vec::with_capacity(present.len()); self.groups_schema.fields().len()];
        for (_, values, group) in &present {
            let finals = self.finals.iter().map(|plan| plan.value(&group.parts));
            for (cell, value) in cells.iter_mut().zip(values.iter().cloned().chain(finals)) {
                cell.push(value);
            }
        }
        let types = self.groups_schema.fields().iter();
        let columns =
            types.zip(&cells).map(|(field, cell)| value::to_array(field.data_type(), cell)).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(present.len()));
        let groups = RecordBatch::try_new_with_options(self.groups_schema.clone(), columns, &options)?;
        let rows = self.projection.run(&[(GROUPS, groups)]).await?;
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if self.revisions.is_some() {
            let revisions: Vec<Revision> = present.iter().map(|(_, _, group)| group.revision.clone()).collect();
            columns.extend(Revision::columns(&revisions)?);
        }
        let upserts = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(GoldChanges { upserts, upsert_keys: present.into_iter().map(|(key, ..)| key).collect(), deleted_keys })
    }

    fn empty(&self) -> Group {
        let parts = self.finals.iter().flat_map(FinalPlan::empty_parts).collect();
        Group { rows: 0, revision: Revision::default(), parts }
    }

    fn decode(&self, mut bytes: &[u8]) -> Result<Group> {
        let damaged = || Error::DamagedState(GoldPlan::keyspace(&self.name));
        let mut group = self.empty();
        group.rows = int(&Value::decode(&mut bytes).ok_or_else(damaged)?);
        group.revision = Revision::decode(&mut bytes).ok_or_else(damaged)?;
        for part in &mut group.parts {
            let stored = Value::decode(&mut bytes).ok_or_else(damaged)?;
            *part = part.of_stored(stored).ok_or_else(damaged)?;
        }
        Ok(group)
    }
}

fn encode(group: &Group) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 * (group.parts.len() + 3));
    Value::Int(group.rows).encode(&mut out);
    group.revision.encode(&mut out);
    group.parts.iter().for_each(|part| part.stored().encode(&mut out));
    out
}

fn int(value: &Value) -> i64 {
    if let Value::Int(number) = value { *number } else { 0 }
}

/// The type of an aggregate's first argument.
fn argument_type(expr: &Expr, schema: &DFSchema) -> DataType {
    let expr = if let Expr::Alias(alias) = expr { alias.expr.as_ref() } else { expr };
    match expr {
        Expr::AggregateFunction(function) => {
            function.params.args.first().and_then(|argument| argument.get_type(schema).ok())
        }
        _ => None,
    }
    .unwrap_or(DataType::Null)
}

fn refused(reason: &str) -> Error {
    Error::Declaration(reason.to_owned())
}

/// Columns c0, c1, ...: the aggregate's groups, then its results, in plain types.
fn groups_schema(aggregate: &Aggregate) -> Result<SchemaRef> {
    let mut fields = Vec::new();
    for (index, field) in aggregate.schema.fields().iter().enumerate() {
        let data_type = plain_type(field.data_type());
        // Finds out now whether the type can be kept.
        Column::new(&value::to_array(&data_type, &[Value::Null])?)?;
        fields.push(Field::new(format!("c{index}"), data_type, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Groups are told apart as finely as tables hold them: some functions give nanoseconds.
fn in_microseconds(group: &Expr, aggregate: &Aggregate) -> Result<Expr> {
    let data_type = group.get_type(aggregate.input.schema())?;
    let is_time = matches!(data_type, DataType::Timestamp(..));
    Ok(if is_time { cast(group.clone(), plain_type(&data_type)) } else { group.clone() })
}

/// An output expression with the aggregate's columns replaced by c0, c1, ...
fn over_groups(expr: &Expr, aggregate: &Aggregate) -> Result<Expr> {
    let name = expr.schema_name().to_string();
    let rewritten = expr.clone().transform(|part| match &part {
        Expr::Column(column) => {
            let index = aggregate.schema.index_of_column(column)?;
            Ok(Transformed::yes(col(format!("c{index}"))))
        }
        _ => Ok(Transformed::no(part)),
    });
    let rewritten = rewritten?.data;
    let plain_name = match expr {
        Expr::Alias(alias) => alias.name.clone(),
        Expr::Column(column) => column.name.clone(),
        _ => name,
    };
    Ok(rewritten.alias(plain_name))
}

/// The output column of each group, in order: a row of the table must say which group it is.
fn key_columns(outputs: &[Expr], aggregate: &Aggregate) -> Result<Vec<String>> {
    let group_of = |expr: &Expr| match expr {
        Expr::Column(column) => aggregate.schema.index_of_column(column).ok(),
        _ => None,
    };
    let output_of = |index: usize| {
        outputs.iter().find_map(|expr| match expr {
            Expr::Alias(alias) if group_of(&alias.expr) == Some(index) => Some(alias.name.clone()),
            Expr::Column(column) if group_of(expr) == Some(index) => Some(column.name.clone()),
            _ => None,
        })
    };
    (0..aggregate.group_expr.len())
        .map(|index| {
            let text = aggregate.group_expr[index].to_string();
            output_of(index).ok_or_else(|| refused(&format!("it groups by `{text}` and does not select it")))
        })
        .collect()
}
