//! Rows of `gold.summary_state`, without the pipeline that makes them: one for each source and quarter of an hour, or more.

use std::{ops::Range, sync::Arc};

use karat_lake::arrow::{
    array::{ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    error::ArrowError,
};
use karat_schemas::histogram::Histogram;

use crate::{Result, generate::Random};

/// The length of a slice.
pub const QUARTER_US: i64 = 900_000_000;
/// 2025-01-01T00:00:00Z: where the first slice begins.
pub const START_US: i64 = 1_735_689_600_000_000;

/// Rows of a data file, as gold's slots have them.
const ROWS_PER_FILE: usize = 8_000;

/// What is made.
#[derive(Debug, Clone, Copy)]
pub struct SlicePlan {
    pub sources: u32,
    /// Jobs of each source; rows take turns.
    pub jobs: u32,
    pub days: u32,
    /// Rows of each source and slice.
    pub rows_per_slice: u32,
    pub runs_per_row: u32,
}

/// The name of a source, from 0 on.
pub fn source_name(source: u32) -> String {
    format!("source-{source:03}")
}

/// Makes the rows of the table, in the order of time.
pub struct Slices {
    plan: SlicePlan,
    random: Random,
    quarters: Range<i64>,
    num_made: usize,
}

#[derive(Default)]
struct Columns {
    starts: Vec<i64>,
    sources: Vec<String>,
    jobs: Vec<String>,
    records: Vec<i64>,
    sums: Vec<i64>,
    histograms: Vec<Vec<u8>>,
}

impl Slices {
    pub fn new(plan: SlicePlan) -> Self {
        Self { plan, random: Random::new(1), quarters: 0..i64::from(plan.days) * 96, num_made: 0 }
    }

    /// What comes next: one row more of each source in the last quarter of an hour.
    pub fn of_next_epoch(plan: SlicePlan) -> Self {
        let last = i64::from(plan.days) * 96 - 1;
        Self { quarters: last..last + 1, ..Self::new(SlicePlan { rows_per_slice: 1, jobs: 1, ..plan }) }
    }

    /// Rows that have been made.
    pub fn num_made(&self) -> usize {
        self.num_made
    }

    /// The rows of the next data file; none at the end.
    ///
    /// # Errors
    /// When the columns make no batch, which would be a mistake here.
    pub fn next_file(&mut self) -> Result<Option<RecordBatch>> {
        let columns = self.next_columns();
        if columns.starts.is_empty() { Ok(None) } else { Ok(Some(batch(columns, self.plan.runs_per_row)?)) }
    }

    /// The next rows, of jobs that no other row is of.
    ///
    /// # Errors
    /// As [`Self::next_file`].
    pub fn more(&mut self) -> Result<RecordBatch> {
        let columns = self.next_columns();
        let jobs = columns.jobs.iter().map(|job| format!("{job} more")).collect();
        Ok(batch(Columns { jobs, ..columns }, self.plan.runs_per_row)?)
    }

    fn next_columns(&mut self) -> Columns {
        let mut columns = Columns::default();
        while columns.starts.len() < ROWS_PER_FILE {
            let Some(quarter) = self.quarters.next() else { break };
            for source in 0..self.plan.sources {
                for row in 0..self.plan.rows_per_slice {
                    self.add_row(&mut columns, quarter, source, row);
                }
            }
        }
        columns
    }

    fn add_row(&mut self, columns: &mut Columns, quarter: i64, source: u32, row: u32) {
        // Rows of one slice are of different jobs, as the table's key wants it.
        let job = (quarter + i64::from(row)).rem_euclid(i64::from(self.plan.jobs.max(self.plan.rows_per_slice)));
        let (mut histogram, mut sum) = (Histogram::default(), 0);
        for _ in 0..self.plan.runs_per_row {
            let duration_us = 200_000 + (self.random.long_tailed(22) * 1_000 + self.random.below(1_000)) as i64;
            histogram.add(duration_us, 1);
            sum += duration_us;
        }
        columns.starts.push(START_US + quarter * QUARTER_US);
        columns.sources.push(source_name(source));
        columns.jobs.push(format!("job-{job:03}"));
        columns.records.push(self.random.long_tailed(16) as i64);
        columns.sums.push(sum);
        columns.histograms.push(histogram.to_bytes());
        self.num_made += 1;
    }
}

fn batch(columns: Columns, runs_per_row: u32) -> Result<RecordBatch, ArrowError> {
    let num = columns.starts.len();
    let all = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value; num])) };
    let numbers = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let runs = i64::from(runs_per_row);
    let read = columns.records.clone();
    RecordBatch::try_from_iter([
        ("bucket_start", Arc::new(TimestampMicrosecondArray::from(columns.starts).with_timezone("UTC")) as ArrayRef),
        ("source", Arc::new(StringArray::from(columns.sources))),
        ("job", Arc::new(StringArray::from(columns.jobs))),
        ("user_id", Arc::new(StringArray::from(vec![Some("publisher"); num]))),
        ("is_top_level", Arc::new(BooleanArray::from(vec![true; num]))),
        ("runs", all(runs)),
        ("completed", all(runs)),
        ("failed", all(0)),
        ("aborted", all(0)),
        ("running", all(0)),
        ("records_read", numbers(read)),
        ("records_written", numbers(columns.records.clone())),
        ("records_failed", all(0)),
        ("bytes_written", numbers(columns.records.iter().map(|records| records * 120).collect())),
        ("durations", all(runs)),
        ("duration_sum_us", numbers(columns.sums)),
        ("duration_histogram_us", Arc::new(BinaryArray::from_iter_values(columns.histograms))),
        ("revision", all(0)),
        ("revised_at", Arc::new(TimestampMicrosecondArray::from(vec![None; num]).with_timezone("UTC"))),
    ])
}
