//! Measures how long an event takes from its publishing to the figures of `GET /summary`.
//!
//! Small batches are published at fixed times under a source of their own, while one connection asks for the summary of
//! that source again and again. The n-th event counts as visible when an answer first counts n runs. A time begins when
//! the request of the event is sent and ends when such an answer has arrived, so the pause between two questions is in
//! it: the figure is an upper bound.
#![allow(clippy::print_stdout)]

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{Days, Utc};
use clap::Parser;
use karat_benches::{
    Error, Result,
    connection::{Connection, Target, header},
    exit_code,
    latency::{Latencies, Percentiles},
    machine::Machine,
    publish::{Common, Requests},
};
use serde::Serialize;
use tokio::task::JoinSet;

/// Publishes events at a fixed rate and measures when they are visible in `GET /summary`.
#[derive(Parser)]
struct Options {
    /// The server, `http://HOST:PORT`.
    #[arg(long)]
    url: String,
    /// API key, or access token, that may publish.
    #[arg(long, env = "KARAT_KEY", hide_env_values = true)]
    key: Option<String>,
    /// API key, or access token, that may read what the first publishes; the same when absent.
    #[arg(long, env = "KARAT_READ_KEY", hide_env_values = true)]
    read_key: Option<String>,
    /// Events a second.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Events of a request.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds at the start that are published and not measured.
    #[arg(long, default_value_t = 3)]
    warm_up: u64,
    /// Connections that publish.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// Pause between two questions.
    #[arg(long, default_value_t = 5)]
    pause_ms: u64,
    /// Fail when p99 is above so many milliseconds.
    #[arg(long)]
    at_most_ms: Option<f64>,
}

/// After the last event, the summary has so long to count it.
const LAST_WAIT: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct Report {
    rate: u32,
    batch: u32,
    seconds: u64,
    events: u64,
    events_per_second: u64,
    /// Requests that were sent later than planned: above a few, the publisher or the server could not keep up.
    late_requests: usize,
    published: Percentiles,
    visible: Percentiles,
    questions: usize,
    answers_that_changed: usize,
    question: Percentiles,
    load: f64,
}

/// One request that was accepted.
struct Sent {
    at: Instant,
    answered: Instant,
    was_late: bool,
}

/// The first answer that counted so many runs.
struct Seen {
    at: Instant,
    runs: u64,
}

/// What the asking connection saw.
#[derive(Default)]
struct Watched {
    seen: Vec<Seen>,
    times: Latencies,
}

fn main() -> ExitCode {
    exit_code(run(Options::parse()))
}

#[tokio::main(worker_threads = 2)]
async fn run(options: Options) -> Result<()> {
    let options = Arc::new(options);
    let server = Target::parse(&options.url)?;
    let now = Utc::now();
    let source: Arc<str> = format!("bench-fresh-{:x}", now.timestamp_millis()).into();
    // The day before and after too: the measurement may run over midnight.
    let day = |date: Option<chrono::NaiveDate>| date.unwrap_or_default().to_string();
    let from = day(now.date_naive().checked_sub_days(Days::new(1)));
    let to = day(now.date_naive().checked_add_days(Days::new(1)));
    let question = server.at(format!("/api/v1/summary?source={source}&from={from}&to={to}"));
    let is_published = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch(question, Arc::clone(&options), Arc::clone(&is_published)));
    let published = publish(&options, &server, &source).await;
    is_published.store(true, Ordering::Release);
    let mut sent = match published {
        Ok(sent) => sent,
        Err(error) => {
            watcher.abort();
            return Err(error);
        }
    };
    let watched = watcher.await??;
    sent.sort_by_key(|sent| sent.at);
    let report = report(&options, &sent, &watched)?;
    println!("{}", serde_json::to_string(&report)?);
    match options.at_most_ms.filter(|at_most| report.visible.p99_ms > *at_most) {
        None => Ok(()),
        Some(at_most) => Err(Error::WrongResult(format!(
            "p99 from publishing to visible is {} ms, at most {at_most} ms is allowed",
            report.visible.p99_ms
        ))),
    }
}

/// Publishes everything, at its time.
async fn publish(options: &Arc<Options>, server: &Target, source: &Arc<str>) -> Result<Vec<Sent>> {
    let target = server.at("/api/v1/events");
    let start = Instant::now() + Duration::from_millis(100);
    let mut publishers = JoinSet::new();
    for number in 0..options.connections {
        let (options, target, source) = (Arc::clone(options), target.clone(), Arc::clone(source));
        publishers.spawn(async move { publish_share(&options, &target, &source, start, number).await });
    }
    let mut all = Vec::new();
    while let Some(sent) = publishers.join_next().await {
        all.extend(sent??);
    }
    Ok(all)
}

/// The requests of one connection: every n-th of the plan.
async fn publish_share(
    options: &Options,
    target: &Target,
    source: &str,
    start: Instant,
    number: u32,
) -> Result<Vec<Sent>> {
    let gap = Duration::from_secs_f64(f64::from(options.batch) / f64::from(options.rate));
    let end = start + Duration::from_secs(options.warm_up + options.seconds);
    let common =
        Common { target, credential: options.key.as_deref(), source, start_ms: Utc::now().timestamp_millis() - 2_000 };
    let batch = usize::try_from(options.batch).unwrap_or(1);
    let mut requests = Requests::new(&common, batch, u64::from(number) << 32);
    let mut connection = Connection::open(target).await?;
    let (mut due, mut sent) = (start + gap * number, Vec::new());
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        let at = Instant::now();
        let answer = connection.ask(requests.next_request()).await?;
        if answer.status != 202 {
            return Err(refused(target, "publishing", answer.status, answer.body));
        }
        sent.push(Sent { at, answered: Instant::now(), was_late: at.duration_since(due) > LATE });
        due += gap * options.connections;
    }
    Ok(sent)
}

