//! The contract of an event's type, applied to its data (spec P5).

use karat_schemas::{events::Contracts, json::Node};

use crate::event::{Code, Rejection};

/// The topic of the type, once the data meets its contract. `at` is where the data stands in the event as sent.
pub(crate) fn check(
    contracts: &Contracts,
    index: usize,
    event_type: &str,
    data: &Node<'_>,
    at: &str,
) -> Result<String, Rejection> {
    let Some(contract) = contracts.get(event_type) else {
        let name = event_type.escape_debug();
        let message = format!("no event type `{name}` is declared: declare it as `[[event]]` in `pipelines.toml`");
        return Err(Rejection::new(index, Code::UnknownType, "/type", message));
    };
    let violations = contract.violations(data);
    let Some(first) = violations.first() else { return Ok(contract.topic.clone()) };
    let mut message = first.message.clone();
    for other in &violations[1..] {
        message = format!("{message}; at `{at}{}`: {}", other.path, other.message);
    }
    Err(Rejection::new(index, Code::ContractViolation, format!("{at}{}", first.path), message))
}
