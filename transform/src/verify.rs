//! Verification: silver and gold are computed again from bronze and compared with what is published (decision 5).
//!
//! The second computation is the same code over an empty state, in one pass instead of many steps, into tables of its
//! own; so it proves that the incremental result equals the batch result, not that the SQL is what somebody wanted.
//! Tables are compared one after the other, and a large one in units of its keys, so that memory is bounded.
//! Values compare exactly, floats within a relative 1e-9; `revision` and `revised_at` are history and not compared.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use karat_lake::{
    Lake, Table,
    arrow::{
        array::RecordBatch,
        datatypes::{FieldRef, SchemaRef},
        util::display::{ArrayFormatter, FormatOptions},
    },
    epochs::Epochs,
};
use karat_schemas::{epoch::Epoch, pipelines::Pipeline};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

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
    /// Parts in which the table was compared.
    pub units: u64,
    /// Rows that differ, are missing or are too many.
    pub differences: usize,
    /// The first differences.
    pub sample: Vec<Difference>,
}

/// A row that is not as it should be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Columns that name the row, and their values.
    pub key: BTreeMap<String, String>,
    /// The first column that differs; none when a whole row is missing or too many.
    pub column: Option<String>,
    /// What the recomputation gave; none when the row should not be there.
    pub expected: Option<String>,
    /// What the published table has; none when the row is missing.
    pub found: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<String> = self.key.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        write!(f, "({}): ", key.join(", "))?;
        if let Some(column) = &self.column {
            write!(f, "`{column}`: ")?;
        }
        match (&self.expected, &self.found) {
            (Some(expected), Some(found)) => write!(f, "expected {expected}, found {found}"),
            (Some(expected), None) => write!(f, "the row is missing: expected {expected}"),
            (None, Some(found)) => write!(f, "the row should not be there: found {found}"),
            (None, None) => write!(f, "differs"),
        }
    }
}

/// Differences shown of each table.
const SAMPLE: usize = 10;

/// Rows compared at a time, about.
const UNIT_ROWS: u64 = 200_000;

/// Recomputes every table of the pipeline in `scratch`, an empty folder, and compares. Only reads the lake.
pub async fn verify(pipeline: &Pipeline, settings: &RunnerSettings, scratch: &Path) -> Result<Vec<TableReport>> {
    // A pipeline that paused before it had tables says so in an epoch that names none.
    let latest = Epochs::of(&settings.lake, &pipeline.name)?.latest().await?;
    let Some(epoch) = latest.filter(|epoch| !epoch.tables.is_empty()) else { return Ok(Vec::new()) };
    let tables = Lake::at(&scratch.join("tables").display().to_string())?;
    let again = RunnerSettings {
        tables: tables.clone(),
        state_folder: scratch.join("state"),
        generation: 0,
        writes_epochs: false,
        checkpoints: None,
        publishes_later: true,
        ..settings.clone()
    };
    let mut runner = Runner::open(pipeline, again).await?;
    let subjects = subjects(pipeline, &settings.lake, &epoch).await?;
    let mut reports: Vec<(usize, TableReport)> = Vec::new();
    // A keyed silver table may be behind the epoch: it is compared with what it should be at its own position.
    for (position, subjects) in subjects {
        runner.catch_up_to(position).await?;
        runner.publish(true).await?;
        for subject in subjects {
            let expected = tables.open(subject.published.name()).await?;
            reports.push((subject.place, compare(&subject.published, &expected, &subject.key).await?));
        }
    }
    runner.close()?;
    reports.sort_by_key(|(place, _)| *place);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

/// A published table, and how its rows are told apart.
struct Subject {
    /// Its place in the report.
    place: usize,
    published: Table,
    key: Vec<String>,
}

/// The tables of `epoch` by the bronze version at which they are compared.
async fn subjects(pipeline: &Pipeline, lake: &Lake, epoch: &Epoch) -> Result<BTreeMap<u64, Vec<Subject>>> {
    let may_be_behind: BTreeSet<String> =
        PipelinePlan::new(pipeline).await?.publish_within().map(|(name, _)| name).collect();
    let mut subjects: BTreeMap<u64, Vec<Subject>> = BTreeMap::new();
    for (place, (name, key)) in keys(pipeline).await?.into_iter().enumerate() {
        let version =
            *epoch.tables.get(&name).ok_or_else(|| Error::Lake(karat_lake::Error::UnknownTable(name.clone())))?;
        let mut published = lake.open_at(&name, version).await?;
        let own = if may_be_behind.contains(&name) { published.position(&name).await? } else { None };
        let position = own.and_then(|own| u64::try_from(own).ok()).unwrap_or(epoch.bronze_version);
        subjects.entry(position).or_default().push(Subject { place, published, key });
    }
    Ok(subjects)
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
    let rows = |table: &Table| table.files().filter_map(karat_lake::DataFile::rows).sum::<u64>();
    let units = rows(published).max(rows(expected)).div_ceil(UNIT_ROWS).max(1);
    let table = published.name().to_owned();
    let mut report = TableReport { table, rows: 0, units, differences: 0, sample: Vec::new() };
    let comparison = Comparison::new(expected.schema(), key);
    for number in 0..units {
        let unit = Unit { number, units };
        let found = comparison.rows(published, unit).await?;
        let wanted = comparison.rows(expected, unit).await?;
        report.rows += found.values().map(Vec::len).sum::<usize>();
        comparison.compare(&found, &wanted, &mut report);
    }
    Ok(report)
}

/// A part of a table: the keys whose hash falls into it.
#[derive(Clone, Copy)]
struct Unit {
    number: u64,
    units: u64,
}

/// Rows by encoded key.
type Rows = BTreeMap<Vec<u8>, Vec<Vec<Value>>>;

struct Comparison<'k> {
    key: &'k [String],
    schema: &'k SchemaRef,
    /// Columns that are compared.
    columns: Vec<String>,
}

