//! OpenLineage events as the public clients send them: run, dataset and job events (spec P2).
//!
//! They bring no identity of their own, so the SHA-256 of the canonical JSON is the id, and the namespace of the job
//! (or of the dataset) is the source: sending one again changes nothing.

use bytes::Bytes;
use karat_schemas::{
    events::Contracts,
    json::{self, Fault, Node},
};

use crate::{
    canonical,
    cloudevents::{self, problem_with},
    contract,
    event::{BodyFault, Code, Decoded, Event, Rejection},
    limits::MAX_EVENT_BYTES,
};

/// The CloudEvents type that lineage events get.
pub const EVENT_TYPE: &str = "io.openlineage.event";

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One event.
    One,
    /// A JSON array.
    Array,
    /// One event a line.
    Ndjson,
}

/// Decodes a body and checks each event against the contract of [`EVENT_TYPE`].
///
/// # Errors
/// Only when the events of the body cannot be told apart; everything else is a rejection of its own.
pub fn decode(form: Form, body: &Bytes, contracts: &Contracts) -> Result<Decoded, BodyFault> {
    let body = body.slice_ref(json::without_bom(body));
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(BodyFault::Empty);
    }
    Ok(match form {
        Form::One => vec![event(0, &body, contracts)],
        Form::Array => {
            let items = cloudevents::items(&body)?;
            items.iter().enumerate().map(|(index, item)| event(index, item, contracts)).collect()
        }
        Form::Ndjson => {
            let lines = cloudevents::lines(&body)?;
            lines.iter().map(|(index, line)| event(*index, line, contracts)).collect()
        }
    })
}

fn event(index: usize, raw: &Bytes, contracts: &Contracts) -> Result<Event, Rejection> {
    let refused = |fault: Fault| Rejection::new(index, fault.kind.into(), fault.path, fault.message);
    if raw.len() > MAX_EVENT_BYTES {
        let message = format!("the event has {} bytes, and at most {MAX_EVENT_BYTES} are allowed", raw.len());
        return Err(Rejection::new(index, Code::EventTooLarge, "", message));
    }
    let node = json::text_of(raw).and_then(json::parse).map_err(refused)?;
    if !matches!(node, Node::Object(_)) {
        return Err(Rejection::new(index, Code::InvalidJson, "", "an event is a JSON object"));
    }
    let id = canonical::sha256_of(&node).map_err(refused)?;
    let topic = contract::check(contracts, index, EVENT_TYPE, &node, "")?;
    let source = namespace(index, &node)?;
    let run_id = node.get("run").and_then(|run| run.get("runId")).and_then(Node::as_text);
    let key = run_id.unwrap_or(&id).to_owned();
    check_attribute(index, "/run/runId", &key)?;
    Ok(Event {
        index,
        source,
        event_type: EVENT_TYPE.to_owned(),
        time: node.get("eventTime").and_then(Node::as_text).map(str::to_owned),
        subject: None,
        content_type: Some("application/json".to_owned()),
        data_schema: None,
        extensions: Vec::new(),
        key,
        id,
        topic,
        payload: raw.slice_ref(raw.trim_ascii()),
    })
}

fn namespace(index: usize, event: &Node<'_>) -> Result<String, Rejection> {
    let of = |part: &str| event.get(part)?.get("namespace")?.as_text().filter(|name| !name.is_empty());
    let Some((namespace, path)) =
        of("job").map(|n| (n, "/job/namespace")).or_else(|| of("dataset").map(|n| (n, "/dataset/namespace")))
    else {
        let message = "expected a `job` or a `dataset` with a `namespace`";
        return Err(Rejection::new(index, Code::MissingAttribute, "/job/namespace", message));
    };
    check_attribute(index, path, namespace)?;
    Ok(namespace.to_owned())
}

