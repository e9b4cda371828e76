//! Runs as tests write them down, and the rows that the pipeline makes of them.

use std::{collections::BTreeMap, sync::Arc};

use karat_lake::arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use karat_schemas::histogram::Histogram;

/// One run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    pub id: String,
    pub source: String,
    pub job: String,
    pub user: Option<String>,
    pub parent: Option<String>,
    /// `completed`, `failed`, `aborted` or `running`.
    pub status: String,
    pub started_at_us: i64,
    pub duration_us: Option<i64>,
    pub records_read: i64,
    pub error: Option<String>,
}

impl Run {
    fn finished_at_us(&self) -> Option<i64> {
        self.duration_us.map(|duration| self.started_at_us + duration)
    }
}

/// What a company made in a month.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profit {
    pub company: String,
    pub year: i64,
    pub month: i64,
    /// In the smallest unit.
    pub cents: i128,
    pub source: String,
    pub user: Option<String>,
    pub recorded_at_us: i64,
}

type Column<T> = (&'static str, DataType, T);

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn batch(columns: Vec<Column<ArrayRef>>) -> RecordBatch {
    let fields: Vec<_> =
        columns.iter().map(|(name, data_type, _)| Field::new(*name, data_type.clone(), true)).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, _, array)| array).collect()).unwrap()
}

fn texts(name: &'static str, values: impl Iterator<Item = Option<String>>) -> Column<ArrayRef> {
    (name, DataType::Utf8, Arc::new(StringArray::from_iter(values)))
}

fn numbers(name: &'static str, values: impl Iterator<Item = Option<i64>>) -> Column<ArrayRef> {
    (name, DataType::Int64, Arc::new(Int64Array::from_iter(values)))
}

fn instants(name: &'static str, values: impl Iterator<Item = Option<i64>>) -> Column<ArrayRef> {
    (name, utc(), Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC")))
}

/// The rows of `gold.summary_state` for `runs`.
pub fn summary_state(runs: &[Run]) -> RecordBatch {
    let mut groups: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        let slot = run.started_at_us.div_euclid(900_000_000) * 900_000_000;
        groups.entry((slot, &run.source, &run.job, &run.user, run.parent.is_none())).or_default().push(run);
    }
    let keys = || groups.keys();
    let sum = |name, value: fn(&Run) -> i64| {
        numbers(name, groups.values().map(move |runs| Some(runs.iter().map(|run| value(run)).sum())))
    };
    let durations = groups.values().map(|runs| runs.iter().filter_map(|run| run.duration_us).collect::<Vec<_>>());
    let durations: Vec<Vec<i64>> = durations.collect();
    let histograms = durations.iter().map(|values| {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.add(*value, 1));
        Some(histogram.to_bytes())
    });
    batch(vec![
        instants("bucket_start", keys().map(|key| Some(key.0))),
        texts("source", keys().map(|key| Some(key.1.clone()))),
        texts("job", keys().map(|key| Some(key.2.clone()))),
        texts("user_id", keys().map(|key| key.3.clone())),
        ("is_top_level", DataType::Boolean, Arc::new(BooleanArray::from_iter(keys().map(|key| Some(key.4))))),
        sum("runs", |_| 1),
        sum("completed", |run| (run.status == "completed").into()),
        sum("failed", |run| (run.status == "failed").into()),
        sum("aborted", |run| (run.status == "aborted").into()),
        sum("running", |run| (run.status == "running").into()),
        sum("records_read", |run| run.records_read),
        sum("records_written", |_| 0),
        sum("records_failed", |_| 0),
        sum("bytes_written", |_| 0),
        numbers("durations", durations.iter().map(|values| Some(values.len() as i64))),
        numbers("duration_sum_us", durations.iter().map(|values| (!values.is_empty()).then(|| values.iter().sum()))),
        ("duration_histogram_us", DataType::Binary, Arc::new(BinaryArray::from_iter(histograms))),
        numbers("revision", keys().map(|_| Some(0))),
        instants("revised_at", keys().map(|_| None)),
    ])
}

