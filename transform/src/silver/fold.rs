//! Keyed silver: one row a key, folded from events in any order of arrival (decisions 1 and 2).
//!
//! The state of a key is one aggregate a column. Every aggregate is a function of the *set* of events alone, so the
//! order of arrival does not matter. `upsert` is the same machine: it keeps the row that is last by the sequence columns,
//! and a deletion is a row that is kept as state (a tombstone) and shown to nobody.
//!
//! A changed key gives its old row with weight -1 and its new row with weight +1; gold folds those.

mod aggregate;
mod aggregates;
mod last;
mod parts;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use karat_lake::arrow::{
    array::{AsArray, Int64Array, RecordBatch, UInt32Array},
    datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type},
};
use karat_schemas::pipelines::{Silver, SilverMode};

pub use self::aggregate::AggregateState;
pub(crate) use self::aggregate::add;
use self::{aggregate::AggregatePlan, aggregates::Aggregates, last::LastRows};
use crate::{
    Error, Result,
    batches::join,
    decode::ROW,
    gold::GoldChanges,
    origin::require_plain,
    packed_keys::PackedKeys,
    parallel::{PART_KEYS, in_parts},
    publish::CurrentRows,
    query::{Planner, Query},
    rows::EncodedRows,
    state::Step,
    value,
};

/// Column of a change: +1 for a row that is there now, -1 for one that was.
pub const WEIGHT: &str = "_weight";
/// Column of the rows given to [`FoldPlan::fold`] of an upsert: a number of the event's identity alone.
pub const EVENT_HASH: &str = "_event_hash";

/// A planned keyed table.
pub struct FoldPlan {
    pub name: String,
    /// The append table that feeds a fold; none for an upsert, which inputs feed.
    pub from: Option<String>,
    pub key: Vec<String>,
    rule: Rule,
    /// Key columns, then one column an aggregate, or the other columns of an upsert.
    folded: SchemaRef,
    /// Shapes folded columns into rows.
    shape: Query,
    schema: SchemaRef,
    /// How far the table's files may be behind.
    pub publish_within: Duration,
}

/// What is kept of the events of a key.
enum Rule {
    Aggregates(Aggregates),
    LastRow(LastRows),
}

/// Folded rows in parts, and the key of each.
struct Keyed {
    keys: Vec<Vec<u8>>,
    rows: Vec<RecordBatch>,
}

/// Unless the declaration says otherwise (decision 2).
const PUBLISH_WITHIN: Duration = Duration::from_secs(5);

/// What a batch changed in a keyed table.
pub struct Changes {
    /// The table's columns and `_weight`.
    pub weighted: RecordBatch,
    pub rows: GoldChanges,
}

impl FoldPlan {
    /// Plans `silver` over rows of `input`: the schema of its append table, or of the inputs of an upsert.
    pub async fn new(silver: &Silver, input: &SchemaRef) -> Result<Self> {
        let context = |error: Error| Error::Declaration(format!("silver table `{}`: {error}", silver.name));
        require_columns(silver, input).map_err(context)?;
        let mut fields = Vec::new();
        for name in &silver.key {
            fields.push(input.field_with_name(name)?.clone());
        }
        let mut plans = Vec::new();
        let order = if silver.mode == SilverMode::Upsert {
            let rest = input.fields().iter().filter(|field| !silver.key.contains(field.name()));
            fields.extend(rest.map(|field| field.as_ref().clone()));
            // The event's hash decides between records of one sequence.
            Some(silver.sequence.iter().cloned().chain([EVENT_HASH.to_owned()]).collect())
        } else {
            for (name, aggregate) in &silver.fold {
                let plan = AggregatePlan::new(aggregate);
                fields.push(Field::new(name, plan.output_type(input), true));
                plans.push(plan);
            }
            None
        };
        let folded: SchemaRef = Arc::new(Schema::new(fields));
        let schema = folded.clone();
        let rule = match order {
            Some(order) => Rule::LastRow(LastRows { order, schema, num_keys: silver.key.len() }),
            None => Rule::Aggregates(Aggregates { plans, schema }),
        };
        value::require_kept(&folded).map_err(context)?;
        let mut shaped: Vec<Field> = folded.fields().iter().map(|field| field.as_ref().clone()).collect();
        shaped.push(Field::new(ROW, DataType::UInt32, true));
        let planner = Planner::new(&[(&silver.name, Arc::new(Schema::new(shaped)))])?;
        let sql = match (&silver.sql, &silver.delete_when) {
            (Some(sql), None) => sql.clone(),
            (None, None) => format!("SELECT * FROM {}", silver.name),
            (None, Some(condition)) => format!("SELECT * FROM {} WHERE ({condition}) IS NOT TRUE", silver.name),
            (Some(_), Some(_)) => {
                return Err(context(Error::Declaration("`sql` and `delete_when` exclude each other".into())));
            }
        };
        let shape = planner.row_wise(&sql, &[ROW]).await.map_err(context)?;
        require_plain(&planner.logical(&sql).await?, &silver.name, &silver.key).map_err(context)?;
        let schema = Arc::new(Schema::new(
            shape.schema().fields().iter().filter(|field| field.name() != ROW).cloned().collect::<Vec<_>>(),
        ));
        Ok(Self {
            name: silver.name.clone(),
            from: silver.from.clone(),
            key: silver.key.clone(),
            rule,
            folded,
            shape,
            schema,
            publish_within: silver.publish_within.unwrap_or(PUBLISH_WITHIN),
        })
    }

