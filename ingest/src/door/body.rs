//! Request bodies of the publishing routes: what they look like in the OpenAPI document, and how headers say which
//! form a body has.

use karat_http::ApiError;
use poem::http::{HeaderMap, header};
use poem_openapi::registry::{MetaMediaType, MetaSchema, MetaSchemaRef};
use serde_json::{Value, json};

use crate::{cloudevents::Mode, lineage::Form};

const EVENT_FORMS: &str = "send CloudEvents as `application/cloudevents+json`, `application/cloudevents-batch+json`, \
    `application/x-ndjson`, or in binary mode with `ce-*` headers";

karat_http::unread_body! {
    /// The body of `POST /events`, not yet read.
    pub(super) EventsBody:
        "One CloudEvent, an array of them, or one a line. In binary mode the attributes are `ce-*` headers and the body \
         is the data. `Content-Encoding: gzip` and `zstd` are understood. At most 1 MiB an event, 10 MiB and 10,000 \
         events a request, counted after decompression.",
        vec![
            media("application/cloudevents+json", one_of("object", cloud_event())),
            media("application/cloudevents-batch+json", one_of("array", json!([cloud_event()]))),
            media("application/x-ndjson", one_of("string", json!(format!("{}\n", cloud_event())))),
            media("application/json", one_of("object", cloud_event())),
        ];
    /// The body of `POST /lineage`, not yet read.
    pub(super) LineageBody:
        "One OpenLineage RunEvent, DatasetEvent or JobEvent, as the public clients send it.",
        vec![media("application/json", one_of("object", run_event()))];
    /// The body of `POST /lineage/batch`, not yet read.
    pub(super) LineageBatchBody:
        "Many OpenLineage events: an array, or one a line.",
        vec![
            media("application/json", one_of("array", json!([run_event()]))),
            media("application/x-ndjson", one_of("string", json!(format!("{}\n", run_event())))),
        ];
}

/// The form of a body of `POST /events`.
///
/// # Errors
/// 415 `unsupported_media_type`, naming what is understood.
pub(super) fn event_mode(headers: &HeaderMap) -> Result<Mode, ApiError> {
    let content_type = content_type(headers)?;
    let media = content_type.as_deref().map(media_type).unwrap_or_default();
    let mode = match media.as_str() {
        "application/cloudevents+json" => Mode::Structured,
        "application/cloudevents-batch+json" => Mode::Batched,
        _ if is_binary(headers) => return Ok(Mode::Binary { content_type, attributes: attributes(headers) }),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Mode::Ndjson,
        "application/json" => Mode::AnyJson,
        _ => return Err(ApiError::unsupported_media_type(EVENT_FORMS)),
    };
    check_charset(content_type.as_deref().unwrap_or_default())?;
    Ok(mode)
}

/// The form of a body of `POST /lineage` and `POST /lineage/batch`.
///
/// # Errors
/// 415 `unsupported_media_type`, naming what is understood.
pub(super) fn lineage_form(headers: &HeaderMap, json: Form) -> Result<Form, ApiError> {
    let content_type = content_type(headers)?.unwrap_or_default();
    let form = match media_type(&content_type).as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" if json == Form::Array => Form::Ndjson,
        media if media == "application/json" || media.ends_with("+json") => json,
        _ => return Err(ApiError::unsupported_media_type("send OpenLineage events as `application/json`")),
    };
    check_charset(&content_type)?;
    Ok(form)
}

fn content_type(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), rest) = (values.next(), values.next()) else { return Ok(None) };
    match (value.to_str(), rest) {
        (Ok(text), None) => Ok(Some(text.to_owned())),
        _ => Err(ApiError::unsupported_media_type("the request needs one `Content-Type` that is plain text")),
    }
}

fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn check_charset(content_type: &str) -> Result<(), ApiError> {
    let charset = content_type.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    match charset {
        Some(other) if !["utf-8", "utf8", "us-ascii"].iter().any(|known| other.eq_ignore_ascii_case(known)) => {
            Err(ApiError::unsupported_media_type("JSON must be sent as UTF-8"))
        }
        _ => Ok(()),
    }
}

