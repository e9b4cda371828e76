//! Each setting of a command with its value and where that came from.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command, parser::ValueSource};

use super::{file::ConfigFile, key_of};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    CommandLine,
    /// The variable.
    Environment(String),
    File {
        path: PathBuf,
        line: usize,
        /// Written in the file itself, instead of where the file says.
        is_plain: bool,
        /// Where the file says that it is.
        files: Vec<PathBuf>,
    },
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => out.write_str("command line"),
            Self::Environment(variable) => write!(out, "environment {variable}"),
            Self::File { path, line, .. } => write!(out, "{}:{line}", path.display()),
            Self::Default => out.write_str("default"),
        }
    }
}

/// One setting of the command that runs.
#[derive(Debug, Clone)]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// Nothing where nothing is set and there is no default.
    pub values: Vec<String>,
    pub origin: Origin,
    pub is_secret: bool,
}

/// Every setting of the command that runs, by name.
#[derive(Debug, Clone)]
pub struct Settings(Vec<Setting>);

impl Settings {
    pub(super) fn of(command: &Command, matches: &ArgMatches, file: &ConfigFile) -> Self {
        let (mut command, mut matches) = (command, matches);
        let mut settings = settings(command, matches, file);
        while let Some((name, chosen)) = matches.subcommand()
            && let Some(verb) = command.find_subcommand(name)
        {
            (command, matches) = (verb, chosen);
            settings.extend(self::settings(command, matches, file));
        }
        settings.sort_by(|a, b| a.key.cmp(&b.key));
        Self(settings)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.0.iter()
    }
}

/// The settings that are options of this very command.
fn settings(command: &Command, matches: &ArgMatches, file: &ConfigFile) -> Vec<Setting> {
    let options = command.get_arguments().filter_map(|option| {
        let variable = option.get_env()?.to_str()?;
        let (id, key) = (option.get_id().as_str(), key_of(variable)?);
        let raw = matches.get_raw(id).into_iter().flatten();
        let values = raw.map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty()).collect();
        let origin = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::CommandLine,
            Some(ValueSource::EnvVariable) => Origin::Environment(variable.to_owned()),
            _ => file.entry(&key).map_or(Origin::Default, |entry| Origin::File {
                path: Path::to_owned(file.path()),
                line: entry.line,
                is_plain: entry.is_plain,
                files: entry.files.clone(),
            }),
        };
        Some(Setting { key, values, origin, is_secret: option.is_hide_env_values_set() })
    });
    options.collect()
}
