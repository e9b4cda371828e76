//! Local dates of any IANA zone as ranges of instants.
//!
//! A date begins at its first instant on the zone's clocks: after a gap over midnight that is later than 00:00, and of
//! two midnights it is the earlier. Days may have 23 or 25 hours (or others), and a date that a zone skipped has none:
//! it is no day and gets no bucket. Rows are assigned by the start of their 15-minute slice (decision 36), which is
//! exact for every zone whose offset has been a multiple of 15 minutes since 1980: all of them.
//!
//! An hour is one on the zone's clocks: when they go back over it, it comes twice, with two offsets, and is two buckets.
//!
//! Vocabulary: a *span* is one bucket of an answer: the days of its label that lie within the asked range.

use chrono::{
    DateTime, Datelike, Days, LocalResult, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone,
    Utc, Weekday,
};
use chrono_tz::Tz;

/// The length of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grain {
    /// An hour on the clocks, labelled with its offset.
    Hour,
    Day,
    /// Weeks that begin on Monday, labelled by ISO 8601 (`2026-W05`).
    IsoWeek,
    /// Weeks that begin on Sunday, labelled by that date.
    SundayWeek,
    Month,
    Quarter,
    Year,
}

/// One bucket of an answer. Instants are microseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First date of the bucket, also when the asked range begins later.
    pub first: NaiveDate,
    /// First instant of the bucket.
    pub start_us: i64,
    /// First instant after it.
    pub end_us: i64,
    /// First instant that counts.
    pub from_us: i64,
    /// First instant that no longer counts.
    pub to_us: i64,
}

impl Grain {
    /// The first date of the bucket that holds `date`.
    pub fn first_date(self, date: NaiveDate) -> NaiveDate {
        let days_back = match self {
            Self::Hour | Self::Day => 0,
            Self::IsoWeek => date.weekday().days_since(Weekday::Mon),
            Self::SundayWeek => date.weekday().days_since(Weekday::Sun),
            Self::Month => date.day0(),
            Self::Quarter => {
                return date.with_day(1).and_then(|day| day.with_month0(date.month0() / 3 * 3)).unwrap_or(date);
            }
            Self::Year => date.ordinal0(),
        };
        date.checked_sub_days(Days::new(days_back.into())).unwrap_or(date)
    }

    /// The first date of the bucket after the one that begins at `first`.
    pub fn next_date(self, first: NaiveDate) -> NaiveDate {
        let next = match self {
            Self::Hour | Self::Day => first.succ_opt(),
            Self::IsoWeek | Self::SundayWeek => first.checked_add_days(Days::new(7)),
            Self::Month => first.checked_add_months(Months::new(1)),
            Self::Quarter => first.checked_add_months(Months::new(3)),
            Self::Year => first.checked_add_months(Months::new(12)),
        };
        next.unwrap_or(NaiveDate::MAX)
    }

    /// The name of the bucket that begins with the date `first` (decision 27). An hour's is in [`Span::label`].
    pub fn label(self, first: NaiveDate) -> String {
        match self {
            Self::Hour | Self::Day | Self::SundayWeek => first.to_string(),
            Self::IsoWeek => first.format("%G-W%V").to_string(),
            Self::Month => first.format("%Y-%m").to_string(),
            Self::Quarter => format!("{:04}-Q{}", first.year(), first.quarter()),
            Self::Year => first.format("%Y").to_string(),
        }
    }
}

impl Span {
    /// The name of the bucket: of an hour `2026-10-25T02:00+01:00`, else by its first date.
    pub fn label(&self, grain: Grain, zone: Tz) -> String {
        let start = DateTime::from_timestamp_micros(self.start_us).filter(|_| grain == Grain::Hour);
        start.map_or_else(
            || grain.label(self.first),
            |start| start.with_timezone(&zone).format("%Y-%m-%dT%H:%M%:z").to_string(),
        )
    }
}

/// The spans of the dates `from` to `to`, both included, oldest first and without holes.
pub fn spans(zone: Tz, from: NaiveDate, to: NaiveDate, grain: Grain) -> Vec<Span> {
    let end = to.succ_opt().unwrap_or(to);
    if grain == Grain::Hour {
        return hours(zone, from, end);
    }
    let start_of = |date| day_start(zone, date).timestamp_micros();
    let mut spans = Vec::new();
    let mut first = grain.first_date(from);
    let (mut start_us, mut from_us) = (start_of(first), start_of(from));
    while first < end {
        let next = grain.next_date(first);
        let end_us = start_of(next);
        let to_us = if next <= end { end_us } else { start_of(end) };
        if to_us > from_us {
            spans.push(Span { first, start_us, end_us, from_us, to_us });
        }
        (first, start_us, from_us) = (next, end_us, to_us);
    }
    spans
}

/// The hours on the clocks from the date `from` to before the date `end`.
fn hours(zone: Tz, from: NaiveDate, end: NaiveDate) -> Vec<Span> {
    let (mut at, end) = (day_start(zone, from).timestamp(), day_start(zone, end).timestamp());
    let mut spans = Vec::new();
    while at < end {
        let next = hour_end(zone, at).min(end);
        let Some(local) = DateTime::from_timestamp(at, 0).map(|at| at.with_timezone(&zone)) else { break };
        let (start_us, end_us) = (at * 1_000_000, next * 1_000_000);
        spans.push(Span { first: local.date_naive(), start_us, end_us, from_us: start_us, to_us: end_us });
        at = next;
    }
    spans
}

/// Where the hour that an instant is in ends, both in seconds: at the full hour, or when the clocks are set before.
fn hour_end(zone: Tz, at: i64) -> i64 {
    const HOUR_S: i64 = 3600;
    const QUARTER_S: i64 = 900;
    let offset = offset_s(zone, at);
    let full = at + HOUR_S - (at + offset).rem_euclid(HOUR_S);
    // Clocks have been set at whole quarters of an hour, see above.
    let quarters = (at.div_euclid(QUARTER_S) + 1)..(full + QUARTER_S - 1).div_euclid(QUARTER_S);
    let mut instants = quarters.map(|quarter| quarter * QUARTER_S);
    instants.find(|instant| offset_s(zone, *instant) != offset).unwrap_or(full)
}

fn offset_s(zone: Tz, at: i64) -> i64 {
    let at = DateTime::from_timestamp(at, 0).unwrap_or_default().naive_utc();
    zone.offset_from_utc_datetime(&at).fix().local_minus_utc().into()
}

/// The first instant of a date on the clocks of `zone`.
pub fn day_start(zone: Tz, date: NaiveDate) -> DateTime<Tz> {
    let midnight = date.and_time(NaiveTime::MIN);
    match zone.from_local_datetime(&midnight) {
        LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => instant,
        LocalResult::None => after_gap(zone, midnight),
    }
}

/// The instant at which the clocks jump over `midnight`: the first whose local time is not before it.
fn after_gap(zone: Tz, midnight: NaiveDateTime) -> DateTime<Tz> {
    let reach = TimeDelta::hours(36);
    let (mut before, mut after) = (midnight.and_utc() - reach, midnight.and_utc() + reach);
    while after - before > TimeDelta::seconds(1) {
        let middle = before + (after - before) / 2;
        if middle.with_timezone(&zone).naive_local() < midnight { before = middle } else { after = middle }
    }
    let whole_second = DateTime::<Utc>::from_timestamp(after.timestamp(), 0).unwrap_or(after);
    whole_second.with_timezone(&zone)
}

#[cfg(test)]
mod tests;
