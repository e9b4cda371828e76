//! Delta tables: create, append with a position, replace, read changes, snapshots, epochs.
//!
//! This is the only crate that names `deltalake`; it re-exports the Arrow, Parquet and DataFusion types that others use,
//! so that the whole workspace has one version of each.
//!
//! Guarantees:
//! - A commit is put-if-absent on the version after the one that was compared: it lands once or not at all, and an
//!   unknown outcome is resolved by reading the log again ([`Table::commit`], decision 10).
//! - Positions (`txn`) are part of the commit that they describe.
//! - On a local disk a commit is visible only after its data files, its commit file and their folders are synced
//!   ([`durable`], decision 11); in a bucket, when the server has answered ([`s3`]).
//!
//! Vocabulary: a *lake* is a folder (or bucket) with `bronze/`, `silver/`, `gold/` tables and `_karat/` for epochs and the outcomes of
//! commands.

mod clean;
mod commit;
pub mod crash;
pub mod durable;
pub mod epochs;
mod error;
pub mod faulty;
mod files;
pub mod fsck;
mod identity;
mod lake;
mod leftovers;
pub mod objects;
pub mod orders;
pub mod outcomes;
mod read;
pub mod s3;
pub mod sql;
mod stores;
mod table;

pub use clean::{Cleaned, Cleaner, Kept};
pub use commit::{Committed, TransactionId};
pub use deltalake::{arrow, datafusion, parquet};
pub use error::{Error, Result};
pub use lake::Lake;
pub use read::{add_stats_range, read_file};
pub use table::{CommitSummary, DataFile, Staging, Table, TableSpec, VersionSummary, checkpoint_at, require_storable};
