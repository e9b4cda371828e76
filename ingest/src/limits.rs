//! What one event and one request may hold (spec P5). Every limit counts decompressed bytes (decision 33).

/// Largest event, in bytes as sent: the whole JSON object, or the body in binary mode.
pub const MAX_EVENT_BYTES: usize = 1 << 20;
/// Largest request body, in bytes.
pub const MAX_REQUEST_BYTES: usize = 10 << 20;
/// Most events in one request.
pub const MAX_EVENTS: usize = 10_000;
/// Most people whom the events of one request may name where consent is required: each may cost a look into the accounts.
pub const MAX_NAMED_PEOPLE: usize = 1_000;
/// Longest attribute value, in bytes: attributes travel as headers with every record.
pub const MAX_ATTRIBUTE_BYTES: usize = 2_048;
/// Most extension attributes of one event.
pub const MAX_EXTENSIONS: usize = 32;
