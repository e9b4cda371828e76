//! The commands, one file each; roles are in [`crate::roles`].

mod accounts;
mod config;
mod doctor;
mod fsck;
mod openapi;
pub mod publish;
mod query;
mod replay;
mod status;
mod table;
mod topic;
mod validate;

use std::{io::Write, process::ExitCode};

use serde::Serialize;

use crate::{
    cli::{Cli, Command},
    config::Settings,
    failure::Result,
    roles,
};

/// Runs the command that the arguments name. `settings` say where its values came from.
pub async fn run(arguments: Cli, settings: &Settings) -> Result<ExitCode> {
    match arguments.command {
        Command::Up(arguments) => roles::up(arguments, settings).await,
        Command::Ingest(arguments) => roles::ingest(arguments, settings).await,
        Command::Transform(arguments) => roles::transform(arguments, settings).await,
        Command::Api(arguments) => roles::api(arguments, settings).await,
        Command::Config(command) => config::run(&command, settings),
        Command::Validate { file } => validate::run(file).await,
        Command::Publish(arguments) => Ok(publish::run(arguments).await?),
        Command::Status { instance, format } => status::run(&instance, format).await,
        Command::Table(command) => table::run(command).await,
        Command::Topic(command) => topic::run(command).await,
        Command::Replay(command) => replay::run(command).await,
        Command::Query { sql, instance, format } => query::run(&sql, &instance, format).await,
        Command::User(command) => accounts::user(command).await,
        Command::Key(command) => accounts::key(command).await,
        Command::Migrate { instance, format } => doctor::migrate(&instance, format).await,
        Command::Doctor { instance, format } => doctor::run(&instance, format).await,
        Command::Openapi => openapi::run().await,
        Command::Version => {
            print(&format!("karat {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Data goes to standard output, everything else to standard error.
fn print(text: &str) {
    match writeln!(std::io::stdout().lock(), "{text}") {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => note(&format!("standard output: {error}")),
        _ => {}
    }
}

/// What the person at the terminal should know beside the data.
#[allow(clippy::print_stderr)]
fn note(text: &str) {
    eprintln!("{text}");
}

fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Rows as aligned columns under a header.
fn print_table(header: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    print(&line(&header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()));
    rows.iter().for_each(|row| print(&line(row)));
}
