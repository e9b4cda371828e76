//! One step: the events of some bronze versions become rows of every table of a pipeline.
//!
//! A step is a deterministic function of the state store and the bronze rows. Its results are committed table by
//! table, each commit carrying the bronze version as its position; then the state store takes what the step wrote, in
//! one batch. After a crash anywhere between, the same step runs again over the same versions: tables that have the
//! position already are left alone, the others get the same rows. So no clock is read here; "now" is the ingest time
//! of the newest event of the batch.

use std::collections::{HashMap, HashSet};

use karat_lake::arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
        UInt32Array,
    },
    compute::{concat_batches, sort_to_indices, take, take_record_batch},
    datatypes::{TimestampMicrosecondType, UInt32Type},
};
use std::sync::Arc;

use crate::{
    Error, Result,
    decode::{ROW, hash},
    gold::GoldChanges,
    plan::{AppendPlan, IDENTITIES, PipelinePlan, gold_name, quarantine_schema, silver_name},
    silver::{
        checks::{INGEST_TIME, RuleCounts},
        fold::{EVENT_HASH, weighted_schema, with_weight},
        input::event_types,
    },
    state::Step,
};

/// What a step gives for the tables.
pub struct StepOutput {
    /// Rows to append, by table.
    pub appends: Vec<(String, RecordBatch)>,
    pub quarantine: RecordBatch,
    /// Changed rows of keyed tables, by table.
    pub keyed: Vec<(String, GoldChanges)>,
    /// Newest event time that reached silver, microseconds since 1970 UTC.
    pub as_of_us: Option<i64>,
    pub counts: StepCounts,
    /// The rule that pauses the pipeline, when one was broken.
    pub paused_by: Option<String>,
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

/// Where a record failed.
struct Bad {
    row: usize,
    stage: &'static str,
    rules: String,
    message: String,
}

/// Runs the step. `known_types` are the declared event types: a record of no declared type goes to quarantine when
/// `owns_unknown` (one pipeline of a topic does).
pub async fn run(
    plan: &mut PipelinePlan,
    step: &mut Step<'_>,
    bronze: &RecordBatch,
    declared: &(dyn Fn(&str) -> bool + Sync),
    owns_unknown: bool,
) -> Result<StepOutput> {
    let events = Events::of(bronze)?;
    let mut counts = StepCounts { events: bronze.num_rows() as u64, ..StepCounts::default() };
    let mut bad = Vec::new();
    if owns_unknown {
        events.find_unknown(declared, &mut bad);
    }
    let shaped = shape(plan, bronze, &events, &mut bad).await?;
    let mut output = StepOutput {
        appends: Vec::new(),
        quarantine: RecordBatch::new_empty(quarantine_schema()),
        keyed: Vec::new(),
        as_of_us: None,
        counts: StepCounts::default(),
        paused_by: None,
    };
    let mut changes: HashMap<String, RecordBatch> = HashMap::new();
    for append in &mut plan.appends {
        let Some(rows) = shaped.get(&append.name) else { continue };
        let accepted = accept(append, step, rows, &events, &mut counts, &mut bad, &mut output).await?;
        let rows = append_rows(append, &accepted, &events)?;
        for fold in plan.folds.iter_mut() {
            let feeds = fold.from.as_ref() == Some(&append.name) || (append.is_upsert && fold.name == append.name);
            if feeds {
                let input = if append.is_upsert { with_event_hash(&rows, &accepted, &events)? } else { rows.clone() };
                let folded = fold.fold(step, &input).await?;
                changes.insert(fold.name.clone(), folded.weighted);
                let keyed = GoldChanges {
                    upserts: folded.upserts,
                    upsert_keys: folded.upsert_keys,
                    deleted_keys: folded.deleted_keys,
                };
                output.keyed.push((silver_name(&fold.name), keyed));
            }
        }
        if !append.is_upsert {
            changes.insert(append.name.clone(), with_weight(&weighted_schema(&append.schema), &rows, 1)?);
            output.appends.push((silver_name(&append.name), rows));
        }
    }
    gold(plan, step, &changes, events.now_us, &mut output).await?;
    let bad = without_repeats(step, bad, &events, &mut counts)?;
    counts.quarantined = bad.len() as u64;
    output.quarantine = quarantine_rows(bronze, &bad, &plan.fingerprint)?;
    output.counts = counts;
    Ok(output)
}

/// What the step needs to know of each bronze row.
struct Events<'b> {
    bronze: &'b RecordBatch,
    types: &'b StringArray,
    identities: Vec<u128>,
    contents: Vec<u128>,
    /// A number that depends on the identity alone.
    hashes: Vec<i64>,
    times: Vec<i64>,
    now_us: i64,
}

