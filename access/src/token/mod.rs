//! Access tokens: signed JWTs, and the keys that sign them.

mod claims;
mod jwt;
mod keys;
mod signer;

pub(crate) use claims::Claims;
pub(crate) use jwt::{Issued, TokenMint, Unsigned};
pub use keys::Rotation;
pub(crate) use keys::{SigningKeys, keys_error, read_private, rotate};
