//! The binary `karat`: reads the command line, runs the command, gives its exit code.
//!
//! Exit codes: 0 ok, 1 the work failed in part, 2 usage, 69 something it depends on cannot be reached, 78 configuration
//! invalid, 130 interrupted.

mod cli;
mod commands;
mod config;
mod endpoints;
mod failure;
mod instance;
mod roles;
mod runtime;

use std::{io::IsTerminal, process::ExitCode};

/// Long-lived processes keep their memory flat with it; the system's allocator fragments under Arrow's large buffers.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let (arguments, settings) = match config::read(std::env::args_os().collect()) {
        Ok(read) => read,
        Err(failure) => {
            failure.print();
            return ExitCode::from(failure.code);
        }
    };
    if let Err(failure) = log_to_stderr(&arguments) {
        failure.print();
        return ExitCode::from(failure.code);
    }
    // Two cryptography providers are in the dependency tree: the process names its own before anything else does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match runtime::threads().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return ExitCode::from(failure::FAILED);
        }
    };
    let ended = runtime.block_on(commands::run(arguments, &settings));
    // What matters was waited for. A question to a broker that does not answer would hold the process for its deadline.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

/// Everything but a command's data goes to standard error.
fn log_to_stderr(arguments: &cli::Cli) -> failure::Result<()> {
    // Libraries speak up from warnings on: each snapshot of a table is news to delta-rs, not to an operator.
    let own = if arguments.verbose { "debug" } else { "info" };
    let crates = [
        "karat",
        "karat_access",
        "karat_api",
        "karat_eventlog",
        "karat_ingest",
        "karat_lake",
        "karat_telemetry",
        "karat_transform",
    ];
    let levels: Vec<String> = crates.iter().map(|name| format!("{name}={own}")).collect();
    let usual = || format!("warn,karat_http={own},karat_http::access=warn,{}", levels.join(","));
    let filter = tracing_subscriber::EnvFilter::try_new(arguments.log_levels.clone().unwrap_or_else(usual))
        .map_err(|error| failure::Failure::configuration(format!("`log.levels`: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Escape codes are for eyes: in a file, and where NO_COLOR is set, they only stand in the way.
    let is_coloured =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = log.with_ansi(is_coloured);
    match arguments.log_format {
        cli::LogFormat::Text => log.init(),
        cli::LogFormat::Json => log.json().init(),
    }
    Ok(())
}
