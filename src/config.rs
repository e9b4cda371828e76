//! Settings: where each comes from, and what it may be.
//!
//! A setting is an option of the command line ([`crate::cli`]) that has a name in the environment: `KARAT__SECTION__KEY`, or
//! `KARAT__KEY`. In `karat.toml` it is `key` in `[section]`. The first of these that has it counts: the command line, the
//! environment, the file, the default. There is no other list of settings than those options.

mod file;
mod origin;
pub mod production;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

pub use self::origin::{Origin, Setting, Settings};
use crate::{
    cli::Cli,
    failure::{Failure, Result},
};

/// What the name of every setting in the environment begins with.
const PREFIX: &str = "KARAT__";

/// Reads the command line on top of the environment and the file. Ends the process where clap does: at `--help`, and at words
/// that it does not understand.
///
/// # Errors
/// Every problem of the file, each with its line.
pub fn read(words: Vec<OsString>) -> Result<(Cli, Settings)> {
    let file = match file::path(&words) {
        Some(path) => {
            file::read(&path, &Cli::command()).map_err(|problems| Failure::configuration(problems.join("\n")))?
        }
        None => file::ConfigFile::default(),
    };
    let command = file.under(Cli::command());
    let matches = command.clone().get_matches_from(words);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok((cli, Settings::of(&command, &matches, &file)))
}

/// `section.key` of a name in the environment; none of a variable that is no setting.
fn key_of(variable: &str) -> Option<String> {
    Some(variable.strip_prefix(PREFIX)?.replace("__", ".").to_lowercase())
}
