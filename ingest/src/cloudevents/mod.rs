//! CloudEvents 1.0 over HTTP: structured, batched and binary mode, and NDJSON (one structured event a line).
//!
//! [`decode`] gives every event of a body, good or refused on its own. Payloads are slices of the body: the bytes of
//! `data` go on exactly as they came.

mod attributes;
mod binary;
mod many;
mod structured;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use karat_schemas::{events::Contracts, json};

use crate::event::{BodyFault, Decoded};

/// The form of a body, from its content type and headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// One JSON object (`application/cloudevents+json`).
    Structured,
    /// A JSON array of objects (`application/cloudevents-batch+json`).
    Batched,
    /// One object a line (`application/x-ndjson`).
    Ndjson,
    /// `application/json` without `ce-*` headers: an array is batched, anything else structured.
    AnyJson,
    /// The body is the data and the attributes are headers, by their names without `ce-`, values as sent.
    Binary { content_type: Option<String>, attributes: Vec<(String, Vec<u8>)> },
}

/// Decodes a body and checks each event against its contract.
///
/// # Errors
/// Only when the events of the body cannot be told apart; everything else is a rejection of its own.
pub fn decode(mode: Mode, body: &Bytes, contracts: &Contracts) -> Result<Decoded, BodyFault> {
    if let Mode::Binary { content_type, attributes } = mode {
        return Ok(vec![binary::decode(content_type, attributes, body, contracts)]);
    }
    let body = body.slice_ref(json::without_bom(body));
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace()).ok_or(BodyFault::Empty)?;
    let is_batch = mode == Mode::Batched || (mode == Mode::AnyJson && *first == b'[');
    if mode == Mode::Ndjson {
        let lines = many::lines(&body)?;
        Ok(lines.into_iter().map(|(index, line)| structured::decode(index, &line, contracts)).collect())
    } else if is_batch {
        let items = many::items(&body)?;
        Ok(items.iter().enumerate().map(|(index, item)| structured::decode(index, item, contracts)).collect())
    } else {
        Ok(vec![structured::decode(0, &body, contracts)])
    }
}

pub(crate) use self::{
    attributes::problem_with,
    many::{items, lines},
};
