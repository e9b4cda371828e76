//! The HTTP layer as a client sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing unwrap in a test is a failing test")]

mod answers;
mod bodies;
mod frames;
mod hostile;
mod limits;
mod rates;
mod serving;
mod slow;
mod support;
mod tls;
