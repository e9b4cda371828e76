use proptest::prelude::*;

use super::*;
use crate::{
    tally::Sum,
    testing::{Run, summary_state},
};

const DAY_0: i32 = 20_000;

/// A run that starts in quarter `quarter` of day `DAY_0`, or later, of one of three sources.
fn run() -> impl Strategy<Value = Run> {
    let who = (0..3usize, 0..70usize, prop::option::of(0..2usize), any::<bool>());
    let quarter = prop_oneof![0..96i64, 0..(40 * 96i64)];
    (who, quarter, 0i64..90_000_000).prop_map(|((source, job, user, has_parent), quarter, duration_us)| Run {
        source: format!("source {source}"),
        job: format!("job {job}"),
        user: user.map(|user| format!("user {user}")),
        parent: has_parent.then(|| "parent".to_owned()),
        status: "completed".to_owned(),
        started_at_us: (i64::from(DAY_0) * 96 + quarter) * 900_000_000 + duration_us % 900_000_000,
        duration_us: Some(duration_us),
        records_read: duration_us % 7,
        ..Run::default()
    })
}

fn file(runs: &[Run], names: &mut Names) -> Arc<StateFile> {
    Arc::new(StateFile::from_batches(&[summary_state(runs)], names).unwrap())
}

/// What the rows within a range of quarters add up to, and what the roll-ups say.
fn both(
    files: &[Arc<StateFile>],
    names: &Names,
    rollups: &RollUps,
    source: u32,
    top_only: bool,
    (from, to): (i64, i64),
) -> (Sum, Sum) {
    let (mut rows, mut rolled) = (Tally::default(), Tally::default());
    for file in files {
        for (of, range) in file.by_source().filter(|(of, _)| source == ALL || *of == source) {
            let wanted = range.filter(|row| (from..to).contains(&i64::from(file.quarters()[*row])));
            for row in wanted.filter(|row| !top_only || file.is_top_level(*row)) {
                assert_eq!(names.jobs_of(of)[names.number_in_source(file.job(row)) as usize], file.job(row));
                rows.add_row(file.figures(row), file.job(row));
            }
        }
    }
    for series in rollups.of_source(source, top_only) {
        series.visit(from, to, |row| rolled.add_packed(row, None));
    }
    (rows.finish(), rolled.finish())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn roll_ups_that_follow_changes_are_those_of_the_rows_and_add_up_the_same(
        steps in prop::collection::vec((prop::collection::vec(run(), 0..150), 0..4usize), 1..6),
        ranges in prop::collection::vec((-100i64..4000, 0i64..4000), 1..8),
    ) {
        let mut names = Names::default();
        // Each row is in one file, as in a table: that of its quarter of an hour.
        let (mut parts, mut written) = (vec![Vec::<Run>::new(); 4], vec![Vec::<Run>::new(); 4]);
        let (mut files, mut rollups) = (vec![Arc::<StateFile>::default(); 4], RollUps::default());
        for (runs, gone) in steps {
            // As tables change: what came is added, half of one part goes, and the files that nothing touched stay.
            let half = parts[gone].len() / 2;
            parts[gone].truncate(half);
            for run in runs {
                parts[(run.started_at_us / 900_000_000 % 4) as usize].push(run);
            }
            let next: Vec<_> = parts.iter().zip(&written).zip(&files).map(|((part, before), held)| {
                if part == before { Arc::clone(held) } else { file(part, &mut names) }
            }).collect();
            written = parts.clone();
            let moved = rollups.moved(&files, &next, &names);
            (files, rollups) = (next, moved);
        }
        let afresh = RollUps::default().moved(&[], &files, &names);
        prop_assert_eq!(format!("{rollups:?}"), format!("{afresh:?}"));
        let start = i64::from(DAY_0) * 96;
        let sources: Vec<u32> = rollups.sources().chain([ALL]).collect();
        for (from, length) in ranges {
            for source in &sources {
                for top_only in [false, true] {
                    let range = (start + from, start + from + length);
                    let (rows, rolled) = both(&files, &names, &rollups, *source, top_only, range);
                    prop_assert_eq!(rows, rolled);
                }
            }
        }
    }
}

#[test]
fn a_change_rebuilds_its_day_and_shares_the_others() {
    let mut names = Names::default();
    let run = |source: &str, day: i64, duration_us| Run {
        source: source.to_owned(),
        job: "load".to_owned(),
        status: "completed".to_owned(),
        started_at_us: (day * 96 + 5) * 900_000_000,
        duration_us: Some(duration_us),
        ..Run::default()
    };
    let before = vec![run("a", 1, 10), run("a", 2, 10), run("b", 2, 10), run("a", 40, 10)];
    let mut after = before.clone();
    after[1].duration_us = Some(20);
    let (old, new) = (vec![file(&before, &mut names)], vec![file(&after, &mut names)]);
    let first = RollUps::default().moved(&[], &old, &names);
    let second = first.moved(&old, &new, &names);
    let is_shared = |source: &str, day| {
        let key = (names.find_source(source).unwrap_or(ALL), true);
        Arc::ptr_eq(first.series[&key].day(day).unwrap(), second.series[&key].day(day).unwrap())
    };
    let days = [("a", 1), ("a", 2), ("b", 2), ("a", 40), ("all", 1), ("all", 2), ("all", 40)];
    assert_eq!(days.map(|(source, day)| is_shared(source, day)), [true, false, true, true, true, false, true]);
    assert!(Arc::ptr_eq(&first.series[&(1, true)], &second.series[&(1, true)]), "nothing of the other source moved");
    assert_eq!(first.sources().collect::<Vec<_>>(), [0, 1]);

    let none = second.moved(&new, &[], &names);
    assert_eq!((none.series.len(), none.num_bytes()), (0, 0));
}

#[test]
fn a_range_takes_days_then_hours_then_quarters() {
    let mut names = Names::default();
    let runs: Vec<Run> = (0..3 * 96)
        .map(|quarter| Run {
            source: "a".into(),
            job: "load".into(),
            status: "completed".into(),
            started_at_us: quarter * 900_000_000,
            ..Run::default()
        })
        .collect();
    let rollups = RollUps::default().moved(&[], &[file(&runs, &mut names)], &names);
    let num_rows = |from, to| {
        let mut num = 0;
        rollups.of_source(0, true).for_each(|series| series.visit(from, to, |_| num += 1));
        num
    };
    // Range in quarters, rows that it takes.
    let cases = [
        ((0, 288), 3),
        ((0, 96), 1),
        ((-500, 96), 1),
        // A day of a zone two hours ahead, half an hour and three quarters.
        ((88, 184), 24),
        ((90, 186), 2 + 1 + 22 + 2),
        ((93, 189), 3 + 23 + 1),
        ((5, 7), 2),
        ((288, 400), 0),
        ((7, 7), 0),
    ];
    for ((from, to), rows) in cases {
        assert_eq!(num_rows(from, to), rows, "{from} to {to}");
    }
}
