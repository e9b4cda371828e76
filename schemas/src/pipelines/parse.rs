//! From text to [`Pipelines`], with every problem at once.
//!
//! Each array entry is read on its own, so that one bad table hides no other; then [`super::check`] looks at names and
//! references across entries. What a bad entry would have declared is remembered, so that nobody is told to declare it.

use std::{collections::HashSet, fmt, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{Endpoint, EventType, Gold, Input, Pipeline, Pipelines, Reference, Silver, check, model::default_topic};

/// One problem in the file: where, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    pub message: String,
}

/// Every problem of a file, in line order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(out, "{newline}line {}: {}", problem.line, problem.message)?;
        }
        Ok(())
    }
}

/// What could be read of a file, however bad it is: for those who look for further problems in it.
#[derive(Debug, Default)]
pub struct Read {
    /// The entries that could be read.
    pub pipelines: Pipelines,
    /// In line order.
    pub problems: Vec<Problem>,
    /// Names of the topics, types, inputs and tables that an unreadable entry declares or feeds: they are missing from
    /// `pipelines`, and a reference to one is no problem of its own.
    pub left_out: HashSet<String>,
}

/// Reads the text of a `pipelines.toml`.
pub fn parse(text: &str) -> Result<Pipelines, Problems> {
    let read = read(text);
    if read.problems.is_empty() { Ok(read.pipelines) } else { Err(Problems(read.problems)) }
}

/// Reads what can be read of the text of a `pipelines.toml`.
pub fn read(text: &str) -> Read {
    let mut reader = Reader { text, problems: Vec::new(), left_out: HashSet::new() };
    let pipelines = reader.file();
    let Reader { mut problems, left_out, .. } = reader;
    check::check(&pipelines, text, &left_out, &mut problems);
    problems.sort();
    problems.dedup();
    Read { pipelines, problems, left_out }
}

struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    left_out: HashSet<String>,
}

type Entry<'t> = Spanned<DeValue<'t>>;

impl<'t> Reader<'t> {
    fn file(&mut self) -> Pipelines {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.problem(error.span(), error.message().to_owned());
        }
        let mut pipelines = Pipelines::default();
        for (key, value) in table.into_inner() {
            match key.get_ref().as_ref() {
                "version" => self.version(&value),
                "topic" => pipelines.topics = self.each(value),
                "event" => pipelines.events = self.each_at(value, |event: &mut EventType, line| event.line = line),
                "reference" => {
                    pipelines.references = self.each_at(value, |reference: &mut Reference, line| reference.line = line);
                }
                "pipeline" => {
                    let entries = self.entries(value);
                    let endpoints = &mut pipelines.endpoints;
                    pipelines.pipelines = entries.into_iter().map(|entry| self.pipeline(entry, endpoints)).collect();
                }
                other => self.problem(
                    Some(key.span()),
                    format!("unknown key `{other}`: expected `version`, `topic`, `event`, `reference` or `pipeline`"),
                ),
            }
        }
        pipelines
    }

    fn version(&mut self, value: &Entry<'t>) {
        if value.get_ref().as_integer().map(|number| number.as_str()) != Some("1") {
            self.problem(Some(value.span()), "`version` must be 1: this binary reads no other".to_owned());
        }
    }

    fn pipeline(&mut self, entry: Entry<'t>, endpoints: &mut Vec<Endpoint>) -> Pipeline {
        let line = self.line(entry.span().start);
        let mut pipeline = Pipeline {
            name: String::new(),
            topic: default_topic(),
            description: String::new(),
            inputs: Vec::new(),
            silver: Vec::new(),
            gold: Vec::new(),
            references: Vec::new(),
            line,
        };
        let DeValue::Table(table) = entry.into_inner() else { return pipeline };
        let mut declared = Vec::new();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => pipeline.name = self.one(value).unwrap_or_default(),
                "topic" => pipeline.topic = self.one(value).unwrap_or_default(),
                "description" => pipeline.description = self.one(value).unwrap_or_default(),
                "input" => pipeline.inputs = self.each_at(value, |input: &mut Input, line| input.line = line),
                "silver" => pipeline.silver = self.each_at(value, |silver: &mut Silver, line| silver.line = line),
                "gold" => pipeline.gold = self.each_at(value, |gold: &mut Gold, line| gold.line = line),
                "endpoint" => {
                    declared = self.each_at(value, |endpoint: &mut Endpoint, line| endpoint.line = line);
                }
                other => self.problem(
                    Some(key.span()),
                    format!(
                        "unknown key `{other}` in a pipeline: expected `name`, `topic`, `description`, `input`, \
                         `silver`, `gold` or `endpoint`"
                    ),
                ),
            }
        }
        endpoints.extend(declared.into_iter().map(|one| Endpoint { pipeline: pipeline.name.clone(), ..one }));
        pipeline
    }

    fn each<T: DeserializeOwned>(&mut self, value: Entry<'t>) -> Vec<T> {
        self.each_at(value, |_, _| ())
    }

    fn each_at<T: DeserializeOwned>(&mut self, value: Entry<'t>, place: impl Fn(&mut T, usize)) -> Vec<T> {
        let mut read = Vec::new();
        for entry in self.entries(value) {
            let line = self.line(entry.span().start);
            let declared = declared_names(entry.get_ref());
            match self.one(entry) {
                Some(mut item) => {
                    place(&mut item, line);
                    read.push(item);
                }
                None => self.left_out.extend(declared),
            }
        }
        read
    }

    fn entries(&mut self, value: Entry<'t>) -> Vec<Entry<'t>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(array) => array.into_iter().collect(),
            other => {
                let message = format!("expected a list of tables, `[[...]]`, found a {}", other.type_str());
                self.problem(Some(span), message);
                Vec::new()
            }
        }
    }

    fn one<T: DeserializeOwned>(&mut self, value: Entry<'t>) -> Option<T> {
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(item) => Some(item),
            Err(error) => {
                self.problem(error.span().or(Some(span)), error.message().to_owned());
                None
            }
        }
    }

    fn problem(&mut self, span: Option<Range<usize>>, message: String) {
        let line = self.line(span.map_or(0, |span| span.start));
        self.problems.push(Problem { line, message });
    }

    fn line(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        1 + self.text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count()
    }
}

