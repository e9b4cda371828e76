//! The rows of a file of summaries: the buckets of `GET /summary`, with their types.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate};
use chrono_tz::Tz;
use karat_lake::arrow::{
    array::{
        Array, ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    error::ArrowError,
};

use crate::summary::{
    Cell, Figures, GroupBy,
    calendar::{Grain, Span},
};

/// What the rows have in common.
pub(super) struct Buckets {
    pub(super) spans: Vec<Span>,
    pub(super) grain: Grain,
    pub(super) zone: Tz,
    pub(super) group_by: GroupBy,
}

impl Buckets {
    /// One row a cell; without cells, their schema.
    pub(super) fn rows(&self, cells: &[Cell]) -> Result<RecordBatch, ArrowError> {
        let span = |cell: &Cell| self.spans[cell.span];
        let bucket = cells.iter().map(|cell| Some(span(cell).label(self.grain, self.zone)));
        let bucket_start = cells.iter().map(|cell| Some(days(span(cell).first)));
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("bucket", array(StringArray::from_iter(bucket))),
            ("bucket_start", array(Date32Array::from_iter(bucket_start))),
            ("start", instants(cells.iter().map(|cell| Some(span(cell).start_us)))),
            ("end", instants(cells.iter().map(|cell| Some(span(cell).end_us)))),
        ];
        if self.group_by != GroupBy::Nothing {
            columns.push(("source", array(StringArray::from_iter(cells.iter().map(|cell| cell.source.as_deref())))));
        }
        if self.group_by == GroupBy::Job {
            columns.push(("job", array(StringArray::from_iter(cells.iter().map(|cell| cell.job.as_deref())))));
        }
        let numbers = |value: fn(&Figures) -> i64| {
            array(Int64Array::from_iter(cells.iter().map(|cell| Some(value(&cell.figures)))))
        };
        let floats = |value: fn(&Figures) -> Option<f64>| {
            array(Float64Array::from_iter(cells.iter().map(|cell| value(&cell.figures))))
        };
        columns.extend([
            ("runs", numbers(|figures| figures.runs)),
            ("completed", numbers(|figures| figures.completed)),
            ("failed", numbers(|figures| figures.failed)),
            ("aborted", numbers(|figures| figures.aborted)),
            ("running", numbers(|figures| figures.running)),
            ("success_rate", floats(|figures| figures.success_rate)),
            ("jobs", numbers(|figures| figures.jobs)),
            ("records_read", numbers(|figures| figures.records_read)),
            ("records_written", numbers(|figures| figures.records_written)),
            ("records_failed", numbers(|figures| figures.records_failed)),
            ("bytes_written", numbers(|figures| figures.bytes_written)),
            ("avg_duration_ms", floats(|figures| figures.avg_duration_ms)),
            ("p95_duration_ms", floats(|figures| figures.p95_duration_ms)),
            ("revision", numbers(|figures| figures.revision)),
            ("revised_at", instants(cells.iter().map(|cell| instant(cell.figures.revised_at.as_deref())))),
        ]);
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
    }
}

/// Days since 1970.
fn days(date: NaiveDate) -> i32 {
    i32::try_from((date - NaiveDate::default()).num_days()).unwrap_or(i32::MAX)
}

fn instants(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    array(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
}

fn array(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}

fn instant(text: Option<&str>) -> Option<i64> {
    DateTime::parse_from_rfc3339(text?).ok().map(|at| at.timestamp_micros())
}
