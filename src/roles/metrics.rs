//! What a server counts about itself: `/metrics` on an address of its own (`--metrics-listen`).

use std::{
    fmt,
    net::{SocketAddr, TcpListener},
};

use karat_access::Access;
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

impl MetricsServer {
    /// Counts what the accounts do, and the connections of the server that others reach.
    pub fn new(address: SocketAddr, (access, connections): (Access, ConnectionCounts)) -> Result<Self> {
        let listener = TcpListener::bind(address).map_err(|error| {
            Failure::configuration(format!("`server.metrics_listen`: cannot listen on `{address}`: {error}"))
        })?;
        let mut registry = Registry::with_prefix("karat");
        registry.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register_collector(Box::new(Hashing(access)));
        connections.register(&mut registry);
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
        let gauges = [
            ("password_hashes_running", "Password hashes that are computed now", load.running),
            ("password_hashes_parallel", "The most password hashes that run at a time", load.parallel),
            ("password_hashes_waiting", "Requests that wait for their password hash", load.waiting),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let counters = [
            ("password_hashes", "Password hashes computed", load.done),
            ("password_hashes_refused", "Requests refused because too many waited for a password hash", load.refused),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}
