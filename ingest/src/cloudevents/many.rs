//! Telling the events of one body apart without reading them: a line, or an item of an array, each as a slice.

use std::fmt;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserializer as _, de};
use serde_json::value::RawValue;

use crate::{event::BodyFault, limits::MAX_EVENTS};

/// What the visitor says when there are too many; told apart from broken JSON by this text.
const TOO_MANY: &str = "too many events";

/// The lines that are not blank, each with its number from 0. The last needs no line end.
pub(crate) fn lines(body: &Bytes) -> Result<Vec<(usize, Bytes)>, BodyFault> {
    let mut found = Vec::new();
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if found.len() == MAX_EVENTS {
            return Err(BodyFault::TooManyEvents);
        }
        found.push((number, body.slice_ref(line)));
    }
    Ok(found)
}

/// The items of a JSON array. They are checked to be JSON, but not read, so that a strange one does not hide the rest.
pub(crate) fn items(body: &Bytes) -> Result<Vec<Bytes>, BodyFault> {
    let mut input = serde_json::Deserializer::from_slice(body);
    let items = input.deserialize_seq(Items).and_then(|items| input.end().map(|()| items));
    match items {
        Ok(items) => Ok(items.into_iter().map(|item| body.slice_ref(item.get().as_bytes())).collect()),
        Err(error) if error.to_string().starts_with(TOO_MANY) => Err(BodyFault::TooManyEvents),
        Err(error) => Err(BodyFault::NotAnArray(reason(&error))),
    }
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element()? {
            if found.len() == MAX_EVENTS {
                return Err(de::Error::custom(TOO_MANY));
            }
            found.push(item);
        }
        Ok(found)
    }
}

fn reason(error: &serde_json::Error) -> String {
    use serde_json::error::Category;
    let place = format!("line {} column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => format!("expected an array of events at {place}"),
        Category::Eof => format!("it ends too early, at {place}"),
        Category::Syntax | Category::Io => format!("invalid JSON at {place}"),
    }
}
