//! The fold against an independent count over raw runs.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Days, NaiveDate, TimeDelta};
use chrono_tz::Tz;
use karat_schemas::histogram::Histogram;
use proptest::prelude::*;

use super::{
    calendar::{Grain, spans},
    *,
};
use crate::snapshot::{Names, StateFile, SummaryState};
use crate::testing::{Run, summary_state};

/// The rows of `runs`, spread over some files as a table's are: each row in one of them.
pub(super) fn state_of(runs: &[Run], num_files: usize) -> SummaryState {
    let rows = summary_state(runs);
    let mut names = Names::default();
    let size = rows.num_rows().div_ceil(num_files).max(1);
    let slices = (0..rows.num_rows()).step_by(size).map(|at| rows.slice(at, size.min(rows.num_rows() - at)));
    let files = slices.map(|slice| Arc::new(StateFile::from_batches(&[slice], &mut names).unwrap()));
    let files: Vec<_> = files.collect();
    let names = Arc::new(names);
    // In two steps, as a snapshot follows its table.
    SummaryState::default().moved(files[..files.len() / 2].to_vec(), Arc::clone(&names)).moved(files, names)
}

fn folded_from(state: &SummaryState, selection: &Selection) -> Folded {
    fold(state, selection, &Work::unbounded()).unwrap()
}

/// The date on which an instant counts: that of the clocks, except that dates never go back.
fn date_of(at_us: i64, zone: Tz) -> NaiveDate {
    let slot = at_us.div_euclid(900_000_000) * 900_000_000;
    let local = |us| DateTime::from_timestamp_micros(us).unwrap().with_timezone(&zone).date_naive();
    // Within the three hours before, the clocks may have shown a later date already.
    (0..=180).map(|minutes| local(slot - minutes * 60_000_000)).max().unwrap()
}

/// The bucket of a slice, by converting its start alone: first date, what orders it among those of a date, and label.
fn bucket_of(at_us: i64, zone: Tz, grain: Grain) -> (NaiveDate, i64, String) {
    use chrono::Datelike;
    let date = date_of(at_us, zone);
    let back_to = |is_first: &dyn Fn(NaiveDate) -> bool| {
        let mut first = date;
        while !is_first(first) {
            first = first.pred_opt().unwrap();
        }
        first
    };
    let (first, label) = match grain {
        Grain::Hour => {
            let (start_us, label) = hour_of(at_us, zone);
            return (clock_date(at_us, zone), start_us, label);
        }
        Grain::Day => (date, date.format("%Y-%m-%d").to_string()),
        Grain::IsoWeek => {
            let week = date.iso_week();
            (back_to(&|day| day.weekday().to_string() == "Mon"), format!("{}-W{:02}", week.year(), week.week()))
        }
        Grain::SundayWeek => {
            let sunday = back_to(&|day| day.weekday().to_string() == "Sun");
            (sunday, sunday.to_string())
        }
        Grain::Month => (back_to(&|day| day.day() == 1), date.to_string()[..7].to_owned()),
        Grain::Quarter => {
            let first = back_to(&|day| day.day() == 1 && [1, 4, 7, 10].contains(&day.month()));
            (first, format!("{}-Q{}", date.year(), date.month().div_ceil(3)))
        }
        Grain::Year => (back_to(&|day| day.ordinal() == 1), date.to_string()[..4].to_owned()),
    };
    (first, 0, label)
}

fn clock_date(at_us: i64, zone: Tz) -> NaiveDate {
    let slot = at_us.div_euclid(900_000_000) * 900_000_000;
    DateTime::from_timestamp_micros(slot).unwrap().with_timezone(&zone).date_naive()
}

/// Goes back by quarters of an hour for as long as the clocks show the same hour at the same offset.
fn hour_of(at_us: i64, zone: Tz) -> (i64, String) {
    let shown = |us: i64| DateTime::from_timestamp_micros(us).unwrap().with_timezone(&zone);
    let mut slot = at_us.div_euclid(900_000_000) * 900_000_000;
    let hour = |us| shown(us).format("%Y-%m-%dT%H%:z").to_string();
    while hour(slot - 900_000_000) == hour(slot) {
        slot -= 900_000_000;
    }
    (slot, shown(slot).format("%Y-%m-%dT%H:%M%:z").to_string())
}

