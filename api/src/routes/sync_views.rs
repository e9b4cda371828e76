//! What the routes about jobs and pipelines answer.

use std::collections::BTreeMap;

use karat_schemas::epoch::Epoch;
use poem_openapi::{Enum, Object, types::Example};
use serde::Serialize;

use super::{seen::Seen, sync_status::Moment};
use crate::{
    serving::{
        DeclaredJob,
        freshness::{DataState, Freshness, Objective},
        sync_state::{Assessed, SyncState, assess},
    },
    snapshot::SyncRow,
    summary::rfc3339_utc,
};

/// How a job stands.
#[derive(Debug, Clone, Serialize, Object)]
pub struct JobStatus {
    pub source: String,
    pub job: String,
    pub state: SyncState,
    /// The run that started last.
    #[oai(nullable)]
    pub last_run_id: Option<String>,
    #[oai(nullable)]
    pub last_status: Option<String>,
    /// RFC 3339 in UTC, like all times here.
    #[oai(nullable)]
    pub last_started_at: Option<String>,
    /// Newest event of any of its runs.
    #[oai(nullable)]
    pub last_event_at: Option<String>,
    /// When a run last completed.
    #[oai(nullable)]
    pub last_success_at: Option<String>,
    /// Seconds since then.
    #[oai(nullable)]
    pub freshness_seconds: Option<i64>,
    /// Failed and aborted runs since the last one that completed.
    pub consecutive_failures: i64,
    /// From one start to the next: declared, or the median of the last ten gaps; null below three gaps.
    #[oai(nullable)]
    pub expected_interval_seconds: Option<f64>,
    /// From when it counts as late; null when never.
    #[oai(nullable)]
    pub late_after: Option<String>,
    #[oai(nullable)]
    pub last_error: Option<String>,
}

/// Whether a pipeline moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum PipelineState {
    Running,
    /// It stopped by itself; see `reason`.
    Paused,
}

/// How a pipeline stands against its log.
#[derive(Debug, Clone, Serialize, Object)]
pub struct PipelineStatus {
    pub pipeline: String,
    pub state: PipelineState,
    /// Why it is paused.
    #[oai(nullable)]
    pub reason: Option<String>,
    /// Records in the log that gold does not have yet; null while that is not known.
    #[oai(nullable)]
    pub lag_records: Option<u64>,
    #[oai(nullable)]
    pub lag_bytes: Option<u64>,
    /// How long the oldest record that waits has waited; where that is not known, how long ago the epoch was written. 0 when none waits.
    pub lag_seconds: f64,
    /// Newest event time that is folded in.
    #[oai(nullable)]
    pub newest_event: Option<String>,
    pub epoch: u64,
    /// When the epoch was written.
    #[oai(nullable)]
    pub written_at: Option<String>,
    /// Version of each table.
    pub versions: BTreeMap<String, u64>,
    /// How tables with a freshness objective stand against it.
    pub objectives: Vec<TableFreshness>,
}

/// A table against its freshness objective (`fresh_within`).
#[derive(Debug, Clone, Serialize, Object)]
pub struct TableFreshness {
    pub table: String,
    /// How old its newest event may be.
    pub fresh_within_seconds: f64,
    /// How old it is; null before there is one.
    #[oai(nullable)]
    pub age_seconds: Option<i64>,
    #[oai(nullable)]
    pub is_fresh: Option<bool>,
}

/// The state of jobs and pipelines.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct SyncStatus {
    pub epoch: u64,
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    /// By source and job.
    pub jobs: Vec<JobStatus>,
    pub pipelines: Vec<PipelineStatus>,
}

impl JobStatus {
    /// `now_us` decides the state, `age_us` is the moment that ages are counted to.
    pub(super) fn of(row: &SyncRow, seen: Seen, declared: Option<&DeclaredJob>, now_us: i64, age_us: i64) -> Self {
        let declared_us = declared.and_then(|job| job.interval).and_then(|every| i64::try_from(every.as_micros()).ok());
        let Assessed { state, expected_interval_us, late_after_us } = assess(row, declared_us, now_us);
        // Nothing about a single run that may be somebody else's.
        let of_run = |value: &Option<String>| value.clone().filter(|_| seen == Seen::Whole);
        let time = |us: Option<i64>| us.and_then(rfc3339_utc);
        Self {
            source: row.source.clone(),
            job: row.job.clone(),
            state,
            last_run_id: of_run(&row.last_run_id),
            last_status: row.last_status.clone(),
            last_started_at: time(row.last_started_at_us),
            last_event_at: time(row.last_event_at_us),
            last_success_at: time(row.last_success_at_us),
            freshness_seconds: row.last_success_at_us.map(|at| (age_us - at).max(0) / 1_000_000),
            consecutive_failures: row.consecutive_failures,
            expected_interval_seconds: expected_interval_us.map(|us| us as f64 / 1e6),
            late_after: time(late_after_us),
            last_error: of_run(&row.last_error),
        }
    }