fn check_attribute(index: usize, path: &str, value: &str) -> Result<(), Rejection> {
    match problem_with(value) {
        Some(problem) => Err(Rejection::new(index, Code::InvalidAttribute, path, problem)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use karat_schemas::pipelines;
    use serde_json::{Value, json};

    use super::*;

    fn contracts() -> Contracts {
        let pipelines = pipelines::parse(pipelines::BUILT_IN).unwrap();
        Contracts::compile(&pipelines, |_| unreachable!()).map_err(|p| p.join("\n")).unwrap()
    }

    fn run() -> Value {
        json!({"eventType": "START", "eventTime": "2026-01-31T10:00:00.538865+00:00", "producer": "p",
               "run": {"runId": "r1"}, "job": {"namespace": "n s", "name": "j"}, "inputs": [], "outputs": []})
    }

    fn one(body: impl Into<Bytes>) -> Result<Event, Rejection> {
        decode(Form::One, &body.into(), &contracts()).unwrap().remove(0)
    }

    #[test]
    fn a_run_event_gets_its_identity_from_its_content() {
        let event = one(format!(" {}\n", run())).unwrap();
        assert_eq!((event.source.as_str(), event.key.as_str(), event.event_type.as_str()), ("n s", "r1", EVENT_TYPE));
        assert_eq!(event.id, canonical::canonical_sha256(run().to_string().as_bytes()).unwrap());
        assert_eq!(event.time.as_deref(), Some("2026-01-31T10:00:00.538865+00:00"));
        assert_eq!(event.payload, run().to_string().as_bytes());
        let pretty = one(serde_json::to_string_pretty(&run()).unwrap()).unwrap();
        assert_eq!(pretty.id, event.id);
    }

    #[test]
    fn dataset_and_job_events_pass_without_a_run() {
        let dataset = json!({"eventTime": "2026-01-31T10:00:00Z", "dataset": {"namespace": "d", "name": "t"}});
        let event = one(dataset.to_string()).unwrap();
        assert_eq!((event.source.as_str(), event.key == event.id), ("d", true));
        let job = json!({"eventTime": "2026-01-31T10:00:00Z", "job": {"namespace": "n", "name": "j"}});
        assert_eq!(one(job.to_string()).unwrap().source, "n");
    }

    #[test]
    fn broken_events_are_refused_where_they_are_broken() {
        let mut cases = Vec::new();
        for (path, value) in [
            ("/eventTime", json!("yesterday")),
            ("/eventTime", json!(5)),
            ("/run/runId", json!(7)),
            ("/job/namespace", json!(null)),
            ("/inputs", json!({})),
        ] {
            let mut event = run();
            *event.pointer_mut(path).unwrap() = value;
            cases.push((event.to_string(), Code::ContractViolation, path));
        }
        let mut long = run();
        long["run"]["runId"] = json!("x".repeat(5_000));
        cases.push((long.to_string(), Code::InvalidAttribute, "/run/runId"));
        cases.push((r#"{"eventTime":"2026-01-31T10:00:00Z"}"#.into(), Code::MissingAttribute, "/job/namespace"));
        cases.push((r#"{"job":1,"job":2}"#.into(), Code::DuplicateKey, "/job"));
        cases.push((r#"{"facet":[1e999]}"#.into(), Code::InvalidJson, "/facet/0"));
        cases.push(("[]".into(), Code::InvalidJson, ""));
        cases.push((format!("{{\"a\":{}", "[".repeat(10_000)), Code::TooDeep, "/a/0/0"));
        for (body, code, path) in cases {
            let rejection = one(body.clone()).unwrap_err();
            assert_eq!(rejection.code, code, "{body}");
            assert!(rejection.path.starts_with(path), "{} {path}", rejection.path);
        }
    }

    #[test]
    fn arrays_and_lines_are_told_apart() {
        let contracts = contracts();
        let array = format!("[{}, 1, {}]", run(), run());
        let good: Vec<bool> =
            decode(Form::Array, &array.into(), &contracts).unwrap().iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, true]);
        let lines = format!("{}\n\n{{\n{}", run(), run());
        let decoded = decode(Form::Ndjson, &lines.into(), &contracts).unwrap();
        assert_eq!(decoded[1].as_ref().unwrap_err().index, 2);
        assert_eq!(decode(Form::One, &Bytes::new(), &contracts), Err(BodyFault::Empty));
    }

    #[test]
    fn every_recorded_event_of_a_real_client_passes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/openlineage-airline.ndjson.gz");
        let mut text = Vec::new();
        let file = std::fs::File::open(path).unwrap();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
        let decoded = decode(Form::Ndjson, &text.into(), &contracts()).unwrap();
        let refused = decoded.iter().filter(|event| event.is_err()).count();
        assert_eq!((decoded.len(), refused), (1_680, 0));
    }
}
