//! Measures what `GET /summary` costs beside a fixed text, on one server and the same processors.
//!
//! The server is a process of its own, this program once more: the product's application over made-up rows, and routes
//! that do nothing ([`serving`](karat_benches::serving)). All routes are asked in turn, round after round, and the medians
//! of the rounds are compared. Then questions that were never asked before come at fixed times.
#![allow(clippy::print_stdout)]

mod report;
mod server;

use std::{net::SocketAddr, process::ExitCode};

use chrono::{DateTime, Days, NaiveDate};
use clap::Parser;
use karat_benches::{
    Error, Result,
    connection::{Connection, Target, header},
    exit_code,
    load::{Generator, Question, Speed, at_rate},
    machine::Machine,
    serving::{PASSWORD, USERNAME},
    slices::{START_US, source_name},
};
use serde_json::json;

use crate::{
    report::{Report, Route, RouteReport, bars, print},
    server::{Addresses, DAYS, Server, serve},
};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Compares `GET /summary` with a fixed text. Text goes to standard error, one line of JSON to standard output.
#[derive(Parser)]
struct Options {
    /// Connections, each number in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [64_u32, 1000], value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: Vec<u32>,
    /// Rounds, of which the medians are taken.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each route and number of connections in a round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Questions a second that were never asked before.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Seconds of such questions; one more comes before and is not counted.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    rate_seconds: u32,
    /// Sources of the rows, which are of one year.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    sources: u32,
    /// Fail when a bar is missed.
    #[arg(long)]
    judge: bool,
    /// Be the server.
    #[arg(long, hide = true)]
    serve: bool,
}

const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu"];
/// Decision 37: a measurement says which limits it lifts.
const LIFTED: &str = "quotas count and are never reached; connections of one client network";

fn main() -> ExitCode {
    let options = Options::parse();
    exit_code(if options.serve { serve(options.sources) } else { run(&options) })
}

fn run(options: &Options) -> Result<()> {
    if !options.rate.is_finite() || options.rate <= 0.0 {
        return Err(Error::Usage("`--rate` must be above 0".to_owned()));
    }
    let generator = Generator::find()?;
    eprintln!("making the rows of {} sources; asking with {generator:?}", options.sources);
    let mut server = Server::start(options.sources)?;
    let app = Target { address: server.addresses.app.to_string(), path: String::new() };
    let token = log_in(&app)?;
    let mut summary =
        Question { target: app.at(summary_path()), credential: Some(token), headers: vec![], status: 200 };
    let (answer_bytes, tag) = first_answer(&summary)?;
    server.set_length(answer_bytes)?;
    let mut rounds: Vec<(Route, u32, Vec<Speed>)> = Vec::new();
    for round in 0..=options.rounds {
        for connections in &options.connections {
            for route in Route::ALL {
                let question = question(route, &server.addresses, &summary, &tag);
                // The first round is short, and warms up what is cold.
                let seconds = if round == 0 { 1 } else { options.seconds };
                let speed = generator.drive(&question, *connections, seconds)?;
                eprintln!("round {round}, {connections} connections, {route:?}: {speed:?}");
                match rounds.iter_mut().find(|(of, with, _)| (of, with) == (&route, connections)) {
                    Some((.., speeds)) => speeds.push(speed),
                    None if round > 0 => rounds.push((route, *connections, vec![speed])),
                    None => {}
                }
            }
        }
    }
    let warm_up = options.rate.ceil() as u32;
    let num_questions = warm_up + (options.rate * f64::from(options.rate_seconds)).ceil() as u32;
    let mut requests = Vec::new();
    for number in 0..num_questions {
        summary.target.path = path_never_asked(number, options.sources);
        requests.push(summary.request());
    }
    let never_asked = at_rate(&app, &requests, options.rate, warm_up)?.percentiles();
    let misses = server.stop()?;
    if misses < u64::from(num_questions) {
        let reason =
            format!("{misses} answers were rendered for {num_questions} questions that were never asked before");
        return Err(Error::WrongResult(reason));
    }
    let routes: Vec<_> =
        rounds.into_iter().map(|(route, connections, speeds)| RouteReport::of(route, connections, &speeds)).collect();
    let bars = bars(&routes, &never_asked);
    let report = Report {
        generator,
        answer_bytes,
        rounds: options.rounds,
        seconds: options.seconds,
        is_met: bars.iter().all(|bar| bar.is_met),
        routes,
        never_asked,
        rate: options.rate,
        bars,
        lifted: LIFTED,
        load: Machine::read().load,
    };
    print(&report)?;
    match report.bars.iter().find(|bar| options.judge && !bar.is_met) {
        Some(missed) => Err(Error::WrongResult(format!("missed: {} is {}", missed.what, missed.found))),
        None => Ok(()),
    }
}

