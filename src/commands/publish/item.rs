//! What one record is, and the form in which it is sent.

use karat_ingest::canonical::canonical_sha256;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// The route that takes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Events,
    Lineage,
}

impl Route {
    pub fn path(self) -> &'static str {
        match self {
            Self::Events => "api/v1/events",
            Self::Lineage => "api/v1/lineage/batch",
        }
    }
}

/// How plain data becomes a CloudEvent.
#[derive(Debug, Clone)]
pub(super) struct Wrap {
    pub event_type: String,
    pub source: String,
    /// The top-level field that is the id; without one the id is the SHA-256 of the canonical data.
    pub id_field: Option<String>,
}

/// Why a record is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: String,
    pub path: String,
    pub message: String,
}

#[derive(Deserialize)]
struct Shape {
    specversion: Option<IgnoredAny>,
    #[serde(rename = "eventTime")]
    event_time: Option<IgnoredAny>,
    producer: Option<IgnoredAny>,
    run: Option<IgnoredAny>,
}

/// The route of a record and its bytes on one line.
pub(super) fn prepare(mut bytes: Vec<u8>, wrap: Option<&Wrap>) -> Result<(Route, Vec<u8>), Refusal> {
    // Line ends stand between tokens only, never inside JSON strings.
    bytes.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    let shape: Shape = serde_json::from_slice(&bytes).map_err(|error| not_json(&error))?;
    if shape.specversion.is_some() {
        return Ok((Route::Events, bytes));
    }
    if shape.event_time.is_some() && (shape.producer.is_some() || shape.run.is_some()) {
        return Ok((Route::Lineage, bytes));
    }
    match wrap {
        Some(wrap) => wrapped(&bytes, wrap).map(|bytes| (Route::Events, bytes)),
        None => Err(refusal(
            "unknown_form",
            "",
            "neither a CloudEvent (no `specversion`) nor an OpenLineage event (no `eventTime` with `producer` or `run`): \
             for plain data give `--type` and `--source`",
        )),
    }
}

fn wrapped(data: &[u8], wrap: &Wrap) -> Result<Vec<u8>, Refusal> {
    let id = match &wrap.id_field {
        Some(field) => field_text(data, field)?,
        None => canonical_sha256(data).map_err(|error| refusal("invalid_json", &error.path, &error.message))?,
    };
    let attributes = [("specversion", "1.0"), ("id", &id), ("source", &wrap.source), ("type", &wrap.event_type)];
    let attributes: Map<String, Value> =
        attributes.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
    // The data goes on byte for byte: it is put behind the attributes, before the closing brace.
    let mut out = Value::Object(attributes).to_string().into_bytes();
    out.pop();
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(data);
    out.push(b'}');
    Ok(out)
}

fn field_text(data: &[u8], field: &str) -> Result<String, Refusal> {
    let fields: Map<String, Value> = serde_json::from_slice(data).map_err(|error| not_json(&error))?;
    match fields.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Number(number)) if !number.is_f64() => Ok(number.to_string()),
        _ => {
            let message = format!("the id field `{field}` is missing, or neither text nor a whole number");
            Err(refusal("missing_attribute", &format!("/{field}"), &message))
        }
    }
}

fn not_json(error: &serde_json::Error) -> Refusal {
    let what = if error.is_data() { "not a JSON object" } else { "not JSON" };
    refusal("invalid_json", "", &format!("{what}, at column {}", error.column()))
}

fn refusal(code: &str, path: &str, message: &str) -> Refusal {
    Refusal { code: code.to_owned(), path: path.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(id_field: Option<&str>) -> Wrap {
        Wrap { event_type: "t".into(), source: "/s".into(), id_field: id_field.map(str::to_owned) }
    }

    fn sent(text: &str, wrap: &Wrap) -> Value {
        serde_json::from_slice(&prepare(text.as_bytes().to_vec(), Some(wrap)).unwrap().1).unwrap()
    }

    #[test]
    fn records_are_known_by_their_fields() {
        let route = |text: &str| prepare(text.into(), None).map(|(route, _)| route).map_err(|refusal| refusal.code);
        assert_eq!(route(r#"{"specversion":"1.0"}"#), Ok(Route::Events));
        assert_eq!(route(r#"{"eventTime":"x","producer":"p"}"#), Ok(Route::Lineage));
        assert_eq!(route("{\"eventTime\":\"x\",\n\"run\":{}}"), Ok(Route::Lineage));
        assert_eq!(route(r#"{"eventTime":"x"}"#), Err("unknown_form".into()));
        for bad in ["{", "[]", "5", "", "\u{1}"] {
            assert_eq!(route(bad), Err("invalid_json".into()), "{bad}");
        }
    }

    #[test]
    fn plain_data_is_wrapped_byte_for_byte() {
        let (_, bytes) = prepare(b"{\"n\": 1.50,\n \"id\":7}".to_vec(), Some(&wrap(Some("id")))).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with(",\"data\":{\"n\": 1.50,  \"id\":7}}"), "{text}");
        assert_eq!(sent(r#"{"id":7}"#, &wrap(Some("id")))["id"], "7");
        assert_eq!(sent(r#"{"id":"a\"b"}"#, &wrap(Some("id")))["id"], "a\"b");
    }

    #[test]
    fn without_an_id_field_the_content_is_the_id() {
        let one = sent(r#"{"a":1,"b":2}"#, &wrap(None));
        assert_eq!(one["id"], sent(r#"{ "b":2, "a":1 }"#, &wrap(None))["id"]);
        assert_eq!(one["id"].as_str().unwrap().len(), 64);
    }

    #[test]
    fn a_missing_id_field_is_refused_with_its_name() {
        for data in ["{}", r#"{"id":null}"#, r#"{"id":1.5}"#, r#"{"id":""}"#] {
            assert_eq!(prepare(data.into(), Some(&wrap(Some("id")))).unwrap_err().path, "/id");
        }
    }
}