impl<'b> Events<'b> {
    fn of(bronze: &'b RecordBatch) -> Result<Self> {
        let payloads: &BinaryArray = column(bronze, "payload")?.as_binary();
        let (sources, ids): (&StringArray, &StringArray) =
            (column(bronze, "ce_source")?.as_string(), column(bronze, "ce_id")?.as_string());
        let (mut identities, mut contents) = (Vec::new(), Vec::new());
        for row in 0..bronze.num_rows() {
            let content = hash::content(payloads.value(row));
            let has_id = ids.is_valid(row) && sources.is_valid(row);
            contents.push(content);
            identities.push(if has_id {
                hash::identity(sources.value(row).as_bytes(), ids.value(row).as_bytes())
            } else {
                content
            });
        }
        let ingest: &TimestampMicrosecondArray =
            column(bronze, INGEST_TIME)?.as_primitive::<TimestampMicrosecondType>();
        let times: &TimestampMicrosecondArray = column(bronze, "ce_time")?.as_primitive::<TimestampMicrosecondType>();
        // A time in the future would make the figures look fresh until then.
        let arrived = |row: usize| ingest.value(row);
        let time = |row| if times.is_valid(row) { times.value(row).min(arrived(row)) } else { arrived(row) };
        Ok(Self {
            bronze,
            types: event_types(bronze)?,
            hashes: identities.iter().map(|identity| (*identity as i64) & i64::MAX).collect(),
            identities,
            contents,
            times: (0..bronze.num_rows()).map(time).collect(),
            now_us: ingest.iter().flatten().max().unwrap_or_default(),
        })
    }

    fn find_unknown(&self, declared: &(dyn Fn(&str) -> bool + Sync), bad: &mut Vec<Bad>) {
        for row in 0..self.types.len() {
            let event_type = self.types.is_valid(row).then(|| self.types.value(row));
            if event_type.is_some_and(declared) {
                continue;
            }
            let message = match event_type {
                Some(event_type) => format!("event type `{event_type}` is not declared: add an [[event]] and an input"),
                None => "the record has no event type: its producer must set the header `ce_type`".to_owned(),
            };
            bad.push(Bad { row, stage: "type", rules: "unknown_type".to_owned(), message });
        }
    }
}

/// Decodes and shapes every event; gives the rows of each append table in bronze order.
async fn shape(
    plan: &mut PipelinePlan,
    bronze: &RecordBatch,
    events: &Events<'_>,
    bad: &mut Vec<Bad>,
) -> Result<HashMap<String, RecordBatch>> {
    let mut parts: HashMap<String, Vec<RecordBatch>> = HashMap::new();
    for input in &mut plan.inputs {
        let is_mine = |row: &usize| events.types.is_valid(*row) && input.takes(events.types.value(*row));
        let rows: Vec<u32> = (0..bronze.num_rows()).filter(is_mine).filter_map(|row| u32::try_from(row).ok()).collect();
        if rows.is_empty() {
            continue;
        }
        let shaped = input.shape(bronze, &rows, &events.hashes).await?;
        bad.extend(shaped.failures.into_iter().map(|failure| Bad {
            row: failure.row,
            stage: "decode",
            rules: failure.code.to_owned(),
            message: failure.message,
        }));
        parts.entry(input.into.clone()).or_default().push(shaped.rows);
    }
    let mut tables = HashMap::new();
    for (table, batches) in parts {
        let Some(first) = batches.first() else { continue };
        let mut rows = concat_batches(&first.schema(), &batches)?;
        if batches.len() > 1 {
            let order = sort_to_indices(column(&rows, ROW)?, None, None)?;
            rows = take_record_batch(&rows, &order)?;
        }
        tables.insert(table, rows);
    }
    Ok(tables)
}

/// Applies the rules and removes duplicates; what remains is silver. The rows keep `_row`.
async fn accept(
    append: &mut AppendPlan,
    step: &mut Step<'_>,
    rows: &RecordBatch,
    events: &Events<'_>,
    counts: &mut StepCounts,
    bad: &mut Vec<Bad>,
    output: &mut StepOutput,
) -> Result<RecordBatch> {
    let bronze_rows = column(rows, ROW)?.as_primitive::<UInt32Type>().clone();
    let verdicts = match &mut append.checks {
        Some(checks) => {
            let judged = with_ingest_time(rows, &bronze_rows, events)?;
            Some(checks.judge(&append.name, &judged, &mut counts.rules).await?)
        }
        None => None,
    };
    let mut kept = Vec::new();
    for (row, bronze_row) in bronze_rows.values().iter().enumerate() {
        let bronze_row = *bronze_row as usize;
        if let Some(verdict) = verdicts.as_ref().map(|verdicts| &verdicts[row]) {
            if !verdict.quarantined_by.is_empty() {
                let rules = verdict.quarantined_by.join(",");
                if verdict.pauses && output.paused_by.is_none() {
                    output.paused_by = Some(rules.clone());
                }
                let message = format!("table `{}`: broken rules: {rules}", append.name);
                bad.push(Bad { row: bronze_row, stage: "expectation", rules, message });
                continue;
            }
            if verdict.is_dropped {
                counts.dropped += 1;
                continue;
            }
        }
        let (key, content) = (identity_key(append, events.identities[bronze_row]), events.contents[bronze_row]);
        match step.get(IDENTITIES, &key)? {
            Some(seen) if seen == content.to_le_bytes() => counts.duplicates += 1,
            Some(_) => bad.push(Bad {
                row: bronze_row,
                stage: "identity",
                rules: "conflicting_duplicate".to_owned(),
                message: "an event of the same source and id was accepted before with another payload".to_owned(),
            }),
            None => {
                step.put(IDENTITIES, key, content.to_le_bytes().to_vec());
                let newest = output.as_of_us.unwrap_or(i64::MIN).max(events.times[bronze_row]);
                output.as_of_us = Some(newest);
                kept.push(u32::try_from(row).unwrap_or_default());
            }
        }
    }
    counts.silver += kept.len() as u64;
    if kept.len() == rows.num_rows() {
        return Ok(rows.clone());
    }
    Ok(take_record_batch(rows, &UInt32Array::from(kept))?)
}