fn figures_of(runs: &[&Run]) -> Figures {
    let with = |status: &str| runs.iter().filter(|run| run.status == status).count() as i64;
    let (completed, failed, aborted) = (with("completed"), with("failed"), with("aborted"));
    let finished = completed + failed + aborted;
    let durations: Vec<i64> = runs.iter().filter_map(|run| run.duration_us).collect();
    let mut histogram = Histogram::default();
    durations.iter().for_each(|us| histogram.add(*us, 1));
    let mut jobs: Vec<_> = runs.iter().map(|run| (&run.source, &run.job)).collect();
    jobs.sort();
    jobs.dedup();
    Figures {
        runs: runs.len() as i64,
        completed,
        failed,
        aborted,
        running: with("running"),
        success_rate: (finished > 0).then(|| completed as f64 / finished as f64),
        jobs: jobs.len() as i64,
        records_read: runs.iter().map(|run| run.records_read).sum(),
        avg_duration_ms: (!durations.is_empty())
            .then(|| durations.iter().sum::<i64>() as f64 / durations.len() as f64 / 1000.0),
        p95_duration_ms: histogram.quantile(0.95).map(|us| us as f64 / 1000.0),
        ..Figures::default()
    }
}

fn is_visible(run: &Run, selection: &Selection) -> bool {
    let own = match &selection.visible {
        Visible::All => true,
        Visible::Own { user, granted } => run.user.as_ref() == Some(user) || granted.contains(&run.source),
    };
    own && selection.source.as_ref().is_none_or(|source| *source == run.source)
        && selection.job.as_ref().is_none_or(|job| *job == run.job)
        && (!selection.top_level_only || run.parent.is_none())
}

fn run(zone: Tz) -> impl Strategy<Value = Run> {
    let start = prop_oneof![1_520_000_000i64..1_580_000_000, near_a_change(zone)];
    let who = (0..3usize, 0..3usize, prop::option::of(0..2usize), any::<bool>());
    (start, who, 0..4usize, 0i64..90_000_000, 0i64..1000).prop_map(
        |(start, (source, job, user, has_parent), status, duration_us, records_read)| {
            let status = ["completed", "failed", "aborted", "running"][status];
            Run {
                source: format!("source {source}"),
                job: format!("job {job}"),
                user: user.map(|user| format!("user {user}")),
                parent: has_parent.then(|| "parent".to_owned()),
                status: status.to_owned(),
                started_at_us: start * 1_000_000,
                duration_us: (status != "running").then_some(duration_us),
                records_read,
                ..Run::default()
            }
        },
    )
}

/// Seconds around the days on which the zone's offset changes in 2018 and 2019, when there are any.
fn near_a_change(zone: Tz) -> impl Strategy<Value = i64> {
    use chrono::Offset;
    let offset =
        |at: i64| DateTime::from_timestamp(at, 0).unwrap().with_timezone(&zone).offset().fix().local_minus_utc();
    let hours = (1_514_764_800..1_577_836_800).step_by(3600);
    let mut changes: Vec<i64> = hours.filter(|at| offset(*at) != offset(at + 3600)).collect();
    if changes.is_empty() {
        changes.push(1_550_000_000);
    }
    (prop::sample::select(changes), -100_000i64..100_000).prop_map(|(at, off)| at + off)
}

fn case() -> impl Strategy<Value = (Tz, Vec<Run>, usize)> {
    let zones = prop::sample::select(vec![
        Tz::UTC,
        Tz::Europe__Berlin,
        Tz::America__New_York,
        Tz::America__Sao_Paulo,
        Tz::Asia__Kathmandu,
        Tz::Asia__Kolkata,
        Tz::Australia__Lord_Howe,
        Tz::Pacific__Chatham,
        Tz::Pacific__Apia,
        Tz::America__Havana,
        Tz::America__St_Johns,
        Tz::Asia__Pyongyang,
        Tz::Africa__Casablanca,
        Tz::Antarctica__Troll,
        Tz::Pacific__Kiritimati,
        Tz::Asia__Gaza,
    ]);
    // Enough of some that durations are counted by bin.
    let copies = prop_oneof![3 => Just(1), 1 => Just(9)];
    let case = zones
        .prop_flat_map(move |zone| (Just(zone), prop::collection::vec(run(zone), 0..120), 1..4usize, copies.clone()));
    case.prop_map(|(zone, runs, num_files, copies)| (zone, vec![runs; copies].concat(), num_files))
}

