//! Making and hashing opaque secrets: refresh tokens and API keys.
//!
//! They carry 192 bits or more from the system's generator, so one SHA-256 is enough to store them by: there is
//! nothing to guess.

use aws_lc_rs::{digest, rand};
use secrecy::{ExposeSecret, SecretString};

use crate::AccessError;

/// `N` random bytes.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], AccessError> {
    let mut bytes = [0_u8; N];
    rand::fill(&mut bytes).map_err(|_| AccessError::Hash("the system's random generator failed".to_owned()))?;
    Ok(bytes)
}

/// `N` random bytes as lower-case hex.
pub(crate) fn random_hex<const N: usize>() -> Result<String, AccessError> {
    Ok(hex::encode(random_bytes::<N>()?))
}

/// A random decimal number of so many digits (at most 9), each value as likely as the others.
pub(crate) fn random_digits(digits: usize) -> Result<String, AccessError> {
    let bound = 10_u64.pow(u32::try_from(digits).unwrap_or(9).min(9));
    // 64 bits over at most 10^9: the unevenness is below one in ten billion.
    let number = u64::from_be_bytes(random_bytes::<8>()?) % bound;
    Ok(format!("{number:0digits$}"))
}

/// SHA-256.
pub(crate) fn sha256(text: &str) -> [u8; 32] {
    sha256_of(text.as_bytes())
}

/// SHA-256 of what need not be text.
pub(crate) fn sha256_of(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0_u8; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// SHA-256 as lower-case hex, the form in the database.
pub(crate) fn sha256_hex(text: &str) -> String {
    hex::encode(sha256(text))
}

/// What guards a cookie against requests from other sites: known to whoever holds the token, and no way back to it.
pub fn derived_guard(token: &SecretString) -> String {
    sha256_hex(&format!("csrf guard of {}", token.expose_secret()))
}
