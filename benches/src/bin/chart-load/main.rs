//! Watches charts on many WebSockets and reports what the server's processor does for it.
//!
//! The processor time of the whole server is read over times of the same length: with no client, with all clients while nothing
//! changes, and, with `--publish-rate`, with all clients while events come, and with events alone. Every message is checked.
#![allow(clippy::print_stdout)]

mod report;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use chrono::Utc;
use clap::Parser;
use karat_benches::{
    Error, Result,
    charts::{Chart, Figures},
    connection::{Connection, Target},
    exit_code,
    machine::{cpu_seconds, cpu_seconds_of},
    publish::{Common, Requests},
    watcher::{Heard, Watcher},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use self::report::{Report, judge_messages};

/// Watches charts on many WebSockets. Text goes to standard error, one line of JSON to standard output.
#[derive(Parser)]
struct Options {
    /// The server, `http://HOST:PORT`.
    #[arg(long)]
    url: String,
    /// API keys that may read, of as many accounts, with commas between: the clients have them in turn. The first one publishes.
    #[arg(long = "key", env = "KARAT_KEY", hide_env_values = true, value_delimiter = ',', required = true)]
    keys: Vec<String>,
    /// WebSockets; each is of a line, a bar and a pie in turn.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    clients: u32,
    /// Whose figures the charts show, in turn.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Figures::Runs, Figures::Profits])]
    figures: Vec<Figures>,
    /// Seconds between two messages to a client, 0.25 to 60.
    #[arg(long, default_value_t = 1.0)]
    interval: f64,
    /// Seconds of each measured time.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Events a second: it is measured once more while they come, and figures change.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    publish_rate: Option<u32>,
    /// Process id of the server on this machine, for its processor time.
    #[arg(long)]
    pid: Option<u32>,
    /// Fail when the server takes more than this share of one core while nothing changes, or more than this for the clients
    /// while events come.
    #[arg(long)]
    at_most_core_share: Option<f64>,
}

/// A user may send so many messages in a minute; each client sends one.
const MESSAGES_PER_MINUTE: usize = 60;
/// Before each measured time.
const SETTLE: Duration = Duration::from_secs(2);
/// Of the one connection that publishes.
const REQUESTS_PER_SECOND: u32 = 20;

type Watchers = JoinSet<Result<Heard>>;

/// A time over which was measured.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
    /// Processor time of the server by time.
    server_core_share: Option<f64>,
    own_core_share: f64,
}

/// The measured times.
struct Windows {
    no_client: Window,
    quiet: Window,
    changing: Option<Window>,
    events_alone: Option<Window>,
}

/// Events that are published until they are stopped.
struct Publisher {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<u64>>,
}

impl Options {
    fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval)
    }
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

#[tokio::main(flavor = "current_thread")]
async fn run(options: &Options) -> Result<()> {
    check(options)?;
    let server = Target::parse(&options.url)?;
    let length = Duration::from_secs(options.seconds);
    let mut nobody = Watchers::new();
    measure(SETTLE, None, &mut nobody).await?;
    eprintln!("{length:?} without a client");
    let no_client = measure(length, options.pid, &mut nobody).await?;
    let (stop, stopped) = watch::channel(false);
    let mut watchers = open(options, &server, &stopped).await?;
    measure(SETTLE, None, &mut watchers).await?;
    eprintln!("{length:?} with {} clients", options.clients);
    let quiet = measure(length, options.pid, &mut watchers).await?;
    let publisher = options.publish_rate.map(|rate| Publisher::start(&server, &options.keys[0], rate));
    let mut changing = None;
    if publisher.is_some() {
        measure(SETTLE, None, &mut watchers).await?;
        eprintln!("{length:?} with events too");
        changing = Some(measure(length, options.pid, &mut watchers).await?);
    }
    stop.send_replace(true);
    let mut heard = Vec::new();
    while let Some(one) = watchers.join_next().await {
        heard.push(one??);
    }
    let (mut events, mut events_alone) = (0, None);
    if let Some(publisher) = publisher {
        measure(SETTLE, None, &mut nobody).await?;
        eprintln!("{length:?} with events alone");
        events_alone = Some(measure(length, options.pid, &mut nobody).await?);
        events = publisher.finish().await?;
    }
    let windows = Windows { no_client, quiet, changing, events_alone };
    let report = Report::of(options, &heard, &windows, events);
    report.print()?;
    judge_messages(options, &heard, &windows)?;
    report.judge_shares(options.at_most_core_share)
}

