//! Loads `POST /events` over many connections and reports throughput and latency.
//!
//! Closed loop by default: each connection sends its next request when the last is answered, which finds the most that
//! the server takes and flatters its latencies. With `--rate` the loop is open: requests are due at fixed times and
//! latencies count from then, so that a stall is charged to every request that it delayed.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::future::join_all;
use karat_benches::{
    Error, Result,
    connection::{Answer, Connection, Target},
    exit_code,
    latency::{Latencies, Percentiles},
    machine::{Machine, cpu_seconds, cpu_seconds_of},
    publish::{Common, Requests},
};
use serde::Serialize;

/// Loads `POST /events`. Text goes to standard error, one line of JSON to standard output.
#[derive(Parser)]
struct Options {
    /// The door, `http://HOST:PORT/api/v1/events`.
    #[arg(long)]
    url: String,
    /// API key, or access token, that may publish.
    #[arg(long, env = "KARAT_KEY", hide_env_values = true)]
    key: Option<String>,
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Events of a request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Requests a second in all; as many as the server answers when absent.
    #[arg(long)]
    rate: Option<f64>,
    /// Threads of this program.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Process id of the server on this machine, to report its processor time.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Serialize)]
struct Report {
    connections: u32,
    batch: u32,
    rate: Option<f64>,
    seconds: f64,
    requests: u64,
    requests_per_second: u64,
    events_per_second: u64,
    #[serde(flatten)]
    latency: Percentiles,
    errors: u64,
    errors_by_kind: BTreeMap<String, u64>,
    server_cpu_us_per_request: Option<f64>,
    own_cpu_us_per_request: f64,
    load: f64,
}

/// When the measured time begins and ends.
#[derive(Clone, Copy)]
struct Window {
    start: Instant,
    from: Instant,
    to: Instant,
}

/// What one connection, or one thread, saw.
#[derive(Default)]
struct Seen {
    latencies: Latencies,
    errors: BTreeMap<String, u64>,
}

/// After a failed connection attempt, so that a dead server is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    if options.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return Err(Error::Usage("`--rate` must be above 0".to_owned()));
    }
    let target = Target::parse(&options.url)?;
    let nonce = chrono::Utc::now().timestamp_millis().unsigned_abs();
    let source = format!("bench-load-{nonce:x}");
    let common = Common {
        target: &target,
        credential: options.key.as_deref(),
        source: &source,
        start_ms: chrono::Utc::now().timestamp_millis() - 2_000,
    };
    probe(&common, options.batch)?;
    let report = load(options, &common)?;
    print(&report)?;
    if report.requests == 0 {
        return Err(Error::WrongResult("no request was answered well".to_owned()));
    }
    Ok(())
}

/// One request first: a wrong key or path is said at once, and in full.
fn probe(common: &Common<'_>, batch: u32) -> Result<()> {
    runtime()?.block_on(async {
        let mut connection = Connection::open(common.target).await?;
        let answer = connection.ask(requests(common, batch, u32::MAX).next_request()).await?;
        match problem(&answer) {
            None => Ok(()),
            Some(problem) => {
                let body = String::from_utf8_lossy(answer.body).chars().take(500).collect::<String>();
                Err(Error::Server { address: common.target.address.clone(), reason: format!("{problem}: {body}") })
            }
        }
    })
}

