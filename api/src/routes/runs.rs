//! `GET /runs`, `/runs/{run_id}` and `/jobs/{source}/{job}/runs`.

use std::sync::Arc;

use chrono::NaiveDate;
use karat_http::{ApiError, Authenticated, error_answers};
use poem::{Request, http::StatusCode};
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};

use super::{
    DataTag,
    cover::Cover,
    run_views::{Run, RunDetail, RunPage},
};
use crate::{
    serving::{
        DataAnswer, KeyParts, Question, Serving, envelope, now_us,
        params::Params,
        raw::{CursorText, DateText, LimitText, NameText, ParentText, Raw, StatusText, ZoneText},
        runs::{RunFilter, RunKey, RunRow},
    },
    snapshot::{RUNS, Snapshot},
    summary::{Visible, calendar::day_start},
};

error_answers! {
    /// Errors of the list of runs.
    pub ListRunsError: 400, 401, 403, 410, 422, 429, 503, 504;
    /// Errors of the list of a job's runs. 404 is for a path that cannot be read: a job without runs has an empty list.
    pub ListJobRunsError: 400, 401, 403, 404, 410, 422, 429, 503, 504;
    /// Errors of `GET /runs/{run_id}`.
    pub ReadRunError: 400, 401, 403, 404, 409, 422, 429, 503, 504;
}

/// Child runs in the answer about one run.
const MAX_CHILDREN: usize = 1_000;

pub(super) const STATUSES: [(&str, &str); 4] =
    [("completed", "completed"), ("failed", "failed"), ("aborted", "aborted"), ("running", "running")];

type Parameter<K> = Query<Option<Raw<K>>>;

/// Operations on runs.
pub struct RunsApi {
    serving: Arc<Serving>,
}

impl RunsApi {
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[OpenApi(tag = "DataTag::Runs")]
impl RunsApi {
    /// List runs
    ///
    /// Newest first. The pages of one list are of one epoch.
    #[oai(path = "/runs", method = "get", operation_id = "list_runs")]
    #[allow(clippy::too_many_arguments)]
    async fn list(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Only this source.
        source: Parameter<NameText>,
        /// Only jobs of this name.
        job: Parameter<NameText>,
        /// Only runs with this status.
        status: Parameter<StatusText>,
        /// Only runs of this user, by id.
        user: Parameter<NameText>,
        /// Started on this date or later, in `tz`.
        from: Parameter<DateText>,
        /// Started on this date or earlier, in `tz`.
        to: Parameter<DateText>,
        /// The zone of the dates.
        tz: Parameter<ZoneText>,
        /// `none`: only runs without a parent.
        parent: Parameter<ParentText>,
        /// Runs of a page. Default: 1000.
        limit: Parameter<LimitText>,
        /// From `next_cursor` of the page before.
        cursor: Parameter<CursorText>,
    ) -> Result<DataAnswer<RunPage>, ListRunsError> {
        let known = ["source", "job", "status", "user", "from", "to", "tz", "parent", "limit", "cursor"];
        let mut params = Params::of(request, &known);
        let dates = Dates { from: &from, to: &to, tz: &tz };
        let mut filter = dates.understand(&mut params);
        filter.source = text(&source);
        filter.job = text(&job);
        filter.status = params.choice("status", status.as_deref(), &STATUSES);
        filter.user = text(&user);
        filter.top_level_only = params.choice("parent", parent.as_deref(), &[("none", ())]).is_some();
        filter.limit = params.limit(limit.as_deref());
        params.finish()?;
        Ok(self.page(request, &caller, filter, cursor.as_deref()).await?)
    }

    /// List the runs of a job
    ///
    /// Newest first. The pages of one list are of one epoch.
    #[oai(path = "/jobs/:source/:job/runs", method = "get", operation_id = "list_job_runs")]
    #[allow(clippy::too_many_arguments)]
    async fn list_of_job(
        &self,
        request: &Request,
        caller: Authenticated,
        /// The source, percent-encoded.
        source: Path<String>,
        /// The job, percent-encoded.
        job: Path<String>,
        /// Only runs with this status.
        status: Parameter<StatusText>,
        /// Started on this date or later, in `tz`.
        from: Parameter<DateText>,
        /// Started on this date or earlier, in `tz`.
        to: Parameter<DateText>,
        /// The zone of the dates.
        tz: Parameter<ZoneText>,
        /// Runs of a page. Default: 1000.
        limit: Parameter<LimitText>,
        /// From `next_cursor` of the page before.
        cursor: Parameter<CursorText>,
    ) -> Result<DataAnswer<RunPage>, ListJobRunsError> {
        let mut params = Params::of(request, &["status", "from", "to", "tz", "limit", "cursor"]);
        let dates = Dates { from: &from, to: &to, tz: &tz };
        let mut filter = dates.understand(&mut params);
        (filter.source, filter.job) = (Some(source.0), Some(job.0));
        filter.status = params.choice("status", status.as_deref(), &STATUSES);
        filter.limit = params.limit(limit.as_deref());
        params.finish()?;
        Ok(self.page(request, &caller, filter, cursor.as_deref()).await?)
    }

    /// Read a run
    ///
    /// With its parent and its children. Two sources may use one id for different runs: name the source then.
    #[oai(path = "/runs/:run_id", method = "get", operation_id = "read_run")]
    async fn read(
        &self,
        request: &Request,
        caller: Authenticated,
        /// The run's id.
        run_id: Path<String>,
        /// The run's source.
        source: Parameter<NameText>,
    ) -> Result<DataAnswer<RunDetail>, ReadRunError> {
        Params::of(request, &["source"]).finish()?;
        Ok(self.one(request, &caller, run_id.0, text(&source)).await?)
    }
}

pub(super) struct Dates<'a> {
    pub(super) from: &'a Parameter<DateText>,
    pub(super) to: &'a Parameter<DateText>,
    pub(super) tz: &'a Parameter<ZoneText>,
}