    pub(super) fn never_run(job: &DeclaredJob) -> Self {
        Self {
            source: job.source.clone(),
            job: job.job.clone(),
            state: SyncState::NeverRun,
            last_run_id: None,
            last_status: None,
            last_started_at: None,
            last_event_at: None,
            last_success_at: None,
            freshness_seconds: None,
            consecutive_failures: 0,
            expected_interval_seconds: job.interval.map(|every| every.as_secs_f64()),
            late_after: None,
            last_error: None,
        }
    }
}

impl TableFreshness {
    pub(super) fn of(objective: &Objective, epoch: &Epoch, moment: Moment) -> Self {
        Self {
            table: objective.table.clone(),
            fresh_within_seconds: objective.fresh_within.as_secs_f64(),
            age_seconds: epoch.as_of_us.map(|at| (moment.age_us - at).max(0) / 1_000_000),
            is_fresh: objective.is_met(epoch.as_of_us, moment.now_us),
        }
    }
}

impl PipelineStatus {
    /// The reason of a pause may quote rows, so only those who see all rows read it.
    pub(super) fn of(
        epoch: &Epoch,
        freshness: &Freshness,
        sees_all: bool,
        objectives: &[Objective],
        moment: Moment,
    ) -> Self {
        Self {
            objectives: objectives.iter().map(|objective| TableFreshness::of(objective, epoch, moment)).collect(),
            pipeline: epoch.pipeline.clone(),
            state: if epoch.paused.is_some() { PipelineState::Paused } else { PipelineState::Running },
            reason: epoch.paused.clone().filter(|_| sees_all),
            lag_records: freshness.lag_records,
            lag_bytes: freshness.lag_bytes,
            lag_seconds: freshness.lag.as_secs() as f64,
            newest_event: epoch.as_of_us.and_then(rfc3339_utc),
            epoch: epoch.epoch,
            written_at: rfc3339_utc(epoch.written_at_us).filter(|_| epoch.epoch > 0),
            versions: epoch.tables.clone(),
        }
    }
}

impl Example for SyncStatus {
    fn example() -> Self {
        let time = |text: &str| Some(text.to_owned());
        let job = JobStatus {
            source: "billing".to_owned(),
            job: "load_invoices".to_owned(),
            state: SyncState::Ok,
            last_run_id: Some("0197b3a2-5c1e-7d40-8a77-2f6f0c1f9d11".to_owned()),
            last_status: Some("completed".to_owned()),
            last_started_at: time("2026-01-31T22:00:00Z"),
            last_event_at: time("2026-01-31T22:00:41Z"),
            last_success_at: time("2026-01-31T22:00:41Z"),
            freshness_seconds: Some(1_800),
            consecutive_failures: 0,
            expected_interval_seconds: Some(3_600.0),
            late_after: time("2026-02-01T00:05:00Z"),
            last_error: None,
        };
        let pipeline = PipelineStatus {
            pipeline: "etl_runs".to_owned(),
            state: PipelineState::Running,
            reason: None,
            lag_records: Some(0),
            lag_bytes: Some(0),
            lag_seconds: 0.0,
            newest_event: time("2026-01-31T22:00:41Z"),
            epoch: 412,
            written_at: time("2026-01-31T22:00:42.310Z"),
            versions: BTreeMap::from([("gold.sync_status".to_owned(), 409), ("gold.summary_state".to_owned(), 412)]),
            objectives: vec![TableFreshness {
                table: "gold.daily_summary".to_owned(),
                fresh_within_seconds: 3_600.0,
                age_seconds: Some(1_800),
                is_fresh: Some(true),
            }],
        };
        Self {
            epoch: 412,
            as_of: time("2026-01-31T22:00:41Z"),
            data_state: DataState::Complete,
            jobs: vec![job],
            pipelines: vec![pipeline],
        }
    }
}