impl<'k> Comparison<'k> {
    fn new(schema: &'k SchemaRef, key: &'k [String]) -> Self {
        let names = schema.fields().iter().map(|field| field.name().clone());
        Self { key, schema, columns: names.filter(|name| name != REVISION && name != REVISED_AT).collect() }
    }

    async fn rows(&self, table: &Table, unit: Unit) -> Result<Rows> {
        let mut rows = Rows::new();
        for file in table.files() {
            for batch in table.read(file, None).await? {
                self.add(&batch, unit, &mut rows)?;
            }
        }
        rows.values_mut().for_each(|rows| rows.sort_unstable_by(|a, b| exact_values_first(a, b)));
        Ok(rows)
    }

    fn add(&self, batch: &RecordBatch, unit: Unit, rows: &mut Rows) -> Result<()> {
        let cells = value::columns(batch, &self.columns)?;
        for (row, key) in value::row_keys(batch, self.key)?.into_iter().enumerate() {
            if unit.units == 1 || xxh3_64(&key) % unit.units == unit.number {
                rows.entry(key).or_default().push(cells.iter().map(|column| column.value(row)).collect());
            }
        }
        Ok(())
    }

    fn compare(&self, found: &Rows, wanted: &Rows, report: &mut TableReport) {
        let none = Vec::new();
        let gone = found.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key, &none));
        for (key, wanted) in wanted.iter().chain(gone) {
            let found = found.get(key).unwrap_or(&none);
            for place in 0..wanted.len().max(found.len()) {
                let difference = match (wanted.get(place), found.get(place)) {
                    (Some(wanted), Some(found)) => self.unequal(key, wanted, found),
                    (Some(wanted), None) => Some(self.difference(key, None, Some(self.row(wanted)), None)),
                    (None, Some(found)) => Some(self.difference(key, None, None, Some(self.row(found)))),
                    (None, None) => None,
                };
                if let Some(difference) = difference {
                    report.differences += 1;
                    if report.sample.len() < SAMPLE {
                        report.sample.push(difference);
                    }
                }
            }
        }
    }

    fn unequal(&self, key: &[u8], wanted: &[Value], found: &[Value]) -> Option<Difference> {
        let place = wanted.iter().zip(found).position(|(a, b)| !same(a, b))?;
        let column = &self.columns[place];
        let (wanted, found) = (self.shown(column, &wanted[place]), self.shown(column, &found[place]));
        Some(self.difference(key, Some(column.clone()), Some(wanted), Some(found)))
    }

    fn difference(
        &self,
        key: &[u8],
        column: Option<String>,
        expected: Option<String>,
        found: Option<String>,
    ) -> Difference {
        let values = value::decode_all(key, "verify").unwrap_or_default();
        let key = self.key.iter().zip(&values).map(|(name, value)| (name.clone(), self.shown(name, value)));
        Difference { key: key.collect(), column, expected, found }
    }

    fn row(&self, row: &[Value]) -> String {
        let cells = self.columns.iter().zip(row).map(|(name, value)| format!("{name} = {}", self.shown(name, value)));
        cells.collect::<Vec<_>>().join(", ")
    }

    /// A value as its column writes it.
    fn shown(&self, column: &str, value: &Value) -> String {
        let field: Option<&FieldRef> = self.schema.fields().find(column).map(|(_, field)| field);
        let array = field.and_then(|field| value::to_array(field.data_type(), std::slice::from_ref(value)).ok());
        let options = FormatOptions::new().with_null("NULL");
        let text = array.and_then(|array| Some(ArrayFormatter::try_new(&array, &options).ok()?.value(0).to_string()));
        text.unwrap_or_else(|| format!("{value:?}"))
    }
}

/// Floats that differ in the last digit must not change which rows of a key are compared.
fn exact_values_first(a: &[Value], b: &[Value]) -> Ordering {
    let is_exact = |value: &&Value| !matches!(value, Value::Float(_));
    a.iter().filter(is_exact).cmp(b.iter().filter(is_exact)).then_with(|| a.cmp(b))
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => {
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
        }
        (a, b) => a == b,
    }
}
