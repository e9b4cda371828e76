//! Times a whole file from the log to gold, in one process.
//!
//! The file's lines are put into an embedded log first, outside of the timing; then the worker consumes them, writes
//! bronze, silver, quarantine and gold, and announces epochs, as it does behind the HTTP door.
#![allow(clippy::print_stdout)]

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use karat_benches::{
    Error, Result, exit_code,
    flow::Flow,
    machine::{self, cpu_seconds},
};
use karat_lake::arrow::{array::AsArray, datatypes::Int64Type};
use karat_transform::bronze::BronzeSettings;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Times a file of events, one a line, from the log to gold.
#[derive(Parser)]
struct Options {
    /// Events with the fields of `pipelines/append.toml`, one a line.
    #[arg(long)]
    input: PathBuf,
    /// The pipeline; the comparison's own when absent.
    #[arg(long)]
    pipelines: Option<PathBuf>,
    /// Where log, tables and state go, and stay. A temporary folder when absent. Must be empty.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Rows of a batch at most.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Fail unless silver has so many rows.
    #[arg(long)]
    kept: Option<u64>,
    /// Fail unless quarantine has so many rows.
    #[arg(long)]
    refused: Option<u64>,
}

const PIPELINES: &str = include_str!("../../pipelines/append.toml");
const EVENT_TYPE: &str = "bench.etl_run";
/// Lines of one append to the log while it is filled.
const FILL_LINES: usize = 10_000;

#[derive(Serialize)]
struct Report {
    lines: u64,
    kept: u64,
    refused: u64,
    gold_rows: u64,
    gold_runs: i64,
    seconds: f64,
    events_per_second: u64,
    cpu_us_per_event: f64,
    bronze_commits: u64,
    epochs: u64,
    peak_memory_mib: u64,
    load: f64,
}

fn main() -> ExitCode {
    exit_code(run(Options::parse()))
}

#[tokio::main]
async fn run(options: Options) -> Result<()> {
    let text = match &options.pipelines {
        Some(path) => std::fs::read_to_string(path).map_err(Error::file(path))?,
        None => PIPELINES.to_owned(),
    };
    let temporary = tempfile::tempdir()?;
    let folder = options.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let is_used = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if is_used {
        return Err(Error::Usage(format!("folder `{}` is not empty: name another", folder.display())));
    }
    let lines = fill(&folder, &text, &options.input).await?;
    let report = measure(&folder, &text, lines, &options).await?;
    println!("{}", serde_json::to_string(&report)?);
    for (what, expected, found) in [("kept", options.kept, report.kept), ("refused", options.refused, report.refused)] {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(Error::WrongResult(format!("{what}: expected {expected} rows, found {found}")));
        }
    }
    Ok(())
}

/// Puts the file into the log and closes it, so that nothing of it stays in this process's memory.
async fn fill(folder: &Path, pipelines: &str, input: &Path) -> Result<u64> {
    let flow = Flow::open(folder, pipelines).await?;
    let mut reader = BufReader::with_capacity(1 << 20, File::open(input).map_err(Error::file(input))?);
    let mut num_lines = 0;
    loop {
        let lines;
        (reader, lines) = tokio::task::spawn_blocking(move || {
            let lines = read_lines(&mut reader);
            (reader, lines)
        })
        .await?;
        let lines = lines.map_err(Error::file(input))?;
        if lines.is_empty() {
            break;
        }
        num_lines += lines.len() as u64;
        flow.append(EVENT_TYPE, lines).await?;
    }
    flow.close().await?;
    Ok(num_lines)
}

/// The next lines, without their ends, as they are: broken ones too.
fn read_lines(reader: &mut impl BufRead) -> std::io::Result<Vec<Bytes>> {
    let mut lines = Vec::new();
    while lines.len() < FILL_LINES {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        line.pop_if(|last| *last == b'\n');
        lines.push(line.into());
    }
    Ok(lines)
}

async fn measure(folder: &Path, pipelines: &str, lines: u64, options: &Options) -> Result<Report> {
    let flow = Flow::open(folder, pipelines).await?;
    let max_rows = usize::try_from(options.batch).unwrap_or(usize::MAX);
    let bronze = BronzeSettings { max_rows, max_latency: Duration::from_secs(1), ..BronzeSettings::default() };
    machine::forget_peak_memory();
    let load = machine::Machine::read().load;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut running = flow.start(bronze).await?;
    running.processed(lines).await?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let peak_memory_mib = machine::peak_memory_mib() as u64;
    let epoch = running.epoch().clone();
    running.finish().await?;
    let gold = gold_runs(&flow).await?;
    Ok(Report {
        lines,
        kept: rows_of(&flow, "silver.bench_runs").await?,
        refused: rows_of(&flow, "quarantine.bench_etl_runs").await?,
        gold_rows: rows_of(&flow, "gold.gold_daily").await?,
        gold_runs: gold,
        seconds: round(seconds, 3),
        events_per_second: (lines as f64 / seconds) as u64,
        cpu_us_per_event: round(cpu * 1e6 / lines.max(1) as f64, 2),
        bronze_commits: epoch.bronze_version,
        epochs: epoch.epoch,
        peak_memory_mib,
        load,
    })
}

async fn rows_of(flow: &Flow, table: &str) -> Result<u64> {
    let table = flow.lake.open(table).await?;
    Ok(table.files().filter_map(karat_lake::DataFile::rows).sum())
}

/// The runs that gold counts: every kept event, once.
async fn gold_runs(flow: &Flow) -> Result<i64> {
    let rows = flow.lake.open("gold.gold_daily").await?.read_all().await?;
    let runs = rows.iter().filter_map(|batch| batch.column_by_name("runs")?.as_primitive_opt::<Int64Type>().cloned());
    Ok(runs.map(|column| column.values().iter().sum::<i64>()).sum())
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}