/// One event may feed several tables, and is a duplicate in each of them on its own.
fn identity_key(append: &AppendPlan, identity: u128) -> Vec<u8> {
    let mut key = identity.to_le_bytes().to_vec();
    key.push(append.number);
    key
}

fn with_ingest_time(rows: &RecordBatch, bronze_rows: &UInt32Array, events: &Events<'_>) -> Result<RecordBatch> {
    if rows.column_by_name(INGEST_TIME).is_some() {
        return Ok(rows.clone());
    }
    let ingest = take(column(events.bronze, INGEST_TIME)?, bronze_rows, None)?;
    let row = column(rows, ROW)?.clone();
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if field.name() != ROW {
            columns.push((field.name().clone(), column.clone()));
        }
    }
    columns.push((INGEST_TIME.to_owned(), ingest));
    columns.push((ROW.to_owned(), row));
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?)
}

/// The table's rows from accepted ones: `_row` becomes partition and offset.
fn append_rows(append: &AppendPlan, accepted: &RecordBatch, events: &Events<'_>) -> Result<RecordBatch> {
    let bronze_rows = column(accepted, ROW)?.as_primitive::<UInt32Type>().clone();
    let mut columns = Vec::new();
    for field in append.input_schema.fields() {
        columns.push(column(accepted, field.name())?.clone());
    }
    if !append.is_upsert {
        columns.push(take(column(events.bronze, "partition")?, &bronze_rows, None)?);
        columns.push(take(column(events.bronze, "offset")?, &bronze_rows, None)?);
    }
    Ok(RecordBatch::try_new(append.schema.clone(), columns)?)
}

fn with_event_hash(rows: &RecordBatch, accepted: &RecordBatch, events: &Events<'_>) -> Result<RecordBatch> {
    let bronze_rows = column(accepted, ROW)?.as_primitive::<UInt32Type>();
    let hashes: Int64Array = bronze_rows.values().iter().map(|row| events.hashes[*row as usize]).collect();
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
    for index in 0..plan.golds.len() {
        let gold = &mut plan.golds[index];
        let Some(weighted) = changes.get(&gold.source).filter(|changes| changes.num_rows() > 0) else { continue };
        let applied = gold.plan.apply(step, weighted, now_us).await?;
        let mut parts = vec![applied.changes];
        if !applied.recompute.is_empty() {
            let source = gold.source.clone();
            let fold = plan.folds.iter_mut().find(|fold| fold.name == source);
            let fold = fold
                .ok_or_else(|| Error::Declaration(format!("silver table `{source}` cannot be read back by group")))?;
            let rows = fold.all_rows(step).await?;
            let rows = with_weight(&fold.weighted_schema(), &rows, 1)?;
            parts.push(plan.golds[index].plan.recompute(step, &applied.recompute, &rows, now_us).await?);
        }
        let name = gold_name(&plan.golds[index].name);
        output.keyed.push((name, together(parts)?));
    }
    Ok(())
}

fn together(mut parts: Vec<GoldChanges>) -> Result<GoldChanges> {
    let Some(mut first) = (!parts.is_empty()).then(|| parts.remove(0)) else {
        return Err(Error::Declaration("nothing to publish".to_owned()));
    };
    for part in parts {
        first.upserts = concat_batches(&first.upserts.schema(), [&first.upserts, &part.upserts])?;
        first.upsert_keys.extend(part.upsert_keys);
        first.deleted_keys.extend(part.deleted_keys);
    }
    Ok(first)
}

/// An event that is in quarantine already is a duplicate there (spec P3): one row an event and content.
fn without_repeats(
    step: &mut Step<'_>,
    bad: Vec<Bad>,
    events: &Events<'_>,
    counts: &mut StepCounts,
) -> Result<Vec<Bad>> {
    let mut kept: Vec<Bad> = Vec::with_capacity(bad.len());
    let mut rows = HashSet::new();
    for bad in bad {
        let mut key = events.identities[bad.row].to_le_bytes().to_vec();
        key.extend(events.contents[bad.row].to_le_bytes());
        if step.get(IDENTITIES, &key)?.is_none() {
            step.put(IDENTITIES, key, Vec::new());
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
        of("partition")?,
        of("offset")?,
        same(version),
        of(INGEST_TIME)?,
        same("open"),
    ];
    Ok(RecordBatch::try_new(quarantine_schema(), columns)?)
}

fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::Declaration(format!("column `{name}` is missing")))
}
