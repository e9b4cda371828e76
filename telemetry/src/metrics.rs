//! The figures of this process, in families that `/metrics` writes.
//!
//! Names, types, labels and meanings are listed in docs/OPERATIONS.md; a test compares what a server answers with that table.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// So many labels, each with its value.
type Labels<const N: usize> = [(&'static str, Arc<str>); N];
type Histograms = Family<Labels<1>, Histogram>;

/// Seconds of a request, of a commit, and from the log to gold.
const REQUEST: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const COMMIT: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const TO_GOLD: [f64; 13] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// Methods that have a label of their own; clients make up others.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The figures of this process.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// What is counted where it happens. What is asked of somebody when it is read is a collector of the binary.
pub struct Metrics {
    requests: Family<Labels<3>, Counter>,
    request_seconds: Histograms,
    published: Family<Labels<2>, Counter>,
    to_gold_seconds: Histograms,
    commit_seconds: Histograms,
    step_events: Family<Labels<2>, Counter>,
    rule_failures: Family<Labels<3>, Counter>,
    quarantined: Family<Labels<2>, Counter>,
    pub(crate) spans_exported: Counter,
    pub(crate) spans_dropped: Counter,
}

impl Metrics {
    fn new() -> Self {
        Self {
            requests: Family::default(),
            request_seconds: histograms(|| Histogram::new(REQUEST)),
            published: Family::default(),
            to_gold_seconds: histograms(|| Histogram::new(TO_GOLD)),
            commit_seconds: histograms(|| Histogram::new(COMMIT)),
            step_events: Family::default(),
            rule_failures: Family::default(),
            quarantined: Family::default(),
            spans_exported: Counter::default(),
            spans_dropped: Counter::default(),
        }
    }

    /// Puts every family into the registry that a server writes.
    pub fn register(&self, registry: &mut Registry) {
        let name = "http_requests";
        registry.register(
            name,
            "Requests answered, by method, route template and class of status",
            self.requests.clone(),
        );
        let name = "http_request_duration_seconds";
        registry.register(
            name,
            "From the head of a request to its answer, by route template",
            self.request_seconds.clone(),
        );
        let name = "events_published";
        registry.register(name, "Events of publishing requests, by door and outcome", self.published.clone());
        let name = "event_to_gold_seconds";
        let help = "From the time at which the log took a record to the epoch that covers it, by pipeline";
        registry.register(name, help, self.to_gold_seconds.clone());
        let name = "commit_duration_seconds";
        registry.register(name, "Commits of tables and epochs, by layer", self.commit_seconds.clone());
        let name = "pipeline_events";
        registry.register(
            name,
            "What became of the events of steps, by pipeline and outcome",
            self.step_events.clone(),
        );
        let name = "rule_failures";
        registry.register(name, "Rows that broke a rule, by pipeline, table and rule", self.rule_failures.clone());
        let name = "quarantined_rows";
        registry.register(name, "Rows put into quarantine, by pipeline and stage", self.quarantined.clone());
        registry.register("spans_exported", "Spans that the collector took", self.spans_exported.clone());
        let help = "Spans dropped because the queue was full or the collector did not take them";
        registry.register("spans_dropped", help, self.spans_dropped.clone());
    }

    /// A request that was answered. `route` is a template, never a path.
    pub fn answered(&self, method: &str, route: &Arc<str>, status: u16, took: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        let class = CLASSES.get(usize::from(status / 100).saturating_sub(1)).copied().unwrap_or("other");
        let labels = [("method", method.into()), ("route", Arc::clone(route)), ("status", class.into())];
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.get_or_create(&[("route", Arc::clone(route))]).observe(took.as_secs_f64());
    }

    /// Events of one publishing request.
    pub fn published(&self, door: &'static str, outcomes: [(&'static str, u64); 3]) {
        for (outcome, events) in outcomes {
            add(&self.published, [("door", door.into()), ("outcome", outcome.into())], events);
        }
    }

    /// A commit of a table, or of an epoch.
    pub fn committed(&self, layer: &str, took: Duration) {
        self.commit_seconds.get_or_create(&[("layer", layer.into())]).observe(took.as_secs_f64());
    }

    /// Records that an epoch covers from now on: the time that each took in microseconds, where that is known.
    pub fn reached_gold(&self, pipeline: &str, took_us: impl Iterator<Item = i64>) {
        let histogram = self.to_gold_seconds.get_or_create_owned(&[("pipeline", pipeline.into())]);
        // A clock that was set back makes no negative time.
        took_us.for_each(|us| histogram.observe(Duration::from_micros(u64::try_from(us).unwrap_or(0)).as_secs_f64()));
    }

    /// What became of the events of a step. Its names are those of the declaration.
    pub fn stepped<'a>(
        &self,
        pipeline: &str,
        outcomes: [(&'static str, u64); 4],
        rules: impl Iterator<Item = (&'a str, &'a str, u64)>,
        stages: impl Iterator<Item = &'a str>,
    ) {
        let pipeline: Arc<str> = pipeline.into();
        let own = || ("pipeline", Arc::clone(&pipeline));
        for (outcome, events) in outcomes {
            add(&self.step_events, [own(), ("outcome", outcome.into())], events);
        }
        for (table, rule, rows) in rules {
            add(&self.rule_failures, [own(), ("table", table.into()), ("rule", rule.into())], rows);
        }
        stages.for_each(|stage| add(&self.quarantined, [own(), ("stage", stage.into())], 1));
    }
}

fn histograms(constructor: fn() -> Histogram) -> Histograms {
    Family::new_with_constructor(constructor)
}

fn add<const N: usize>(family: &Family<Labels<N>, Counter>, labels: Labels<N>, count: u64) {
    family.get_or_create(&labels).inc_by(count);
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    fn written(metrics: &Metrics) -> String {
        let mut registry = Registry::with_prefix("karat");
        metrics.register(&mut registry);
        let mut body = String::new();
        text::encode(&mut body, &registry).unwrap();
        body
    }

    #[test]
    fn methods_and_statuses_that_nobody_knows_make_no_series_of_their_own() {
        let metrics = Metrics::new();
        let route: Arc<str> = "/runs".into();
        for (method, status) in [("GET", 200), ("MADE-UP", 404), ("TRACE", 404), ("get", 404), ("GET", 999)] {
            metrics.answered(method, &route, status, Duration::from_millis(2));
        }
        let body = written(&metrics);
        let series: Vec<&str> = body.lines().filter(|line| line.starts_with("karat_http_requests_total{")).collect();
        assert_eq!(series.len(), 3, "{series:?}");
        assert!(body.contains(r#"karat_http_requests_total{method="other",route="/runs",status="4xx"} 3"#), "{body}");
        assert!(body.contains(r#"karat_http_request_duration_seconds_count{route="/runs"} 5"#), "{body}");
    }

    #[test]
    fn times_to_gold_are_one_a_record_and_never_negative() {
        let metrics = Metrics::new();
        metrics.reached_gold("etl_runs", [200_000, -5, 4_000_000_000].into_iter());
        let body = written(&metrics);
        assert!(body.contains(r#"karat_event_to_gold_seconds_count{pipeline="etl_runs"} 3"#), "{body}");
        assert!(body.contains(r#"karat_event_to_gold_seconds_bucket{le="0.05",pipeline="etl_runs"} 1"#), "{body}");
        assert!(body.contains("# TYPE karat_event_to_gold_seconds histogram"), "{body}");
    }
}
