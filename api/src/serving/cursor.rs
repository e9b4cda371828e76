//! Cursors: where the next page begins, in which epoch, and for which question.
//!
//! A cursor is signed, so that nobody can ask for another epoch or position than one that was given out, and holds a
//! hash of the question, so that it cannot be used with another. It holds no rows.

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use karat_http::ApiError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::key::Key;

/// Bytes of the signature that are kept: 2^-128 for a guess.
const TAG_BYTES: usize = 16;

/// Longer texts are none of ours. A position holds at most two names; those that fit into a cursor are far longer than
/// any that a page shows.
pub(super) const MAX_CURSOR_CHARS: usize = 12_288;

/// Makes and reads cursors with one key.
pub struct Cursors(hmac::Key);

/// What a cursor holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cursor<P> {
    /// The epoch that the pages are of.
    #[serde(rename = "e")]
    pub epoch: u64,
    /// Hash of the question: route, whose rows, parameters.
    #[serde(rename = "q")]
    pub question: u128,
    /// Where the page begins.
    #[serde(rename = "p")]
    pub position: P,
}

impl Cursors {
    /// Cursors signed with `key`; processes that share it read each other's.
    pub fn with_key(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Cursors that only this process reads.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn with_random_key() -> Result<Self, ApiError> {
        let mut key = [0; 32];
        rand::fill(&mut key).map_err(ApiError::internal)?;
        Ok(Self::with_key(&key))
    }

    /// The text of a cursor.
    ///
    /// # Errors
    /// When the position cannot be written as JSON.
    pub fn write<P: Serialize>(&self, cursor: &Cursor<P>) -> Result<String, ApiError> {
        let mut bytes = serde_json::to_vec(cursor).map_err(ApiError::internal)?;
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(&tag.as_ref()[..TAG_BYTES]);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a cursor that [`Self::write`] made.
    ///
    /// # Errors
    /// 400 when it is too long to be looked at; 422 when it is not one of ours.
    pub fn read<P: DeserializeOwned>(&self, text: &str) -> Result<Cursor<P>, ApiError> {
        let refused = || {
            ApiError::validation(vec![
                "`cursor`: expected the `next_cursor` of a page of this route, found something else".to_owned(),
            ])
        };
        if text.len() > MAX_CURSOR_CHARS {
            let message = format!("`cursor`: expected at most {MAX_CURSOR_CHARS} characters, found more");
            return Err(ApiError::bad_request("cursor_too_long", message));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?;
        let at = bytes.len().checked_sub(TAG_BYTES).ok_or_else(refused)?;
        let (content, tag) = bytes.split_at(at);
        let expected = hmac::sign(&self.0, content);
        if aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..TAG_BYTES], tag).is_err() {
            return Err(refused());
        }
        serde_json::from_slice(content).map_err(|_| refused())
    }
}

impl<P> Cursor<P> {
    /// Refuses a cursor that was made for another question.
    ///
    /// # Errors
    /// 422 then.
    pub(crate) fn check_question(&self, question: Key) -> Result<(), ApiError> {
        if self.question == question.short() {
            return Ok(());
        }
        let line = "`cursor`: expected the other parameters as they were for the first page, found others";
        Err(ApiError::validation(vec![line.to_owned()]))
    }
}

/// The answer when a cursor's epoch is no longer kept.
pub fn expired() -> ApiError {
    let message = "the pages of this cursor are no longer kept: ask for the first page again";
    ApiError::new(poem::http::StatusCode::GONE, "cursor_expired", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::key::KeyParts;

    #[test]
    fn a_cursor_reads_back_and_a_changed_one_is_refused() {
        let cursors = Cursors::with_random_key().unwrap();
        let key = KeyParts::of("a question").key();
        let cursor = Cursor { epoch: u64::MAX, question: key.short(), position: "x".to_owned() };
        let text = cursors.write(&cursor).unwrap();
        assert_eq!(cursors.read::<String>(&text).unwrap(), cursor);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(cursors.read::<String>(std::str::from_utf8(&changed).unwrap()).is_err(), "at {at}");
        }
        let others = Cursors::with_random_key().unwrap();
        for text in [text.as_str(), "", "A", "$$", "AAAA"] {
            assert_eq!(others.read::<String>(text).unwrap_err().status(), 422);
        }
        cursor.check_question(key).unwrap();
        let other = KeyParts::of("another question").key();
        assert_eq!(cursor.check_question(other).unwrap_err().code(), "validation_error");
    }

    #[test]
    fn a_cursor_that_is_too_long_is_refused_before_it_is_read() {
        let cursors = Cursors::with_random_key().unwrap();
        let refused = |chars: usize| cursors.read::<String>(&"A".repeat(chars)).unwrap_err();
        assert_eq!(refused(MAX_CURSOR_CHARS).status(), 422);
        let too_long = refused(MAX_CURSOR_CHARS + 1);
        assert_eq!((too_long.status().as_u16(), too_long.code()), (400, "cursor_too_long"));
    }
}
