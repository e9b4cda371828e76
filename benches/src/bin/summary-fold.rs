//! Times the fold behind `GET /summary`: a year of 15-minute rows to days in a zone, without cache and HTTP.
//!
//! Rows are generated in the form of `gold.summary_state` and taken over as the API takes over data files. Every answer
//! must count the runs that were made.
#![allow(clippy::print_stdout)]

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, NaiveDate};
use chrono_tz::Tz;
use clap::Parser;
use karat_api::{
    snapshot::{Names, StateFile, SummaryState},
    summary::{
        GroupBy, Selection, Visible, Work,
        calendar::{Grain, spans},
        fold,
    },
};
use karat_benches::{
    Error, Result, exit_code,
    latency::Latencies,
    machine::{Machine, peak_memory_mib},
    slices::{QUARTER_US, START_US, SlicePlan, Slices, source_name},
};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Times the fold of 15-minute rows to days of several time zones.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    sources: u32,
    /// Jobs of each source; rows take turns.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3660))]
    days: u32,
    /// Rows of each source and quarter of an hour.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rows_per_slice: u32,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs_per_row: u32,
    /// Folds of each kind; the median is printed.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Fail when the fold of one source takes longer in any zone.
    #[arg(long)]
    at_most_one_ms: Option<f64>,
    /// Fail when the fold of all sources takes longer in any zone.
    #[arg(long)]
    at_most_all_ms: Option<f64>,
}

/// Whole hours, half hours and quarters off UTC.
const ZONES: [Tz; 4] = [Tz::UTC, Tz::Europe__Berlin, Tz::Asia__Kolkata, Tz::Asia__Kathmandu];

#[derive(Serialize)]
struct Report {
    sources: u32,
    rows: usize,
    runs: i64,
    rows_mib: u64,
    rollups_mib: u64,
    /// Taking over every row and adding them up.
    load_ms: f64,
    /// The next epoch, when the newest file was replaced by one with a row more of each source.
    epoch_ms: f64,
    folds: Vec<Fold>,
    /// The largest medians over the zones.
    one_ms: f64,
    all_ms: f64,
    by_source_ms: f64,
    peak_memory_mib: u64,
    load: f64,
}

#[derive(Serialize)]
struct Fold {
    zone: &'static str,
    of: &'static str,
    cells: usize,
    median_ms: f64,
    p99_ms: f64,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let plan = SlicePlan {
        sources: options.sources,
        jobs: options.jobs,
        days: options.days,
        rows_per_slice: options.rows_per_slice,
        runs_per_row: options.runs_per_row,
    };
    let mut rows = Slices::new(plan);
    let mut names = Names::default();
    let (mut files, mut last) = (Vec::new(), None);
    let mut made = Duration::ZERO;
    loop {
        let making = Instant::now();
        let Some(batch) = rows.next_file()? else { break };
        made += making.elapsed();
        files.push(Arc::new(StateFile::from_batches(std::slice::from_ref(&batch), &mut names)?));
        last = Some(batch);
    }
    let mut state = SummaryState::default().moved(files.clone(), Arc::new(names.clone()));
    let load_ms = ms(start.elapsed().saturating_sub(made));

    // The newest file with some rows more, and then as it was.
    let newest: Vec<_> = last.into_iter().chain([Slices::of_next_epoch(plan).more()?]).collect();
    let epoch = Instant::now();
    let mut changed = files.clone();
    changed.pop();
    changed.push(Arc::new(StateFile::from_batches(&newest, &mut names)?));
    state = state.moved(changed, Arc::new(names.clone()));
    let epoch_ms = ms(epoch.elapsed());
    state = state.moved(files, Arc::new(names));

    let runs = i64::try_from(rows.num_made()).unwrap_or(i64::MAX) * i64::from(options.runs_per_row);
    let (rows_bytes, rollups_bytes) = state.num_bytes();
    let folds = folds(&state, options, runs)?;
    let slowest = |of: &str| folds.iter().filter(|fold| fold.of == of).map(|fold| fold.median_ms).fold(0.0, f64::max);
    let report = Report {
        sources: options.sources,
        rows: rows.num_made(),
        runs,
        rows_mib: rows_bytes as u64 >> 20,
        rollups_mib: rollups_bytes as u64 >> 20,
        load_ms,
        epoch_ms,
        one_ms: slowest(ONE),
        all_ms: slowest(ALL),
        by_source_ms: slowest(BY_SOURCE),
        folds,
        peak_memory_mib: peak_memory_mib() as u64,
        load: Machine::read().load,
    };
    println!("{}", serde_json::to_string(&report)?);
    check("one source", report.one_ms, options.at_most_one_ms)?;
    check("all sources", report.all_ms, options.at_most_all_ms)
}

const ONE: &str = "one source";
const ALL: &str = "all sources";
const BY_SOURCE: &str = "by source";

fn folds(state: &SummaryState, options: &Options, runs: i64) -> Result<Vec<Fold>> {
    let mut folds = Vec::new();
    for zone in ZONES {
        for of in [ONE, ALL, BY_SOURCE] {
            let selection = selection(zone, of, options.days);
            let mut times = Latencies::default();
            let mut cells = 0;
            for _ in 0..options.repeats {
                let start = Instant::now();
                let folded = fold(state, &selection, &Work::unbounded());
                times.add(start.elapsed());
                let folded = folded.map_err(|stopped| Error::WrongResult(format!("{zone}, {of}: {stopped:?}")))?;
                cells = folded.num_cells;
                let expected = if of == ONE { runs / i64::from(options.sources) } else { runs };
                if folded.totals.runs != expected {
                    let found = folded.totals.runs;
                    return Err(Error::WrongResult(format!("{zone}, {of}: {found} runs were counted of {expected}")));
                }
            }
            let (zone, median_ms) = (zone.name(), round(times.median_ms(0..options.repeats as usize)));
            eprintln!("{zone}, {of}: {median_ms} ms");
            folds.push(Fold { zone, of, cells, median_ms, p99_ms: round(times.percentiles().p99_ms) });
        }
    }
    Ok(folds)
}

/// Every day that has runs in any zone, and so a little more than the range.
fn selection(zone: Tz, of: &str, days: u32) -> Selection {
    let date = |day: i64| -> NaiveDate {
        DateTime::from_timestamp_micros(START_US + day * 96 * QUARTER_US).unwrap_or_default().date_naive()
    };
    Selection {
        spans: spans(zone, date(-1), date(i64::from(days)), Grain::Day),
        source: (of == ONE).then(|| source_name(0)),
        job: None,
        top_level_only: false,
        group_by: if of == BY_SOURCE { GroupBy::Source } else { GroupBy::Nothing },
        fill: false,
        visible: Visible::All,
        // The largest page of the API.
        page: 0..10_000,
    }
}

fn check(what: &str, found: f64, at_most: Option<f64>) -> Result<()> {
    match at_most.filter(|at_most| found > *at_most) {
        None => Ok(()),
        Some(at_most) => Err(Error::WrongResult(format!("{what}: {found} ms, at most {at_most} ms are allowed"))),
    }
}

fn ms(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1000.0)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
