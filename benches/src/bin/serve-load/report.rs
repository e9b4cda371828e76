//! What was measured, and how it stands to the bars.

use karat_benches::{
    Result,
    latency::Percentiles,
    load::{Generator, Speed},
};
use serde::Serialize;

/// The routes, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Route {
    /// The text on the framework's own server.
    Bare,
    /// The text on this project's connections.
    Carried,
    /// The text behind everything that a route of the application is behind.
    Fixed,
    /// A summary that is kept.
    Summary,
    /// The same, for a client that has it: 304.
    Unchanged,
}

impl Route {
    pub(crate) const ALL: [Self; 5] = [Self::Bare, Self::Carried, Self::Fixed, Self::Summary, Self::Unchanged];
}

/// The line of JSON.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) generator: Generator,
    pub(crate) answer_bytes: usize,
    pub(crate) rounds: u32,
    pub(crate) seconds: u64,
    pub(crate) routes: Vec<RouteReport>,
    /// From when each question was due.
    pub(crate) never_asked: Percentiles,
    pub(crate) rate: f64,
    pub(crate) bars: Vec<Bar>,
    pub(crate) is_met: bool,
    pub(crate) lifted: &'static str,
    pub(crate) load: f64,
}

/// Medians of the rounds.
#[derive(Serialize)]
pub(crate) struct RouteReport {
    pub(crate) route: Route,
    pub(crate) connections: u32,
    #[serde(flatten)]
    pub(crate) speed: Speed,
}

/// What was found, and what it should be.
#[derive(Serialize)]
pub(crate) struct Bar {
    pub(crate) what: String,
    pub(crate) found: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_most: Option<f64>,
    pub(crate) is_met: bool,
}

impl RouteReport {
    pub(crate) fn of(route: Route, connections: u32, speeds: &[Speed]) -> Self {
        let median = |of: fn(&Speed) -> f64| {
            let mut values: Vec<f64> = speeds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let speed = Speed {
            requests_per_second: median(|speed| speed.requests_per_second),
            p50_ms: median(|speed| speed.p50_ms),
            p99_ms: median(|speed| speed.p99_ms),
        };
        Self { route, connections, speed }
    }
}

/// Each ratio, and what it should be.
pub(crate) fn bars(routes: &[RouteReport], never_asked: &Percentiles) -> Vec<Bar> {
    let mut bars = Vec::new();
    for fixed in routes.iter().filter(|report| report.route == Route::Fixed) {
        let connections = fixed.connections;
        let with =
            |route: Route| routes.iter().find(|report| report.route == route && report.connections == connections);
        let compare =
            |route: Route, of: Route| -> Option<(Speed, Speed)> { Some((with(route)?.speed, with(of)?.speed)) };
        for (route, of, share) in [
            (Route::Fixed, Route::Bare, 0.6),
            (Route::Summary, Route::Fixed, 0.7),
            (Route::Unchanged, Route::Fixed, 0.8),
        ] {
            if let Some((ours, theirs)) = compare(route, of) {
                let what = format!("requests/s of {route:?} to those of {of:?}, {connections} connections");
                bars.push(Bar::at_least(what, ours.requests_per_second / theirs.requests_per_second, share));
            }
        }
        if let Some((ours, theirs)) = compare(Route::Summary, Route::Fixed) {
            let what = format!("p99 of Summary to that of Fixed, {connections} connections");
            bars.push(Bar::at_most(what, ours.p99_ms / theirs.p99_ms, 1.5));
        }
    }
    bars.push(Bar::at_most("p99 of what was never asked before, ms".to_owned(), never_asked.p99_ms, 20.0));
    bars
}

impl Bar {
    fn at_least(what: String, found: f64, bar: f64) -> Self {
        let found = (found * 1000.0).round() / 1000.0;
        Self { what, found, at_least: Some(bar), at_most: None, is_met: found >= bar }
    }

    fn at_most(what: String, found: f64, bar: f64) -> Self {
        let found = (found * 1000.0).round() / 1000.0;
        Self { what, found, at_least: None, at_most: Some(bar), is_met: found <= bar }
    }
}

/// Text on standard error, the line on standard output.
pub(crate) fn print(report: &Report) -> Result<()> {
    eprintln!("{:<10} {:>11} {:>10} {:>8} {:>8}", "route", "connections", "a second", "p50 ms", "p99 ms");
    for RouteReport { route, connections, speed } in &report.routes {
        let Speed { requests_per_second, p50_ms, p99_ms } = speed;
        let route = format!("{route:?}");
        eprintln!("{route:<10} {connections:>11} {requests_per_second:>10} {p50_ms:>8.2} {p99_ms:>8.2}");
    }
    for Bar { what, found, at_least, at_most, is_met } in &report.bars {
        let (word, bar) = at_least.map_or(("at most", at_most.unwrap_or_default()), |bar| ("at least", bar));
        eprintln!("{what}: {found}; bar: {word} {bar}: {}", if *is_met { "met" } else { "missed" });
    }
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_compares_medians_of_the_same_number_of_connections() {
        let speed = |requests_per_second, p99_ms| Speed { requests_per_second, p50_ms: 1.0, p99_ms };
        let rounds = [speed(1.0, 9.0), speed(100.0, 2.0), speed(60.0, 3.0)];
        let report = |route, connections, speed| RouteReport::of(route, connections, &[speed]);
        let routes = [
            report(Route::Bare, 64, speed(100.0, 1.0)),
            RouteReport::of(Route::Fixed, 64, &rounds),
            report(Route::Summary, 64, speed(41.0, 4.6)),
            report(Route::Unchanged, 64, speed(48.0, 1.0)),
            report(Route::Fixed, 1000, speed(1.0, 1.0)),
        ];
        let never_asked = Percentiles { p50_ms: 1.0, p95_ms: 1.0, p99_ms: 20.0, max_ms: 30.0 };
        let bars = bars(&routes, &never_asked);
        let found: Vec<_> = bars.iter().map(|bar| (bar.found, bar.is_met)).collect();
        assert_eq!(found, [(0.6, true), (0.683, false), (0.8, true), (1.533, false), (20.0, true)]);
    }
}
