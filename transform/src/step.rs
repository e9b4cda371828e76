//! One step: the shaped events of some bronze versions become rows of every table of a pipeline.
//!
//! A step is a deterministic function of the state store and the bronze rows. Its results are committed table by
//! table, each commit carrying the bronze version as its position; then the state store takes what the step wrote, in
//! one batch. After a crash anywhere between, the same step runs again over the same versions: tables that have the
//! position already are left alone, the others get the same rows. So no clock is read here; "now" is the ingest time
//! of the newest event of the batch.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use karat_lake::arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array},
    compute::{take, take_record_batch},
    datatypes::UInt32Type,
};
use karat_schemas::trace::Traces;

use crate::{
    Error, Result,
    appending::Appending,
    batches::{column, join},
    decode::{ROW, hash},
    gold::{GoldChanges, choose::GoldPlan},
    plan::{AppendPlan, NamedGold, PipelinePlan, gold_name, quarantine_schema, silver_name},
    shape::{Bad, Shaped},
    silver::{
        checks::{INGEST_TIME, RuleCounts},
        fold::{EVENT_HASH, FoldPlan, weighted_schema, with_weight},
    },
    state::Step,
    traces,
    value::Value,
};

/// What a step gives for the tables.
pub struct StepOutput {
    /// How many rows each table takes.
    pub appends: Vec<(String, u64)>,
    pub quarantine: RecordBatch,
    /// Changed rows of keyed tables, by table.
    pub keyed: Vec<(String, GoldChanges)>,
    /// Newest event time that reached silver, microseconds since 1970 UTC.
    pub as_of_us: Option<i64>,
    pub counts: StepCounts,
    /// The rule that pauses the pipeline, when one was broken.
    pub paused_by: Option<String>,
    /// The traces of the events.
    pub traces: Traces,
    /// When the log took each of them.
    pub arrivals: ArrayRef,
}

/// What became of the events of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepCounts {
    pub events: u64,
    pub silver: u64,
    pub duplicates: u64,
    pub quarantined: u64,
    pub dropped: u64,
    pub rules: RuleCounts,
}

/// Runs the step. Rows of append tables are handed over to be written as soon as they are known.
pub async fn run(
    plan: &mut PipelinePlan,
    step: &mut Step<'_>,
    mut shaped: Shaped,
    appending: &mut Appending,
) -> Result<StepOutput> {
    let mut counts = StepCounts {
        events: shaped.bronze.num_rows() as u64,
        dropped: shaped.dropped,
        rules: std::mem::take(&mut shaped.rules),
        ..StepCounts::default()
    };
    let mut output = StepOutput {
        appends: Vec::new(),
        quarantine: RecordBatch::new_empty(quarantine_schema()),
        keyed: Vec::new(),
        as_of_us: None,
        counts: StepCounts::default(),
        paused_by: shaped.paused_by.take(),
        traces: traces::of_bronze(&shaped.bronze),
        arrivals: column(&shaped.bronze, "broker_time")?.clone(),
    };
    let mut changes: HashMap<String, RecordBatch> = HashMap::new();
    for append in &mut plan.appends {
        let Some(rows) = shaped.tables.remove(&append.name) else { continue };
        let accepted = accept(append, step, rows, &mut shaped, &mut counts, &mut output)?;
        let rows = append_rows(append, &accepted, &shaped)?;
        for fold in plan.folds.iter_mut() {
            let feeds = fold.from.as_ref() == Some(&append.name) || (append.is_upsert && fold.name == append.name);
            if feeds {
                let input = if append.is_upsert { with_event_hash(&rows, &accepted, &shaped)? } else { rows.clone() };
                let folded = fold.fold(step, &input).await?;
                changes.insert(fold.name.clone(), folded.weighted);
                output.keyed.push((silver_name(&fold.name), folded.rows));
            }
        }
        if !append.is_upsert {
            changes.insert(append.name.clone(), with_weight(&weighted_schema(&append.schema), &rows, 1)?);
            let name = silver_name(&append.name);
            output.appends.push((name.clone(), rows.num_rows() as u64));
            appending.begin(&name, rows);
        }
    }
    let bad = without_repeats(step, &mut shaped, &mut counts)?;
    counts.quarantined = bad.len() as u64;
    output.quarantine = quarantine_rows(&shaped.bronze, &bad, &plan.fingerprint)?;
    output.counts = counts;
    let now_us = shaped.now_us;
    // Gold takes the changed rows alone. The payloads, most of what was shaped, need not be in memory beside its work.
    drop((shaped, bad));
    gold(plan, step, &changes, now_us, &mut output).await?;
    Ok(output)
}

