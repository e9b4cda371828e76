//! `GET /summary/export` and `GET /runs/export`: the rows of these routes as files.

use std::sync::Arc;

use futures::{StreamExt, stream};
use karat_http::{ApiError, Authenticated, error_answers};
use poem::Request;
use poem_openapi::OpenApi;

use super::{
    DataTag,
    runs::{Dates, STATUSES, text},
    summary::GRAINS,
    summary_question::{Asked, Parameter, Sent},
    summary_rows::Buckets,
};
use crate::{
    export::{ExportAnswer, File, Form, Format, Rows},
    serving::{
        KeyParts, Question, Serving, now_us,
        params::Params,
        raw::{DateText, FlagText, FormatText, GrainText, GroupText, NameText, ParentText, StatusText, ZoneText},
        run_columns,
        runs::RunFilter,
    },
    snapshot::RUNS,
    summary::{Slices, Stopped, calendar::Grain},
};

error_answers! {
    /// Errors of the files.
    pub ExportError: 400, 401, 403, 422, 429, 503, 504;
}

const OF_SUMMARY: [&str; 11] =
    ["from", "to", "source", "job", "tz", "group_by", "parent", "fill", "grain", "format", "bom"];
const OF_RUNS: [&str; 10] = ["source", "job", "status", "user", "from", "to", "tz", "parent", "format", "bom"];

/// Operations that answer files.
pub struct ExportsApi {
    serving: Arc<Serving>,
}

impl ExportsApi {
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[OpenApi(tag = "DataTag::Exports")]
impl ExportsApi {
    /// Export the summary
    ///
    /// The buckets of `GET /summary` as a file, all of them, oldest first. `start` and `end` are instants in UTC.
    #[oai(path = "/summary/export", method = "get", operation_id = "export_summary")]
    #[allow(clippy::too_many_arguments)]
    async fn summary(
        &self,
        request: &Request,
        caller: Authenticated,
        /// First date, in `tz`. Default: 29 days before `to`.
        from: Parameter<DateText>,
        /// Last date, included. Default: today in `tz`.
        to: Parameter<DateText>,
        /// Only this source.
        source: Parameter<NameText>,
        /// Only jobs of this name.
        job: Parameter<NameText>,
        /// The zone of the dates.
        tz: Parameter<ZoneText>,
        /// Split buckets by source, or by source and job.
        group_by: Parameter<GroupText>,
        /// `none`: only runs without a parent.
        parent: Parameter<ParentText>,
        /// Give buckets without runs too.
        fill: Parameter<FlagText>,
        /// The length of a bucket. Default: `day`. Hours are given for at most 400 days; a week begins on Monday.
        grain: Parameter<GrainText>,
        /// The form of the file. Spreadsheets have at most 10 sheets of 1000000 rows.
        format: Parameter<FormatText>,
        /// Whether CSV begins with a byte order mark, which some spreadsheets need.
        bom: Parameter<FlagText>,
    ) -> Result<ExportAnswer, ExportError> {
        let mut params = Params::of(request, &OF_SUMMARY);
        let grain = params.choice("grain", grain.as_deref(), &GRAINS).unwrap_or(Grain::Day);
        let sent = Sent {
            from: from.as_deref(),
            to: to.as_deref(),
            source: source.as_deref(),
            job: job.as_deref(),
            tz: tz.as_deref(),
            group_by: group_by.as_deref(),
            parent: parent.as_deref(),
            fill: fill.as_deref(),
            limit: None,
            cursor: None,
        };
        let asked = sent.understand(grain, &mut params);
        let form = form(&mut params, &format, &bom);
        params.finish()?;
        Ok(self.of_summary(request, &caller, asked, form).await?)
    }

