//! What a process counts about itself: `/metrics` on an address of its own (`--metrics-listen`).

mod loads;
mod process;

use std::net::{SocketAddr, TcpListener};

use karat_http::{ServeSettings, metrics, serve};
use prometheus_client::{collector::Collector, metrics::info::Info, registry::Registry};
use tokio::sync::watch;

pub use self::loads::{Door, Hashing, Log, Pipelines, Serving};
use self::process::Process;
use crate::failure::{Failure, Result};

/// The server of the metrics, bound and ready to run.
pub struct MetricsServer {
    listener: TcpListener,
    registry: Registry,
}

impl MetricsServer {
    /// `collectors` are asked when somebody reads.
    pub fn new(address: SocketAddr, collectors: Vec<Box<dyn Collector>>) -> Result<Self> {
        let listener = TcpListener::bind(address).map_err(|error| {
            Failure::configuration(format!("`server.metrics_listen`: cannot listen on `{address}`: {error}"))
        })?;
        let mut registry = Registry::default();
        // Its figures have the names that every exporter gives them.
        registry.register_collector(Box::new(Process::new()));
        let own = registry.sub_registry_with_prefix("karat");
        own.register("build", "The version that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        karat_telemetry::metrics().register(own);
        collectors.into_iter().for_each(|collector| own.register_collector(collector));
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