fn load(options: &Options, common: &Common<'_>) -> Result<Report> {
    let start = Instant::now();
    let from = start + Duration::from_secs(options.warm_up);
    let window = Window { start, from, to: from + Duration::from_secs(options.seconds) };
    let seen = thread::scope(|scope| -> Result<(Seen, f64, Option<f64>)> {
        let workers: Vec<_> = (0..options.threads)
            .map(|thread| scope.spawn(move || run_thread(options, common, window, thread)))
            .collect();
        thread::sleep(window.from.saturating_duration_since(Instant::now()));
        let cpu = || (cpu_seconds(), options.pid.and_then(cpu_seconds_of));
        let before = cpu();
        thread::sleep(window.to.saturating_duration_since(Instant::now()));
        let after = cpu();
        let mut all = Seen::default();
        for worker in workers {
            let seen =
                worker.join().map_err(|_| Error::WrongResult("a thread of the load program panicked".to_owned()))??;
            all.add(seen);
        }
        Ok((all, after.0 - before.0, after.1.zip(before.1).map(|(after, before)| after - before)))
    });
    let (seen, own_cpu, server_cpu) = seen?;
    let requests = seen.latencies.len() as u64;
    let seconds = options.seconds as f64;
    let per_request = |cpu: f64| (cpu * 1e7 / requests.max(1) as f64).round() / 10.0;
    Ok(Report {
        connections: options.connections,
        batch: options.batch,
        rate: options.rate,
        seconds,
        requests,
        requests_per_second: (requests as f64 / seconds).round() as u64,
        events_per_second: (requests as f64 * f64::from(options.batch) / seconds).round() as u64,
        latency: seen.latencies.percentiles(),
        errors: seen.errors.values().sum(),
        errors_by_kind: seen.errors,
        server_cpu_us_per_request: server_cpu.map(per_request),
        own_cpu_us_per_request: per_request(own_cpu),
        load: Machine::read().load,
    })
}

/// Runs this thread's share of the connections.
fn run_thread(options: &Options, common: &Common<'_>, window: Window, thread: u32) -> Result<Seen> {
    let numbers = (0..options.connections).filter(|number| number % options.threads == thread);
    let connections = numbers.map(|number| run_connection(options, common, window, number));
    runtime()?.block_on(async {
        let mut all = Seen::default();
        for seen in join_all(connections).await {
            all.add(seen);
        }
        Ok(all)
    })
}

async fn run_connection(options: &Options, common: &Common<'_>, window: Window, number: u32) -> Seen {
    let mut seen = Seen::default();
    let mut requests = requests(common, options.batch, number);
    let mut connection = None;
    // The connections take turns: each has its own first moment, then the same pause.
    let gap = options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
    let mut due = window.start + gap.map_or(Duration::ZERO, |gap| gap * number);
    loop {
        if gap.is_some() {
            tokio::time::sleep_until(due.into()).await;
        }
        let begin = if gap.is_some() { due } else { Instant::now() };
        if begin.max(Instant::now()) >= window.to {
            return seen;
        }
        due += gap.map_or(Duration::ZERO, |gap| gap * options.connections);
        if let Err(kind) = exchange(&mut connection, common.target, requests.next_request()).await {
            connection = connection.filter(|_| kind.starts_with("status"));
            if begin >= window.from {
                *seen.errors.entry(kind).or_default() += 1;
            }
            if connection.is_none() {
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
            continue;
        }
        let end = Instant::now();
        if begin >= window.from && end <= window.to {
            seen.latencies.add(end - begin);
        }
    }
}

/// One request over the connection, which is opened when needed. The error is its kind.
async fn exchange(connection: &mut Option<Connection>, target: &Target, request: &[u8]) -> Result<(), String> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(target).await.map_err(|error| error.to_string())?),
    };
    let answer = open.ask(request).await.map_err(|error| error.to_string())?;
    problem(&answer).map_or(Ok(()), Err)
}

/// Anything but "all events are accepted" is a problem.
fn problem(answer: &Answer<'_>) -> Option<String> {
    let is_accepted = matches!(answer.status, 200..=299) && answer.status != 207;
    (!is_accepted).then(|| format!("status {}", answer.status))
}

/// Requests whose ids no other connection uses: its number is in the upper half.
fn requests(common: &Common<'_>, batch: u32, number: u32) -> Requests {
    Requests::new(common, usize::try_from(batch).unwrap_or(1), u64::from(number) << 32)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn print(report: &Report) -> Result<()> {
    let Percentiles { p50_ms, p95_ms, p99_ms, max_ms } = report.latency;
    eprintln!(
        "{} requests in {} s over {} connections: {} requests/s, {} events/s",
        report.requests, report.seconds, report.connections, report.requests_per_second, report.events_per_second
    );
    eprintln!("latency: p50 {p50_ms:.2} ms, p95 {p95_ms:.2} ms, p99 {p99_ms:.2} ms, max {max_ms:.2} ms");
    eprintln!("errors: {} {:?}", report.errors, report.errors_by_kind);
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
    }
}
