//! Access tokens: signed JWTs, and the keys that sign them.

mod claims;
mod jwt;
mod keys;

pub(crate) use claims::Claims;
pub(crate) use jwt::TokenMint;
pub use keys::Rotation;
pub(crate) use keys::{SigningKeys, keys_error, read_private, rotate};
