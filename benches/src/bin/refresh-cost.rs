//! Times batches of one size behind ever longer histories: what a refresh costs must not depend on how much there is.
//!
//! The history grows in one instance; at each size some batches are put into the log one after the other and waited for
//! until an epoch covers them. The days over which the runs are spread grow with the history, so that a batch touches
//! about as many groups, of about the same size, at every size.
#![allow(clippy::print_stdout)]

use std::{path::PathBuf, process::ExitCode, time::Instant};

use bytes::Bytes;
use clap::Parser;
use karat_benches::{
    Error, Result, exit_code,
    flow::{Flow, Running},
    generate::{Generator, Plan, Shape},
    latency::Latencies,
    machine::{self, Machine, cpu_seconds, peak_memory_mib},
};
use karat_transform::bronze::BronzeSettings;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Times batches behind ever longer histories.
#[derive(Parser)]
struct Options {
    /// The pipeline: its events must be those of `pipelines/append.toml`, which is measured when absent.
    #[arg(long)]
    pipelines: Option<PathBuf>,
    /// Events of history at which is measured, smallest first.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000, 10_000_000])]
    history: Vec<u64>,
    /// Batches at each size.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    batches: u32,
    /// Events of a batch.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rows: u32,
    /// Events of a day: with the sources, the size of a group.
    #[arg(long, default_value_t = 33_000, value_parser = clap::value_parser!(u32).range(1..))]
    per_day: u32,
    /// Fail when a batch behind the longest history takes more than so many times one behind the shortest.
    #[arg(long)]
    at_most: Option<f64>,
    /// Where log, tables and state go. A temporary folder when absent.
    #[arg(long)]
    folder: Option<PathBuf>,
}

const PIPELINES: &str = include_str!("../../pipelines/append.toml");
/// Events that may wait in the log while the history grows.
const AHEAD: u64 = 200_000;

#[derive(Serialize)]
struct Report {
    history: u64,
    median_ms: f64,
    p95_ms: f64,
    /// Processor time of a batch, mean: the making of events is not in it, log checkpoints and the settling of state are.
    cpu_ms: f64,
    peak_memory_mib: u64,
    load: f64,
}

fn main() -> ExitCode {
    exit_code(run(Options::parse()))
}

#[tokio::main]
async fn run(options: Options) -> Result<()> {
    if options.history.is_empty() || !options.history.is_sorted() {
        return Err(Error::Usage("--history must name sizes, smallest first".to_owned()));
    }
    let text = match &options.pipelines {
        Some(path) => std::fs::read_to_string(path).map_err(Error::file(path))?,
        None => PIPELINES.to_owned(),
    };
    let temporary = tempfile::tempdir()?;
    let folder = options.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let flow = Flow::open(&folder, &text).await?;
    let rows = usize::try_from(options.rows).unwrap_or(usize::MAX);
    let bronze = BronzeSettings { max_rows: rows, ..BronzeSettings::default() };
    let mut instance =
        Instance { running: flow.start(bronze).await?, flow, events: Generator::new(plan(&options)), sent: 0 };
    let mut medians = Vec::new();
    for history in &options.history {
        instance.grow(*history, rows).await?;
        machine::forget_peak_memory();
        let (times, cpu) = instance.measure(options.batches, rows).await?;
        let figures = times.percentiles();
        let median = times.median_ms(0..usize::try_from(options.batches).unwrap_or(usize::MAX));
        medians.push(median);
        let report = Report {
            history: *history,
            median_ms: round(median),
            p95_ms: round(figures.p95_ms),
            cpu_ms: round(cpu * 1000.0 / f64::from(options.batches)),
            peak_memory_mib: peak_memory_mib() as u64,
            load: Machine::read().load,
        };
        println!("{}", serde_json::to_string(&report)?);
    }
    instance.running.finish().await?;
    let (Some(first), Some(last)) = (medians.first(), medians.last()) else { return Ok(()) };
    let ratio = round(last / first.max(f64::MIN_POSITIVE));
    println!("{}", serde_json::json!({"ratio": ratio}));
    match options.at_most.filter(|at_most| ratio > *at_most) {
        None => Ok(()),
        Some(at_most) => Err(Error::WrongResult(format!(
            "the last batches cost {ratio} times the first, at most {at_most} is allowed"
        ))),
    }
}

/// A worker, what it was given, and what it will be given.
struct Instance {
    flow: Flow,
    running: Running,
    events: Generator,
    sent: u64,
}

impl Instance {
    /// Gives events until `history` of them are processed.
    async fn grow(&mut self, history: u64, rows: usize) -> Result<()> {
        while self.sent < history {
            self.send(rows).await?;
            self.running.processed(self.sent.saturating_sub(AHEAD)).await?;
        }
        self.running.processed(self.sent).await
    }

    /// Gives batches one by one; their times, and the processor time of all.
    async fn measure(&mut self, batches: u32, rows: usize) -> Result<(Latencies, f64)> {
        let (mut times, mut cpu) = (Latencies::default(), 0.0);
        for _ in 0..batches {
            let lines = self.lines(rows);
            let (start, before) = (Instant::now(), cpu_seconds());
            self.sent += lines.len() as u64;
            self.flow.append(Shape::EtlRun.event_type(), lines).await?;
            self.running.processed(self.sent).await?;
            times.add(start.elapsed());
            cpu += cpu_seconds() - before;
        }
        Ok((times, cpu))
    }

    async fn send(&mut self, rows: usize) -> Result<()> {
        let lines = self.lines(rows);
        self.sent += lines.len() as u64;
        self.flow.append(Shape::EtlRun.event_type(), lines).await
    }

    fn lines(&mut self, rows: usize) -> Vec<Bytes> {
        self.events.by_ref().take(rows).map(Bytes::from).collect()
    }
}

/// Enough good events for everything, so many a day.
fn plan(options: &Options) -> Plan {
    let longest = options.history.last().copied().unwrap_or_default();
    let measured = options.history.len() as u64 * u64::from(options.batches) * u64::from(options.rows);
    let count = longest + measured + u64::from(options.rows);
    let days = u32::try_from(count.div_ceil(u64::from(options.per_day))).unwrap_or(u32::MAX);
    Plan { count, days, duplicates: 0.0, bad: 0.0, shape: Shape::EtlRun, with_envelope: false, ..Plan::default() }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