fn question(route: Route, addresses: &Addresses, summary: &Question, tag: &str) -> Question {
    let at = |address: SocketAddr, path: &str| Target { address: address.to_string(), path: path.to_owned() };
    let bare = |address| Question { target: at(address, "/bare"), credential: None, headers: Vec::new(), status: 200 };
    let ours = |path: &str, headers, status| {
        let credential = summary.credential.clone();
        Question { target: at(addresses.app, path), credential, headers, status }
    };
    match route {
        Route::Bare => bare(addresses.bare),
        Route::Carried => bare(addresses.carried),
        Route::Fixed => ours("/api/v1/fixed", Vec::new(), 200),
        Route::Summary => ours(&summary.target.path, Vec::new(), 200),
        Route::Unchanged => ours(&summary.target.path, vec![("If-None-Match", tag.to_owned())], 304),
    }
}

/// Thirty days, of which the second half has runs: an answer of about 6 kB.
fn summary_path() -> String {
    let (from, to) = (day(0) - Days::new(15), day(14));
    format!("/api/v1/summary?from={from}&to={to}")
}

/// A year of one source by the days of a zone, another question for each number.
fn path_never_asked(number: u32, sources: u32) -> String {
    let (source, rest) = (source_name(number % sources), number / sources);
    let zone = ZONES[rest as usize % ZONES.len()];
    let from = day(0) - Days::new(u64::from(rest) / ZONES.len() as u64);
    let to = from + Days::new(u64::from(DAYS) - 1);
    format!("/api/v1/summary?from={from}&to={to}&source={source}&tz={zone}")
}

/// A day of the rows, from 0 on.
fn day(number: u64) -> NaiveDate {
    DateTime::from_timestamp_micros(START_US).unwrap_or_default().date_naive() + Days::new(number)
}

/// # Errors
/// [`Error::Server`] when it is refused.
fn log_in(app: &Target) -> Result<String> {
    let body = json!({"username": USERNAME, "password": PASSWORD}).to_string();
    let length = body.len().to_string();
    let target = app.at("/api/v1/auth/login");
    let head = target.head("POST", None, &[("Content-Type", "application/json"), ("Content-Length", &length)]);
    ask_once(&target, (head + &body).as_bytes(), |_, body| {
        let answer: serde_json::Value = serde_json::from_slice(body)?;
        let token = answer.pointer("/data/access_token").and_then(serde_json::Value::as_str);
        token.map(str::to_owned).ok_or_else(|| Error::WrongResult("an answer without a token".to_owned()))
    })
}

/// The length and the tag of the answer.
fn first_answer(question: &Question) -> Result<(usize, String)> {
    ask_once(&question.target, &question.request(), |head, body| {
        let tag = header(head, "etag").ok_or_else(|| Error::WrongResult("an answer without a tag".to_owned()))?;
        Ok((body.len(), tag.to_owned()))
    })
}

#[tokio::main(flavor = "current_thread")]
async fn ask_once<T>(target: &Target, request: &[u8], read: impl FnOnce(&[u8], &[u8]) -> Result<T>) -> Result<T> {
    let mut connection = Connection::open(target).await?;
    let answer = connection.ask(request).await?;
    if answer.status == 200 {
        return read(answer.head, answer.body);
    }
    let body: String = String::from_utf8_lossy(answer.body).chars().take(500).collect();
    Err(Error::Server { address: target.address.clone(), reason: format!("status {}: {body}", answer.status) })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_question_is_asked_twice_and_each_is_of_a_year() {
        let paths: Vec<String> = (0..10_000).map(|number| path_never_asked(number, 100)).collect();
        assert_eq!(paths.iter().collect::<HashSet<_>>().len(), paths.len());
        assert_eq!(paths[0], "/api/v1/summary?from=2025-01-01&to=2025-12-31&source=source-000&tz=UTC");
        assert_eq!(paths[400], "/api/v1/summary?from=2024-12-31&to=2025-12-30&source=source-000&tz=UTC");
        assert_eq!(summary_path(), "/api/v1/summary?from=2024-12-17&to=2025-01-15");
    }
}