/// The rows of `gold.sync_status` for `runs`.
pub fn sync_status(runs: &[Run]) -> RecordBatch {
    let mut groups: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        groups.entry((&run.source, &run.job)).or_default().push(run);
    }
    groups.values_mut().for_each(|runs| runs.sort_by_key(|run| run.started_at_us));
    let last = |value: fn(&Run) -> Option<String>| groups.values().map(move |runs| value(runs[runs.len() - 1]));
    let gaps: Vec<Vec<i64>> = groups
        .values()
        .map(|runs| {
            let newest = &runs[runs.len().saturating_sub(11)..];
            let mut gaps: Vec<_> =
                newest.windows(2).map(|pair| pair[1].started_at_us - pair[0].started_at_us).collect();
            gaps.sort();
            gaps
        })
        .collect();
    let failures = |runs: &Vec<&Run>| {
        runs.iter().rev().take_while(|run| run.status != "completed").filter(|run| run.status != "running").count()
            as i64
    };
    let success = |runs: &Vec<&Run>| {
        runs.iter().filter(|run| run.status == "completed").filter_map(|run| run.finished_at_us()).max()
    };
    let last_event = |runs: &Vec<&Run>| runs.iter().map(|run| run.finished_at_us().unwrap_or(run.started_at_us)).max();
    batch(vec![
        texts("source", groups.keys().map(|key| Some(key.0.clone()))),
        texts("job", groups.keys().map(|key| Some(key.1.clone()))),
        instants("last_started_at", groups.values().map(|runs| Some(runs[runs.len() - 1].started_at_us))),
        instants("last_event_at", groups.values().map(last_event)),
        texts("last_run_id", last(|run| Some(run.id.clone()))),
        texts("last_status", last(|run| Some(run.status.clone()))),
        instants("last_success_at", groups.values().map(success)),
        numbers("consecutive_failures", groups.values().map(|runs| Some(failures(runs)))),
        numbers("gaps", gaps.iter().map(|gaps| Some(gaps.len() as i64))),
        numbers("median_gap_us", gaps.iter().map(|gaps| gaps.get(gaps.len() / 2).copied())),
        texts("last_error", groups.values().map(|runs| runs.iter().rev().find_map(|run| run.error.clone()))),
    ])
}

/// The rows of `gold.user_days` for `runs`, as far as the API reads them.
pub fn user_days(runs: &[Run]) -> RecordBatch {
    const DAY_US: i64 = 86_400_000_000;
    let mut groups: BTreeMap<_, i64> = BTreeMap::new();
    for run in runs {
        let day = run.started_at_us.div_euclid(DAY_US) * DAY_US;
        *groups.entry((&run.user, day)).or_default() += i64::from(run.status == "completed");
    }
    batch(vec![
        texts("user_id", groups.keys().map(|key| key.0.clone())),
        instants("day", groups.keys().map(|key| Some(key.1))),
        numbers("completed", groups.values().map(|completed| Some(*completed))),
    ])
}

/// The rows of `silver.runs` for `runs`.
pub fn silver_runs(runs: &[Run]) -> RecordBatch {
    let ms = runs.iter().map(|run| run.duration_us.map(|us| us as f64 / 1000.0));
    batch(vec![
        texts("source", runs.iter().map(|run| Some(run.source.clone()))),
        texts("run_id", runs.iter().map(|run| Some(run.id.clone()))),
        texts("job", runs.iter().map(|run| Some(run.job.clone()))),
        texts("user_id", runs.iter().map(|run| run.user.clone())),
        texts("status", runs.iter().map(|run| Some(run.status.clone()))),
        instants("started_at", runs.iter().map(|run| Some(run.started_at_us))),
        instants("finished_at", runs.iter().map(Run::finished_at_us)),
        numbers("duration_us", runs.iter().map(|run| run.duration_us)),
        ("duration_ms", DataType::Float64, Arc::new(Float64Array::from_iter(ms))),
        numbers("records_read", runs.iter().map(|run| Some(run.records_read))),
        numbers("records_written", runs.iter().map(|_| None)),
        numbers("records_failed", runs.iter().map(|_| None)),
        numbers("bytes_written", runs.iter().map(|_| None)),
        texts("error_message", runs.iter().map(|run| run.error.clone())),
        texts("parent_run_id", runs.iter().map(|run| run.parent.clone())),
        instants("last_event_at", runs.iter().map(|run| Some(run.finished_at_us().unwrap_or(run.started_at_us)))),
        numbers("events", runs.iter().map(|_| Some(1))),
    ])
}

/// The rows of `gold.profits` for `profits`.
pub fn profits(profits: &[Profit]) -> RecordBatch {
    let cents = profits.iter().map(|profit| Some(profit.cents)).collect::<Decimal128Array>();
    let cents = cents.with_precision_and_scale(38, 2).unwrap();
    batch(vec![
        texts("company", profits.iter().map(|profit| Some(profit.company.clone()))),
        numbers("year", profits.iter().map(|profit| Some(profit.year))),
        numbers("month", profits.iter().map(|profit| Some(profit.month))),
        ("profit", DataType::Decimal128(38, 2), Arc::new(cents)),
        texts("source", profits.iter().map(|profit| Some(profit.source.clone()))),
        texts("user_id", profits.iter().map(|profit| profit.user.clone())),
        instants("recorded_at", profits.iter().map(|profit| Some(profit.recorded_at_us))),
    ])
}
