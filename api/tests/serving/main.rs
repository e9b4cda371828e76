//! The data routes as their clients see them.

mod door;
mod epochs;
mod runs;
mod scope;
mod summary;
mod support;
mod sync_status;
