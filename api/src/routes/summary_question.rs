//! What a request to a summary route asks, from its parameters to a [`Selection`].

use chrono::{DateTime, Datelike, Days, NaiveDate};
use chrono_tz::Tz;
use karat_http::ApiError;
use poem_openapi::param::Query;
use serde::{Deserialize, Serialize};

use crate::{
    serving::{
        KeyParts,
        params::Params,
        raw::{CursorText, DateText, FlagText, GroupText, LimitText, NameText, ParentText, Raw, ZoneText},
    },
    summary::{
        GroupBy, Selection, Visible,
        calendar::{Grain, spans},
    },
};

/// Days of the range when the request does not say.
const DEFAULT_DAYS: u64 = 30;
/// A year and some more: 9,600 buckets, which fit into a page.
const MAX_DAYS_OF_HOURS: i64 = 400;

pub(super) type Parameter<K> = Query<Option<Raw<K>>>;

/// The parameters that the three routes share, as they were sent.
pub(super) struct Sent<'a> {
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    pub(super) job: Option<&'a str>,
    pub(super) tz: Option<&'a str>,
    pub(super) group_by: Option<&'a str>,
    pub(super) parent: Option<&'a str>,
    pub(super) fill: Option<&'a str>,
    pub(super) limit: Option<&'a str>,
    pub(super) cursor: Option<&'a str>,
}

/// A question as it was understood.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) grain: Grain,
    pub(super) zone: Tz,
    pub(super) from: Option<NaiveDate>,
    pub(super) to: Option<NaiveDate>,
    pub(super) source: Option<String>,
    pub(super) job: Option<String>,
    pub(super) group_by: GroupBy,
    pub(super) top_level_only: bool,
    pub(super) fill: bool,
    pub(super) limit: usize,
}

/// Where a page begins. The dates are in it, since the default range moves at midnight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) from: NaiveDate,
    pub(super) to: NaiveDate,
    pub(super) at: usize,
}

impl<'a> Sent<'a> {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn of(
        from: &'a Parameter<DateText>,
        to: &'a Parameter<DateText>,
        source: &'a Parameter<NameText>,
        job: &'a Parameter<NameText>,
        tz: &'a Parameter<ZoneText>,
        group_by: &'a Parameter<GroupText>,
        parent: &'a Parameter<ParentText>,
        fill: &'a Parameter<FlagText>,
        limit: &'a Parameter<LimitText>,
        cursor: &'a Parameter<CursorText>,
    ) -> Self {
        Self {
            from: from.as_deref(),
            to: to.as_deref(),
            source: source.as_deref(),
            job: job.as_deref(),
            tz: tz.as_deref(),
            group_by: group_by.as_deref(),
            parent: parent.as_deref(),
            fill: fill.as_deref(),
            limit: limit.as_deref(),
            cursor: cursor.as_deref(),
        }
    }

    pub(super) fn understand(&self, grain: Grain, params: &mut Params) -> Asked {
        let (from, to) = (params.date("from", self.from), params.date("to", self.to));
        params.in_order(from, to);
        let groups = [("source", GroupBy::Source), ("job", GroupBy::Job), ("none", GroupBy::Nothing)];
        Asked {
            grain,
            zone: params.zone("tz", self.tz),
            from,
            to,
            source: self.source.map(str::to_owned),
            job: self.job.map(str::to_owned),
            group_by: params.choice("group_by", self.group_by, &groups).unwrap_or_default(),
            top_level_only: params.choice("parent", self.parent, &[("none", ())]).is_some(),
            fill: params.flag("fill", self.fill),
            limit: params.limit(self.limit),
        }
    }
}

impl Asked {
    /// The asked dates, or the last 30 days on the zone's calendar.
    pub(super) fn range(&self, now_us: i64) -> Position {
        let today = DateTime::from_timestamp_micros(now_us).unwrap_or_default().with_timezone(&self.zone).date_naive();
        let to = self.to.unwrap_or_else(|| self.from.map_or(today, |from| today.max(from)));
        let from = self.from.unwrap_or_else(|| to.checked_sub_days(Days::new(DEFAULT_DAYS - 1)).unwrap_or(to));
        Position { from, to, at: 0 }
    }

    /// What of a question this is, from the dates on which it begins and ends; the page apart.
    pub(super) fn parts(&self, begin: &Position, question: &mut KeyParts) {
        question
            .number("grain", self.grain as u8)
            .text("tz", self.zone.name())
            .number("from", begin.from.num_days_from_ce())
            .number("to", begin.to.num_days_from_ce())
            .maybe("source", self.source.as_deref())
            .maybe("job", self.job.as_deref())
            .number("group_by", self.group_by as u8)
            .flag("top_level", self.top_level_only)
            .flag("fill", self.fill);
    }

    /// # Errors
    /// 422 when the range has too many buckets to be made.
    pub(super) fn check(&self, begin: &Position) -> Result<(), ApiError> {
        let days = (begin.to - begin.from).num_days() + 1;
        if self.grain != Grain::Hour || days <= MAX_DAYS_OF_HOURS {
            return Ok(());
        }
        let range = format!("`{}` to `{}`", begin.from, begin.to);
        let mut params = Params::default();
        params.add("grain", &format!("`hour` for at most {MAX_DAYS_OF_HOURS} days"), &format!("{days} days, {range}"));
        params.finish()
    }

    pub(super) fn selection(&self, begin: &Position, visible: Visible, end: usize) -> Selection {
        Selection {
            spans: spans(self.zone, begin.from, begin.to, self.grain),
            source: self.source.clone(),
            job: self.job.clone(),
            top_level_only: self.top_level_only,
            group_by: self.group_by,
            fill: self.fill,
            visible,
            page: begin.at..end,
        }
    }
}