/// Removes duplicates; what remains is silver. The rows keep `_row`.
fn accept(
    append: &AppendPlan,
    step: &mut Step<'_>,
    rows: RecordBatch,
    shaped: &mut Shaped,
    counts: &mut StepCounts,
    output: &mut StepOutput,
) -> Result<RecordBatch> {
    let bronze_rows = column(&rows, ROW)?.as_primitive::<UInt32Type>().clone();
    let mut kept = Vec::with_capacity(rows.num_rows());
    for (row, bronze_row) in bronze_rows.values().iter().enumerate() {
        let bronze_row = *bronze_row as usize;
        let content = shaped.contents[bronze_row] as u64;
        let identity = identity_in(append, shaped.identities[bronze_row]);
        match step.content_of(identity)? {
            Some(seen) if seen == content => counts.duplicates += 1,
            Some(_) => shaped.bad.push(Bad {
                row: bronze_row,
                stage: "identity",
                rules: "conflicting_duplicate".to_owned(),
                message: "an event of the same source and id was accepted before with another payload".to_owned(),
            }),
            None => {
                step.accept(identity, content);
                let newest = output.as_of_us.unwrap_or(i64::MIN).max(shaped.times[bronze_row]);
                output.as_of_us = Some(newest);
                kept.push(u32::try_from(row).unwrap_or_default());
            }
        }
    }
    counts.silver += kept.len() as u64;
    if kept.len() == rows.num_rows() {
        return Ok(rows);
    }
    Ok(take_record_batch(&rows, &UInt32Array::from(kept))?)
}

/// One event may feed several tables, and is a duplicate in each of them on its own.
fn identity_in(append: &AppendPlan, identity: u128) -> u128 {
    identity.wrapping_add(u128::from(append.number))
}

/// The table's rows from accepted ones: `_row` becomes partition and offset.
fn append_rows(append: &AppendPlan, accepted: &RecordBatch, shaped: &Shaped) -> Result<RecordBatch> {
    let bronze_rows = column(accepted, ROW)?.as_primitive::<UInt32Type>().clone();
    let mut columns = Vec::new();
    for field in append.input_schema.fields() {
        columns.push(column(accepted, field.name())?.clone());
    }
    if !append.is_upsert {
        columns.push(take(column(&shaped.bronze, "partition")?, &bronze_rows, None)?);
        columns.push(take(column(&shaped.bronze, "offset")?, &bronze_rows, None)?);
    }
    Ok(RecordBatch::try_new(append.schema.clone(), columns)?)
}

fn with_event_hash(rows: &RecordBatch, accepted: &RecordBatch, shaped: &Shaped) -> Result<RecordBatch> {
    let bronze_rows = column(accepted, ROW)?.as_primitive::<UInt32Type>();
    let hashes: Int64Array = bronze_rows.values().iter().map(|row| shaped.hashes[*row as usize]).collect();
    let schema = rows.schema();
    let columns =
        schema.fields().iter().zip(rows.columns()).map(|(field, column)| (field.name().clone(), column.clone()));
    let columns: Vec<(String, ArrayRef)> =
        columns.chain([(EVENT_HASH.to_owned(), Arc::new(hashes) as ArrayRef)]).collect();
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?)
}

/// Brings every gold table up to date with the changes of its silver table.
async fn gold(
    plan: &mut PipelinePlan,
    step: &mut Step<'_>,
    changes: &HashMap<String, RecordBatch>,
    now_us: i64,
    output: &mut StepOutput,
) -> Result<()> {
    let mut grouped = HashMap::new();
    for index in 0..plan.golds.len() {
        let gold = &plan.golds[index];
        let weighted = match changes.get(&gold.source).filter(|changes| changes.num_rows() > 0) {
            Some(changes) => changes.clone(),
            None if gold.plan.speaks_of_nothing() => RecordBatch::new_empty(gold.plan.input().clone()),
            None => continue,
        };
        let by_group = by_group(&mut plan.golds, index, &weighted, &mut grouped).await?;
        let applied = plan.golds[index].plan.apply(step, &weighted, by_group, now_us).await?;
        let mut parts = vec![applied.changes];
        if !applied.recompute.is_empty() {
            let source = plan.golds[index].source.clone();
            let fold = plan.folds.iter_mut().find(|fold| fold.name == source);
            let fold = fold
                .ok_or_else(|| Error::Declaration(format!("silver table `{source}` cannot be read back by group")))?;
            let gold = &mut plan.golds[index].plan;
            parts.push(recompute(gold, fold, step, &applied.recompute, now_us).await?);
        }
        let name = gold_name(&plan.golds[index].name);
        output.keyed.push((name, together(parts)?));
    }
    Ok(())
}

