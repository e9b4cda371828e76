//! The accounts as the rest of the product uses them, each test on a fresh folder.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing unwrap in a test is a failing test")]

mod accounts;
mod api_keys;
mod audit;
mod catalogue;
mod consent;
mod endings;
mod export;
mod factors;
mod github;
mod keys;
mod liar;
mod lies;
mod lockout;
mod mail;
mod named;
mod oidc;
mod passkeys;
mod passwords;
mod people;
mod recovery;
mod refusals;
mod schema;
mod second_step;
mod sessions;
mod sms;
mod support;
mod tickets;
mod timing;
mod user_settings;
mod ways_in;