/// A request this much behind its plan counts as late; timers alone are a millisecond or two late.
const LATE: Duration = Duration::from_millis(20);

/// Asks until everything that was published is counted, or nothing changes any more.
async fn watch(target: Target, options: Arc<Options>, is_published: Arc<AtomicBool>) -> Result<Watched> {
    let credential = options.read_key.as_deref().or(options.key.as_deref());
    let mut connection = Connection::open(&target).await?;
    let (mut watched, mut etag) = (Watched::default(), String::new());
    let expected = expected_runs(&options);
    let mut give_up = None;
    loop {
        let begin = Instant::now();
        // An unchanged answer is a 304, which costs the reader's quota nothing.
        let request = match etag.is_empty() {
            true => target.head("GET", credential, &[]),
            false => target.head("GET", credential, &[("If-None-Match", &etag)]),
        };
        let answer = connection.ask(request.as_bytes()).await?;
        let at = Instant::now();
        watched.times.add(at - begin);
        match answer.status {
            304 => {}
            200 => {
                header(answer.head, "etag").unwrap_or_default().clone_into(&mut etag);
                watched.seen.push(Seen { at, runs: runs_of(&target, answer.body)? });
            }
            status => return Err(refused(&target, "reading", status, answer.body)),
        }
        let runs = watched.seen.last().map_or(0, |seen| seen.runs);
        if is_published.load(Ordering::Acquire) {
            let give_up = *give_up.get_or_insert(at + LAST_WAIT);
            if runs >= expected || at >= give_up {
                return Ok(watched);
            }
        }
        tokio::time::sleep(Duration::from_millis(options.pause_ms)).await;
    }
}

/// Runs that the plan publishes.
fn expected_runs(options: &Options) -> u64 {
    let gap = Duration::from_secs_f64(f64::from(options.batch) / f64::from(options.rate));
    let length = Duration::from_secs(options.warm_up + options.seconds);
    let mut requests = 0;
    for number in 0..options.connections {
        let first = gap * number;
        let left = length.saturating_sub(first).as_nanos();
        requests += u64::try_from(left.div_ceil((gap * options.connections).as_nanos().max(1))).unwrap_or(0);
    }
    requests * u64::from(options.batch)
}

fn runs_of(target: &Target, body: &[u8]) -> Result<u64> {
    let answer: serde_json::Value = serde_json::from_slice(body)?;
    let runs = answer.pointer("/data/totals/runs").and_then(serde_json::Value::as_u64);
    let reason = "the summary has no `data.totals.runs`".to_owned();
    runs.ok_or_else(|| Error::Server { address: target.address.clone(), reason })
}

fn refused(target: &Target, what: &str, status: u16, body: &[u8]) -> Error {
    let body: String = String::from_utf8_lossy(body).chars().take(500).collect();
    let advice = match status {
        401 | 403 => " (give a key that may publish with --key, and one that may read with --read-key)",
        429 => " (the quota is used up: lift it for the benchmark, and say so beside the figures)",
        _ => "",
    };
    Error::Server {
        address: target.address.clone(),
        reason: format!("{what} was answered with {status}{advice}: {body}"),
    }
}

fn report(options: &Options, sent: &[Sent], watched: &Watched) -> Result<Report> {
    let batch = u64::from(options.batch);
    let events = sent.len() as u64 * batch;
    let counted = watched.seen.last().map_or(0, |seen| seen.runs);
    if counted != events {
        let message = format!("{events} events were accepted, and the summary counts {counted} runs");
        return Err(Error::WrongResult(message));
    }
    let Some((first, last)) = sent.first().zip(sent.last()) else {
        return Err(Error::WrongResult("nothing was published".to_owned()));
    };
    let measured_from = first.at + Duration::from_secs(options.warm_up);
    let (mut visible, mut published) = (Latencies::default(), Latencies::default());
    let mut answers = watched.seen.iter();
    let mut answer = answers.next();
    for (index, sent) in sent.iter().enumerate() {
        let needed = (index as u64 + 1) * batch;
        while answer.is_some_and(|answer| answer.runs < needed) {
            answer = answers.next();
        }
        if let Some(answer) = answer.filter(|_| sent.at >= measured_from) {
            visible.add(answer.at.saturating_duration_since(sent.at));
            published.add(sent.answered - sent.at);
        }
    }
    let span = (last.at - first.at).as_secs_f64().max(f64::MIN_POSITIVE);
    Ok(Report {
        rate: options.rate,
        batch: options.batch,
        seconds: options.seconds,
        events,
        events_per_second: ((events - batch) as f64 / span).round() as u64,
        late_requests: sent.iter().filter(|sent| sent.was_late).count(),
        published: published.percentiles(),
        visible: visible.percentiles(),
        questions: watched.times.len(),
        answers_that_changed: watched.seen.len(),
        question: watched.times.percentiles(),
        load: Machine::read().load,
    })
}
