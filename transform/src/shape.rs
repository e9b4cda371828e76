//! The half of a step that needs no state: bronze rows become the rows that may enter silver.
//!
//! Every event is hashed, decoded, shaped by its input's SQL and judged by its table's rules; what fails is told apart
//! with the reason. Nothing here depends on earlier events, so a batch can be shaped while the one before it is still
//! being committed ([`crate::worker`]). No clock is read: "now" is the ingest time of the newest event.

use std::collections::{HashMap, HashSet};

use karat_lake::arrow::{
    array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array},
    compute::{sort_to_indices, take, take_record_batch},
    datatypes::{SchemaRef, TimestampMicrosecondType, UInt32Type},
};
use karat_schemas::pipelines::{Pipeline, SilverMode};

use crate::{
    Error, Result,
    batches::{column, join},
    decode::{Decoded, ROW, hash},
    plan::Flaws,
    silver::{
        checks::{Checks, INGEST_TIME, RuleCounts, Verdict},
        input::{InputPlan, event_types},
    },
};

/// The planned inputs and rules of a pipeline.
pub struct Shaping {
    inputs: Vec<InputPlan>,
    rules: HashMap<String, Checks>,
}

/// Bronze rows, and what became of them.
pub struct Shaped {
    pub bronze: RecordBatch,
    /// One a bronze row: what makes an event the same event (spec P3).
    pub identities: Vec<u128>,
    /// One a bronze row: what makes its payload the same payload.
    pub contents: Vec<u128>,
    /// One a bronze row: its event time, never after its arrival; microseconds since 1970 UTC.
    pub times: Vec<i64>,
    /// One a bronze row: a number that depends on the identity alone.
    pub hashes: Vec<i64>,
    pub now_us: i64,
    /// By silver table: rows that passed the rules, in bronze order, with `_row`.
    pub tables: HashMap<String, RecordBatch>,
    pub bad: Vec<Bad>,
    pub dropped: u64,
    pub rules: RuleCounts,
    /// The rule that pauses the pipeline, when one was broken.
    pub paused_by: Option<String>,
}

/// A record that cannot enter silver.
pub struct Bad {
    /// Index of the bronze row.
    pub row: usize,
    pub stage: &'static str,
    pub rules: String,
    pub message: String,
}

impl Shaping {
    pub async fn new(pipeline: &Pipeline) -> Result<Self> {
        let mut flaws = Flaws::default();
        let shaping = Self::attempt(pipeline, &mut flaws).await;
        flaws.none().map(|()| shaping)
    }

    /// Plans what can be planned; the rest is in `flaws`.
    pub(crate) async fn attempt(pipeline: &Pipeline, flaws: &mut Flaws) -> Self {
        let mut inputs = Vec::new();
        for input in &pipeline.inputs {
            inputs.extend(flaws.take(input.line, InputPlan::new(input).await));
        }
        let mut rules = HashMap::new();
        for silver in pipeline.silver.iter().filter(|silver| silver.mode != SilverMode::Fold) {
            let Some(input) = inputs.iter().find(|input| input.into == silver.name) else { continue };
            match Checks::new(silver, &input.schema()).await {
                Ok(checks) => rules.extend(checks.map(|checks| (silver.name.clone(), checks))),
                Err(error) => {
                    let each = Checks::problems(silver, &input.schema()).await;
                    let errors = if each.is_empty() { vec![error] } else { each };
                    errors.into_iter().for_each(|error| flaws.add(silver.line, error));
                }
            }
        }
        Self { inputs, rules }
    }

    /// The planned inputs.
    pub fn inputs(&self) -> &[InputPlan] {
        &self.inputs
    }

