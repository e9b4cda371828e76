//! Local dates of any IANA zone as ranges of instants.
//!
//! A date begins at its first instant on the zone's clocks: after a gap over midnight that is later than 00:00, and of
//! two midnights it is the earlier. Days may have 23 or 25 hours (or others), and a date that a zone skipped has none:
//! it is no day and gets no bucket. Rows are assigned by the start of their 15-minute slice (decision 36), which is
//! exact for every zone whose offset has been a multiple of 15 minutes since 1980: all of them.
//!
//! Vocabulary: a *span* is one bucket of an answer: the days of its label that lie within the asked range.

use chrono::{
    DateTime, Datelike, Days, LocalResult, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc,
    Weekday,
};
use chrono_tz::Tz;

/// The length of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grain {
    Day,
    /// Weeks that begin on Monday, labelled by ISO 8601 (`2026-W05`).
    IsoWeek,
    /// Weeks that begin on Sunday, labelled by that date.
    SundayWeek,
    Month,
}

/// One bucket of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First date of the bucket, also when the asked range begins later.
    pub first: NaiveDate,
    /// First date of the next bucket.
    pub next: NaiveDate,
    /// First instant that counts, microseconds since 1970 UTC.
    pub from_us: i64,
    /// First instant that no longer counts.
    pub to_us: i64,
}

impl Grain {
    /// The first date of the bucket that holds `date`.
    pub fn first_date(self, date: NaiveDate) -> NaiveDate {
        let days_back = match self {
            Self::Day => 0,
            Self::IsoWeek => date.weekday().days_since(Weekday::Mon),
            Self::SundayWeek => date.weekday().days_since(Weekday::Sun),
            Self::Month => date.day0(),
        };
        date.checked_sub_days(Days::new(days_back.into())).unwrap_or(date)
    }

    /// The first date of the bucket after the one that begins at `first`.
    pub fn next_date(self, first: NaiveDate) -> NaiveDate {
        let next = match self {
            Self::Day => first.succ_opt(),
            Self::IsoWeek | Self::SundayWeek => first.checked_add_days(Days::new(7)),
            Self::Month => first.checked_add_months(Months::new(1)),
        };
        next.unwrap_or(NaiveDate::MAX)
    }

    /// The name of the bucket that begins at `first` (decision 27).
    pub fn label(self, first: NaiveDate) -> String {
        match self {
            Self::Day | Self::SundayWeek => first.to_string(),
            Self::IsoWeek => first.format("%G-W%V").to_string(),
            Self::Month => first.format("%Y-%m").to_string(),
        }
    }
}

/// The spans of the dates `from` to `to`, both included, oldest first and without holes.
pub fn spans(zone: Tz, from: NaiveDate, to: NaiveDate, grain: Grain) -> Vec<Span> {
    let mut spans = Vec::new();
    let end = to.succ_opt().unwrap_or(to);
    let mut first = grain.first_date(from);
    let mut from_us = day_start(zone, from).timestamp_micros();
    while first < end {
        let next = grain.next_date(first);
        let to_us = day_start(zone, next.min(end)).timestamp_micros();
        if to_us > from_us {
            spans.push(Span { first, next, from_us, to_us });
        }
        (first, from_us) = (next, to_us);
    }
    spans
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
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn days_begin_and_last_as_the_zones_clocks_say() {
        // Zone, date, first instant, hours of the day.
        let cases = [
            ("UTC", "2026-01-31", "2026-01-31T00:00:00+00:00", 24.0),
            ("Europe/Berlin", "2026-03-29", "2026-03-29T00:00:00+01:00", 23.0),
            ("Europe/Berlin", "2026-10-25", "2026-10-25T00:00:00+02:00", 25.0),
            ("America/New_York", "2026-03-08", "2026-03-08T00:00:00-05:00", 23.0),
            ("Asia/Kolkata", "2026-05-05", "2026-05-05T00:00:00+05:30", 24.0),
            ("Asia/Kathmandu", "2026-05-05", "2026-05-05T00:00:00+05:45", 24.0),
            ("Asia/Kathmandu", "1986-01-01", "1986-01-01T00:15:00+05:45", 23.75),
            ("Australia/Lord_Howe", "2026-04-05", "2026-04-05T00:00:00+11:00", 24.5),
            ("Pacific/Chatham", "2026-04-05", "2026-04-05T00:00:00+13:45", 25.0),
            // Midnight does not exist: the day begins at 01:00.
            ("America/Sao_Paulo", "2018-11-04", "2018-11-04T01:00:00-02:00", 23.0),
            ("Africa/Cairo", "2024-04-26", "2024-04-26T01:00:00+03:00", 23.0),
            // Midnight comes twice: the day begins at the first.
            ("America/Havana", "2026-11-01", "2026-11-01T00:00:00-04:00", 25.0),
            // The clocks go back over midnight, so the day before is the longer one.
            ("America/Sao_Paulo", "2018-02-17", "2018-02-17T00:00:00-02:00", 25.0),
            ("America/St_Johns", "2010-11-07", "2010-11-07T00:00:00-02:30", 25.0),
        ];
        for (zone, day, start, hours) in cases {
            let (zone, day): (Tz, _) = (zone.parse().unwrap(), date(day));
            let (first, next) = (day_start(zone, day), day_start(zone, day.succ_opt().unwrap()));
            assert_eq!(first.to_rfc3339(), start, "{zone} {day}");
            assert_eq!((next - first).num_minutes() as f64 / 60.0, hours, "{zone} {day}");
        }
    }

    #[test]
    fn a_date_that_a_zone_skipped_is_no_day() {
        let found = spans(chrono_tz::Pacific::Apia, date("2011-12-29"), date("2011-12-31"), Grain::Day);
        let dates: Vec<_> = found.iter().map(|span| span.first.to_string()).collect();
        assert_eq!(dates, ["2011-12-29", "2011-12-31"]);
        assert_eq!(found[0].to_us, found[1].from_us);
    }

    #[test]
    fn labels_name_days_weeks_and_months() {
        let cases = [
            (Grain::Day, "2026-01-31", "2026-01-31", "2026-01-31"),
            (Grain::IsoWeek, "2026-01-31", "2026-W05", "2026-01-26"),
            (Grain::IsoWeek, "2027-01-01", "2026-W53", "2026-12-28"),
            (Grain::IsoWeek, "2024-12-31", "2025-W01", "2024-12-30"),
            (Grain::SundayWeek, "2026-01-31", "2026-01-25", "2026-01-25"),
            (Grain::SundayWeek, "2026-02-01", "2026-02-01", "2026-02-01"),
            (Grain::Month, "2026-01-31", "2026-01", "2026-01-01"),
        ];
        for (grain, day, label, first) in cases {
            let found = grain.first_date(date(day));
            assert_eq!((grain.label(found).as_str(), found.to_string().as_str()), (label, first), "{grain:?} {day}");
        }
    }

    #[test]
    fn a_range_that_begins_within_a_week_counts_only_its_own_days() {
        let found = spans(Tz::UTC, date("2026-01-28"), date("2026-02-03"), Grain::IsoWeek);
        let firsts: Vec<_> = found.iter().map(|span| span.first.to_string()).collect();
        assert_eq!(firsts, ["2026-01-26", "2026-02-02"]);
        assert_eq!(found[0].from_us, day_start(Tz::UTC, date("2026-01-28")).timestamp_micros());
        assert_eq!(found[1].to_us, day_start(Tz::UTC, date("2026-02-04")).timestamp_micros());
    }
}
