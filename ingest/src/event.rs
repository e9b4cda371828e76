//! An event as a door understood it, and what a door says about one that it refuses.

use bytes::Bytes;
use karat_schemas::json::FaultKind;

/// The events of one request in the order sent, each good or refused on its own.
pub type Decoded = Vec<Result<Event, Rejection>>;

/// One event that meets its contract, ready for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Place in the request, counted from 0; the line for NDJSON, blank lines included.
    pub index: usize,
    pub id: String,
    /// The CloudEvents `source`; with `id` the identity (spec P3).
    pub source: String,
    pub event_type: String,
    /// RFC 3339 as sent; `None` means the time of arrival (decision 26).
    pub time: Option<String>,
    pub subject: Option<String>,
    /// `None` means JSON.
    pub content_type: Option<String>,
    pub data_schema: Option<String>,
    /// Extension attributes by name, `partitionkey` among them.
    pub extensions: Vec<(String, String)>,
    /// Decides the partition (decision 19).
    pub key: String,
    /// The topic of the event's type.
    pub topic: String,
    /// The bytes of `data` as received; empty when there was none.
    pub payload: Bytes,
}

/// Why one event was refused. Safe to show to whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {index}: `{}` at `{path}`: {message}", code.as_str())]
pub struct Rejection {
    /// Place in the request, as [`Event::index`].
    pub index: usize,
    pub code: Code,
    /// JSON Pointer (RFC 6901) into the event as sent; empty for the whole.
    pub path: String,
    pub message: String,
}

impl Rejection {
    /// A rejection that points at the place `path`. Long messages are cut: they may quote what was sent.
    pub fn new(index: usize, code: Code, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { index, code, path: shortened(path.into(), 200), message: shortened(message.into(), 500) }
    }
}

/// Stable codes of rejections: programs rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Not JSON, or JSON of another shape than an event.
    InvalidJson,
    InvalidUtf8,
    /// One key twice in an object: readers would disagree about its value.
    DuplicateKey,
    /// Nested deeper than [`karat_schemas::json::MAX_DEPTH`].
    TooDeep,
    /// A required attribute is absent, null or empty.
    MissingAttribute,
    /// An attribute has a value or a name that CloudEvents does not allow.
    InvalidAttribute,
    UnknownType,
    /// The data breaks the JSON Schema of the event's type.
    ContractViolation,
    EventTooLarge,
    /// The credential may not publish this type.
    TypeNotAllowed,
    /// Consent is required, and the person whom the event names has not given it.
    ConsentNeeded,
}

impl Code {
    /// The code as it stands in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::DuplicateKey => "duplicate_key",
            Self::TooDeep => "too_deep",
            Self::MissingAttribute => "missing_attribute",
            Self::InvalidAttribute => "invalid_attribute",
            Self::UnknownType => "unknown_type",
            Self::ContractViolation => "contract_violation",
            Self::EventTooLarge => "event_too_large",
            Self::TypeNotAllowed => "type_not_allowed",
            Self::ConsentNeeded => "consent_needed",
        }
    }
}

impl From<FaultKind> for Code {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::InvalidJson => Self::InvalidJson,
            FaultKind::InvalidUtf8 => Self::InvalidUtf8,
            FaultKind::DuplicateKey => Self::DuplicateKey,
            FaultKind::TooDeep => Self::TooDeep,
        }
    }
}

/// Why a whole body was refused: its events cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    #[error("the body is empty: send at least one event")]
    Empty,
    #[error("the body is not a JSON array: {0}")]
    NotAnArray(String),
    #[error("the body has more than {} events, the most that one request may hold", crate::limits::MAX_EVENTS)]
    TooManyEvents,
}

fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let rejection = Rejection::new(0, Code::InvalidJson, "", "é".repeat(1_000));
        assert!(rejection.message.len() <= 503 && rejection.message.ends_with("é..."));
    }
}
