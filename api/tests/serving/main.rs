//! The data routes as their clients see them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cached;
mod door;
mod epochs;
mod experience;
mod hostile;
mod query;
mod runs;
mod scope;
mod summary;
mod support;
mod sync_status;
mod tables;