fn is_binary(headers: &HeaderMap) -> bool {
    ["ce-specversion", "ce-id", "ce-type", "ce-source"].iter().any(|name| headers.contains_key(*name))
}

fn attributes(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let ours = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("ce-")?;
        Some((name.to_owned(), value.as_bytes().to_vec()))
    });
    ours.collect()
}

fn media(content_type: &'static str, schema: MetaSchemaRef) -> MetaMediaType {
    MetaMediaType { content_type, schema }
}

fn one_of(kind: &'static str, example: Value) -> MetaSchemaRef {
    let mut schema = MetaSchema::new(kind);
    if kind == "array" {
        schema.items = Some(Box::new(MetaSchemaRef::Inline(Box::new(MetaSchema::new("object")))));
    }
    schema.example = Some(example);
    MetaSchemaRef::Inline(Box::new(schema))
}

fn cloud_event() -> Value {
    json!({
        "specversion": "1.0", "id": "load-42", "source": "/crm", "type": "etl.run.finished",
        "time": "2026-01-31T10:00:05Z",
        "data": {"run_id": "load-42", "source": "crm", "job": "load", "status": "completed",
                 "started_at": "2026-01-31T10:00:00Z", "finished_at": "2026-01-31T10:00:05Z", "records_written": 1200}
    })
}

fn run_event() -> Value {
    json!({
        "eventType": "COMPLETE", "eventTime": "2026-01-31T10:00:05Z", "producer": "https://example.com/my-job",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": "0194b8f2-5e3c-7000-8000-000000000042"}, "job": {"namespace": "crm", "name": "load"},
        "inputs": [],
        "outputs": [{"namespace": "warehouse", "name": "customers",
                     "outputFacets": {"outputStatistics": {"rowCount": 1200, "size": 48000}}}]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_headers_say_which_form_a_body_has() {
        let mode = |content_type| event_mode(&headers(&[("content-type", content_type)]));
        assert_eq!(mode("Application/CloudEvents+JSON; charset=UTF-8").unwrap(), Mode::Structured);
        assert_eq!(mode("application/cloudevents-batch+json").unwrap(), Mode::Batched);
        assert_eq!(mode("application/x-ndjson").unwrap(), Mode::Ndjson);
        assert_eq!(mode("application/json").unwrap(), Mode::AnyJson);
        for bad in ["text/plain", "", "application/json; charset=latin1", "application/xml"] {
            assert_eq!(mode(bad).unwrap_err().status().as_u16(), 415, "{bad}");
        }
        assert!(event_mode(&HeaderMap::new()).is_err());
        let twice = headers(&[("content-type", "application/json"), ("content-type", "text/plain")]);
        assert!(event_mode(&twice).is_err());
    }

    #[test]
    fn attribute_headers_make_it_binary() {
        let sent =
            headers(&[("ce-id", "1"), ("ce-myext", "v"), ("content-type", "application/json"), ("x-other", "1")]);
        let Mode::Binary { content_type, mut attributes } = event_mode(&sent).unwrap() else { panic!() };
        attributes.sort();
        assert_eq!(content_type.as_deref(), Some("application/json"));
        assert_eq!(attributes, [("id".to_owned(), b"1".to_vec()), ("myext".to_owned(), b"v".to_vec())]);
    }

    #[test]
    fn lineage_comes_as_json_and_batches_also_as_lines() {
        let form = |content_type, json| lineage_form(&headers(&[("content-type", content_type)]), json).ok();
        assert_eq!(form("application/json", Form::One), Some(Form::One));
        assert_eq!(form("application/json", Form::Array), Some(Form::Array));
        assert_eq!(form("application/x-ndjson", Form::Array), Some(Form::Ndjson));
        assert_eq!(form("application/x-ndjson", Form::One), None);
        assert_eq!(form("application/x-www-form-urlencoded", Form::One), None);
    }
}
