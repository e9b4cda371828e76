//! Days, weeks and hours of odd zones and odd dates.

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
fn labels_name_days_weeks_months_quarters_and_years() {
    let cases = [
        (Grain::Day, "2026-01-31", "2026-01-31", "2026-01-31"),
        (Grain::IsoWeek, "2026-01-31", "2026-W05", "2026-01-26"),
        (Grain::IsoWeek, "2027-01-01", "2026-W53", "2026-12-28"),
        (Grain::IsoWeek, "2024-12-31", "2025-W01", "2024-12-30"),
        (Grain::SundayWeek, "2026-01-31", "2026-01-25", "2026-01-25"),
        (Grain::SundayWeek, "2026-02-01", "2026-02-01", "2026-02-01"),
        (Grain::IsoWeek, "2020-12-31", "2020-W53", "2020-12-28"),
        (Grain::IsoWeek, "2021-01-03", "2020-W53", "2020-12-28"),
        (Grain::IsoWeek, "2021-01-04", "2021-W01", "2021-01-04"),
        (Grain::SundayWeek, "2021-01-02", "2020-12-27", "2020-12-27"),
        (Grain::SundayWeek, "2021-01-03", "2021-01-03", "2021-01-03"),
        (Grain::Month, "2026-01-31", "2026-01", "2026-01-01"),
        (Grain::Month, "2024-02-29", "2024-02", "2024-02-01"),
        (Grain::Quarter, "2024-02-29", "2024-Q1", "2024-01-01"),
        (Grain::Quarter, "2025-03-31", "2025-Q1", "2025-01-01"),
        (Grain::Quarter, "2025-04-01", "2025-Q2", "2025-04-01"),
        (Grain::Quarter, "2025-08-31", "2025-Q3", "2025-07-01"),
        (Grain::Quarter, "2025-12-31", "2025-Q4", "2025-10-01"),
        (Grain::Year, "2024-12-31", "2024", "2024-01-01"),
        (Grain::Year, "2025-01-01", "2025", "2025-01-01"),
    ];
    for (grain, day, label, first) in cases {
        let found = grain.first_date(date(day));
        assert_eq!((grain.label(found).as_str(), found.to_string().as_str()), (label, first), "{grain:?} {day}");
    }
}

#[test]
fn a_range_that_begins_within_a_week_counts_only_its_own_days() {
    let found = spans(Tz::UTC, date("2026-01-28"), date("2026-02-03"), Grain::IsoWeek);
    assert_eq!(found[0].start_us, day_start(Tz::UTC, date("2026-01-26")).timestamp_micros());
    assert_eq!(found[1].end_us, day_start(Tz::UTC, date("2026-02-09")).timestamp_micros());
    let firsts: Vec<_> = found.iter().map(|span| span.first.to_string()).collect();
    assert_eq!(firsts, ["2026-01-26", "2026-02-02"]);
    assert_eq!(found[0].from_us, day_start(Tz::UTC, date("2026-01-28")).timestamp_micros());
    assert_eq!(found[1].to_us, day_start(Tz::UTC, date("2026-02-04")).timestamp_micros());
}

