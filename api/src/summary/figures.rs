//! The figures of a bucket, and how they are gathered.

use chrono::{DateTime, SecondsFormat};
use poem_openapi::Object;
use serde::Serialize;

use super::quantile::Quantiles;
use crate::snapshot::{Counts, StateFile, StateRow};

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
    pub success_rate: Option<f64>,
    /// Distinct jobs, told apart by source and name.
    pub jobs: i64,
    pub records_read: i64,
    pub records_written: i64,
    pub records_failed: i64,
    pub bytes_written: i64,
    /// Mean duration of the finished runs whose duration is known; null without one.
    pub avg_duration_ms: Option<f64>,
    /// The duration of rank ceil(0.95 n) among them, exact up to 200 runs, above that within 1 %.
    pub p95_duration_ms: Option<f64>,
    /// How often the bucket changed after it had ended (in UTC); the largest of what is folded.
    pub revision: i64,
    /// When it last did, RFC 3339 in UTC.
    pub revised_at: Option<String>,
}

/// Gathers rows; reused from cell to cell.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    counts: Counts,
    durations: Quantiles,
    jobs: DistinctJobs,
    revision: i64,
    revised_at_us: Option<i64>,
}

impl Gatherer {
    pub(super) fn for_jobs(num_jobs: usize) -> Self {
        Self { jobs: DistinctJobs { seen_in: vec![0; num_jobs], round: 1, num: 0 }, ..Self::default() }
    }

    pub(super) fn add(&mut self, file: &StateFile, row: &StateRow) {
        self.counts += row.counts;
        self.jobs.add(row.job);
        self.durations.add(file.durations(row), row.is_binned);
        self.revision = self.revision.max(row.revision);
        self.revised_at_us = self.revised_at_us.max(row.revised_at_us);
    }

    /// The figures of what was added; empties this for the next cell.
    pub(super) fn finish(&mut self) -> Figures {
        let counts = std::mem::take(&mut self.counts);
        let finished = counts.completed + counts.failed + counts.aborted;
        let p95_us = self.durations.quantile(0.95);
        self.durations.clear();
        Figures {
            runs: counts.runs,
            completed: counts.completed,
            failed: counts.failed,
            aborted: counts.aborted,
            running: counts.running,
            success_rate: (finished > 0).then(|| counts.completed as f64 / finished as f64),
            jobs: self.jobs.finish(),
            records_read: counts.records_read,
            records_written: counts.records_written,
            records_failed: counts.records_failed,
            bytes_written: counts.bytes_written,
            avg_duration_ms: (counts.durations > 0)
                .then(|| counts.duration_sum_us as f64 / counts.durations as f64 / 1000.0),
            p95_duration_ms: p95_us.map(|us| us as f64 / 1000.0),
            revision: std::mem::take(&mut self.revision),
            revised_at: self.revised_at_us.take().and_then(rfc3339_utc),
        }
    }
}

/// Counts distinct jobs by writing the number of the round beside each, so that a new round costs nothing.
#[derive(Debug, Default)]
struct DistinctJobs {
    seen_in: Vec<u32>,
    round: u32,
    num: i64,
}

impl DistinctJobs {
    fn add(&mut self, job: u32) {
        let seen_in = &mut self.seen_in[job as usize];
        if *seen_in != self.round {
            *seen_in = self.round;
            self.num += 1;
        }
    }

    fn finish(&mut self) -> i64 {
        self.round += 1;
        std::mem::take(&mut self.num)
    }
}

/// An instant as answers write it: RFC 3339 in UTC.
pub(crate) fn rfc3339_utc(us: i64) -> Option<String> {
    DateTime::from_timestamp_micros(us).map(|at| at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}
