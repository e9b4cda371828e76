//! What the summary routes answer.

use chrono::DateTime;
use chrono_tz::Tz;
use poem_openapi::{Object, types::Example};
use serde::Serialize;

use crate::{
    serving::freshness::DataState,
    summary::{
        Cell, Figures,
        calendar::{Grain, Span},
    },
};

/// The runs of one bucket of time, and of one group when the answer is grouped.
#[derive(Debug, Clone, Serialize, Object)]
pub struct Bucket {
    /// `2026-01-31`, `2026-W05`, `2026-01`, `2026-Q1`, `2026` or `2026-01-31T13:00+01:00`; a Sunday week is named by its
    /// first date.
    pub bucket: String,
    /// First date of the bucket.
    pub bucket_start: String,
    /// First instant of the bucket, RFC 3339 with the zone's offset. Of a bucket that the asked dates cover in part,
    /// only those dates are counted.
    pub start: String,
    /// First instant after the bucket.
    pub end: String,
    /// The source, when grouped by source or job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[oai(skip_serializing_if_is_none)]
    pub source: Option<String>,
    /// The job, when grouped by job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[oai(skip_serializing_if_is_none)]
    pub job: Option<String>,
    #[serde(flatten)]
    #[oai(flatten)]
    pub figures: Figures,
}

/// Figures by time.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct Summary {
    /// The epoch that the figures are of.
    pub epoch: u64,
    /// Newest event time that is folded in, RFC 3339 in UTC.
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    /// The dates that were asked for, both included.
    pub from: String,
    pub to: String,
    /// The zone of the dates.
    pub tz: String,
    /// Oldest first, then by name of the group.
    pub buckets: Vec<Bucket>,
    /// Over all buckets of all pages.
    pub totals: Figures,
    /// For the next page; null on the last.
    #[oai(nullable)]
    pub next_cursor: Option<String>,
}

impl Bucket {
    pub(super) fn of(cell: Cell, span: &Span, grain: Grain, zone: Tz) -> Self {
        Self {
            bucket: span.label(grain, zone),
            bucket_start: span.first.to_string(),
            start: local_time(span.start_us, zone),
            end: local_time(span.end_us, zone),
            source: cell.source,
            job: cell.job,
            figures: cell.figures,
        }
    }
}

fn local_time(us: i64, zone: Tz) -> String {
    DateTime::from_timestamp_micros(us).unwrap_or_default().with_timezone(&zone).to_rfc3339()
}

impl Example for Summary {
    fn example() -> Self {
        let figures = Figures {
            runs: 24,
            completed: 22,
            failed: 1,
            running: 1,
            success_rate: Some(22.0 / 23.0),
            jobs: 2,
            records_read: 480_000,
            records_written: 479_200,
            records_failed: 800,
            bytes_written: 73_400_320,
            avg_duration_ms: Some(41_250.5),
            p95_duration_ms: Some(88_000.0),
            ..Figures::default()
        };
        let bucket = Bucket {
            bucket: "2026-01-31".to_owned(),
            bucket_start: "2026-01-31".to_owned(),
            start: "2026-01-31T00:00:00+01:00".to_owned(),
            end: "2026-02-01T00:00:00+01:00".to_owned(),
            source: None,
            job: None,
            figures: figures.clone(),
        };
        Self {
            epoch: 412,
            as_of: Some("2026-01-31T22:59:58.120Z".to_owned()),
            data_state: DataState::Complete,
            from: "2026-01-31".to_owned(),
            to: "2026-01-31".to_owned(),
            tz: "Europe/Berlin".to_owned(),
            buckets: vec![bucket],
            totals: figures,
            next_cursor: None,
        }
    }
}
