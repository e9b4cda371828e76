//! What a server tells about itself, and to whom.

use std::net::SocketAddr;

use clap::Args;

#[derive(Debug, Clone, Args)]
pub struct TelemetryArgs {
    /// Address for `/metrics`, which asks for no log-in; there are none when absent.
    #[arg(long, value_name = "ADDR", env = "KARAT__SERVER__METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Collector of OpenTelemetry that spans of traces are sent to, by OTLP over HTTP, such as `http://collector:4318`; no spans are
    /// made when absent.
    #[arg(long, value_name = "URL", env = "KARAT__TELEMETRY__OTLP")]
    pub otlp: Option<String>,
}