/// What the entry declares, and what an input takes and feeds.
fn declared_names(entry: &DeValue<'_>) -> Vec<String> {
    let Some(table) = entry.as_table() else { return Vec::new() };
    let texts = table.iter().filter(|(key, _)| ["name", "type", "into", "types"].contains(&key.get_ref().as_ref()));
    let texts = texts.flat_map(|(_, value)| match value.get_ref() {
        DeValue::Array(values) => values.iter().map(Spanned::get_ref).collect(),
        value => vec![value],
    });
    texts.filter_map(DeValue::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::warnings, *};

    #[test]
    fn the_built_in_file_is_well_formed() {
        let pipelines = parse(super::super::BUILT_IN).map_err(|problems| problems.to_string()).unwrap();
        assert_eq!(pipelines.pipelines[0].name, "etl_runs");
        assert_eq!(pipelines.pipelines[0].gold.len(), 6);
        let endpoints: Vec<_> = pipelines.endpoints.iter().map(|one| (&*one.name, &*one.pipeline)).collect();
        assert_eq!(endpoints, [("failing_jobs", "etl_runs")]);
    }

    #[test]
    fn every_problem_of_an_endpoint_is_named_at_its_line() {
        let text = "version = 1\n[[topic]]\nname = \"t\"\n[[pipeline]]\nname = \"p\"\ntopic = \"t\"\n\
                    [[pipeline.endpoint]]\nname = \"Bad\"\nrows = \"all\"\nsql = \"SELECT 1\"\n\
                    parameters = [{ name = \"limit\", type = \"int\" }, { name = \"a\", type = \"int\", default = \"x\" }]\n\
                    [[pipeline.endpoint]]\nname = \"twice\"\nsql = \"SELECT 1\"\nroles = [\"admin\"]\n\
                    parameters = [{ name = \"a\", type = \"int\" }, { name = \"a\", type = \"int\" }]\n\
                    [[pipeline.endpoint]]\nname = \"twice\"\nsql = \"SELECT 1\"\nrows = \"mine\"\n";
        let found: Vec<String> = read(text).problems.iter().map(|p| format!("{} {}", p.line, p.message)).collect();
        for words in [
            "7 endpoint name `Bad`",
            "7 endpoint `Bad`: has `rows = \"all\"`",
            "7 endpoint `Bad`: parameter `limit` has a name with another meaning",
            "7 endpoint `Bad`: parameter `a` has the default `x`",
            "12 endpoint `twice`: has `roles`",
            "parameter `a` is declared twice",
            "20 ",
        ] {
            assert!(found.iter().any(|problem| problem.contains(words)), "{words}: {found:?}");
        }
    }

    #[test]
    fn every_problem_is_named_with_its_line() {
        let text = "version = 1\n[[topic]]\nname = \"t\"\npartitoins = 3\n[[event]]\ntype = \"a\"\n\
                    [[pipeline]]\nname = \"p\"\ntopic = \"nowhere\"\n[[pipeline.silver]]\nname = \"s\"\nmode = \"apend\"\n";
        let Err(Problems(problems)) = parse(text) else { panic!("accepted") };
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        assert!(lines.contains(&4), "{problems:?}");
        assert!(lines.contains(&12), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.message.contains("nowhere")), "{problems:?}");
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_one_problem_and_hides_no_other() {
        let text = "version = 1\n[[topic]]\nname = \"t\"\npartitoins = 3\n[[event]]\ntype = \"a\"\ntopic = \"t\"\nshcema = \"x\"\n\
                    [[pipeline]]\nname = \"p\"\ntopic = \"t\"\n[[pipeline.input]]\nname = \"i\"\ntypes = [\"a\"]\ninto = \"s\"\n\
                    columns = [{ name = \"c\", type = \"strin\" }]\n[[pipeline.silver]]\nname = \"s\"\nmode = \"append\"\n\
                    [[pipeline.silver]]\nname = \"f\"\nmode = \"fold\"\nfrom = \"nothing\"\nkey = [\"c\"]\nfold = { n = { count = \"*\" } }\n";
        let read = read(text);
        let lines: Vec<usize> = read.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [4, 8, 16, 20], "{:?}", read.problems);
        assert_eq!(read.pipelines.pipelines[0].silver.len(), 2);
        let mut left_out: Vec<String> = read.left_out.into_iter().collect();
        left_out.sort();
        assert_eq!(left_out, ["a", "i", "s", "t"]);
    }

    #[test]
    fn a_type_that_no_pipeline_takes_is_a_warning() {
        let text = |types: &str| {
            format!(
                "version = 1\n[[topic]]\nname = \"t\"\n[[topic]]\nname = \"u\"\n[[event]]\ntype = \"a\"\ntopic = \"t\"\n\
                 [[event]]\ntype = \"b\"\ntopic = \"u\"\n[[pipeline]]\nname = \"p\"\ntopic = \"t\"\n[[pipeline.input]]\nname = \"i\"\n\
                 types = [{types}]\ninto = \"s\"\ncolumns = [{{ name = \"c\", type = \"string\" }}]\n[[pipeline.silver]]\n\
                 name = \"s\"\nmode = \"append\"\n"
            )
        };
        let lines = |text: &str| {
            let read = read(text);
            let warnings = warnings(&read);
            assert!(warnings.iter().all(|warning| warning.message.contains("event type")), "{warnings:?}");
            warnings.iter().map(|warning| warning.line).collect::<Vec<usize>>()
        };
        // `b` is on a topic that no pipeline reads.
        assert_eq!(lines(&text("\"a\", \"b\"")), [9]);
        assert_eq!(lines(&text("\"b\"")), [6, 9]);
        // An input that cannot be read may take it.
        assert_eq!(lines(&text("\"a\", \"b\"").replace("into =", "inot =")), [] as [usize; 0]);
        assert_eq!(lines(super::super::BUILT_IN), [] as [usize; 0]);
    }

    #[test]
    fn broken_toml_is_a_problem_with_a_line() {
        let Err(Problems(problems)) = parse("version = 1\n[[pipeline]\n") else { panic!("accepted") };
        assert_eq!(problems[0].line, 2);
    }
}
