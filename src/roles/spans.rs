//! Spans of a process that serves: sent while it runs, and for two seconds at most after its work.

use std::process::ExitCode;

use karat_telemetry::spans;

use crate::{
    cli::TelemetryArgs,
    failure::{Failure, Result},
};

/// Runs `work` while its spans go to the collector that is set.
pub async fn exporting(arguments: &TelemetryArgs, work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let started = arguments.otlp.as_deref().map(spans::start).transpose();
    let exporter = started.map_err(|reason| Failure::configuration(format!("`telemetry.otlp`: {reason}")))?;
    let ended = work.await;
    if let Some(exporter) = exporter {
        exporter.close().await;
    }
    ended
}
