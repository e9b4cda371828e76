//! `karat config show`: the settings that a server would have, and where each came from.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    cli::{ConfigCommand, Format},
    config::{Setting, Settings, production},
    failure::Result,
};

pub fn run(command: &ConfigCommand, settings: &Settings) -> Result<ExitCode> {
    let ConfigCommand::Show { origin, serve, format } = command;
    match format {
        Format::Json => {
            let rows = settings.iter().map(|setting| {
                let mut row = json!({"setting": setting.key, "value": shown(setting)});
                if *origin {
                    row["origin"] = setting.origin.to_string().into();
                }
                row
            });
            super::print_json(&rows.collect::<Vec<_>>())?;
        }
        Format::Text => {
            let rows: Vec<Vec<String>> = settings
                .iter()
                .map(|setting| {
                    let value = shown(setting).unwrap_or_else(|| "-".to_owned());
                    let origin = origin.then(|| setting.origin.to_string());
                    [Some(setting.key.clone()), Some(value), origin].into_iter().flatten().collect()
                })
                .collect();
            let header: &[&str] = if *origin { &["setting", "value", "origin"] } else { &["setting", "value"] };
            super::print_table(header, &rows);
        }
    }
    // The table is there either way; the exit code says whether a server would start with it.
    production::require_fit(serve, false, settings)?;
    Ok(ExitCode::SUCCESS)
}

/// The value, or the values, unless they are secrets.
fn shown(setting: &Setting) -> Option<String> {
    let is_set = !setting.values.is_empty();
    is_set.then(|| if setting.is_secret { "(hidden)".to_owned() } else { setting.values.join(", ") })
}
