//! What a server counts about itself: `/metrics` on an address of its own (`--metrics-listen`).

use std::{
    fmt,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use karat_access::Access;
use karat_api::serving::ServingCounters;
use karat_http::{ConnectionCounts, ServeSettings, metrics, serve};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
    registry::Registry,
};
use tokio::sync::watch;

use crate::failure::{Failure, Result};

/// The server of the metrics, bound and ready to run.
pub struct MetricsServer {
    listener: TcpListener,
    registry: Registry,
}

/// Who counts.
pub struct Counted {
    pub access: Access,
    /// Those of the server that others reach.
    pub connections: ConnectionCounts,
    pub answers: Arc<ServingCounters>,
}

impl MetricsServer {
    /// Listens, and counts what is named.
    pub fn new(address: SocketAddr, counted: Counted) -> Result<Self> {
        let listener = TcpListener::bind(address).map_err(|error| {
            Failure::configuration(format!("`server.metrics_listen`: cannot listen on `{address}`: {error}"))
        })?;
        let mut registry = Registry::with_prefix("karat");
        registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(Hashing(counted.access)));
        registry.register_collector(Box::new(Serving(counted.answers)));
        counted.connections.register(&mut registry);
        Ok(Self { listener, registry })
    }

    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let settings = ServeSettings { announcement: "metrics are answered", ..ServeSettings::default() };
        Ok(serve(self.listener, metrics(self.registry), settings, stopped).await?)
    }
}

/// How busy the hashing of passwords is, asked when somebody reads.
struct Hashing(Access);

impl fmt::Debug for Hashing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Hashing")
    }
}

impl Collector for Hashing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let load = self.0.hash_load();
        let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let gauges = [
            ("password_hashes_running", "Password hashes that are computed now", number(load.running)),
            ("password_hashes_parallel", "The most password hashes that run at a time", number(load.parallel)),
            ("password_hashes_waiting", "Requests that wait for their password hash", number(load.waiting)),
        ];
        let counters = [
            ("password_hashes", "Password hashes computed", load.done),
            ("password_hashes_refused", "Requests refused because too many waited for a password hash", load.refused),
        ];
        write(&mut encoder, &gauges, &counters)
    }
}

/// How the data routes answer, asked when somebody reads.
#[derive(Debug)]
struct Serving(Arc<ServingCounters>);

impl Collector for Serving {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let load = self.0.load();
        let gauges = [
            ("answer_cache_answers", "Rendered answers that are kept", load.answers),
            ("answer_cache_bytes", "Memory of the kept answers", load.bytes),
            ("questions_running", "Folds, scans and questions in SQL that run now", load.running),
            ("questions_waiting", "Folds and scans that wait for their turn", load.waiting),
        ];
        let counters = [
            ("answer_cache_hits", "Answers that were kept", load.hits),
            ("answer_cache_misses", "Answers that were rendered", load.misses),
            ("answer_cache_shared", "Requests that waited for the rendering of another one", load.shared),
            ("answer_cache_not_modified", "Requests whose client had the answer", load.not_modified),
            ("answer_cache_evictions", "Answers that made room, or were too large to be kept", load.evictions),
            ("questions_refused", "Questions refused because too many ran or waited", load.refused),
        ];
        write(&mut encoder, &gauges, &counters)
    }
}

/// Name, help, value.
type Measure = (&'static str, &'static str, u64);

fn write(encoder: &mut DescriptorEncoder<'_>, gauges: &[Measure], counters: &[Measure]) -> fmt::Result {
    for (name, help, value) in gauges {
        let gauge = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
    }
    for (name, help, value) in counters {
        let counter = ConstCounter::new(*value);
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn the_answers_and_the_questions_are_in_the_metrics() {
        let mut registry = Registry::with_prefix("karat");
        registry.register_collector(Box::new(Serving(Arc::default())));
        let mut written = String::new();
        text::encode(&mut written, &registry).unwrap();
        for name in ["answer_cache_hits_total", "answer_cache_bytes", "questions_waiting", "questions_refused_total"] {
            let line = format!("karat_{name} 0");
            assert!(written.lines().any(|found| found == line), "{line}: {written}");
        }
    }
}