    /// Shapes bronze rows. `declared` are the event types of the declaration: with them, a record of another type is
    /// bad. One pipeline of a topic is given them.
    pub async fn shape(&mut self, bronze: RecordBatch, declared: Option<&HashSet<String>>) -> Result<Shaped> {
        let (taken, contents) = self.decode(&bronze)?;
        let mut shaped = Shaped::new(bronze, contents)?;
        if let Some(declared) = declared {
            shaped.find_unknown(declared)?;
        }
        for (table, rows) in self.select(&mut shaped, taken).await? {
            let rows = match self.rules.get_mut(&table) {
                Some(rules) => shaped.judge(&table, rules, rows).await?,
                None => rows,
            };
            shaped.tables.insert(table, rows);
        }
        Ok(shaped)
    }

    /// Reads every event for each input that takes it; gives the hash of the content of each that was read to its end.
    fn decode(&self, bronze: &RecordBatch) -> Result<(Vec<Taken>, Vec<Option<u128>>)> {
        let types = event_types(bronze)?;
        let (mut taken, mut contents) = (Vec::new(), vec![None; types.len()]);
        for input in &self.inputs {
            let is_mine = |row: &usize| types.is_valid(*row) && input.takes(types.value(*row));
            let rows: Vec<u32> = (0..types.len()).filter(is_mine).filter_map(|row| u32::try_from(row).ok()).collect();
            if rows.is_empty() {
                taken.push(Taken { rows, decoded: None });
                continue;
            }
            let decoded = input.decode(bronze, &rows)?;
            for (row, content) in rows.iter().zip(&decoded.contents) {
                contents[*row as usize] = contents[*row as usize].or(*content);
            }
            taken.push(Taken { rows, decoded: Some(decoded) });
        }
        Ok((taken, contents))
    }

    /// Runs the SQL of every input; gives the rows of each append table in bronze order.
    async fn select(&mut self, shaped: &mut Shaped, taken: Vec<Taken>) -> Result<Vec<(String, RecordBatch)>> {
        let mut parts: Vec<(String, Vec<RecordBatch>)> = Vec::new();
        for (input, taken) in self.inputs.iter_mut().zip(taken) {
            let Some(decoded) = taken.decoded else { continue };
            let made = input.shape(&shaped.bronze, &taken.rows, &shaped.hashes, decoded).await?;
            shaped.bad.extend(made.failures.into_iter().map(|failure| Bad {
                row: failure.row,
                stage: "decode",
                rules: failure.code.to_owned(),
                message: failure.message,
            }));
            match parts.iter_mut().find(|(table, _)| *table == input.into) {
                Some((_, batches)) => batches.push(made.rows),
                None => parts.push((input.into.clone(), vec![made.rows])),
            }
        }
        parts.into_iter().map(|(table, batches)| Ok((table, in_bronze_order(batches)?))).collect()
    }
}

/// The bronze rows that an input takes, read; none when there are none.
struct Taken {
    rows: Vec<u32>,
    decoded: Option<Decoded>,
}

impl Shaped {
    /// Names every event; `contents` are those that are known already.
    fn new(bronze: RecordBatch, contents: Vec<Option<u128>>) -> Result<Self> {
        let payloads: &BinaryArray = column(&bronze, "payload")?.as_binary();
        let (sources, ids): (&StringArray, &StringArray) =
            (column(&bronze, "ce_source")?.as_string(), column(&bronze, "ce_id")?.as_string());
        let contents: Vec<u128> = contents
            .into_iter()
            .enumerate()
            .map(|(row, known)| known.unwrap_or_else(|| hash::content(payloads.value(row))))
            .collect();
        let identity = |(row, content): (usize, &u128)| {
            if ids.is_valid(row) && sources.is_valid(row) {
                hash::identity(sources.value(row).as_bytes(), ids.value(row).as_bytes())
            } else {
                *content
            }
        };
        let identities: Vec<u128> = contents.iter().enumerate().map(identity).collect();
        let ingest: &TimestampMicrosecondArray =
            column(&bronze, INGEST_TIME)?.as_primitive::<TimestampMicrosecondType>();
        let times: &TimestampMicrosecondArray = column(&bronze, "ce_time")?.as_primitive::<TimestampMicrosecondType>();
        // A time in the future would make the figures look fresh until then.
        let arrived = |row: usize| ingest.value(row);
        let time = |row| if times.is_valid(row) { times.value(row).min(arrived(row)) } else { arrived(row) };
        Ok(Self {
            hashes: identities.iter().map(|identity| (*identity as i64) & i64::MAX).collect(),
            times: (0..bronze.num_rows()).map(time).collect(),
            now_us: ingest.iter().flatten().max().unwrap_or_default(),
            identities,
            contents,
            bronze,
            tables: HashMap::new(),
            bad: Vec::new(),
            dropped: 0,
            rules: RuleCounts::new(),
            paused_by: None,
        })
    }