/// Rows of a silver table that are in memory together when all of them are read.
const ROWS_TOGETHER: usize = 1 << 16;

/// Computes groups again from every row of the silver table.
async fn recompute(
    gold: &mut GoldPlan,
    fold: &mut FoldPlan,
    step: &mut Step<'_>,
    groups: &[Vec<Value>],
    now_us: i64,
) -> Result<GoldChanges> {
    let (mut needed, mut after) = (Vec::new(), None);
    loop {
        let (rows, last) = fold.current_rows(step, after.as_ref(), ROWS_TOGETHER).await?;
        let rows = with_weight(&fold.weighted_schema(), &rows, 1)?;
        needed.push(gold.needed_of(groups, &rows).await?);
        after = last;
        if after.is_none() {
            break;
        }
    }
    let schema = needed.first().map_or_else(|| fold.weighted_schema(), RecordBatch::schema);
    gold.recompute(step, groups, &join(&schema, needed)?, now_us).await
}

/// Changed rows by the groups of a table. What a table gave that coarser ones are made of is kept in `known`.
async fn by_group(
    golds: &mut [NamedGold],
    index: usize,
    weighted: &RecordBatch,
    known: &mut HashMap<usize, RecordBatch>,
) -> Result<Option<RecordBatch>> {
    let finest = golds[index].finer.as_ref().map_or(index, |(finer, _)| *finer);
    let grouped = match known.get(&finest) {
        Some(grouped) => grouped.clone(),
        None => {
            let Some(grouped) = golds[finest].plan.grouped(weighted).await? else { return Ok(None) };
            known.insert(finest, grouped.clone());
            grouped
        }
    };
    match &mut golds[index].finer {
        Some((_, coarser)) => coarser.changes(&grouped).await.map(Some),
        None => Ok(Some(grouped)),
    }
}

fn together(mut parts: Vec<GoldChanges>) -> Result<GoldChanges> {
    let Some(mut first) = (!parts.is_empty()).then(|| parts.remove(0)) else {
        return Err(Error::Declaration("nothing to publish".to_owned()));
    };
    for part in parts {
        first.upserts = join(&part.upserts.schema(), vec![first.upserts, part.upserts])?;
        first.upsert_keys.extend(part.upsert_keys);
        first.deleted_keys.extend(part.deleted_keys);
    }
    Ok(first)
}

/// An event that is in quarantine already is a duplicate there (spec P3): one row an event and content.
fn without_repeats(step: &mut Step<'_>, shaped: &mut Shaped, counts: &mut StepCounts) -> Result<Vec<Bad>> {
    let all = std::mem::take(&mut shaped.bad);
    let mut kept: Vec<Bad> = Vec::with_capacity(all.len());
    let mut rows = HashSet::new();
    for bad in all {
        let identity = hash::quarantined(shaped.identities[bad.row], shaped.contents[bad.row]);
        if step.content_of(identity)?.is_none() {
            step.accept(identity, 0);
            rows.insert(bad.row);
            kept.push(bad);
        } else if rows.contains(&bad.row) {
            // One event, bad for two tables: two rows.
            kept.push(bad);
        } else {
            counts.duplicates += 1;
        }
    }
    Ok(kept)
}

fn quarantine_rows(bronze: &RecordBatch, bad: &[Bad], version: &str) -> Result<RecordBatch> {
    let rows = UInt32Array::from_iter_values(bad.iter().filter_map(|bad| u32::try_from(bad.row).ok()));
    let of = |name: &str| -> Result<ArrayRef> { Ok(take(column(bronze, name)?, &rows, None)?) };
    let text = |value: fn(&Bad) -> &str| -> ArrayRef {
        Arc::new(bad.iter().map(|bad| Some(value(bad))).collect::<StringArray>())
    };
    let same = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value; bad.len()])) };
    let columns = vec![
        of("payload")?,
        text(|bad| bad.stage),
        text(|bad| &bad.rules),
        text(|bad| &bad.message),
        of("ce_type")?,
        of("ce_source")?,
        of("ce_id")?,
        of("publisher")?,
        of("receipt")?,
        of("partition")?,
        of("offset")?,
        same(version),
        of(INGEST_TIME)?,
        same("open"),
    ];
    Ok(RecordBatch::try_new(quarantine_schema(), columns)?)
}
