//! Tables of the lake for those who ask by name: what they are, their rows by typed filters, and read-only SQL.
//!
//! A question is about versions that the epoch of their pipeline names, or older ones, and never about what a pipeline is
//! writing. Filters are expressions over the columns of a table with values of their types; only `sql` reads text as a query, in a context
//! of its own. Everything has a deadline, a bounded pool of memory and a bound on what runs at a time: filters share those
//! of all scans (`serving`), SQL has its own.
//!
//! - `tables` opens versions and keeps the last ones.
//! - `filter` and `literal` understand the parameters of a request, `scope` adds whose rows the caller sees.
//! - `json` writes rows.
//! - `declared` is what `pipelines.toml` says of a table.

pub mod declared;
pub(crate) mod filter;
pub(crate) mod json;
pub(crate) mod literal;
pub(crate) mod rows;
pub(crate) mod scope;
pub mod sql;
pub(crate) mod tables;
pub(crate) mod types;