fn check(options: &Options) -> Result<()> {
    if !(0.25..=60.0).contains(&options.interval) || options.interval * 3.0 > options.seconds as f64 {
        let message = "`--interval` must be 0.25 to 60 seconds, and `--seconds` at least three of them";
        return Err(Error::Usage(message.to_owned()));
    }
    let of_one = (options.clients as usize).div_ceil(options.keys.len().max(1));
    if of_one > MESSAGES_PER_MINUTE {
        return Err(Error::Usage(format!(
            "{of_one} clients would be of one account, each says how often it wants its chart, and a user may send \
             {MESSAGES_PER_MINUTE} messages in a minute: give keys of more accounts with `--key KEY,KEY`"
        )));
    }
    match options.pid {
        Some(pid) if cpu_seconds_of(pid).is_none() => {
            Err(Error::Usage(format!("there is no process {pid} to measure: `--pid` is that of the server")))
        }
        None if options.at_most_core_share.is_some() => {
            Err(Error::Usage("`--at-most-core-share` needs `--pid`".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Opens every client, over the time of one interval, so that their messages are not all due at once.
async fn open(options: &Options, server: &Target, stopped: &watch::Receiver<bool>) -> Result<Watchers> {
    let charts = Chart::all(&options.figures);
    let interval = options.interval();
    let (gap, mut due) = (interval / options.clients, Instant::now());
    let mut watchers = Watchers::new();
    let turns = charts.iter().cycle().zip(options.keys.iter().cycle()).take(options.clients as usize);
    for (chart, key) in turns {
        tokio::time::sleep_until(due.into()).await;
        let watcher = Watcher::open(server, key, *chart, interval).await?;
        watchers.spawn(watcher.watch(stopped.clone()));
        due += gap;
    }
    Ok(watchers)
}

/// Measures for so long. A client that ends ends it.
async fn measure(length: Duration, pid: Option<u32>, watchers: &mut Watchers) -> Result<Window> {
    let cpu = || (cpu_seconds(), pid.and_then(cpu_seconds_of));
    let (from, before) = (Instant::now(), cpu());
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        Some(ended) = watchers.join_next() => {
            ended??;
            return Err(Error::WrongResult("a client ended before it was to".to_owned()));
        }
    }
    let (to, after) = (Instant::now(), cpu());
    let share = |before: f64, after: f64| (after - before) / (to - from).as_secs_f64();
    let server_core_share = before.1.zip(after.1).map(|(before, after)| share(before, after));
    Ok(Window { from, to, server_core_share, own_core_share: share(before.0, after.0) })
}

impl Publisher {
    fn start(server: &Target, key: &str, rate: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(publish(server.at("/api/v1/events"), key.to_owned(), rate, stopped));
        Self { stop, task }
    }

    /// How many events were accepted.
    async fn finish(self) -> Result<u64> {
        self.stop.send_replace(true);
        self.task.await?
    }
}

/// Runs of a source of their own, at a fixed rate.
async fn publish(target: Target, key: String, rate: u32, stopped: watch::Receiver<bool>) -> Result<u64> {
    let batch = (rate / REQUESTS_PER_SECOND).max(1);
    let gap = Duration::from_secs_f64(f64::from(batch) / f64::from(rate));
    let now_ms = Utc::now().timestamp_millis();
    let source = format!("bench-charts-{now_ms:x}");
    let common = Common { target: &target, credential: Some(&key), source: &source, start_ms: now_ms - 2_000 };
    let mut requests = Requests::new(&common, batch as usize, 0);
    let mut connection = Connection::open(&target).await?;
    let (mut due, mut events) = (Instant::now(), 0);
    while !*stopped.borrow() {
        tokio::time::sleep_until(due.into()).await;
        let answer = connection.ask(requests.next_request()).await?;
        if answer.status != 202 {
            let body: String = String::from_utf8_lossy(answer.body).chars().take(500).collect();
            let reason =
                format!("publishing was answered with {} (the first key must be one that may): {body}", answer.status);
            return Err(Error::Server { address: target.address.clone(), reason });
        }
        events += u64::from(batch);
        due += gap;
    }
    Ok(events)
}
