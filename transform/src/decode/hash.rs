//! What makes two payloads the same (spec P3).
//!
//! Two JSON texts with the same content must count as one: other spacing, key order, escapes or number form do not make
//! a conflict. The hash follows the content: an object's fields are combined by a sum, so their order does not matter;
//! a list's items in order; whole numbers by value, others by their float; text by its characters. Bytes that are not
//! JSON are hashed as they are.
//!
//! A payload that is decoded is hashed on the way, field by field, with the same outcome as [`content`] of the whole.

use jiter::{Jiter, NumberAny, NumberInt, Peek};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// Identity of an event: 128 bits of SHA-256 over source and id, so that no publisher can make two ids collide.
pub fn identity(source: &[u8], id: &[u8]) -> u128 {
    let mut hasher = Sha256::new();
    hasher.update((source.len() as u64).to_le_bytes());
    hasher.update(source);
    hasher.update(id);
    let digest = hasher.finalize();
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    u128::from_le_bytes(head)
}

/// Identity of an event and content in quarantine, apart from the event's identity in silver.
pub fn quarantined(identity: u128, content: u128) -> u128 {
    mix(identity, content)
}

/// Hash of a payload's content.
pub fn content(payload: &[u8]) -> u128 {
    let mut json = Jiter::new(payload);
    let hash = json.peek().ok().and_then(|peek| value(&mut json, peek, 0));
    match hash {
        Some(hash) if json.finish().is_ok() => hash,
        _ => xxh3_128(payload),
    }
}

/// Hash of one value inside a payload, from its own bytes; `depth` objects and lists are around it. None when it is no
/// JSON, or too deep.
pub(super) fn part(bytes: &[u8], depth: usize) -> Option<u128> {
    let mut json = Jiter::new(bytes);
    let peek = json.peek().ok()?;
    value(&mut json, peek, depth)
}

/// The hash of an object whose fields are hashed one by one, in any order.
pub(super) struct Object(u128);

impl Object {
    pub(super) fn new() -> Self {
        Self(19)
    }

    /// Adds a field: the hash of its name ([`name`]) and of its value.
    pub(super) fn add(&mut self, name: u128, value: u128) {
        self.0 = self.0.wrapping_add(mix(name, value));
    }

    pub(super) fn finish(self) -> u128 {
        mix(23, self.0)
    }
}

/// Hash of `null`.
pub(super) const NULL: u128 = 1;

pub(super) fn boolean(value: bool) -> u128 {
    2 + u128::from(value)
}

pub(super) fn text(value: &str) -> u128 {
    xxh3_128_with_seed(value.as_bytes(), 11)
}

/// Hash of a number from its text in the payload.
pub(super) fn number(digits: &str) -> Option<u128> {
    // Up to 18 digits fit; most numbers are such.
    if digits.len() <= 18
        && let Ok(whole) = digits.parse::<i64>()
    {
        return Some(integer(whole));
    }
    part(digits.as_bytes(), 0)
}

/// Hash of a field's name.
pub(super) fn name(text: &str) -> u128 {
    xxh3_128_with_seed(text.as_bytes(), 7)
}

fn integer(value: i64) -> u128 {
    xxh3_128_with_seed(&value.to_le_bytes(), 13)
}

/// Deeper values are hashed by their bytes' absence of structure: see [`content`].
const DEEPEST: usize = 128;

fn value(json: &mut Jiter<'_>, peek: Peek, depth: usize) -> Option<u128> {
    if depth > DEEPEST {
        return None;
    }
    Some(match peek {
        Peek::Null => {
            json.known_null().ok()?;
            NULL
        }
        Peek::True | Peek::False => boolean(json.known_bool(peek).ok()?),
        Peek::String => text(json.known_str().ok()?),
        Peek::Array => {
            let mut hash = 17u128;
            let mut item = json.known_array().ok()?;
            while let Some(peek) = item {
                hash = mix(hash, value(json, peek, depth + 1)?);
                item = json.array_step().ok()?;
            }
            hash
        }
        Peek::Object => {
            let mut object = Object::new();
            let mut key = json.known_object().ok()?.map(name);
            while let Some(name) = key {
                let peek = json.peek().ok()?;
                object.add(name, value(json, peek, depth + 1)?);
                key = json.next_key().ok()?.map(self::name);
            }
            object.finish()
        }
        _ => match json.known_number(peek).ok()? {
            NumberAny::Int(NumberInt::Int(number)) => integer(number),
            NumberAny::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => integer(number as i64),
            NumberAny::Float(number) => xxh3_128_with_seed(&number.to_bits().to_le_bytes(), 31),
        },
    })
}

fn mix(a: u128, b: u128) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&a.to_le_bytes());
    bytes[16..].copy_from_slice(&b.to_le_bytes());
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_does_not_change_the_content() {
        let same = [r#"{"a":1,"b":[1,"x"]}"#, r#"{ "b" : [1.0, "\u0078"], "a" : 1 }"#];
        assert_eq!(content(same[0].as_bytes()), content(same[1].as_bytes()));
    }

    #[test]
    fn other_content_has_another_hash() {
        let texts = [
            "{}",
            "[]",
            "null",
            "0",
            "\"\"",
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"b":1}"#,
            "[1,2]",
            "[2,1]",
            "[[1],2]",
            "not json",
            "{\"a\":1",
        ];
        let hashes: std::collections::HashSet<u128> = texts.iter().map(|text| content(text.as_bytes())).collect();
        assert_eq!(hashes.len(), texts.len());
    }

    #[test]
    fn source_and_id_do_not_run_into_each_other() {
        assert_ne!(identity(b"ab", b"c"), identity(b"a", b"bc"));
    }
}
