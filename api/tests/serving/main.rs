//! The data routes as their clients see them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bounds;
mod cached;
mod door;
mod endpoints;
mod epochs;
mod events;
mod experience;
mod exports;
mod hostile;
mod live;
mod profits;
mod query;
mod runs;
mod scope;
mod summary;
mod support;
mod sync_status;
mod tables;
mod vitals;
#[cfg(feature = "postgres-wire")]
mod wire;
