//! Names and references across the entries of a file.

use std::collections::HashSet;

use super::{EventType, Input, Pipeline, Pipelines, Problem, Read, Refresh, Silver, SilverMode};

/// What is allowed and probably not meant, in line order: types whose events go no further than bronze.
pub fn warnings(read: &Read) -> Vec<Problem> {
    let is_taken = |event_type: &str, topic: &str| {
        let readers = read.pipelines.pipelines.iter().filter(|pipeline| pipeline.topic == topic);
        readers.flat_map(|pipeline| &pipeline.inputs).flat_map(|input| &input.types).any(|taken| taken == event_type)
    };
    let untaken = read.pipelines.events.iter().filter(|event| !is_taken(&event.event_type, &event.topic));
    let warning = |event: &EventType| Problem {
        line: event.line,
        message: format!(
            "event type `{}` is taken by no input of a pipeline on topic `{}`: its events stay in bronze; add it to the \
             `types` of an input there, or leave it if that is meant",
            event.event_type, event.topic
        ),
    };
    untaken.filter(|event| !read.left_out.contains(&event.event_type)).map(warning).collect()
}

/// Adds a problem for each name or reference that does not hold. References to what is `left_out` are not judged.
pub(super) fn check(pipelines: &Pipelines, text: &str, left_out: &HashSet<String>, problems: &mut Vec<Problem>) {
    let mut checker = Checker { text, left_out, problems };
    checker.unique("topic", pipelines.topics.iter().map(|topic| topic.name.as_str()));
    checker.unique("event type", pipelines.events.iter().map(|event| event.event_type.as_str()));
    checker.unique("pipeline", pipelines.pipelines.iter().map(|pipeline| pipeline.name.as_str()));
    let tables = pipelines.pipelines.iter().flat_map(|pipeline| {
        let silver = pipeline.silver.iter().map(|silver| silver.name.as_str());
        silver.chain(pipeline.gold.iter().map(|gold| gold.name.as_str()))
    });
    let references = pipelines.references.iter().map(|reference| reference.name.as_str());
    checker.unique("table", tables.chain(references));
    for reference in &pipelines.references {
        checker.name("reference table", &reference.name, reference.line);
        checker.unique("column", reference.columns.iter().map(|column| column.name.as_str()));
        let problem = match (&reference.sql, reference.file.is_empty(), reference.columns.is_empty()) {
            (None, true, _) => "has neither `file` nor `sql`: give it one of them",
            (Some(_), false, _) => {
                "has both `file` and `sql`: give the file a table of its own, and name that in the SQL"
            }
            (Some(_), true, false) => "has `sql`, whose columns have their types from it: remove `columns`",
            _ => continue,
        };
        checker.add(reference.line, format!("reference table `{}` {problem}", reference.name));
    }
    let topics: HashSet<&str> = pipelines.topics.iter().map(|topic| topic.name.as_str()).collect();
    for event in &pipelines.events {
        if !topics.contains(event.topic.as_str()) && !left_out.contains(&event.topic) {
            let line = checker.line_of(&event.event_type);
            checker.add(
                line,
                format!("event type `{}` goes to topic `{}`, which is not declared", event.event_type, event.topic),
            );
        }
    }
    for pipeline in &pipelines.pipelines {
        checker.name("pipeline", &pipeline.name, pipeline.line);
        if !topics.contains(pipeline.topic.as_str()) && !left_out.contains(&pipeline.topic) {
            let message = format!(
                "pipeline `{}` reads topic `{}`, which is not declared: add a [[topic]]",
                pipeline.name, pipeline.topic
            );
            checker.add(pipeline.line, message);
        }
        checker.pipeline(pipelines, pipeline);
    }
    checker.unique("endpoint", pipelines.endpoints.iter().map(|endpoint| endpoint.name.as_str()));
    for endpoint in &pipelines.endpoints {
        checker.name("endpoint", &endpoint.name, endpoint.line);
        checker.unique("parameter", endpoint.parameters.iter().map(|parameter| parameter.name.as_str()));
        for parameter in &endpoint.parameters {
            checker.name("parameter", &parameter.name, endpoint.line);
        }
        for problem in endpoint.problems() {
            checker.add(endpoint.line, format!("endpoint `{}`: {problem}", endpoint.name));
        }
    }
}

