//! Gold: figures by SQL over one silver table, kept up to date by what changed (spec G1).
//!
//! [`merge`] folds weighted changes into stored aggregate state; [`accumulate`] does so with DataFusion's accumulators,
//! over input that is only appended to; [`keys`] recomputes the groups that a change touches; [`full`] recomputes
//! everything. [`choose`] says which serves a declaration, and why not the others.

pub mod accumulate;
pub mod choose;
pub mod full;
mod group;
mod groupwise;
pub mod keys;
pub mod merge;
mod revision;
mod rows;

use karat_lake::arrow::array::RecordBatch;

pub(crate) use self::revision::{REVISED_AT, REVISION};
use self::revision::{Revision, Revisions, with_revision};

/// What a batch changed in a gold table.
pub struct GoldChanges {
    /// Rows that are there now, with the encoded key of each; a key may have several rows, all of them here.
    pub upserts: RecordBatch,
    pub upsert_keys: Vec<Vec<u8>>,
    pub deleted_keys: Vec<Vec<u8>>,
}
