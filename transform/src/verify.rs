//! Verification: silver and gold are computed again from bronze and compared with what is published (decision 5).
//!
//! The second computation is the same code over an empty state, in one pass instead of many steps, into tables of its
//! own; so it proves that the incremental result equals the batch result, not that the SQL is what somebody wanted.
//! Values compare exactly, floats within a relative 1e-9; `revision` and `revised_at` are history and not compared.

use std::{collections::BTreeMap, path::Path};

use karat_lake::{Lake, Table, arrow::array::RecordBatch, epochs::Epochs};
use karat_schemas::pipelines::Pipeline;
use serde::Serialize;

use crate::{
    Error, Result,
    gold::{REVISED_AT, REVISION},
    plan::{OFFSET, PARTITION, PipelinePlan, quarantine_name},
    runner::{Runner, RunnerSettings},
    value::{self, Value},
};

/// The comparison of one table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableReport {
    pub table: String,
    pub rows: usize,
    /// Rows that differ, are missing or are too many.
    pub differences: usize,
    /// The first differences, in words.
    pub sample: Vec<String>,
}

/// Differences shown of each table.
const SAMPLE: usize = 10;

/// Recomputes every table of the pipeline in `scratch`, an empty folder, and compares. Only reads the lake.
pub async fn verify(pipeline: &Pipeline, settings: &RunnerSettings, scratch: &Path) -> Result<Vec<TableReport>> {
    let Some(epoch) = Epochs::of(&settings.lake, &pipeline.name)?.latest().await? else { return Ok(Vec::new()) };
    let tables = Lake::at(&scratch.join("tables").display().to_string())?;
    let again = RunnerSettings {
        tables: tables.clone(),
        state_folder: scratch.join("state"),
        generation: 0,
        writes_epochs: false,
        ..settings.clone()
    };
    let mut runner = Runner::open(pipeline, again).await?;
    runner.catch_up_to(epoch.bronze_version).await?;
    runner.close()?;
    let mut reports = Vec::new();
    for (name, key) in keys(pipeline).await? {
        let version =
            *epoch.tables.get(&name).ok_or_else(|| Error::Lake(karat_lake::Error::UnknownTable(name.clone())))?;
        let published = settings.lake.open_at(&name, version).await?;
        let expected = tables.open(&name).await?;
        reports.push(compare(&published, &expected, &key).await?);
    }
    Ok(reports)
}

/// Every table with the columns that name a row.
async fn keys(pipeline: &Pipeline) -> Result<Vec<(String, Vec<String>)>> {
    let plan = PipelinePlan::new(pipeline).await?;
    let quarantine = quarantine_name(&plan.name);
    let place = |name: &str| {
        let is_quarantine = name == quarantine;
        let columns = if is_quarantine { ["partition", "offset"] } else { [PARTITION, OFFSET] };
        columns.map(str::to_owned).to_vec()
    };
    let appends = plan.append_specs().into_iter().map(|spec| (spec.name.clone(), place(&spec.name)));
    let keyed = plan.keyed_specs().into_iter().map(|(spec, key)| (spec.name, key));
    Ok(appends.chain(keyed).collect())
}

async fn compare(published: &Table, expected: &Table, key: &[String]) -> Result<TableReport> {
    let columns: Vec<String> = expected
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .filter(|name| name != REVISION && name != REVISED_AT)
        .collect();
    let found = rows_by_key(&published.read_all().await?, key, &columns)?;
    let wanted = rows_by_key(&expected.read_all().await?, key, &columns)?;
    let mut report = TableReport { table: published.name().to_owned(), rows: 0, differences: 0, sample: Vec::new() };
    report.rows = found.values().map(Vec::len).sum();
    let mut differ = |key: &[u8], what: String| {
        report.differences += 1;
        if report.sample.len() < SAMPLE {
            let key = value::decode_all(key, "verify").map(|values| format!("{values:?}")).unwrap_or_default();
            report.sample.push(format!("{key}: {what}"));
        }
    };
    for (key, rows) in &wanted {
        match found.get(key) {
            None => differ(key, "the row is missing".to_owned()),
            Some(published) if published.len() != rows.len() => {
                differ(key, format!("expected {} rows, found {}", rows.len(), published.len()));
            }
            Some(published) => {
                for (published, row) in published.iter().zip(rows) {
                    let unequal = columns.iter().zip(published.iter().zip(row)).find(|(_, (a, b))| !same(a, b));
                    if let Some((column, (published, row))) = unequal {
                        differ(key, format!("`{column}`: expected {row:?}, found {published:?}"));
                    }
                }
            }
        }
    }
    for key in found.keys().filter(|key| !wanted.contains_key(*key)) {
        differ(key, "the row should not be there".to_owned());
    }
    Ok(report)
}

type Rows = BTreeMap<Vec<u8>, Vec<Vec<Value>>>;

fn rows_by_key(batches: &[RecordBatch], key: &[String], columns: &[String]) -> Result<Rows> {
    let mut rows: Rows = BTreeMap::new();
    for batch in batches {
        let keys = value::row_keys(batch, key)?;
        let cells = value::columns(batch, columns)?;
        for (row, key) in keys.into_iter().enumerate() {
            rows.entry(key).or_default().push(cells.iter().map(|column| column.value(row)).collect());
        }
    }
    rows.values_mut().for_each(|rows| rows.sort_unstable());
    Ok(rows)
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        (a, b) => a == b,
    }
}
