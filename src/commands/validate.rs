//! `karat validate`: every problem of `pipelines.toml` at once.

use std::{path::PathBuf, process::ExitCode};

use karat_schemas::{
    events::Contracts,
    pipelines::{self, Problem},
};
use karat_transform::plan;

use crate::failure::{Failure, Result};

pub async fn run(file: Option<PathBuf>) -> Result<ExitCode> {
    let name = file.as_ref().map_or_else(|| "built-in pipelines".to_owned(), |path| path.display().to_string());
    let text = match &file {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Failure::configuration(format!("`{name}`: {error}")))?
        }
        None => pipelines::BUILT_IN.to_owned(),
    };
    let mut problems = match pipelines::parse(&text) {
        Ok(parsed) => {
            let folder = file.as_ref().and_then(|path| path.parent()).map(PathBuf::from).unwrap_or_default();
            let read =
                |path: &str| std::fs::read_to_string(folder.join(path)).map_err(|error| format!("`{path}`: {error}"));
            let mut problems = plan::problems(&parsed).await;
            if let Err(contracts) = Contracts::compile(&parsed, read) {
                problems
                    .extend(contracts.into_iter().map(|message| Problem { line: line_of(&text, &message), message }));
            }
            problems
        }
        Err(problems) => problems.0,
    };
    if problems.is_empty() {
        super::print(&format!("{name}: no problems"));
        return Ok(ExitCode::SUCCESS);
    }
    problems.sort();
    let lines: Vec<String> =
        problems.iter().map(|problem| format!("{name}:{}: {}", problem.line, problem.message)).collect();
    Err(Failure::configuration(format!("{} problems\n{}", lines.len(), lines.join("\n"))))
}

/// The line that declares the event type named in the message.
fn line_of(text: &str, message: &str) -> usize {
    let name = message.split('`').nth(1).unwrap_or_default();
    let quoted = format!("\"{name}\"");
    text.lines().position(|line| line.contains(&quoted)).map_or(1, |index| index + 1)
}