    fn find_unknown(&mut self, declared: &HashSet<String>) -> Result<()> {
        let types = event_types(&self.bronze)?;
        for row in 0..types.len() {
            let event_type = types.is_valid(row).then(|| types.value(row));
            if event_type.is_some_and(|event_type| declared.contains(event_type)) {
                continue;
            }
            let message = match event_type {
                Some(event_type) => format!("event type `{event_type}` is not declared: add an [[event]] and an input"),
                None => "the record has no event type: its producer must set the header `ce_type`".to_owned(),
            };
            self.bad.push(Bad { row, stage: "type", rules: "unknown_type".to_owned(), message });
        }
        Ok(())
    }

    /// Applies the rules of a table; gives the rows that passed.
    async fn judge(&mut self, table: &str, rules: &mut Checks, rows: RecordBatch) -> Result<RecordBatch> {
        let bronze_rows = column(&rows, ROW)?.as_primitive::<UInt32Type>().clone();
        let judged = self.with_ingest_time(&rows, &bronze_rows)?;
        let verdicts = rules.judge(table, &judged, &mut self.rules).await?;
        let mut kept = Vec::with_capacity(verdicts.len());
        for (row, (verdict, bronze_row)) in verdicts.iter().zip(bronze_rows.values()).enumerate() {
            if !verdict.quarantined_by.is_empty() {
                self.refuse(table, *bronze_row as usize, verdict);
            } else if verdict.is_dropped {
                self.dropped += 1;
            } else {
                kept.push(u32::try_from(row).unwrap_or_default());
            }
        }
        if kept.len() == rows.num_rows() {
            return Ok(rows);
        }
        Ok(take_record_batch(&rows, &UInt32Array::from(kept))?)
    }

    fn refuse(&mut self, table: &str, row: usize, verdict: &Verdict) {
        let rules = verdict.quarantined_by.join(",");
        if verdict.pauses && self.paused_by.is_none() {
            self.paused_by = Some(rules.clone());
        }
        let message = format!("table `{table}`: broken rules: {rules}");
        self.bad.push(Bad { row, stage: "expectation", rules, message });
    }

    fn with_ingest_time(&self, rows: &RecordBatch, bronze_rows: &UInt32Array) -> Result<RecordBatch> {
        if rows.column_by_name(INGEST_TIME).is_some() {
            return Ok(rows.clone());
        }
        let ingest = take(column(&self.bronze, INGEST_TIME)?, bronze_rows, None)?;
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
}

/// The rows of several inputs as one batch, in bronze order.
fn in_bronze_order(batches: Vec<RecordBatch>) -> Result<RecordBatch> {
    let is_mixed = batches.len() > 1;
    let schema: SchemaRef = match batches.first() {
        Some(first) => first.schema(),
        None => return Err(Error::Declaration("no rows to put in order".to_owned())),
    };
    let rows = join(&schema, batches)?;
    if !is_mixed {
        return Ok(rows);
    }
    let order = sort_to_indices(column(&rows, ROW)?, None, None)?;
    Ok(take_record_batch(&rows, &order)?)
}
