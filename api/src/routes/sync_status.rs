//! `GET /sync-status`.

use std::{collections::HashMap, sync::Arc};

use karat_http::{ApiError, Authenticated, error_answers};
use poem::Request;
use poem_openapi::{OpenApi, param::Query};

use super::{
    DataTag,
    cover::Cover,
    seen::{JobsSeen, Seen},
    sync_views::{JobStatus, PipelineStatus, SyncStatus},
};
use crate::{
    serving::{
        DataAnswer, DeclaredJob, KeyParts, Question, Serving, ServingSettings, envelope, now_us,
        params::Params,
        raw::{NameText, Raw},
        sync_state::assess,
    },
    snapshot::Snapshot,
    summary::{Stopped, Visible, Work},
};

error_answers! {
    /// Errors of `GET /sync-status`.
    pub SyncStatusError: 400, 401, 403, 422, 429, 503, 504;
}

/// Ages are counted to the last multiple of this, so that an answer holds for that long.
const AGE_STEP_US: i64 = 10_000_000;

/// Operations on the state of jobs and pipelines.
pub struct SyncStatusApi {
    serving: Arc<Serving>,
}

impl SyncStatusApi {
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[OpenApi(tag = "DataTag::SyncStatus")]
impl SyncStatusApi {
    /// State of jobs and pipelines
    ///
    /// Each source and job with its state, and each pipeline with its lag behind the log.
    #[oai(path = "/sync-status", method = "get", operation_id = "read_sync_status")]
    async fn read(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Only this source.
        source: Query<Option<Raw<NameText>>>,
        /// Only jobs of this name.
        job: Query<Option<Raw<NameText>>>,
    ) -> Result<DataAnswer<SyncStatus>, SyncStatusError> {
        Params::of(request, &["source", "job"]).finish()?;
        let filter = JobFilter { source: source.as_deref().map(str::to_owned), job: job.as_deref().map(str::to_owned) };
        Ok(self.answer(request, &caller, filter).await?)
    }
}

impl SyncStatusApi {
    async fn answer(
        &self,
        request: &Request,
        caller: &Authenticated,
        filter: JobFilter,
    ) -> Result<DataAnswer<SyncStatus>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let snapshot = self.serving.snapshots.current();
        let moment = Moment::now();
        let cover = Cover::of(&snapshot, self.serving.freshness(&snapshot, moment.now_us));
        let mut parts = scope.asks("sync-status");
        filter.parts(&mut parts);
        let mut page = KeyParts::of("page");
        page.number("age", moment.age_us).number("lag", cover.freshness.lag.as_secs());
        for (name, lag) in [("lag_records", cover.freshness.lag_records), ("lag_bytes", cover.freshness.lag_bytes)] {
            page.number(name, lag.map_or(-1, i128::from));
        }
        for promise in &self.serving.settings.objectives {
            let met = promise.is_met(snapshot.epoch.as_of_us, moment.now_us);
            page.text("promise", &promise.table).number("is_met", met.map_or(-1, i128::from));
        }
        let clock = moment.next_change(&snapshot, &self.serving.settings);
        let (id, freshness) = (parts.key(), cover.freshness);
        let question = Question { id, page, snapshot: Arc::clone(&snapshot), freshness, clock };
        let render = Arc::clone(&self.serving).compute(move |serving, work| {
            let visible = &scope.visible;
            let jobs = job_statuses(&snapshot, &serving.settings, visible, &filter, moment, work)?;
            let status = SyncStatus {
                epoch: cover.epoch,
                as_of: cover.as_of(),
                data_state: cover.freshness.data_state,
                jobs: jobs.into_iter().map(|(status, _)| status).collect(),
                pipelines: vec![PipelineStatus::of(
                    &snapshot.epoch,
                    &cover.freshness,
                    *visible == Visible::All,
                    &serving.settings.objectives,
                    moment,
                )],
            };
            envelope(&status, "the state of jobs and pipelines")
        });
        self.serving.answer(request, question, render).await
    }
}

/// Which jobs are wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct JobFilter {
    pub(super) source: Option<String>,
    pub(super) job: Option<String>,
}

impl JobFilter {
    pub(super) fn parts(&self, question: &mut KeyParts) {
        question.maybe("source", self.source.as_deref()).maybe("job", self.job.as_deref());
    }

    fn takes(&self, source: &str, job: &str) -> bool {
        self.source.as_deref().is_none_or(|wanted| wanted == source)
            && self.job.as_deref().is_none_or(|wanted| wanted == job)
    }
}

/// The moment of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now_us: i64,
    pub(super) age_us: i64,
}

impl Moment {
    pub(super) fn now() -> Self {
        let now_us = now_us();
        Self { now_us, age_us: now_us - now_us.rem_euclid(AGE_STEP_US) }
    }

    /// When the clock alone will next change the state of a job; 0 when it never will.
    pub(super) fn next_change(self, snapshot: &Snapshot, settings: &ServingSettings) -> i64 {
        let declared = declared_jobs(settings);
        let due = |row: &crate::snapshot::SyncRow| {
            let interval = declared.get(&(&*row.source, &*row.job)).and_then(|job| job.interval);
            let interval = interval.and_then(|every| i64::try_from(every.as_micros()).ok());
            assess(row, interval, self.now_us).late_after_us
        };
        snapshot.sync.iter().filter_map(due).filter(|at| *at >= self.now_us).min().unwrap_or(0)
    }
}

/// The wanted jobs that are visible, by source and job, with the number of visible runs.
///
/// # Errors
/// When `work` is stopped, or has not the memory for it.
pub(super) fn job_statuses(
    snapshot: &Snapshot,
    settings: &ServingSettings,
    visible: &Visible,
    filter: &JobFilter,
    moment: Moment,
    work: &Work,
) -> Result<Vec<(JobStatus, i64)>, Stopped> {
    let seen = JobsSeen::of(&snapshot.summary, visible, work)?;
    let mut declared = declared_jobs(settings);
    let mut statuses = Vec::new();
    for row in &snapshot.sync {
        let declared = declared.remove(&(&*row.source, &*row.job));
        let (seen, runs) = seen.of_job(&row.source, &row.job);
        if seen != Seen::Nothing && filter.takes(&row.source, &row.job) {
            statuses.push((JobStatus::of(row, seen, declared, moment.now_us, moment.age_us), runs));
        }
    }
    let unseen = declared.into_values().filter(|job| filter.takes(&job.source, &job.job));
    let unseen = unseen.filter(|job| seen.of_job(&job.source, &job.job).0 != Seen::Nothing);
    statuses.extend(unseen.map(|job| (JobStatus::never_run(job), 0)));
    statuses.sort_by(|(left, _), (right, _)| (&left.source, &left.job).cmp(&(&right.source, &right.job)));
    Ok(statuses)
}

fn declared_jobs(settings: &ServingSettings) -> HashMap<(&str, &str), &DeclaredJob> {
    settings.declared_jobs.iter().map(|job| ((&*job.source, &*job.job), job)).collect()
}
