//! `GET /jobs`.

use std::sync::Arc;

use karat_http::{ApiError, Authenticated, error_answers};
use poem::Request;
use poem_openapi::{Object, OpenApi, param::Query, types::Example};
use serde::Serialize;

use super::{
    DataTag,
    cover::Cover,
    sync_status::{JobFilter, Moment, job_statuses},
    sync_views::{JobStatus, SyncStatus},
};
use crate::serving::{
    DataAnswer, KeyParts, Question, Serving, envelope,
    freshness::DataState,
    params::Params,
    raw::{CursorText, LimitText, NameText, Raw},
};

error_answers! {
    /// Errors of `GET /jobs`.
    pub ListJobsError: 400, 401, 403, 410, 422, 429, 503, 504;
}

/// Operations on jobs.
pub struct JobsApi {
    serving: Arc<Serving>,
}

impl JobsApi {
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

/// A job and how it stands.
#[derive(Debug, Clone, Serialize, Object)]
pub struct Job {
    /// Its runs that the caller sees.
    pub runs: i64,
    #[serde(flatten)]
    #[oai(flatten)]
    pub status: JobStatus,
}

/// A page of jobs.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct JobPage {
    pub epoch: u64,
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    /// By source and name.
    pub jobs: Vec<Job>,
    /// For the next page; null on the last.
    #[oai(nullable)]
    pub next_cursor: Option<String>,
}

impl Example for JobPage {
    fn example() -> Self {
        let status = SyncStatus::example();
        let jobs = status.jobs.into_iter().map(|status| Job { runs: 731, status }).collect();
        Self { epoch: status.epoch, as_of: status.as_of, data_state: status.data_state, jobs, next_cursor: None }
    }
}

#[OpenApi(tag = "DataTag::Runs")]
impl JobsApi {
    /// List jobs
    ///
    /// Every job that has run, or is declared, by source and name.
    #[oai(path = "/jobs", method = "get", operation_id = "list_jobs")]
    async fn list(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Only this source.
        source: Query<Option<Raw<NameText>>>,
        /// Jobs of a page. Default: 1000.
        limit: Query<Option<Raw<LimitText>>>,
        /// From `next_cursor` of the page before.
        cursor: Query<Option<Raw<CursorText>>>,
    ) -> Result<DataAnswer<JobPage>, ListJobsError> {
        let mut params = Params::of(request, &["source", "limit", "cursor"]);
        let limit = params.limit(limit.as_deref());
        params.finish()?;
        let filter = JobFilter { source: source.as_deref().map(str::to_owned), job: None };
        Ok(self.answer(request, &caller, filter, limit, cursor.as_deref()).await?)
    }
}

impl JobsApi {
    async fn answer(
        &self,
        request: &Request,
        caller: &Authenticated,
        filter: JobFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<DataAnswer<JobPage>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let cursor = self.serving.read_cursor::<usize>(cursor)?;
        let mut parts = scope.asks("jobs");
        filter.parts(&mut parts);
        let id = parts.key();
        if let Some(cursor) = &cursor {
            cursor.check_question(id)?;
        }
        let snapshot = self.serving.snapshot_of(cursor.as_ref()).await?;
        let begin = cursor.map_or(0, |cursor| cursor.position);
        let moment = Moment::now();
        let cover = Cover::of(&snapshot, self.serving.freshness(&snapshot, moment.now_us));
        let mut page = KeyParts::of("page");
        page.number("limit", limit as u64).number("at", begin as u64).number("age", moment.age_us);
        let clock = moment.next_change(&snapshot, &self.serving.settings);
        let question = Question { id, page, snapshot: Arc::clone(&snapshot), freshness: cover.freshness, clock };
        let render = Arc::clone(&self.serving).compute(move |serving, work| {
            let statuses = job_statuses(&snapshot, &serving.settings, &scope.visible, &filter, moment, work)?;
            let end = begin.saturating_add(limit);
            let next = (statuses.len() > end).then(|| serving.next_cursor(&snapshot, id, end));
            let jobs = statuses.into_iter().skip(begin).take(limit).map(|(status, runs)| Job { runs, status });
            let page = JobPage {
                epoch: cover.epoch,
                as_of: cover.as_of(),
                data_state: cover.freshness.data_state,
                jobs: jobs.collect(),
                next_cursor: next.transpose()?,
            };
            envelope(&page, "jobs, by source and name")
        });
        self.serving.answer(request, question, render).await
    }
}
