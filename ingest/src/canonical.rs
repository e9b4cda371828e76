//! The identity of an event that brings none (spec P3): the SHA-256 of its canonical JSON. Two texts that mean the same
//! give the same identity.

use karat_schemas::json::{self, Fault, Node};
use sha2::{Digest, Sha256};

/// Why a text has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not JSON that can be made canonical, at `{path}`: {message}")]
pub struct NotCanonical {
    /// JSON Pointer to the place, as far as it is known.
    pub path: String,
    pub message: String,
}

/// The SHA-256 of the canonical form, in lower-case hex.
pub fn canonical_sha256(json: &[u8]) -> Result<String, NotCanonical> {
    let node = json::text_of(json::without_bom(json)).and_then(json::parse);
    Ok(node.and_then(|node| sha256_of(&node))?)
}

pub(crate) fn sha256_of(node: &Node<'_>) -> Result<String, Fault> {
    Ok(hex::encode(Sha256::digest(json::canonical(node)?)))
}

impl From<Fault> for NotCanonical {
    fn from(fault: Fault) -> Self {
        Self { path: fault.path, message: fault.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_change_the_identity() {
        let one = canonical_sha256(br#"{"a": 1.0, "b":"\u0041", "c":{"y":[], "x":{}}}"#).unwrap();
        let other = canonical_sha256(b"\xef\xbb\xbf {\"c\":{\"x\":{},\"y\":[]},\n\"b\":\"A\",\"a\":1.0e0}").unwrap();
        assert_eq!(one, other);
        assert_eq!(one.len(), 64);
    }

    #[test]
    fn what_has_no_canonical_form_is_refused_with_its_place() {
        assert_eq!(canonical_sha256(br#"{"a":[1,1e999]}"#).unwrap_err().path, "/a/1");
        assert_eq!(canonical_sha256(br#"{"a":1,"a":1}"#).unwrap_err().path, "/a");
        assert!(canonical_sha256(b"\xff").is_err());
        assert!(canonical_sha256("[".repeat(100_000).as_bytes()).is_err());
    }
}
