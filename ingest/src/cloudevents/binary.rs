//! Binary mode: the attributes are `ce-*` headers, the body is the data.

use bytes::Bytes;
use karat_schemas::events::Contracts;

use super::{
    attributes::{Draft, invalid},
    structured,
};
use crate::event::{Event, Rejection};

/// Decodes the one event of a request.
pub(super) fn decode(
    content_type: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: &Bytes,
    contracts: &Contracts,
) -> Result<Event, Rejection> {
    structured::check_size(0, body)?;
    let mut draft = Draft::default();
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in &headers {
        if seen.contains(&name.as_str()) {
            return Err(invalid(0, name, "the header stands twice"));
        }
        if matches!(name.as_str(), "data" | "datacontenttype") {
            return Err(invalid(0, name, "not a header: the body is the data, and `Content-Type` says what it is"));
        }
        let text = percent_decoded(value).ok_or_else(|| invalid(0, name, "not percent-encoded UTF-8"))?;
        draft.set(0, name, text)?;
        seen.push(name);
    }
    if let Some(content_type) = content_type {
        draft.set(0, "datacontenttype", content_type)?;
    }
    let attributes = draft.finish(0)?;
    let value = structured::value_of(0, body, &attributes, "data")?;
    structured::finish(0, attributes, body.clone(), &value, contracts)
}

/// Undoes the encoding that the HTTP binding asks for: `%` and two hex digits stand for a byte of UTF-8.
fn percent_decoded(value: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded).ok()?;
        out.push(decoded[0]);
        rest = after;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_percent_decoded() {
        assert_eq!(percent_decoded(b"Euro%20%E2%82%AC%20%F0%9F%98%80").as_deref(), Some("Euro € 😀"));
        for bad in [&b"%"[..], b"%2", b"%zz", b"%ff", b"\xff"] {
            assert_eq!(percent_decoded(bad), None);
        }
    }
}
