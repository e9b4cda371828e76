//! [`Key`]: what an answer depends on, as one SHA-256 hash.
//!
//! The hash is over [`KeyParts`]: each is written with its name and its length, so no two lists of parts run together,
//! and in the order of the code, so the order of a request's parameters is no part of it. Whoever can choose some of the
//! parts finds no two questions with one key.

use aws_lc_rs::digest::{SHA256, digest};

const KEY_BYTES: usize = 32;
/// Hexadecimal digits, and the quotes around them.
const ETAG_BYTES: usize = 2 * KEY_BYTES + 2;

/// The hash of some [`KeyParts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; KEY_BYTES]);

/// What a key is made of.
#[derive(Debug, Default)]
pub(crate) struct KeyParts(Vec<u8>);

impl KeyParts {
    /// The first part says what the others are of.
    pub(crate) fn of(kind: &str) -> Self {
        let mut parts = Self(Vec::with_capacity(256));
        parts.text("of", kind);
        parts
    }

    pub(crate) fn text(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.bytes(name, b't', value.as_bytes())
    }

    /// An absent text is not an empty one.
    pub(crate) fn maybe(&mut self, name: &'static str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self.bytes(name, b'-', &[]),
        }
    }

    pub(crate) fn number(&mut self, name: &'static str, value: impl Into<i128>) -> &mut Self {
        self.bytes(name, b'n', &value.into().to_le_bytes())
    }

    pub(crate) fn flag(&mut self, name: &'static str, value: bool) -> &mut Self {
        self.number(name, u8::from(value))
    }

    /// Another hash, in place of its parts.
    pub(crate) fn key_of(&mut self, name: &'static str, key: &Key) -> &mut Self {
        self.bytes(name, b'k', &key.0)
    }

    pub(crate) fn key(&self) -> Key {
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        Key(key)
    }

    fn bytes(&mut self, name: &'static str, kind: u8, value: &[u8]) -> &mut Self {
        for text in [name.as_bytes(), value] {
            self.0.extend_from_slice(&(text.len() as u64).to_le_bytes());
            self.0.extend_from_slice(text);
        }
        self.0.push(kind);
        self
    }
}

impl Key {
    /// The strong entity tag of the answer, quotes included.
    pub(crate) fn etag(&self) -> [u8; ETAG_BYTES] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut tag = [b'"'; ETAG_BYTES];
        for (pair, byte) in tag[1..].chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        tag
    }

    /// The first half, for cursors.
    pub(crate) fn short(&self) -> u128 {
        self.0[..KEY_BYTES / 2].iter().fold(0, |number, byte| (number << 8) | u128::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key_of(texts: &[(usize, Option<String>)]) -> Key {
        let mut parts = KeyParts::default();
        for (name, value) in texts {
            parts.maybe(["a", "ab", "b"][*name], value.as_deref());
        }
        parts.key()
    }

    proptest! {
        #[test]
        fn no_two_lists_of_parts_have_one_key(
            left in prop::collection::vec((0..3usize, prop::option::of("[ab]{0,3}")), 0..4),
            right in prop::collection::vec((0..3usize, prop::option::of("[ab]{0,3}")), 0..4),
        ) {
            prop_assert_eq!(key_of(&left) == key_of(&right), left == right);
        }
    }

    #[test]
    fn a_tag_is_the_quoted_hash_and_the_short_form_its_first_half() {
        // SHA-256 of nothing.
        let key = KeyParts::default().key();
        let tag = String::from_utf8(key.etag().to_vec()).unwrap();
        assert_eq!(tag, "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"");
        assert_eq!(key.short(), 0xe3b0_c442_98fc_1c14_9afb_f4c8_996f_b924);
    }

    #[test]
    fn numbers_texts_and_absent_values_differ() {
        let keys = [
            KeyParts::default().text("a", "1").key(),
            KeyParts::default().number("a", 1).key(),
            KeyParts::default().flag("b", true).key(),
            KeyParts::default().maybe("a", None).key(),
            KeyParts::default().text("a", "").key(),
            KeyParts::of("a").key(),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "{at}");
        }
    }
}
