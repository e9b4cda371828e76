//! Passwords: the rules for choosing one, and hashing.

mod common;
mod hasher;
mod rules;

pub use hasher::HashLoad;
pub(crate) use hasher::{Hasher, Verdict};
pub use rules::PasswordRules;
pub(crate) use rules::{MAX_PASSWORD_BYTES, NEEDS_FACTOR, SHORT_ALONE, broken_rules, strength};
