//! Loads the account routes that hash no password, over many connections, and reports the latency of each.
//!
//! Every connection is a log-in of its own. The loop is open: requests are due at fixed times, the routes in turn, and
//! a latency counts from the moment that a request was due, so that a stall is charged to every request that it
//! delayed. What was due is sent, also when it is late: nothing that a slow server held up is left out.
//!
//! `GET /health` takes its turn too, and is not judged. It asks nothing of anybody, so its times are those of this program, of the
//! machine and of the way of every request through the server; what the others take beyond them is their own.
#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::future::join_all;
use karat_benches::{
    Error, Result,
    accounts::{REFRESHES_PER_HOUR, Route, Session},
    connection::{Connection, Target},
    exit_code,
    latency::{Latencies, Percentiles},
    machine::Machine,
    pace::Pace,
};
use serde::Serialize;

/// Loads the account routes at a fixed rate. The server must be a scratch one, started with `--without-limits`.
#[derive(Parser)]
struct Options {
    /// The server, `http://HOST:PORT`.
    #[arg(long)]
    url: String,
    /// Connections, each with a session of its own.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Accounts that the sessions are of.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    people: u32,
    /// Requests a second in all.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Fail when p99 of a route of the accounts is above so many milliseconds, or a request fails.
    #[arg(long)]
    at_most_ms: Option<f64>,
}

/// What p99 of each route of the accounts should be below, in milliseconds.
const BAR_MS: f64 = 5.0;
/// Requests that were due before the end are sent until so long after it.
const LAST_WAIT: Duration = Duration::from_secs(30);
/// After a failed connection attempt, so that a dead server is not hammered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Decision 37: a measurement says which limits it lifts.
const LIFTED: &str =
    "quotas by route, user and client network (`up --without-limits`); the refreshes of a session keep theirs";

#[derive(Serialize)]
struct Report {
    routes: Vec<RouteReport>,
    connections: u32,
    people: u32,
    rate: f64,
    seconds: u64,
    requests: usize,
    requests_per_second: f64,
    errors: u64,
    errors_by_kind: BTreeMap<String, u64>,
    slowest_p99_ms: f64,
    bar_ms: f64,
    is_met: bool,
    lifted: &'static str,
    load: f64,
}

#[derive(Serialize)]
struct RouteReport {
    route: &'static str,
    /// Only those are judged.
    is_of_accounts: bool,
    requests: usize,
    requests_per_second: f64,
    #[serde(flatten)]
    latency: Percentiles,
}

/// When requests are due.
#[derive(Clone, Copy)]
struct Plan {
    start: Instant,
    /// Requests that are due before this are not measured.
    from: Instant,
    to: Instant,
    /// Between two requests of all connections together.
    gap: Duration,
    connections: u32,
}

