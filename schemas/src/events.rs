//! The contract of each event type: JSON Schema documents, compiled once.

use std::collections::HashMap;

use serde_json::Value;

use crate::{
    json::{Node, Strict},
    pipelines::Pipelines,
};

/// Schemas that ship, by the name after `builtin:`.
const BUILT_IN: &[(&str, &str)] = &[
    ("etl.run.finished", include_str!("../events/etl.run.finished.json")),
    ("io.openlineage.event", include_str!("../events/io.openlineage.event.json")),
    ("finance.profit.recorded", include_str!("../events/finance.profit.recorded.json")),
];

/// The declared event types, ready to check payloads.
pub struct Contracts {
    by_type: HashMap<String, Contract>,
}

/// One event type.
pub struct Contract {
    pub topic: String,
    validator: Option<jsonschema::Validator<Strict>>,
}

/// One way in which a payload breaks its contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) into the event's data; empty for the whole.
    pub path: String,
    pub message: String,
}

impl Contracts {
    /// Compiles the schemas of every declared type. `read` gives the text of a schema file by its path beside
    /// `pipelines.toml`. Returns every problem, each naming the event type.
    pub fn compile(pipelines: &Pipelines, read: impl Fn(&str) -> Result<String, String>) -> Result<Self, Vec<String>> {
        let mut by_type = HashMap::new();
        let mut problems = Vec::new();
        for event in &pipelines.events {
            match event.schema.as_deref().map(|schema| validator(schema, &read)).transpose() {
                Ok(validator) => {
                    let contract = Contract { topic: event.topic.clone(), validator };
                    by_type.insert(event.event_type.clone(), contract);
                }
                Err(problem) => problems.push(format!("event type `{}`: {problem}", event.event_type)),
            }
        }
        if problems.is_empty() { Ok(Self { by_type }) } else { Err(problems) }
    }

    pub fn get(&self, event_type: &str) -> Option<&Contract> {
        self.by_type.get(event_type)
    }

    /// Declared types, in no order.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.by_type.keys().map(String::as_str)
    }
}

impl Contract {
    /// The first ways in which `data` breaks the contract, at most eight: enough to act on.
    pub fn violations(&self, data: &Node<'_>) -> Vec<Violation> {
        let Some(validator) = &self.validator else { return Vec::new() };
        if validator.is_valid(data) {
            return Vec::new();
        }
        let violation = |error: jsonschema::ValidationError<'_>| Violation {
            path: error.instance_path().to_string(),
            message: error.to_string(),
        };
        validator.iter_errors(data).take(8).map(violation).collect()
    }
}

fn validator(
    schema: &str,
    read: impl Fn(&str) -> Result<String, String>,
) -> Result<jsonschema::Validator<Strict>, String> {
    let text = match schema.strip_prefix("builtin:") {
        Some(name) => built_in(name)?.to_owned(),
        None => read(schema)?,
    };
    let document: Value =
        serde_json::from_str(&text).map_err(|error| format!("schema `{schema}` is not JSON: {error}"))?;
    jsonschema::options_for::<Strict>()
        .should_validate_formats(true)
        .build(&document)
        .map_err(|error| format!("schema `{schema}` is not a JSON Schema: {error}"))
}

fn built_in(name: &str) -> Result<&'static str, String> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).ok_or_else(|| {
        let known: Vec<&str> = BUILT_IN.iter().map(|(known, _)| *known).collect();
        format!("no schema `builtin:{name}` ships; there are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{json::parse, pipelines};

    fn contracts() -> Contracts {
        Contracts::compile(&pipelines::parse(pipelines::BUILT_IN).unwrap(), |_| unreachable!())
            .map_err(|p| p.join("\n"))
            .unwrap()
    }

    fn finished() -> Value {
        json!({"run_id": "r1", "source": "crm", "job": "load", "status": "completed",
               "started_at": "2026-01-31T10:00:00Z", "finished_at": "2026-01-31T10:00:05Z", "records_read": 3})
    }

    fn violations(run: &Value) -> Vec<Violation> {
        let text = run.to_string();
        contracts().get("etl.run.finished").unwrap().violations(&parse(&text).unwrap())
    }

    #[test]
    fn a_good_run_passes() {
        assert_eq!(violations(&finished()), vec![]);
    }

    #[test]
    fn each_violation_names_its_place() {
        let mut run = finished();
        run["status"] = json!(7);
        run["records_read"] = json!(1.5);
        let violations = violations(&run);
        let mut paths: Vec<&str> = violations.iter().map(|violation| violation.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/records_read", "/status"]);
    }

    #[test]
    fn a_profit_is_a_number_or_decimal_text_of_a_month() {
        let contracts = contracts();
        let profit = |profit: Value, month: i64| {
            let data = json!({"company": "Alder Mills", "year": 2026, "month": month, "profit": profit});
            let text = data.to_string();
            let violations = contracts.get("finance.profit.recorded").unwrap().violations(&parse(&text).unwrap());
            violations.into_iter().map(|violation| violation.path).collect::<Vec<_>>()
        };
        let longest = format!("-{}.99", "9".repeat(36));
        for good in [json!(0.1), json!(-12), json!("0.10"), json!("-7"), json!(longest)] {
            assert_eq!(profit(good.clone(), 12), Vec::<String>::new(), "{good}");
        }
        for bad in
            [json!("1e3"), json!("0.001"), json!("1,5"), json!(""), json!("NaN"), json!("9".repeat(37)), json!(null)]
        {
            assert_eq!(profit(bad.clone(), 1), ["/profit"], "{bad}");
        }
        assert_eq!(profit(json!(1), 13), ["/month"]);
    }

    #[test]
    fn a_time_that_is_no_time_breaks_the_contract() {
        let mut run = finished();
        run["started_at"] = json!("yesterday");
        assert_eq!(violations(&run)[0].path, "/started_at");
    }
}
