//! The figures of a bucket, as answers give them.

use chrono::{DateTime, SecondsFormat};
use poem_openapi::Object;
use serde::Serialize;

use crate::tally::{Numbers, Sum};

/// What a bucket, or a whole selection, says about its runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Object)]
pub struct Figures {
    /// Runs that started in the bucket.
    pub runs: i64,
    pub completed: i64,
    pub failed: i64,
    pub aborted: i64,
    /// Started and not finished.
    pub running: i64,
    /// `completed / (completed + failed + aborted)`, from 0 to 1; null when none has finished.
    #[oai(nullable)]
    pub success_rate: Option<f64>,
    /// Distinct jobs, told apart by source and name.
    pub jobs: i64,
    pub records_read: i64,
    pub records_written: i64,
    pub records_failed: i64,
    pub bytes_written: i64,
    /// Mean duration of the finished runs whose duration is known; null without one.
    #[oai(nullable)]
    pub avg_duration_ms: Option<f64>,
    /// The duration of rank ceil(0.95 n) among them, exact up to 200 runs, above that within 1 %.
    #[oai(nullable)]
    pub p95_duration_ms: Option<f64>,
    /// How often the bucket changed after it had ended (in UTC); the largest of what is folded.
    pub revision: i64,
    /// When it last did, RFC 3339 in UTC.
    #[oai(nullable)]
    pub revised_at: Option<String>,
}

impl From<Sum> for Figures {
    fn from(sum: Sum) -> Self {
        let Numbers { counts, revision, revised_at_us } = sum.numbers;
        let finished = counts.completed + counts.failed + counts.aborted;
        Self {
            runs: counts.runs,
            completed: counts.completed,
            failed: counts.failed,
            aborted: counts.aborted,
            running: counts.running,
            success_rate: (finished > 0).then(|| counts.completed as f64 / finished as f64),
            jobs: sum.jobs,
            records_read: counts.records_read,
            records_written: counts.records_written,
            records_failed: counts.records_failed,
            bytes_written: counts.bytes_written,
            avg_duration_ms: (counts.durations > 0)
                .then(|| counts.duration_sum_us as f64 / counts.durations as f64 / 1000.0),
            p95_duration_ms: sum.p95_us.map(|us| us as f64 / 1000.0),
            revision,
            revised_at: revised_at_us.and_then(rfc3339_utc),
        }
    }
}

/// An instant as answers write it: RFC 3339 in UTC.
pub(crate) fn rfc3339_utc(us: i64) -> Option<String> {
    DateTime::from_timestamp_micros(us).map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}
