//! Generators and measurements. The programs in `src/bin` print what they measured; `README.md` says how to run them.
//!
//! - [`accounts`]: sessions, and what they ask of the account routes.
//! - [`charts`]: the charts that the server pushes, and whether a message is one.
//! - [`generate`]: seeded events with known totals, the same bytes for the same seed.
//! - [`connection`]: one keep-alive HTTP/1.1 connection, cheap enough to share two cores with the server it loads.
//! - [`latency`]: percentiles of what was measured.
//! - [`load`]: one question as often as it is answered, by `wrk` when it is there, and many at fixed times.
//! - [`flow`]: the log, the bronze writer and a pipeline of this project in one process.
//! - [`machine`]: processor time and memory of this process, and what machine it is.
//! - [`pace`]: waking tasks at the times at which their requests are due.
//! - [`publish`]: ready requests for the HTTP door.
//! - [`serving`]: the application over made-up rows, and routes beside it that do nothing.
//! - [`slices`]: rows of the table that summaries are folded from.
//! - [`watcher`]: WebSockets on which charts are watched, and what came on them.
//!
//! Everything here measures from outside: no other crate knows this one.

pub mod accounts;
pub mod charts;
pub mod connection;
mod error;
pub mod flow;
pub mod generate;
pub mod latency;
pub mod load;
pub mod machine;
pub mod pace;
pub mod publish;
pub mod serving;
pub mod slices;
pub mod watcher;

pub use error::{Error, Result, exit_code};