struct Checker<'a> {
    text: &'a str,
    left_out: &'a HashSet<String>,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn pipeline(&mut self, file: &Pipelines, pipeline: &Pipeline) {
        for input in &pipeline.inputs {
            self.name("input", &input.name, input.line);
            let is_fed = |silver: &Silver| silver.name == input.into && silver.mode != SilverMode::Fold;
            if !pipeline.silver.iter().any(is_fed) && !self.left_out.contains(&input.into) {
                self.add(
                    input.line,
                    format!(
                        "input `{}` goes into `{}`, which is no append or upsert table of pipeline `{}`",
                        input.name, input.into, pipeline.name
                    ),
                );
            }
            for event_type in &input.types {
                let is_declared = file.events.iter().any(|event| &event.event_type == event_type);
                if !is_declared && !self.left_out.contains(event_type) {
                    self.add(
                        input.line,
                        format!(
                            "input `{}` takes type `{event_type}`, which is not declared: add an [[event]]",
                            input.name
                        ),
                    );
                }
            }
            self.unique("column", input.columns.iter().map(|column| column.name.as_str()));
            self.paths(input);
        }
        for silver in &pipeline.silver {
            self.name("silver table", &silver.name, silver.line);
            self.silver(pipeline, silver);
        }
        for gold in &pipeline.gold {
            self.name("gold table", &gold.name, gold.line);
            if gold.refresh == Refresh::Keys && gold.key.is_empty() {
                self.add(
                    gold.line,
                    format!("gold table `{}` has refresh `keys` and no `key`: name its group columns", gold.name),
                );
            }
        }
    }

    /// A value is read by one column: no path may be another's, or lie inside another's.
    fn paths(&mut self, input: &Input) {
        let paths: Vec<&str> =
            input.columns.iter().map(|column| column.path.as_deref().unwrap_or(&column.name)).collect();
        for (index, path) in paths.iter().enumerate() {
            for (other_index, other) in paths.iter().enumerate() {
                let is_inside = other.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
                if is_inside || (path == other && index < other_index) {
                    let message = format!(
                        "input `{}`: the paths `{path}` and `{other}` overlap: read the outer one as `json`, or only the inner ones",
                        input.name
                    );
                    self.add(input.line, message);
                }
            }
        }
    }

    fn silver(&mut self, pipeline: &Pipeline, silver: &Silver) {
        let needs_key = silver.mode != SilverMode::Append;
        if needs_key && silver.key.is_empty() {
            self.add(silver.line, format!("silver table `{}` is keyed and has no `key`", silver.name));
        }
        let is_fed = pipeline.inputs.iter().any(|input| input.into == silver.name);
        if silver.mode != SilverMode::Fold && !is_fed && !self.left_out.contains(&silver.name) {
            let message = format!("no input goes into silver table `{0}`: add one with `into = \"{0}\"`", silver.name);
            self.add(silver.line, message);
        }
        match silver.mode {
            SilverMode::Append if silver.publish_within.is_some() => self.add(
                silver.line,
                format!(
                    "silver table `{}` is of mode append, which publishes at once: remove `publish_within`",
                    silver.name
                ),
            ),
            SilverMode::Append => {}
            SilverMode::Upsert if silver.sequence.is_empty() => self.add(
                silver.line,
                format!(
                    "silver table `{}` is an upsert and has no `sequence`: name the columns that order its records",
                    silver.name
                ),
            ),
            SilverMode::Upsert => {}
            SilverMode::Fold => {
                let from = silver.from.as_deref().unwrap_or_default();
                let is_append = |table: &Silver| table.name == from && table.mode == SilverMode::Append;
                if !pipeline.silver.iter().any(is_append) && !self.left_out.contains(from) {
                    self.add(
                        silver.line,
                        format!(
                            "silver table `{}` folds `{from}`, which is no append table of this pipeline: set `from`",
                            silver.name
                        ),
                    );
                }
                for (column, aggregate) in &silver.fold {
                    if aggregate.order().is_some_and(<[String]>::is_empty) {
                        self.add(silver.line, format!("aggregate `{column}` of `{}` has an empty `by`: name the columns that order the events", silver.name));
                    }
                }
                if silver.fold.is_empty() {
                    self.add(
                        silver.line,
                        format!("silver table `{}` is a fold and declares no aggregate", silver.name),
                    );
                }
            }
        }
    }

    /// Names become folders, SQL tables and routes, so they are kept to the plainest form (spec M3).
    fn name(&mut self, what: &str, name: &str, line: usize) {
        let is_plain = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_plain {
            self.add(
                line,
                format!("{what} name `{name}` must be lower case letters, digits and `_`, starting with a letter"),
            );
        }
    }

    fn unique<'n>(&mut self, what: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = HashSet::new();
        for name in names {
            if !seen.insert(name) {
                let line = self.line_of(name);
                self.add(line, format!("{what} `{name}` is declared twice"));
            }
        }
    }

    /// The last line that names `name` in quotes: entries of one kind have no position of their own.
    fn line_of(&self, name: &str) -> usize {
        let quoted = format!("\"{name}\"");
        self.text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.contains(&quoted))
            .last()
            .map_or(1, |(index, _)| index + 1)
    }

    fn add(&mut self, line: usize, message: String) {
        self.problems.push(Problem { line, message });
    }
}