    /// Export runs
    ///
    /// The runs of `GET /runs` as a file, all of them, of one epoch and in no order.
    #[oai(path = "/runs/export", method = "get", operation_id = "export_runs")]
    #[allow(clippy::too_many_arguments)]
    async fn runs(
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
        /// The form of the file. Spreadsheets have at most 10 sheets of 1000000 rows.
        format: Parameter<FormatText>,
        /// Whether CSV begins with a byte order mark, which some spreadsheets need.
        bom: Parameter<FlagText>,
    ) -> Result<ExportAnswer, ExportError> {
        let mut params = Params::of(request, &OF_RUNS);
        let dates = Dates { from: &from, to: &to, tz: &tz };
        let mut filter = dates.understand(&mut params);
        filter.source = text(&source);
        filter.job = text(&job);
        filter.status = params.choice("status", status.as_deref(), &STATUSES);
        filter.user = text(&user);
        filter.top_level_only = params.choice("parent", parent.as_deref(), &[("none", ())]).is_some();
        let form = form(&mut params, &format, &bom);
        params.finish()?;
        Ok(self.of_runs(request, &caller, filter, form).await?)
    }
}

fn form(params: &mut Params, format: &Parameter<FormatText>, bom: &Parameter<FlagText>) -> Form {
    let format = params.choice("format", format.as_deref(), &Format::ALL).unwrap_or(Format::Csv);
    Form { format, has_mark: params.flag("bom", bom.as_deref()) }
}

/// What beside the question makes a file another one.
fn page(form: Form) -> KeyParts {
    let mut page = KeyParts::of("file");
    page.text("extension", form.format.extension()).flag("mark", form.has_mark);
    page
}

impl ExportsApi {
    async fn of_summary(
        &self,
        request: &Request,
        caller: &Authenticated,
        asked: Asked,
        form: Form,
    ) -> Result<ExportAnswer, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let now = now_us();
        let begin = asked.range(now);
        asked.check(&begin)?;
        let mut parts = scope.asks("summary_export");
        asked.parts(&begin, &mut parts);
        let snapshot = self.serving.snapshots.current();
        let freshness = self.serving.freshness(&snapshot, now);
        let question =
            Question { id: parts.key(), page: page(form), snapshot: Arc::clone(&snapshot), freshness, clock: 0 };
        let of = asked.source.as_ref().map(|source| format!("-{source}")).unwrap_or_default();
        let file = File { name: format!("summary-{}-{}{of}", begin.from, begin.to), form };
        let selection = asked.selection(&begin, scope.visible, usize::MAX);
        let spans = selection.spans.clone();
        let buckets = Buckets { spans, grain: asked.grain, zone: asked.zone, group_by: asked.group_by };
        let schema = buckets.rows(&[]).map_err(ApiError::internal)?.schema();
        let serving = Arc::clone(&self.serving);
        let rows = move || {
            let slices = Slices::new(snapshot, selection, move || serving.fold_work());
            let batches = slices.map(move |cells: Result<_, Stopped>| {
                let cells: Vec<_> = cells?;
                buckets.rows(&cells).map_err(ApiError::internal)
            });
            Rows { schema, batches: stream::iter(batches).boxed() }
        };
        self.serving.export(request, question, file, rows).await
    }

    async fn of_runs(
        &self,
        request: &Request,
        caller: &Authenticated,
        filter: RunFilter,
        form: Form,
    ) -> Result<ExportAnswer, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let (mut parts, mut page) = (scope.asks("runs_export"), page(form));
        filter.parts(&mut parts, &mut page);
        let snapshot = self.serving.snapshots.current();
        let freshness = self.serving.freshness(&snapshot, now_us());
        let version = snapshot.epoch.tables.get(RUNS).copied();
        let of = filter.source.as_ref().map(|source| format!("-{source}")).unwrap_or_default();
        let file = File { name: format!("runs-of-epoch-{}{of}", snapshot.epoch.epoch), form };
        let question = Question { id: parts.key(), page, snapshot, freshness, clock: 0 };
        let serving = Arc::clone(&self.serving);
        let rows = move || {
            let batches = match version {
                Some(version) => serving.runs.all(version, scope.visible, filter),
                None => stream::empty().boxed(),
            };
            Rows { schema: run_columns::schema(), batches }
        };
        self.serving.export(request, question, file, rows).await
    }
}
