//! From an event to a record of the log: attributes become headers (CloudEvents Kafka protocol binding, binary mode).

use bytes::Bytes;
use karat_eventlog::{Headers, NewRecord};
use karat_schemas::attributes as names;

use crate::event::Event;

/// The headers that every record of a batch shares.
pub(crate) struct BatchHeaders<'a> {
    pub publisher: &'a str,
    pub publish_for_others: bool,
    pub door: &'a str,
    pub batch: &'a str,
    /// The trace of the request, when it is passed on, and what vendors added to it.
    pub traceparent: Option<&'a str>,
    pub tracestate: Option<&'a str>,
}

/// Builds the record. The payload is shared with the request body.
pub(crate) fn record_of(event: &Event, batch: &BatchHeaders<'_>) -> NewRecord {
    let extensions: Vec<(String, &str)> =
        event.extensions.iter().map(|(name, value)| (format!("ce_{name}"), value.as_str())).collect();
    let content_type = event.content_type.as_deref().unwrap_or("application/json");
    let optional = [
        (names::CE_TIME, event.time.as_deref()),
        (names::CE_SUBJECT, event.subject.as_deref()),
        (names::CE_DATASCHEMA, event.data_schema.as_deref()),
        (names::PUBLISH_FOR_OTHERS, batch.publish_for_others.then_some("1")),
        (names::TRACEPARENT, batch.traceparent),
        (names::TRACESTATE, batch.tracestate),
    ];
    let always = [
        (names::CE_SPECVERSION, "1.0"),
        (names::CE_ID, event.id.as_str()),
        (names::CE_SOURCE, event.source.as_str()),
        (names::CE_TYPE, event.event_type.as_str()),
        (names::CONTENT_TYPE, content_type),
        (names::PUBLISHER, batch.publisher),
        (names::DOOR, batch.door),
        (names::RECEIPT, batch.batch),
    ];
    let pairs = always
        .into_iter()
        .chain(optional.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))))
        .chain(extensions.iter().map(|(name, value)| (name.as_str(), *value)));
    NewRecord {
        key: Some(Bytes::copy_from_slice(event.key.as_bytes())),
        headers: Headers::from_pairs(pairs.map(|(name, value)| (name, value.as_bytes()))),
        payload: event.payload.clone(),
    }
}
