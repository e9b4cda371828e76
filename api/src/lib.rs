//! The thin query API: people and programs ask, gold answers.
//!
//! - [`mod@app`] puts every route together; [`doors`] are where it is asked: HTTP, and with the feature `postgres-wire` `wire`, the
//!   protocol of PostgreSQL.
//! - [`snapshot`] holds the rows of one epoch in memory and moves to the next in one step.
//! - [`summary`] folds them: one stored state for days, weeks and months of every zone.
//! - [`lakehouse`] reads tables by name, for typed filters and for SQL.
//! - [`serving`] is what data routes share: who sees what, freshness, the cache, cursors.
//! - [`export`] makes files of rows: CSV, NDJSON, Parquet, Arrow, spreadsheets.
//! - [`live`] are connections that stay open: charts, the chat, the stream of events.
//! - [`routes`] are the data operations, [`endpoints`] those that pipelines declare, [`auth`] those on accounts, [`replays`] orders to the pipelines,
//!   [`quarantine`] what was put aside, [`health`] whether the process can work.
//!
//! This crate never writes a table, and no text of an inner error reaches a client.

pub mod app;
pub mod auth;
pub mod doors;
pub mod endpoints;
pub mod export;
pub mod health;
pub mod lag;
pub mod lakehouse;
pub mod live;
mod prefixes;
pub mod quarantine;
pub mod replays;
pub mod routes;
pub mod serving;
pub mod snapshot;
pub mod summary;
mod tally;
#[cfg(feature = "postgres-wire")]
pub mod wire;

pub use app::{ApiSettings, Parts, app, openapi_json};
pub use doors::Doors;

#[cfg(test)]
#[allow(dead_code)]
#[path = "../tests/serving/support/rows.rs"]
mod testing;
