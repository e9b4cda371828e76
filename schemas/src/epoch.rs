//! Epochs and commit notices.
//!
//! An epoch names one version of each table of a pipeline (spec G5, decision 9). Its manifest is written put-if-absent
//! under its number, so there is one truth about each, and readers switch from one epoch to the next as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One consistent point of a pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    pub pipeline: String,
    /// Counts up by one from 1.
    pub epoch: u64,
    /// Version of each table, by its full name such as `gold.daily_summary`.
    pub tables: BTreeMap<String, u64>,
    /// Newest event time folded in, microseconds since 1970 UTC.
    pub as_of_us: Option<i64>,
    /// Version of the bronze table that this epoch covers.
    pub bronze_version: u64,
    /// Next offset of each partition of the pipeline's topic that this epoch covers.
    pub positions: BTreeMap<u32, i64>,
    /// When the epoch was written, microseconds since 1970 UTC.
    pub written_at_us: i64,
    /// Changes when a replay swapped the tables.
    #[serde(default)]
    pub generation: u64,
    /// Set when the pipeline paused itself, with the reason.
    #[serde(default)]
    pub paused: Option<String>,
}

/// An announcement on `karat.commits`; the key of the record is `pipeline`, or `table` for bronze.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Notice {
    /// A bronze table has a new version that holds the topic up to `positions`.
    Bronze { table: String, version: u64, positions: BTreeMap<u32, i64> },
    /// A pipeline has a new epoch.
    Epoch { pipeline: String, epoch: u64 },
}