    /// Columns of the table.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Schema of [`Changes::weighted`].
    pub fn weighted_schema(&self) -> SchemaRef {
        weighted_schema(&self.schema)
    }

    /// Name of the keyspace that holds the state of each key.
    pub fn keyspace(name: &str) -> String {
        format!("fold.{name}")
    }

    /// Folds `rows` into the state and gives what changed.
    pub async fn fold(&mut self, step: &mut Step<'_>, rows: &RecordBatch) -> Result<Changes> {
        let keyspace = Self::keyspace(&self.name);
        let keys = PackedKeys::of(rows, &self.key)?;
        let (old, new) = match &self.rule {
            Rule::LastRow(last) => last.take(step, &keyspace, &keys, rows)?,
            Rule::Aggregates(aggregates) => aggregates.take(step, &keyspace, &keys, rows)?,
        };
        self.changes(old, new).await
    }

    /// The current rows of the next keys after one, about `limit` of them, as the step sees them, and the key to go on after;
    /// none at the end. For recomputations.
    pub async fn current_rows(
        &mut self,
        step: &Step<'_>,
        after: Option<&Vec<u8>>,
        limit: usize,
    ) -> Result<(RecordBatch, Option<Vec<u8>>)> {
        let (pairs, last) = step.seen_after(&Self::keyspace(&self.name), after, limit)?;
        let seen = self.stored(pairs)?;
        Ok((self.shape(&join(&self.folded, seen.rows)?).await?.0, last))
    }

    /// The rows of the next `limit` keys after one, as the store has them, and the last of those keys; none at the end.
    pub async fn next_rows(
        &mut self,
        step: &Step<'_>,
        after: Option<&Vec<u8>>,
        limit: usize,
    ) -> Result<(GoldChanges, Option<Vec<u8>>)> {
        let stored = step.stored_after(&Self::keyspace(&self.name), after, limit)?;
        let last = stored.last().map(|(key, _)| key.clone());
        let stored = self.stored(stored)?;
        let (upserts, kept) = self.shape(&join(&self.folded, stored.rows)?).await?;
        Ok((present(stored.keys, upserts, kept), last))
    }