#[test]
fn buckets_last_as_long_as_the_calendar_and_the_clocks_say() {
    // Zone, range, grain, what the buckets are called and how many hours of them are counted.
    type Case = (&'static str, (&'static str, &'static str), Grain, &'static [(&'static str, f64)]);
    let cases: &[Case] = &[
        ("Europe/Berlin", ("2026-03-23", "2026-03-29"), Grain::IsoWeek, &[("2026-W13", 167.0)]),
        ("Europe/Berlin", ("2026-10-19", "2026-10-25"), Grain::IsoWeek, &[("2026-W43", 169.0)]),
        ("Europe/Berlin", ("2026-01-01", "2026-12-31"), Grain::Year, &[("2026", 8760.0)]),
        (
            "America/New_York",
            ("2026-01-01", "2026-12-31"),
            Grain::Quarter,
            &[("2026-Q1", 2159.0), ("2026-Q2", 2184.0), ("2026-Q3", 2208.0), ("2026-Q4", 2209.0)],
        ),
        ("America/New_York", ("2026-11-01", "2026-11-01"), Grain::Day, &[("2026-11-01", 25.0)]),
        ("Asia/Kolkata", ("2024-02-01", "2024-03-01"), Grain::Month, &[("2024-02", 696.0), ("2024-03", 24.0)]),
        ("Asia/Kathmandu", ("2023-02-01", "2023-02-28"), Grain::Month, &[("2023-02", 672.0)]),
        ("Australia/Lord_Howe", ("2026-04-05", "2026-04-05"), Grain::Day, &[("2026-04-05", 24.5)]),
        ("Australia/Lord_Howe", ("2026-10-04", "2026-10-04"), Grain::Day, &[("2026-10-04", 23.5)]),
        (
            "UTC",
            ("2020-12-27", "2021-01-04"),
            Grain::IsoWeek,
            &[("2020-W52", 24.0), ("2020-W53", 168.0), ("2021-W01", 24.0)],
        ),
        ("UTC", ("2020-12-27", "2021-01-04"), Grain::SundayWeek, &[("2020-12-27", 168.0), ("2021-01-03", 48.0)]),
        ("UTC", ("2024-12-31", "2025-01-01"), Grain::Year, &[("2024", 24.0), ("2025", 24.0)]),
    ];
    for (zone, (from, to), grain, expected) in cases {
        let zone: Tz = zone.parse().unwrap();
        let found: Vec<_> = spans(zone, date(from), date(to), *grain)
            .iter()
            .map(|span| (span.label(*grain, zone), (span.to_us - span.from_us) as f64 / 3.6e9))
            .collect();
        let expected: Vec<_> = expected.iter().map(|(label, hours)| ((*label).to_owned(), *hours)).collect();
        assert_eq!(found, expected, "{zone} {from} {grain:?}");
    }
}

#[test]
fn hours_are_those_on_the_clocks_and_two_when_they_come_twice() {
    // Zone, date, hours of the day, some of them by position with their minutes.
    type Case = (&'static str, &'static str, usize, &'static [(usize, &'static str, i64)]);
    let cases: &[Case] = &[
        ("UTC", "2026-01-31", 24, &[(0, "2026-01-31T00:00+00:00", 60), (23, "2026-01-31T23:00+00:00", 60)]),
        ("Europe/Berlin", "2026-03-29", 23, &[(1, "2026-03-29T01:00+01:00", 60), (2, "2026-03-29T03:00+02:00", 60)]),
        (
            "Europe/Berlin",
            "2026-10-25",
            25,
            &[(2, "2026-10-25T02:00+02:00", 60), (3, "2026-10-25T02:00+01:00", 60), (4, "2026-10-25T03:00+01:00", 60)],
        ),
        ("Asia/Kolkata", "2026-05-05", 24, &[(0, "2026-05-05T00:00+05:30", 60)]),
        ("Asia/Kathmandu", "2026-05-05", 24, &[(23, "2026-05-05T23:00+05:45", 60)]),
        // Back by half an hour at two: the second half of the hour from one comes twice.
        (
            "Australia/Lord_Howe",
            "2026-04-05",
            25,
            &[(1, "2026-04-05T01:00+11:00", 60), (2, "2026-04-05T01:30+10:30", 30), (3, "2026-04-05T02:00+10:30", 60)],
        ),
        // On by half an hour at two: the hour from two is a half.
        ("Australia/Lord_Howe", "2026-10-04", 24, &[(2, "2026-10-04T02:30+11:00", 30)]),
        ("America/Havana", "2026-11-01", 25, &[(0, "2026-11-01T00:00-04:00", 60), (1, "2026-11-01T00:00-05:00", 60)]),
    ];
    for (zone, day, num, some) in cases {
        let zone: Tz = zone.parse().unwrap();
        let found = spans(zone, date(day), date(day), Grain::Hour);
        assert_eq!(found.len(), *num, "{zone} {day}");
        assert!(found.windows(2).all(|pair| pair[0].end_us == pair[1].start_us));
        for (at, label, minutes) in *some {
            let span = found[*at];
            let length = (span.to_us - span.from_us) / 60_000_000;
            assert_eq!((span.label(Grain::Hour, zone).as_str(), length), (*label, *minutes), "{zone} {day}");
        }
    }
}
