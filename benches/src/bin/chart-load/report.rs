//! What is printed of the measured times, and whether it is good enough.

use karat_benches::{
    Error, Result,
    charts::Figures,
    machine::Machine,
    watcher::{Count, Heard, fewest_messages},
};
use serde::Serialize;

use crate::{Options, Window, Windows};

/// What 200 clients at 1 s should stay below.
const BAR_CORE_SHARE: f64 = 0.1;
/// A client that watches runs must see so many while events come.
const FEWEST_EPOCHS: usize = 2;

#[derive(Serialize)]
pub(crate) struct Report {
    clients: u32,
    accounts: usize,
    interval_seconds: f64,
    seconds: u64,
    publish_rate: Option<u32>,
    /// Of the whole server, while nothing changes.
    core_share: Option<f64>,
    /// Of the whole server while events come, less that of the same events without clients.
    core_share_of_clients: Option<f64>,
    no_client: Phase,
    quiet: Phase,
    changing: Option<Phase>,
    events_alone: Option<Phase>,
    /// All that were published, also between the measured times.
    events: u64,
    bar_core_share: f64,
    is_met: bool,
    load: f64,
}

#[derive(Serialize)]
struct Phase {
    server_core_share: Option<f64>,
    own_core_share: f64,
    #[serde(flatten)]
    count: Count,
}

impl Report {
    pub(crate) fn of(options: &Options, heard: &[Heard], windows: &Windows, events: u64) -> Self {
        let core_share = windows.quiet.server_core_share.map(rounded);
        let share = |window: Option<Window>| window.and_then(|window| window.server_core_share);
        let both = share(windows.changing).zip(share(windows.events_alone));
        let core_share_of_clients = both.map(|(changing, alone)| rounded(changing - alone));
        let is_changing_met = core_share_of_clients.is_none_or(|share| share < BAR_CORE_SHARE);
        Self {
            clients: options.clients,
            accounts: options.keys.len(),
            interval_seconds: options.interval,
            seconds: options.seconds,
            publish_rate: options.publish_rate,
            core_share,
            core_share_of_clients,
            no_client: Phase::of(windows.no_client, &[]),
            quiet: Phase::of(windows.quiet, heard),
            changing: windows.changing.map(|window| Phase::of(window, heard)),
            events_alone: windows.events_alone.map(|window| Phase::of(window, &[])),
            events,
            bar_core_share: BAR_CORE_SHARE,
            is_met: core_share.is_some_and(|share| share < BAR_CORE_SHARE) && is_changing_met,
            load: Machine::read().load,
        }
    }

    pub(crate) fn print(&self) -> Result<()> {
        eprintln!(
            "{:<14} {:>8} {:>8} {:>8} {:>12} {:>8} {:>8} {:>8} {:>10} {:>10}",
            "", "server", "own", "a second", "of a client", "kB", "epochs", "p50 ms", "p99 ms", "max ms"
        );
        let phases = [
            ("no client", Some(&self.no_client)),
            ("quiet", Some(&self.quiet)),
            ("changing", self.changing.as_ref()),
            ("events alone", self.events_alone.as_ref()),
        ];
        for (name, phase) in phases.into_iter().filter_map(|(name, phase)| Some((name, phase?))) {
            let (server, own) = (percent(phase.server_core_share), percent(Some(phase.own_core_share)));
            let Count { messages_per_second, fewest_of_a_client, most_of_a_client, bytes, epochs, between, .. } =
                &phase.count;
            let of_a_client = format!("{fewest_of_a_client} to {most_of_a_client}");
            eprintln!(
                "{name:<14} {server:>8} {own:>8} {messages_per_second:>8.1} {of_a_client:>12} {:>8} {epochs:>8} {:>8.1} {:>10.1} {:>10.1}",
                bytes / 1_000,
                between.p50_ms,
                between.p99_ms,
                between.max_ms
            );
        }
        if self.core_share_of_clients.is_some() {
            eprintln!("the clients while events come: {} of one core", percent(self.core_share_of_clients));
        }
        let verdict = match (self.core_share, self.is_met) {
            (None, _) => "not measured, without `--pid`",
            (_, true) => "met",
            (_, false) => "missed",
        };
        eprintln!("bar: under {} of one core: {verdict}", percent(Some(BAR_CORE_SHARE)));
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }

    /// Fails when a share is above the bound that was asked for.
    pub(crate) fn judge_shares(&self, at_most: Option<f64>) -> Result<()> {
        let Some(at_most) = at_most else { return Ok(()) };
        let shares = [
            ("while nothing changes", self.core_share),
            ("for the clients while events come", self.core_share_of_clients),
        ];
        for (when, share) in shares {
            if let Some(share) = share.filter(|share| *share > at_most) {
                let message = format!("the server takes {share} of one core {when}, at most {at_most} is allowed");
                return Err(Error::WrongResult(message));
            }
        }
        if self.core_share.is_none() {
            return Err(Error::WrongResult("the server ended before its processor time was read".to_owned()));
        }
        Ok(())
    }
}

impl Phase {
    fn of(window: Window, heard: &[Heard]) -> Self {
        Self {
            server_core_share: window.server_core_share.map(rounded),
            own_core_share: rounded(window.own_core_share),
            count: Count::of(heard, window.from, window.to),
        }
    }
}

/// Fails when a client heard less than the protocol promises, or nothing new while events came.
pub(crate) fn judge_messages(options: &Options, heard: &[Heard], windows: &Windows) -> Result<()> {
    for window in [Some(windows.quiet), windows.changing].into_iter().flatten() {
        let Count { fewest_of_a_client, .. } = Count::of(heard, window.from, window.to);
        let fewest = fewest_messages(window.to - window.from, options.interval());
        if fewest_of_a_client < fewest {
            let message = format!("a client heard {fewest_of_a_client} messages, and must hear {fewest} at least");
            return Err(Error::WrongResult(message));
        }
    }
    let Some(window) = windows.changing else { return Ok(()) };
    let of_runs = heard.iter().filter(|client| client.chart.figures == Figures::Runs);
    match of_runs.map(|client| client.epochs(window.from, window.to)).min() {
        Some(epochs) if epochs < FEWEST_EPOCHS => {
            let message = format!("events came, and a client that watches runs saw {epochs} epochs");
            Err(Error::WrongResult(message))
        }
        _ => Ok(()),
    }
}

fn rounded(share: f64) -> f64 {
    (share * 10_000.0).round() / 10_000.0
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}
