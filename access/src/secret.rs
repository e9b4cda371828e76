//! Making and hashing opaque secrets: refresh tokens and API keys.
//!
//! They carry 192 bits or more from the system's generator, so one SHA-256 is enough to store them by: there is
//! nothing to guess.

use aws_lc_rs::{digest, rand};

use crate::AccessError;

/// `N` random bytes as lower-case hex.
pub(crate) fn random_hex<const N: usize>() -> Result<String, AccessError> {
    let mut bytes = [0_u8; N];
    rand::fill(&mut bytes).map_err(|_| AccessError::Hash("the system's random generator failed".to_owned()))?;
    Ok(hex::encode(bytes))
}

/// SHA-256.
pub(crate) fn sha256(text: &str) -> [u8; 32] {
    let mut out = [0_u8; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    out
}

/// SHA-256 as lower-case hex, the form in the database.
pub(crate) fn sha256_hex(text: &str) -> String {
    hex::encode(sha256(text))
}