    /// Folded rows from pairs of the state store.
    fn stored(&self, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Keyed> {
        let keyspace = Self::keyspace(&self.name);
        let (mut rows, mut keys) = (EncodedRows::new(&self.folded)?, Vec::with_capacity(pairs.len()));
        for (key, stored) in pairs {
            self.rule.push(&mut rows, &key, &stored, &keyspace)?;
            keys.push(key);
        }
        Ok(Keyed { keys, rows: vec![rows.take()?] })
    }

    /// Shapes the rows that went and those that came at once, so that the SQL runs once and each row is copied once.
    async fn changes(&mut self, old: Vec<RecordBatch>, new: Keyed) -> Result<Changes> {
        let num_old: usize = old.iter().map(RecordBatch::num_rows).sum();
        let folded = join(&self.folded, old.into_iter().chain(new.rows).collect())?;
        let (shaped, mut kept) = self.shape(&folded).await?;
        // Row-wise SQL keeps the order of the rows.
        let first_new = kept.partition_point(|row| *row < num_old);
        let upserts = shaped.slice(first_new, shaped.num_rows() - first_new);
        let weights = (0..shaped.num_rows()).map(|row| if row < first_new { -1 } else { 1 });
        let mut columns = shaped.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_iter_values(weights)));
        let weighted = RecordBatch::try_new(self.weighted_schema(), columns)?;
        let kept = kept.drain(first_new..).map(|row| row - num_old).collect();
        Ok(Changes { weighted, rows: present(new.keys, upserts, kept) })
    }

    /// Rows of the table from folded ones, and which of the given ones they are.
    async fn shape(&mut self, folded: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        let numbers = (0..folded.num_rows()).map(|row| u32::try_from(row).ok());
        let mut columns = folded.columns().to_vec();
        columns.push(Arc::new(numbers.collect::<UInt32Array>()));
        let mut fields: Vec<_> = self.folded.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(ROW, DataType::UInt32, true)));
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let shaped = self.shape.run(&[(&self.name, rows)]).await?;
        let kept = shaped.column_by_name(ROW).map(|column| column.as_primitive::<UInt32Type>().values().to_vec());
        let kept = kept.unwrap_or_default().into_iter().map(|row| row as usize).collect();
        let positions: Vec<usize> =
            (0..shaped.num_columns()).filter(|index| shaped.schema().field(*index).name() != ROW).collect();
        Ok((shaped.project(&positions)?.with_schema(self.schema.clone())?, kept))
    }
}

impl CurrentRows for FoldPlan {
    fn rows_of<'a>(&'a mut self, step: &'a Step<'_>, keys: &'a [&'a [u8]]) -> BoxFuture<'a, Result<GoldChanges>> {
        Box::pin(async move {
            let keyspace = Self::keyspace(&self.name);
            let (rule, folded) = (&self.rule, &self.folded);
            let parts = in_parts(keys, PART_KEYS, |keys| {
                let mut rows = EncodedRows::new(folded)?;
                for key in keys {
                    let stored = step.get(&keyspace, key)?.ok_or_else(|| Error::DamagedState(keyspace.clone()))?;
                    rule.push(&mut rows, key, &stored, &keyspace)?;
                }
                rows.take()
            })?;
            let folded = join(folded, parts)?;
            let (upserts, kept) = self.shape(&folded).await?;
            Ok(present(keys.iter().map(|key| key.to_vec()).collect(), upserts, kept))
        })
    }
}

impl Rule {
    /// Adds the folded row of what is stored of a key.
    fn push(&self, rows: &mut EncodedRows, key: &[u8], stored: &[u8], keyspace: &str) -> Result<()> {
        match self {
            Self::Aggregates(aggregates) => aggregates.push(rows, key, stored, keyspace),
            Self::LastRow(_) => LastRows::push(rows, key, stored, keyspace),
        }
    }
}

/// What the table has of folded rows with these keys, of which some are `kept`. Gone is what a deletion removes, or a filter
/// in the table's SQL.
fn present(mut keys: Vec<Vec<u8>>, upserts: RecordBatch, kept: Vec<usize>) -> GoldChanges {
    let mut is_kept = vec![false; keys.len()];
    kept.iter().for_each(|row| is_kept[*row] = true);
    let upsert_keys = kept.iter().map(|row| std::mem::take(&mut keys[*row])).collect();
    let gone = keys.into_iter().zip(is_kept).filter(|(_, is_kept)| !is_kept);
    GoldChanges { upserts, upsert_keys, deleted_keys: gone.map(|(key, _)| key).collect() }
}

/// Every column that the declaration names is there.
fn require_columns(silver: &Silver, input: &SchemaRef) -> Result<()> {
    let aggregates: Vec<AggregatePlan> = silver.fold.values().map(AggregatePlan::new).collect();
    let folded = aggregates.iter().flat_map(AggregatePlan::columns);
    let named = silver.key.iter().chain(&silver.sequence).map(String::as_str).chain(folded.map(String::as_str));
    let missing: BTreeSet<&str> = named.filter(|name| input.field_with_name(name).is_err()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Err(Error::Declaration(format!(
        "there is no column {} to fold; there are {}",
        list(missing.into_iter().collect()),
        list(input.fields().iter().map(|field| field.name().as_str()).collect())
    )))
}

/// A table's columns and `_weight`.
pub fn weighted_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(WEIGHT, DataType::Int64, false));
    Arc::new(Schema::new(fields))
}

/// Adds a constant weight to rows.
pub fn with_weight(schema: &SchemaRef, rows: &RecordBatch, weight: i64) -> Result<RecordBatch> {
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![weight; rows.num_rows()])));
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
