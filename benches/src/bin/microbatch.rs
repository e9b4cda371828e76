//! Times small batches of append input, one after the other, and compares the last with the first.
//!
//! Each batch is put into the embedded log and waited for until an epoch covers it: log, bronze, silver, gold and epoch
//! are all in the time. What a table's history costs a small commit shows in the ratio.
#![allow(clippy::print_stdout)]

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use karat_benches::{
    Error, Result, exit_code,
    flow::Flow,
    generate::{Generator, Plan, Shape},
    latency::Latencies,
    machine::{Machine, cpu_seconds, peak_memory_mib},
};
use karat_transform::bronze::BronzeSettings;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Times small batches from the log to gold at the start and after many commits.
#[derive(Parser)]
struct Options {
    /// Batches, each one commit a table.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    commits: u32,
    /// Events of a batch.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rows: u32,
    /// Batches at either end that are compared.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Batches before the first compared one: opening of files, first use of memory.
    #[arg(long, default_value_t = 20)]
    warm_up: u32,
    /// Fail when the last batches cost more than so many times the first.
    #[arg(long)]
    at_most: Option<f64>,
    /// Where log, tables and state go. A temporary folder when absent.
    #[arg(long)]
    folder: Option<PathBuf>,
}

const PIPELINES: &str = include_str!("../../pipelines/append.toml");
/// Batches between lines of progress.
const PROGRESS: usize = 1_000;

#[derive(Serialize)]
struct Report {
    commits: usize,
    rows: u64,
    first_median_ms: f64,
    last_median_ms: f64,
    ratio: f64,
    first_cpu_ms: f64,
    last_cpu_ms: f64,
    cpu_ratio: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Number of the slowest batch, from 1.
    slowest_batch: Option<usize>,
    peak_memory_mib: u64,
    load: f64,
}

fn main() -> ExitCode {
    exit_code(run(Options::parse()))
}

#[tokio::main]
async fn run(options: Options) -> Result<()> {
    let (commits, window, warm_up) = (size(options.commits), size(options.window), size(options.warm_up));
    if warm_up + 2 * window > commits {
        let message = format!("{commits} commits are too few for a warm-up of {warm_up} and two windows of {window}");
        return Err(Error::Usage(message));
    }
    let temporary = tempfile::tempdir()?;
    let folder = options.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let flow = Flow::open(&folder, PIPELINES).await?;
    let measured = measure(&flow, commits, options.rows).await?;
    let report = report(&measured, warm_up..warm_up + window, commits - window..commits, options.rows);
    println!("{}", serde_json::to_string(&report)?);
    match options.at_most.filter(|at_most| report.ratio > *at_most) {
        None => Ok(()),
        Some(at_most) => Err(Error::WrongResult(format!(
            "the last batches cost {} times the first, at most {at_most} is allowed",
            report.ratio
        ))),
    }
}

struct Measured {
    times: Latencies,
    /// Processor time of this process after each batch, without the making of events.
    cpu: Vec<f64>,
}

async fn measure(flow: &Flow, commits: usize, rows: u32) -> Result<Measured> {
    let max_rows = size(rows);
    // The wait for more rows never runs out: each batch is exactly as large as a full one.
    let bronze = BronzeSettings { max_rows, max_latency: Duration::from_secs(60), ..BronzeSettings::default() };
    let mut running = flow.start(bronze).await?;
    let mut events = Generator::new(plan(commits, rows));
    let (mut times, mut cpu, mut used) = (Latencies::default(), Vec::with_capacity(commits), 0.0);
    for batch in 1..=commits {
        let lines: Vec<Bytes> = events.by_ref().take(max_rows).map(Bytes::from).collect();
        let (start, cpu_before) = (Instant::now(), cpu_seconds());
        flow.append(Shape::EtlRun.event_type(), lines).await?;
        running.processed(batch as u64 * u64::from(rows)).await?;
        times.add(start.elapsed());
        used += cpu_seconds() - cpu_before;
        cpu.push(used);
        if batch % PROGRESS == 0 {
            let median = times.median_ms(batch.saturating_sub(200)..batch);
            eprintln!("{batch} of {commits} batches, median of the last 200: {median:.1} ms");
        }
    }
    running.finish().await?;
    Ok(Measured { times, cpu })
}

/// Exactly as many lines as are wanted, some of them late, spread over 30 days: each batch touches about as many groups.
fn plan(commits: usize, rows: u32) -> Plan {
    let count = commits as u64 * u64::from(rows);
    Plan { count, duplicates: 0.0, bad: 0.0, shape: Shape::EtlRun, with_envelope: false, ..Plan::default() }
}

fn report(measured: &Measured, first: std::ops::Range<usize>, last: std::ops::Range<usize>, rows: u32) -> Report {
    let cpu = |range: &std::ops::Range<usize>| {
        let at = |batch: usize| batch.checked_sub(1).and_then(|index| measured.cpu.get(index)).copied().unwrap_or(0.0);
        round((at(range.end) - at(range.start)) * 1000.0 / range.len().max(1) as f64)
    };
    let (first_median, last_median) = (measured.times.median_ms(first.clone()), measured.times.median_ms(last.clone()));
    let all = measured.times.percentiles();
    Report {
        commits: last.end,
        rows: last.end as u64 * u64::from(rows),
        first_median_ms: round(first_median),
        last_median_ms: round(last_median),
        ratio: round(last_median / first_median.max(f64::MIN_POSITIVE)),
        first_cpu_ms: cpu(&first),
        last_cpu_ms: cpu(&last),
        cpu_ratio: round(cpu(&last) / cpu(&first).max(f64::MIN_POSITIVE)),
        p99_ms: round(all.p99_ms),
        max_ms: round(all.max_ms),
        slowest_batch: measured.times.longest_at().map(|place| place + 1),
        peak_memory_mib: peak_memory_mib() as u64,
        load: Machine::read().load,
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
