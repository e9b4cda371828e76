//! One structured event: a JSON object with the attributes and `data` or `data_base64`.

use std::{borrow::Cow, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use karat_schemas::{
    events::Contracts,
    json::{self, Fault, Node, Reader},
};

use super::attributes::{Attributes, Draft, invalid};
use crate::{
    contract,
    event::{Code, Event, Rejection},
    limits::{MAX_EVENT_BYTES, MAX_EXTENSIONS},
    lineage,
};

/// Most members of the event object: the core attributes, both forms of data, and the extensions.
const MAX_NAMES: usize = 10 + MAX_EXTENSIONS;

/// Decodes one event. `raw` is exactly its text.
pub(super) fn decode(index: usize, raw: &Bytes, contracts: &Contracts) -> Result<Event, Rejection> {
    check_size(index, raw)?;
    let refused = |fault: Fault| Rejection::new(index, fault.kind.into(), fault.path, fault.message);
    let text = json::text_of(raw).map_err(refused)?;
    let (draft, data) = read(index, text)?;
    let attributes = draft.finish(index)?;
    match data.resolve(index, raw, &attributes)? {
        (payload, Some(value)) => finish(index, attributes, payload, &value, contracts),
        (payload, None) => {
            let value = value_of(index, &payload, &attributes, "data_base64")?;
            finish(index, attributes, payload.clone(), &value, contracts)
        }
    }
}

pub(super) fn check_size(index: usize, raw: &[u8]) -> Result<(), Rejection> {
    if raw.len() <= MAX_EVENT_BYTES {
        return Ok(());
    }
    let message = format!("the event has {} bytes, and at most {MAX_EVENT_BYTES} are allowed", raw.len());
    Err(Rejection::new(index, Code::EventTooLarge, "", message))
}

/// Checks the contract and puts the event together.
pub(super) fn finish(
    index: usize,
    attributes: Attributes,
    payload: Bytes,
    value: &Node<'_>,
    contracts: &Contracts,
) -> Result<Event, Rejection> {
    let topic = contract::check(contracts, index, &attributes.event_type, value, "/data")?;
    let run_id = match attributes.event_type == lineage::EVENT_TYPE {
        true => value.get("run").and_then(|run| run.get("runId")),
        false => value.get("run_id"),
    };
    let key = attributes.key(run_id.and_then(Node::as_text));
    Ok(Event {
        index,
        key,
        topic,
        payload,
        id: attributes.id,
        source: attributes.source,
        event_type: attributes.event_type,
        time: attributes.time,
        subject: attributes.subject,
        content_type: attributes.content_type,
        data_schema: attributes.data_schema,
        extensions: attributes.extensions,
    })
}

/// What stood in `data` and `data_base64`.
#[derive(Default)]
struct Data<'a> {
    inline: Option<(Node<'a>, Range<usize>)>,
    base64: Option<Node<'a>>,
}

fn read(index: usize, text: &str) -> Result<(Draft, Data<'_>), Rejection> {
    let (mut draft, mut data) = (Draft::default(), Data::default());
    let mut seen: Vec<Cow<'_, str>> = Vec::new();
    let mut refused = None;
    let mut reader = Reader::new(text);
    let outcome = reader.object(|reader, name| {
        if seen.contains(&name) {
            return Err(json::duplicate_key(&name));
        }
        match &*name {
            "data" => data.inline = Some(reader.value_and_range().map_err(|fault| fault.under("data"))?),
            "data_base64" => data.base64 = Some(reader.value().map_err(|fault| fault.under("data_base64"))?),
            _ => {
                let value = reader.value().map_err(|fault| fault.under(&name))?;
                // The rest is still read: broken JSON is the more useful answer.
                if refused.is_none() {
                    refused = draft.set_json(index, &name, value).err();
                }
            }
        }
        // Keeps the scan for repeated names short; unset (null) attributes are not counted anywhere else.
        if seen.len() > MAX_NAMES && refused.is_none() {
            refused = Some(invalid(index, &name, format!("more than {MAX_NAMES} attributes")));
        }
        if refused.is_none() {
            seen.push(name);
        }
        Ok(())
    });
    let is_object = outcome.and_then(|is_object| if is_object { reader.finish().map(|()| true) } else { Ok(false) });
    match is_object {
        Err(fault) => Err(Rejection::new(index, fault.kind.into(), fault.path, fault.message)),
        Ok(false) => Err(Rejection::new(index, Code::InvalidJson, "", "an event is a JSON object")),
        Ok(true) => refused.map_or(Ok((draft, data)), Err),
    }
}

impl<'a> Data<'a> {
    /// The payload's bytes, and its value for the contract; none when that is still to be read from them.
    fn resolve(
        self,
        index: usize,
        raw: &Bytes,
        attributes: &Attributes,
    ) -> Result<(Bytes, Option<Node<'a>>), Rejection> {
        match (self.inline, self.base64) {
            (Some(_), Some(Node::Text(_))) => {
                Err(invalid(index, "data_base64", "`data` and `data_base64` stand in one event: send one of them"))
            }
            (None, None | Some(Node::Null)) => Ok((Bytes::new(), Some(Node::Null))),
            // Text that is not JSON travels as a JSON string, and what it says is the payload.
            (Some((Node::Text(text), _)), _) if !attributes.is_json() => {
                Ok((Bytes::from(text.clone().into_owned()), Some(Node::Text(text))))
            }
            (Some((node, range)), _) => Ok((raw.slice(range), Some(node))),
            (None, Some(Node::Text(text))) => {
                let bytes = STANDARD.decode(&*text).map_err(|_| invalid(index, "data_base64", "not base64"))?;
                Ok((Bytes::from(bytes), None))
            }
            (None, Some(other)) => {
                Err(invalid(index, "data_base64", format!("expected base64 text, found {}", other.kind())))
            }
        }
    }
}

/// The value of payload bytes for the contract: JSON is read, anything else counts as text.
pub(super) fn value_of<'p>(
    index: usize,
    payload: &'p Bytes,
    attributes: &Attributes,
    at: &str,
) -> Result<Node<'p>, Rejection> {
    if !attributes.is_json() {
        return Ok(Node::Text(String::from_utf8_lossy(payload)));
    }
    if payload.is_empty() {
        return Ok(Node::Null);
    }
    let node = json::text_of(payload).and_then(json::parse);
    let refused =
        |fault: Fault| Rejection::new(index, fault.kind.into(), format!("/{at}{}", fault.path), fault.message);
    node.map_err(refused)
}
