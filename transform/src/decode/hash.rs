//! What makes two payloads the same (spec P3).
//!
//! Two JSON texts with the same content must count as one: other spacing, key order, escapes or number form do not make
//! a conflict. The hash follows the content: an object's fields are combined by a sum, so their order does not matter;
//! a list's items in order; whole numbers by value, others by their float; text by its characters. Bytes that are not
//! JSON are hashed as they are.

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

/// Deeper values are hashed by their bytes' absence of structure: see [`content`].
const DEEPEST: usize = 128;

fn value(json: &mut Jiter<'_>, peek: Peek, depth: usize) -> Option<u128> {
    if depth > DEEPEST {
        return None;
    }
    Some(match peek {
        Peek::Null => {
            json.known_null().ok()?;
            1
        }
        Peek::True | Peek::False => 2 + u128::from(json.known_bool(peek).ok()?),
        Peek::String => xxh3_128_with_seed(json.known_str().ok()?.as_bytes(), 11),
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
            let mut sum = 19u128;
            let mut key = json.known_object().ok()?.map(name);
            while let Some(name) = key {
                let peek = json.peek().ok()?;
                sum = sum.wrapping_add(mix(name, value(json, peek, depth + 1)?));
                key = json.next_key().ok()?.map(self::name);
            }
            mix(23, sum)
        }
        _ => match json.known_number(peek).ok()? {
            NumberAny::Int(NumberInt::Int(number)) => xxh3_128_with_seed(&number.to_le_bytes(), 13),
            NumberAny::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
                xxh3_128_with_seed(&(number as i64).to_le_bytes(), 13)
            }
            NumberAny::Float(number) => xxh3_128_with_seed(&number.to_bits().to_le_bytes(), 31),
        },
    })
}

fn name(text: &str) -> u128 {
    xxh3_128_with_seed(text.as_bytes(), 7)
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
