//! Merged files: small files of versions one after another as one file, which says which versions those were.
//!
//! A table that is read version by version, as bronze is, can then be read although the commits themselves are cleaned up:
//! the rows of versions `first` to `last` are in the one file, in their order.

use std::collections::BTreeMap;

use deltalake::kernel::{Add, Remove};
use karat_schemas::trace::Traces;

use super::{DataFile, Table, remove};
use crate::{
    Result, TransactionId,
    commit::{self, Entry},
    crash,
};

/// In the tags of a merged file: `first-last`.
const VERSIONS_TAG: &str = "karatVersions";

/// In the tags of a merged file: `partition:next` of each partition, with commas between.
const POSITIONS_TAG: &str = "karatPositions";

/// Numbers the merges of a table: of two at once, one fails.
const APPLICATION: &str = "karat.merge";

impl DataFile {
    /// The first and the last version whose rows are in this merged file.
    pub fn merged(&self) -> Option<(u64, u64)> {
        let (first, last) = self.add().tags.as_ref()?.get(VERSIONS_TAG)?.as_deref()?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }

    /// The same file, said to hold the rows of these versions.
    #[must_use]
    pub fn with_versions(&self, first: u64, last: u64) -> Self {
        let mut add = self.add().as_ref().clone();
        add.tags.get_or_insert_default().insert(VERSIONS_TAG.to_owned(), Some(format!("{first}-{last}")));
        Self::from(add)
    }

    /// The next offset of each partition after the versions of a merged file, of those that they moved. Nothing where the file
    /// does not say it.
    pub fn merged_positions(&self) -> BTreeMap<u32, i64> {
        let tag = self.add().tags.as_ref().and_then(|tags| tags.get(POSITIONS_TAG)?.as_deref());
        let pairs = tag.unwrap_or_default().split(',').filter_map(|pair| pair.split_once(':'));
        pairs.filter_map(|(partition, next)| Some((partition.parse().ok()?, next.parse().ok()?))).collect()
    }

    /// The same file, said to be up to these positions.
    #[must_use]
    pub fn with_positions(&self, positions: &BTreeMap<u32, i64>) -> Self {
        let pairs: Vec<String> = positions.iter().map(|(partition, next)| format!("{partition}:{next}")).collect();
        let mut add = self.add().as_ref().clone();
        add.tags.get_or_insert_default().insert(POSITIONS_TAG.to_owned(), Some(pairs.join(",")));
        Self::from(add)
    }
}

impl Table {
    /// The last version whose rows are in merged files, and those of all before it: 0 when nothing is merged.
    pub fn merged_to(&self) -> u64 {
        self.files().filter_map(DataFile::merged).map(|(_, last)| last).max().unwrap_or(0)
    }

    /// The merged file that has the rows of `version`.
    pub fn merged_file_of(&self, version: u64) -> Option<&DataFile> {
        self.files().find(|file| file.merged().is_some_and(|(first, last)| (first..=last).contains(&version)))
    }

    /// Puts `merged` in the place of the files `replaced` (by path) beside others who append. No data changes.
    ///
    /// # Errors
    /// [`crate::Error::Fenced`] when somebody else merged or removed files meanwhile.
    pub async fn merge(&mut self, replaced: Vec<String>, merged: Vec<DataFile>) -> Result<()> {
        let number = self.position(APPLICATION).await?.unwrap_or(0) + 1;
        let stays = |path: &String| !merged.iter().any(|file| file.path() == path);
        let removes = replaced.iter().filter(|path| stays(path)).filter_map(|path| self.file(path)).map(remove);
        let removes = removes.map(|remove| Remove { data_change: false, ..remove }).collect();
        let adds: Vec<Add> =
            merged.iter().map(|file| Add { data_change: false, ..file.add().as_ref().clone() }).collect();
        let entry = Entry {
            table: &self.name,
            partition_by: &self.partition_by,
            adds: &adds,
            removes,
            metadata: None,
            transactions: &[TransactionId::new(APPLICATION, number)],
            traces: &Traces::default(),
        };
        crash::point(&self.url, "merge.before").await;
        let committed = commit::write(&self.log, &self.log.object_store(None), self.version, &entry, true).await?;
        crash::point(&self.url, "merge.after").await;
        self.refresh_to(committed.version()).await
    }

    /// This table at its newest version, read anew: for a handle whose next commits are cleaned up.
    pub async fn reopened(&self) -> Result<Self> {
        Self::open(self.url(), &self.name).await
    }
}