fn question() -> impl Strategy<Value = (u64, u64, Grain, GroupBy, [bool; 4])> {
    let grain = prop::sample::select(vec![
        Grain::Hour,
        Grain::Day,
        Grain::IsoWeek,
        Grain::SundayWeek,
        Grain::Month,
        Grain::Quarter,
        Grain::Year,
    ]);
    let group = prop::sample::select(vec![GroupBy::Nothing, GroupBy::Source, GroupBy::Job]);
    (0u64..800, 0u64..900, grain, group, any::<[bool; 4]>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn buckets_are_those_of_a_count_over_raw_runs(
        (zone, runs, num_files) in case(),
        (from, days, grain, group_by, [one_source, one_job, top_level_only, own]) in question(),
    ) {
        let from = NaiveDate::from_ymd_opt(2018, 1, 1).unwrap() + Days::new(from);
        let to = from + Days::new(days);
        let selection = Selection {
            spans: spans(zone, from, to, grain),
            source: one_source.then(|| "source 1".to_owned()),
            job: one_job.then(|| "job 0".to_owned()),
            top_level_only,
            group_by,
            fill: false,
            visible: if own {
                Visible::Own { user: "user 0".to_owned(), granted: vec!["source 2".to_owned()] }
            } else {
                Visible::All
            },
            page: 0..usize::MAX,
        };
        let chosen: Vec<&Run> = runs.iter().filter(|run| is_visible(run, &selection))
            .filter(|run| (from..=to).contains(&date_of(run.started_at_us, zone))).collect();
        let mut expected: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
        for run in &chosen {
            let source = (group_by != GroupBy::Nothing).then(|| run.source.clone());
            let job = (group_by == GroupBy::Job).then(|| run.job.clone());
            expected.entry((bucket_of(run.started_at_us, zone, grain), source, job)).or_default().push(run);
        }
        let state = state_of(&runs, num_files);
        let folded = folded_from(&state, &selection);
        let found: Vec<_> = folded.cells.iter().map(|cell| {
            let span = selection.spans[cell.span];
            let order = if grain == Grain::Hour { span.start_us } else { 0 };
            (((span.first, order, span.label(grain, zone)), cell.source.clone(), cell.job.clone()), cell.figures.clone())
        }).collect();
        let expected: Vec<_> = expected.into_iter().map(|(key, runs)| (key, figures_of(&runs))).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(&folded.totals, &figures_of(&chosen));
        prop_assert_eq!(folded.num_cells, found.len());

        // Pages are slices of the whole, and filling only adds zeros.
        let page = folded_from(&state, &Selection { page: 1..3, ..selection.clone() });
        prop_assert_eq!(&page.cells[..], &folded.cells[1.min(found.len())..3.min(found.len())]);
        prop_assert_eq!(&page.totals, &folded.totals);
        let filled = folded_from(&state, &Selection { fill: true, page: 0..5000, ..selection });
        let busy: Vec<_> = filled.cells.iter().filter(|cell| cell.figures.runs > 0).cloned().collect();
        if filled.num_cells <= 5000 {
            prop_assert_eq!(&busy, &folded.cells);
        }
    }
}

#[test]
fn filling_gives_every_day_of_the_range_even_without_any_run() {
    let from: NaiveDate = "2026-01-30".parse().unwrap();
    let selection = Selection {
        spans: spans(Tz::Europe__Berlin, from, from + TimeDelta::days(3), Grain::Day),
        source: None,
        job: None,
        top_level_only: false,
        group_by: GroupBy::Nothing,
        fill: true,
        visible: Visible::All,
        page: 0..1000,
    };
    let folded = folded_from(&SummaryState::default(), &selection);
    assert_eq!(folded.num_cells, 4);
    assert!(folded.cells.iter().all(|cell| cell.figures == Figures::default()));
}

#[test]
fn a_run_every_quarter_of_an_hour_counts_once_on_the_days_that_the_clocks_make_long_or_short() {
    // Zone, range, grain, runs of each bucket: four an hour, of each of two sources.
    type Case = (Tz, (&'static str, &'static str), Grain, &'static [i64]);
    let cases: &[Case] = &[
        (Tz::UTC, ("2026-03-28", "2026-03-30"), Grain::Day, &[192, 192, 192]),
        (Tz::Europe__Berlin, ("2026-03-28", "2026-03-30"), Grain::Day, &[192, 184, 192]),
        (Tz::Europe__Berlin, ("2026-10-24", "2026-10-26"), Grain::Day, &[192, 200, 192]),
        (Tz::America__New_York, ("2026-03-07", "2026-03-09"), Grain::Day, &[192, 184, 192]),
        (Tz::America__New_York, ("2026-11-01", "2026-11-02"), Grain::Day, &[200, 192]),
        (Tz::Asia__Kolkata, ("2026-03-29", "2026-03-30"), Grain::Day, &[192, 192]),
        (Tz::Asia__Kathmandu, ("2026-03-29", "2026-03-30"), Grain::Day, &[192, 192]),
        (Tz::Australia__Lord_Howe, ("2026-04-04", "2026-04-06"), Grain::Day, &[192, 196, 192]),
        (Tz::Australia__Lord_Howe, ("2026-10-03", "2026-10-05"), Grain::Day, &[192, 188, 192]),
        (Tz::Europe__Berlin, ("2026-03-23", "2026-04-05"), Grain::IsoWeek, &[1336, 1344]),
        (Tz::Europe__Berlin, ("2026-10-18", "2026-10-31"), Grain::SundayWeek, &[1344, 1352]),
        (Tz::America__New_York, ("2026-03-01", "2026-03-31"), Grain::Month, &[5944]),
        (Tz::Asia__Kathmandu, ("2026-01-01", "2026-06-30"), Grain::Quarter, &[17_234, 17_472]),
        // The runs begin with the year in UTC, an hour into that of Berlin.
        (Tz::Europe__Berlin, ("2026-01-01", "2026-12-31"), Grain::Year, &[70_072]),
        (Tz::Europe__Berlin, ("2026-01-01", "2026-01-02"), Grain::Day, &[184, 192]),
    ];
    let first_us = 1_767_225_600_000_000;
    let run = |quarter: i64, source: &str| Run {
        source: source.to_owned(),
        job: "load".to_owned(),
        status: "completed".to_owned(),
        started_at_us: first_us + quarter * 900_000_000,
        duration_us: Some(1_000_000),
        ..Run::default()
    };
    let runs: Vec<Run> = (0..366 * 96).flat_map(|quarter| [run(quarter, "a"), run(quarter, "b")]).collect();
    let state = state_of(&runs, 3);
    for (zone, (from, to), grain, expected) in cases {
        let mut selection = Selection {
            spans: spans(*zone, from.parse().unwrap(), to.parse().unwrap(), *grain),
            source: None,
            job: None,
            top_level_only: false,
            group_by: GroupBy::Nothing,
            fill: true,
            visible: Visible::All,
            page: 0..1000,
        };
        let mut runs = |source: Option<&str>, job: Option<&str>| {
            (selection.source, selection.job) = (source.map(str::to_owned), job.map(str::to_owned));
            let folded = folded_from(&state, &selection);
            let runs: Vec<i64> = folded.cells.iter().map(|cell| cell.figures.runs).collect();
            assert_eq!(runs.iter().sum::<i64>(), folded.totals.runs);
            runs
        };
        let halves: Vec<i64> = expected.iter().map(|runs| runs / 2).collect();
        assert_eq!(runs(None, None), *expected, "{zone} {from} {grain:?}");
        assert_eq!(runs(Some("a"), None), halves, "{zone} {from} {grain:?}");
        // From the rows, not the roll-ups.
        assert_eq!(runs(None, Some("load")), *expected, "{zone} {from} {grain:?}");
    }
}

#[test]
fn a_fold_ends_when_nobody_waits_for_it_or_its_memory_is_used_up() {
    let run = Run { source: "a".to_owned(), job: "load".to_owned(), status: "completed".to_owned(), ..Run::default() };
    let state = state_of(&[run], 1);
    let from: NaiveDate = "1970-01-01".parse().unwrap();
    // From the roll-ups, and from the rows.
    for job in [None, Some("load".to_owned())] {
        let selection = Selection {
            spans: spans(Tz::UTC, from, from, Grain::Day),
            source: None,
            job,
            top_level_only: false,
            group_by: GroupBy::Nothing,
            fill: false,
            visible: Visible::All,
            page: 0..1000,
        };
        let memory = WorkMemory::of_bytes(1 << 20);
        let (work, waiting) = Work::within(&memory);
        assert_eq!(fold(&state, &selection, &work).unwrap().totals.runs, 1);
        drop(waiting);
        assert_eq!(fold(&state, &selection, &work).unwrap_err(), Stopped::NobodyWaits);
        let (work, _waiting) = Work::within(&WorkMemory::of_bytes(1000));
        assert_eq!(fold(&state, &selection, &work).unwrap_err(), Stopped::MemoryIsUsedUp);
    }
}
