//! Checkpoints of the log: how much of it opening a table reads.

use std::sync::{Arc, atomic::Ordering};

use url::Url;

use super::Table;
use crate::{Error, Result, crash};

/// Versions between checkpoints. Whoever opens a table holds a decoder of megabytes for each commit since the last one.
const CHECKPOINT_EVERY: u64 = 100;

/// A checkpoint lists every file, so that of a table with many costs more, and is written less often.
const MANY_FILES: usize = 20_000;
const CHECKPOINT_OF_MANY_EVERY: u64 = 500;

/// No two checkpoints are further apart, when one of them failed.
pub(super) const LONGEST_APART: u64 = 2 * CHECKPOINT_OF_MANY_EVERY;

impl Table {
    /// Writes a log checkpoint at this version when one is due, beside the caller: what opening the table has to read
    /// stays bounded, and no commit waits for it. Tables of one age are due at different versions. A failure is logged;
    /// the next one that is due covers it, and that of one which is due while another is being written.
    pub fn checkpoint_when_due(&self) {
        let every = if self.files.len() > MANY_FILES { CHECKPOINT_OF_MANY_EVERY } else { CHECKPOINT_EVERY };
        let shift = xxhash_rust::xxh3::xxh3_64(self.name.as_bytes()) % every;
        if self.version == 0 || !(self.version + shift).is_multiple_of(every) {
            return;
        }
        if self.is_checkpointing.swap(true, Ordering::Relaxed) {
            return;
        }
        let is_checkpointing = Arc::clone(&self.is_checkpointing);
        let (name, url, version) = (self.name.clone(), self.url().clone(), self.version);
        tokio::spawn(async move {
            crash::point(&url, "checkpoint.before").await;
            if let Err(error) = checkpoint_at(&url, version).await {
                tracing::warn!(table = name, version, %error, "the log checkpoint was not written");
            }
            is_checkpointing.store(false, Ordering::Relaxed);
            crash::point(&url, "checkpoint.after").await;
        });
    }
}

/// Writes a log checkpoint at `version` of the table at `url`.
pub async fn checkpoint_at(url: &Url, version: u64) -> Result<()> {
    let written =
        deltalake::checkpoints::create_checkpoint_from_table_url_and_cleanup(url.clone(), version, Some(false), None);
    written.await.map_err(|source| Error::storage(url.as_str(), source))
}