/// What one connection, or all of them, saw of the measured requests.
#[derive(Default)]
struct Seen {
    /// In the order of [`Route::ALL`].
    latencies: [Latencies; Route::ALL.len()],
    errors: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

#[tokio::main(flavor = "current_thread")]
async fn run(options: &Options) -> Result<()> {
    check(options)?;
    let server = Target::parse(&options.url)?;
    eprintln!("registering {} accounts and logging in {} times", options.people, options.connections);
    let sessions = Session::open(&server, options.people, options.connections).await?;
    let start = Instant::now() + Duration::from_millis(100);
    let from = start + Duration::from_secs(options.warm_up);
    let plan = Plan {
        start,
        from,
        to: from + Duration::from_secs(options.seconds),
        gap: Duration::from_secs_f64(1.0 / options.rate),
        connections: options.connections,
    };
    let pace = Pace::start(plan.connections, plan.start, plan.gap, plan.to)?;
    let connections =
        (0..).zip(sessions).map(|(number, session)| run_connection(&server, plan, &pace, session, number));
    let mut seen = Seen::default();
    for one in join_all(connections).await {
        seen.add(one);
    }
    let report = report(options, seen);
    print(&report)?;
    if report.requests == 0 {
        return Err(Error::WrongResult("no request was answered well".to_owned()));
    }
    match options.at_most_ms {
        Some(at_most) if report.slowest_p99_ms > at_most || report.errors > 0 => Err(Error::WrongResult(format!(
            "p99 of the slowest route is {} ms with {} errors, at most {at_most} ms without any is allowed",
            report.slowest_p99_ms, report.errors
        ))),
        _ => Ok(()),
    }
}

fn check(options: &Options) -> Result<()> {
    if !options.rate.is_finite() || options.rate <= 0.0 {
        return Err(Error::Usage("`--rate` must be above 0".to_owned()));
    }
    let requests = options.rate * (options.warm_up + options.seconds) as f64;
    let refreshes = (requests / f64::from(options.connections) / Route::ALL.len() as f64).ceil();
    if refreshes > f64::from(REFRESHES_PER_HOUR) {
        return Err(Error::Usage(format!(
            "each session would be refreshed {refreshes} times, and {REFRESHES_PER_HOUR} an hour are allowed: \
             lower `--rate` or `--seconds`, or raise `--connections`"
        )));
    }
    Ok(())
}

async fn run_connection(server: &Target, plan: Plan, pace: &Pace, mut session: Session, number: u32) -> Seen {
    let (mut seen, mut connection) = (Seen::default(), None);
    // The connections take turns, and each begins with another route than its neighbours.
    let mut due = plan.start + plan.gap * number;
    let routes = (0..Route::ALL.len()).cycle().skip(number as usize % Route::ALL.len());
    for place in routes {
        if due >= plan.to {
            break;
        }
        pace.wait(number, due).await;
        let outcome = if Instant::now() > plan.to + LAST_WAIT {
            Err("not sent in time".to_owned())
        } else {
            exchange(&mut connection, server, &mut session, Route::ALL[place]).await
        };
        let (latency, has_failed) = (due.elapsed(), outcome.is_err());
        if due >= plan.from {
            match outcome {
                Ok(()) => seen.latencies[place].add(latency),
                Err(kind) => *seen.errors.entry(kind).or_default() += 1,
            }
        }
        if has_failed && connection.is_none() {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
        due += plan.gap * plan.connections;
    }
    seen
}

/// One request over the connection, which is opened when needed and left out after an error. The error is its kind.
async fn exchange(
    connection: &mut Option<Connection>,
    server: &Target,
    session: &mut Session,
    route: Route,
) -> Result<(), String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(server).await.map_err(|error| error.to_string())?,
    };
    let answer = open.ask(&session.request(server, route)).await.map_err(|error| error.to_string())?;
    let status = answer.status;
    if status == 200 && route == Route::Refresh {
        session.renew(answer.body).map_err(|error| error.to_string())?;
    }
    *connection = Some(open);
    if status == 200 { Ok(()) } else { Err(format!("{}: status {status}", route.name())) }
}

fn report(options: &Options, seen: Seen) -> Report {
    let per_second = |count: usize| (count as f64 / options.seconds as f64 * 10.0).round() / 10.0;
    let routes: Vec<_> = Route::ALL
        .iter()
        .zip(&seen.latencies)
        .map(|(route, latencies)| RouteReport {
            route: route.name(),
            is_of_accounts: route.is_of_accounts(),
            requests: latencies.len(),
            requests_per_second: per_second(latencies.len()),
            latency: latencies.percentiles(),
        })
        .collect();
    let requests: usize = routes.iter().map(|route| route.requests).sum();
    let errors: u64 = seen.errors.values().sum();
    let judged = routes.iter().filter(|route| route.is_of_accounts);
    let slowest_p99_ms = judged.map(|route| route.latency.p99_ms).fold(0.0, f64::max);
    let is_measured = routes.iter().all(|route| route.requests > 0);
    Report {
        routes,
        connections: options.connections,
        people: options.people,
        rate: options.rate,
        seconds: options.seconds,
        requests,
        requests_per_second: per_second(requests),
        errors,
        errors_by_kind: seen.errors,
        slowest_p99_ms,
        bar_ms: BAR_MS,
        is_met: is_measured && errors == 0 && slowest_p99_ms < BAR_MS,
        lifted: LIFTED,
        load: Machine::read().load,
    }
}

fn print(report: &Report) -> Result<()> {
    eprintln!("{:<28} {:>8} {:>8} {:>8} {:>8} {:>8}", "route", "requests", "a second", "p50 ms", "p99 ms", "max ms");
    for RouteReport { route, requests, requests_per_second, latency, .. } in &report.routes {
        let Percentiles { p50_ms, p99_ms, max_ms, .. } = latency;
        eprintln!("{route:<28} {requests:>8} {requests_per_second:>8.1} {p50_ms:>8.2} {p99_ms:>8.2} {max_ms:>8.2}");
    }
    eprintln!("errors: {} {:?}; lifted: {}", report.errors, report.errors_by_kind, report.lifted);
    let verdict = if report.is_met { "met" } else { "missed" };
    eprintln!("bar: p99 of every route of the accounts under {BAR_MS} ms, without errors: {verdict}");
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

impl Seen {
    fn add(&mut self, other: Self) {
        for (mine, others) in self.latencies.iter_mut().zip(other.latencies) {
            mine.extend(others);
        }
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
    }
}