impl Dates<'_> {
    pub(super) fn understand(&self, params: &mut Params) -> RunFilter {
        let (from, to) = (params.date("from", self.from.as_deref()), params.date("to", self.to.as_deref()));
        params.in_order(from, to);
        let zone = params.zone("tz", self.tz.as_deref());
        let start = |date: NaiveDate| day_start(zone, date).timestamp_micros();
        RunFilter {
            from_us: from.map(start),
            to_us: to.and_then(|date| date.succ_opt()).map(start),
            ..RunFilter::default()
        }
    }
}

impl RunsApi {
    async fn page(
        &self,
        request: &Request,
        caller: &Authenticated,
        filter: RunFilter,
        cursor: Option<&str>,
    ) -> Result<DataAnswer<RunPage>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let cursor = self.serving.read_cursor::<RunKey>(cursor)?;
        let filter = RunFilter { after: cursor.as_ref().map(|cursor| cursor.position.clone()), ..filter };
        // The limit may change between pages; the rest of the question may not.
        let (mut parts, mut page) = (scope.asks("runs"), KeyParts::of("page"));
        filter.parts(&mut parts, &mut page);
        let id = parts.key();
        if let Some(cursor) = &cursor {
            cursor.check_question(id)?;
        }
        let snapshot = self.serving.snapshot_of(cursor.as_ref()).await?;
        let cover = Cover::of(&snapshot, self.serving.freshness(&snapshot, now_us()));
        let question = Question { id, page, snapshot: Arc::clone(&snapshot), freshness: cover.freshness, clock: 0 };
        let serving = Arc::clone(&self.serving);
        let render = async move {
            let limit = filter.limit;
            // One more than asked tells whether there is another page.
            let wanted = RunFilter { limit: limit + 1, ..filter };
            let mut rows = find(&serving, &snapshot, &scope.visible, wanted).await?;
            let page = serving.compute(move |serving, _| {
                let has_more = rows.len() > limit;
                rows.truncate(limit);
                let last = rows.last().filter(|_| has_more).map(RunRow::key);
                let next_cursor = last.map(|key| serving.next_cursor(&snapshot, id, key)).transpose()?;
                let page = RunPage {
                    epoch: cover.epoch,
                    as_of: cover.as_of(),
                    data_state: cover.freshness.data_state,
                    runs: rows.into_iter().map(Run::from).collect(),
                    next_cursor,
                };
                envelope(&page, "runs, newest first")
            });
            page.await
        };
        self.serving.answer(request, question, render).await
    }

    async fn one(
        &self,
        request: &Request,
        caller: &Authenticated,
        run_id: String,
        source: Option<String>,
    ) -> Result<DataAnswer<RunDetail>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let snapshot = self.serving.snapshots.current();
        let cover = Cover::of(&snapshot, self.serving.freshness(&snapshot, now_us()));
        let wanted = RunFilter { run_id: Some(run_id.clone()), source, limit: 2, ..RunFilter::default() };
        let (mut parts, mut page) = (scope.asks("run"), KeyParts::of("page"));
        wanted.parts(&mut parts, &mut page);
        let (id, freshness) = (parts.key(), cover.freshness);
        let question = Question { id, page, snapshot: Arc::clone(&snapshot), freshness, clock: 0 };
        let serving = Arc::clone(&self.serving);
        let render = async move {
            let mut found = find(&serving, &snapshot, &scope.visible, wanted).await?;
            if found.len() > 1 {
                return Err(ambiguous());
            }
            let run = found.pop().ok_or_else(|| ApiError::not_found("there is no such run"))?;
            let mut parent = Vec::new();
            if let Some(id) = &run.parent_run_id {
                let wanted = RunFilter { run_id: Some(id.clone()), limit: 1, ..RunFilter::default() };
                parent = find(&serving, &snapshot, &scope.visible, wanted).await?;
            }
            let wanted = RunFilter { parent_run_id: Some(run_id), limit: MAX_CHILDREN, ..RunFilter::default() };
            let children = find(&serving, &snapshot, &scope.visible, wanted).await?;
            let detail = RunDetail {
                epoch: cover.epoch,
                as_of: cover.as_of(),
                data_state: cover.freshness.data_state,
                run: run.into(),
                parent: parent.pop().map(Run::from),
                children: children.into_iter().map(Run::from).collect(),
            };
            envelope(&detail, "the run, its parent and its children")
        };
        self.serving.answer(request, question, render).await
    }
}

async fn find(
    serving: &Serving,
    snapshot: &Snapshot,
    visible: &Visible,
    filter: RunFilter,
) -> Result<Vec<RunRow>, ApiError> {
    match snapshot.epoch.tables.get(RUNS) {
        Some(version) => serving.runs.find(*version, visible, &filter).await,
        None => Ok(Vec::new()),
    }
}

fn ambiguous() -> ApiError {
    let message = "several sources have a run with this id: name one of them with `source`";
    ApiError::new(StatusCode::CONFLICT, "ambiguous_run", message)
}

pub(super) fn text(parameter: &Parameter<NameText>) -> Option<String> {
    parameter.as_deref().map(str::to_owned)
}
