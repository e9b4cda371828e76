//! `karat validate`: every problem of `pipelines.toml` at once.
//!
//! Problems end in the exit code of an invalid configuration. Warnings, what is allowed and probably not meant, go to
//! standard error and do not change the exit code.

use std::{path::PathBuf, process::ExitCode};

use karat_schemas::{
    events::Contracts,
    pipelines::{self, Problem, Read},
};
use karat_transform::{plan, reference};

use crate::{
    endpoints,
    failure::{Failure, Result},
};

pub async fn run(file: Option<PathBuf>) -> Result<ExitCode> {
    let name = file.as_ref().map_or_else(|| "built-in pipelines".to_owned(), |path| path.display().to_string());
    let text = match &file {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Failure::configuration(format!("`{name}`: {error}")))?
        }
        None => pipelines::BUILT_IN.to_owned(),
    };
    let mut read = pipelines::read(&text);
    for warning in pipelines::warnings(&read) {
        super::note(&format!("{name}:{}: warning: {}", warning.line, warning.message));
    }
    let folder = file.as_ref().and_then(|path| path.parent()).map(PathBuf::from).unwrap_or_default();
    let (mut problems, unusable) = reference::load(&mut read.pipelines, &folder);
    read.left_out.extend(unusable);
    problems.extend(plan::problems(&read).await);
    problems.extend(endpoints::planned(&read.pipelines, &read.left_out).await.1);
    problems.extend(contract_problems(&read, folder));
    problems.extend(read.problems);
    if problems.is_empty() {
        super::print(&format!("{name}: no problems"));
        return Ok(ExitCode::SUCCESS);
    }
    problems.sort();
    let lines: Vec<String> =
        problems.iter().map(|problem| format!("{name}:{}: {}", problem.line, problem.message)).collect();
    let count = if lines.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", lines.len()) };
    Err(Failure::configuration(format!("{count}\n{}", lines.join("\n"))))
}

/// What is wrong with the schemas of event types; their files are beside `pipelines.toml`.
fn contract_problems(read: &Read, folder: PathBuf) -> Vec<Problem> {
    let open = |path: &str| std::fs::read_to_string(folder.join(path)).map_err(|error| format!("`{path}`: {error}"));
    let messages = Contracts::compile(&read.pipelines, open).err().unwrap_or_default();
    let line_of = |message: &str| {
        let event = read.pipelines.events.iter().find(|event| message.contains(&format!("`{}`", event.event_type)));
        event.map_or(1, |event| event.line)
    };
    messages.into_iter().map(|message| Problem { line: line_of(&message), message }).collect()
}
