//! `GET /summary`, `/summary/weekly`, `/summary/monthly`.

use std::sync::Arc;

use karat_http::{ApiError, Authenticated, error_answers};
use poem::Request;
use poem_openapi::OpenApi;

use super::{
    DataTag,
    cover::Cover,
    summary_question::{Asked, Parameter, Position, Sent},
    summary_views::{Bucket, Summary},
};
use crate::{
    serving::{
        DataAnswer, KeyParts, Question, Serving, envelope, now_us,
        params::Params,
        raw::{
            CursorText, DateText, FlagText, GrainText, GroupText, LimitText, NameText, ParentText, WeekText, ZoneText,
        },
    },
    summary::{calendar::Grain, fold},
};

error_answers! {
    /// Errors of the summary routes.
    pub SummaryError: 400, 401, 403, 410, 422, 429, 503, 504;
}

const KNOWN: [&str; 10] = ["from", "to", "source", "job", "tz", "group_by", "parent", "fill", "limit", "cursor"];
const KNOWN_DAILY: [&str; 11] =
    ["from", "to", "source", "job", "tz", "group_by", "parent", "fill", "limit", "cursor", "grain"];
const KNOWN_WEEKLY: [&str; 11] =
    ["from", "to", "source", "job", "tz", "group_by", "parent", "fill", "limit", "cursor", "week_start"];

pub(super) const GRAINS: [(&str, Grain); 6] = [
    ("hour", Grain::Hour),
    ("day", Grain::Day),
    ("week", Grain::IsoWeek),
    ("month", Grain::Month),
    ("quarter", Grain::Quarter),
    ("year", Grain::Year),
];

/// Operations on summaries.
pub struct SummaryApi {
    serving: Arc<Serving>,
}

impl SummaryApi {
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[OpenApi(tag = "DataTag::Summary")]
impl SummaryApi {
    /// Summary by day
    ///
    /// Figures of the runs that started on each local date of the range, or in longer or shorter buckets by `grain`.
    #[oai(path = "/summary", method = "get", operation_id = "read_daily_summary")]
    #[allow(clippy::too_many_arguments)]
    async fn daily(
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
        /// Buckets of a page. Default: 1000.
        limit: Parameter<LimitText>,
        /// From `next_cursor` of the page before.
        cursor: Parameter<CursorText>,
        /// The length of a bucket. Default: `day`. Hours are given for at most 400 days; a week begins on Monday.
        grain: Parameter<GrainText>,
    ) -> Result<DataAnswer<Summary>, SummaryError> {
        let mut params = Params::of(request, &KNOWN_DAILY);
        let grain = params.choice("grain", grain.as_deref(), &GRAINS).unwrap_or(Grain::Day);
        let sent = Sent::of(&from, &to, &source, &job, &tz, &group_by, &parent, &fill, &limit, &cursor);
        let asked = sent.understand(grain, &mut params);
        params.finish()?;
        Ok(self.answer(request, &caller, asked, sent.cursor).await?)
    }

    /// Summary by week
    ///
    /// ISO weeks, or weeks that begin on Sunday. Only dates within the range are counted.
    #[oai(path = "/summary/weekly", method = "get", operation_id = "read_weekly_summary")]
    #[allow(clippy::too_many_arguments)]
    async fn weekly(
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
        /// Buckets of a page. Default: 1000.
        limit: Parameter<LimitText>,
        /// From `next_cursor` of the page before.
        cursor: Parameter<CursorText>,
        /// The day that weeks begin on. Default: `monday`, with ISO week numbers.
        week_start: Parameter<WeekText>,
    ) -> Result<DataAnswer<Summary>, SummaryError> {
        let mut params = Params::of(request, &KNOWN_WEEKLY);
        let grains = [("monday", Grain::IsoWeek), ("sunday", Grain::SundayWeek)];
        let grain = params.choice("week_start", week_start.as_deref(), &grains).unwrap_or(Grain::IsoWeek);
        let sent = Sent::of(&from, &to, &source, &job, &tz, &group_by, &parent, &fill, &limit, &cursor);
        let asked = sent.understand(grain, &mut params);
        params.finish()?;
        Ok(self.answer(request, &caller, asked, sent.cursor).await?)
    }

    /// Summary by month
    ///
    /// Calendar months. Only dates within the range are counted.
    #[oai(path = "/summary/monthly", method = "get", operation_id = "read_monthly_summary")]
    #[allow(clippy::too_many_arguments)]
    async fn monthly(
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
        /// Buckets of a page. Default: 1000.
        limit: Parameter<LimitText>,
        /// From `next_cursor` of the page before.
        cursor: Parameter<CursorText>,
    ) -> Result<DataAnswer<Summary>, SummaryError> {
        let mut params = Params::of(request, &KNOWN);
        let sent = Sent::of(&from, &to, &source, &job, &tz, &group_by, &parent, &fill, &limit, &cursor);
        let asked = sent.understand(Grain::Month, &mut params);
        params.finish()?;
        Ok(self.answer(request, &caller, asked, sent.cursor).await?)
    }
}

impl SummaryApi {
    async fn answer(
        &self,
        request: &Request,
        caller: &Authenticated,
        asked: Asked,
        cursor: Option<&str>,
    ) -> Result<DataAnswer<Summary>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let cursor = self.serving.read_cursor::<Position>(cursor)?;
        let now = now_us();
        let begin = match &cursor {
            Some(cursor) => cursor.position.clone(),
            None => asked.range(now),
        };
        asked.check(&begin)?;
        let asked = Asked { from: Some(begin.from), to: Some(begin.to), ..asked };
        // The limit may change between pages; the rest of the question may not.
        let mut parts = scope.asks("summary");
        asked.parts(&begin, &mut parts);
        let id = parts.key();
        if let Some(cursor) = &cursor {
            cursor.check_question(id)?;
        }
        let mut page = KeyParts::of("page");
        page.number("limit", asked.limit as u64).number("at", begin.at as u64);
        let snapshot = self.serving.snapshot_of(cursor.as_ref()).await?;
        let cover = Cover::of(&snapshot, self.serving.freshness(&snapshot, now));
        let question = Question { id, page, snapshot: Arc::clone(&snapshot), freshness: cover.freshness, clock: 0 };
        let render = Arc::clone(&self.serving).compute(move |serving, work| {
            let end = begin.at.saturating_add(asked.limit);
            let selection = asked.selection(&begin, scope.visible, end);
            let folded = fold(&snapshot.summary, &selection, work)?;
            let has_more = folded.num_cells > end;
            let next = has_more.then(|| serving.next_cursor(&snapshot, id, Position { at: end, ..begin.clone() }));
            let bucket = |cell: crate::summary::Cell| {
                let span = selection.spans[cell.span];
                Bucket::of(cell, &span, asked.grain, asked.zone)
            };
            let summary = Summary {
                epoch: cover.epoch,
                as_of: cover.as_of(),
                data_state: cover.freshness.data_state,
                from: begin.from.to_string(),
                to: begin.to.to_string(),
                tz: asked.zone.name().to_owned(),
                buckets: folded.cells.into_iter().map(bucket).collect(),
                totals: folded.totals,
                next_cursor: next.transpose()?,
            };
            envelope(&summary, "figures of the runs that started in each bucket")
        });
        self.serving.answer(request, question, render).await
    }
}
