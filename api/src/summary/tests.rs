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
fn state_of(runs: &[Run], num_files: usize) -> SummaryState {
    let rows = summary_state(runs);
    let mut names = Names::default();
    let size = rows.num_rows().div_ceil(num_files).max(1);
    let slices = (0..rows.num_rows()).step_by(size).map(|at| rows.slice(at, size.min(rows.num_rows() - at)));
    let files = slices.map(|slice| Arc::new(StateFile::from_batches(&[slice], &mut names).unwrap())).collect();
    SummaryState::default().moved(files, Arc::new(names))
}

/// The date on which an instant counts: that of the clocks, except that dates never go back.
fn date_of(at_us: i64, zone: Tz) -> NaiveDate {
    let slot = at_us.div_euclid(900_000_000) * 900_000_000;
    let local = |us| DateTime::from_timestamp_micros(us).unwrap().with_timezone(&zone).date_naive();
    // Within the three hours before, the clocks may have shown a later date already.
    (0..=180).map(|minutes| local(slot - minutes * 60_000_000)).max().unwrap()
}

fn label_of(date: NaiveDate, grain: Grain) -> String {
    use chrono::Datelike;
    match grain {
        Grain::Day => date.format("%Y-%m-%d").to_string(),
        Grain::IsoWeek => format!("{}-W{:02}", date.iso_week().year(), date.iso_week().week()),
        Grain::SundayWeek => {
            let mut sunday = date;
            while sunday.weekday() != chrono::Weekday::Sun {
                sunday = sunday.pred_opt().unwrap();
            }
            sunday.to_string()
        }
        Grain::Month => date.to_string()[..7].to_owned(),
    }
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
    zones.prop_flat_map(|zone| (Just(zone), prop::collection::vec(run(zone), 0..120), 1..4usize))
}

fn question() -> impl Strategy<Value = (u64, u64, Grain, GroupBy, [bool; 4])> {
    let grain = prop::sample::select(vec![Grain::Day, Grain::IsoWeek, Grain::SundayWeek, Grain::Month]);
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
            let first = grain.first_date(date_of(run.started_at_us, zone));
            let source = (group_by != GroupBy::Nothing).then(|| run.source.clone());
            let job = (group_by == GroupBy::Job).then(|| run.job.clone());
            let label = label_of(date_of(run.started_at_us, zone), grain);
            expected.entry((first, label, source, job)).or_default().push(run);
        }
        let state = state_of(&runs, num_files);
        let folded = fold(&state, &selection);
        let found: Vec<_> = folded.cells.iter().map(|cell| {
            let first = selection.spans[cell.span].first;
            ((first, grain.label(first), cell.source.clone(), cell.job.clone()), cell.figures.clone())
        }).collect();
        let expected: Vec<_> = expected.into_iter().map(|(key, runs)| (key, figures_of(&runs))).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(&folded.totals, &figures_of(&chosen));
        prop_assert_eq!(folded.num_cells, found.len());

        // Pages are slices of the whole, and filling only adds zeros.
        let page = fold(&state, &Selection { page: 1..3, ..selection.clone() });
        prop_assert_eq!(&page.cells[..], &folded.cells[1.min(found.len())..3.min(found.len())]);
        prop_assert_eq!(&page.totals, &folded.totals);
        let filled = fold(&state, &Selection { fill: true, page: 0..5000, ..selection });
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
    let folded = fold(&SummaryState::default(), &selection);
    assert_eq!(folded.num_cells, 4);
    assert!(folded.cells.iter().all(|cell| cell.figures == Figures::default()));
}
