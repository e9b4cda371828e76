//! The log of a table as its files are, without trusting any of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use deltalake::{kernel::Action, parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde_json::{Value, json};

use super::{Fault, Part};
use crate::{DataFile, Lake, Result, TransactionId, commit};

const FOLDER: &str = "_delta_log";
pub(super) const HINT: &str = "_delta_log/_last_checkpoint";

/// Log entries that are read at once.
const IN_FLIGHT: usize = 16;

/// Path of a commit below its table.
pub(super) fn commit_name(version: u64) -> String {
    format!("{FOLDER}/{version:020}.json")
}

pub(super) fn checkpoint_name(version: u64) -> String {
    format!("{FOLDER}/{version:020}.checkpoint.parquet")
}

/// What the files of a log hold.
#[derive(Default)]
pub struct TableLog {
    /// The actions of each commit, or why there are none.
    commits: BTreeMap<u64, std::result::Result<Vec<Action>, String>>,
    bytes: BTreeMap<u64, Bytes>,
    /// Each checkpoint, or why it is none.
    checkpoints: BTreeMap<u64, std::result::Result<Bytes, String>>,
    /// The version that the hint names, or why it names none.
    hint: Option<std::result::Result<u64, String>>,
}

impl TableLog {
    /// Reads every file of the log.
    pub async fn read(lake: &Lake, table: &str) -> Result<Self> {
        let store = lake.store_of(table)?;
        let listed: Vec<_> =
            store.list(Some(&Path::from(FOLDER))).map_ok(|object| object.location).try_collect().await?;
        let mut read = stream::iter(listed.into_iter().map(|path| {
            let (lake, store) = (lake.clone(), store.clone());
            async move {
                let bytes = bytes_or_damage(&lake, &store, &path).await?;
                Ok::<_, crate::Error>((path, bytes))
            }
        }))
        .buffer_unordered(IN_FLIGHT);
        let mut log = Self::default();
        while let Some((path, bytes)) = read.try_next().await? {
            log.take(table, path.filename().unwrap_or_default(), bytes);
        }
        Ok(log)
    }

    fn take(&mut self, table: &str, name: &str, bytes: std::result::Result<Bytes, String>) {
        if name == "_last_checkpoint" {
            self.hint = Some(bytes.and_then(|bytes| hinted(&bytes)));
            return;
        }
        let Some((version, kind)) = name.split_once('.') else { return };
        let Ok(version) = version.parse::<u64>() else { return };
        match kind {
            "json" => {
                let parsed = bytes.and_then(|bytes| {
                    let actions = commit::parse(table, version, &bytes).map_err(reason)?;
                    self.bytes.insert(version, bytes);
                    Ok(actions)
                });
                self.commits.insert(version, parsed);
            }
            "checkpoint.parquet" => {
                let checked = bytes.and_then(|bytes| is_checkpoint(&bytes).map(|()| bytes));
                self.checkpoints.insert(version, checked);
            }
            _ => {}
        }
    }

    pub fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.checkpoints.is_empty()
    }

    /// The newest version that a file names.
    pub fn newest(&self) -> Option<u64> {
        self.commits.keys().chain(self.checkpoints.keys()).max().copied()
    }

    /// The newest whole checkpoint at or before `version`.
    pub fn base_of(&self, version: u64) -> Option<u64> {
        self.checkpoints.range(..=version).rev().find(|(_, checkpoint)| checkpoint.is_ok()).map(|(version, _)| *version)
    }

    pub(super) fn checkpoint(&self, version: u64) -> Option<&Bytes> {
        self.checkpoints.get(&version)?.as_ref().ok()
    }

    /// Whether `version` can be read: a checkpoint or the first commit, and every commit since.
    pub fn is_readable(&self, version: u64) -> bool {
        let begin = self.base_of(version).map_or(0, |base| base + 1);
        (begin..=version).all(|version| self.commit_damage(version).is_none())
    }

    /// What is wrong with a commit.
    pub fn commit_damage(&self, version: u64) -> Option<String> {
        match self.commits.get(&version) {
            Some(Ok(_)) => None,
            Some(Err(wrong)) => Some(wrong.clone()),
            None => Some("the commit file is missing".to_owned()),
        }
    }

    pub(super) fn commit_bytes(&self, version: u64) -> Option<&Bytes> {
        self.bytes.get(&version)
    }

    pub(super) fn checkpoint_faults(&self) -> Vec<Fault> {
        let fault =
            |version: u64, file: String, wrong: String| Fault { part: Part::LogCheckpoint, version, file, wrong };
        let damaged = self.checkpoints.iter().filter_map(|(version, checkpoint)| {
            Some(fault(*version, checkpoint_name(*version), checkpoint.as_ref().err()?.clone()))
        });
        let mut faults: Vec<Fault> = damaged.collect();
        match &self.hint {
            Some(Err(wrong)) => faults.push(fault(0, HINT.to_owned(), wrong.clone())),
            Some(Ok(version)) if self.checkpoint(*version).is_none() => {
                let wrong = format!("it names the checkpoint of version {version}, which is missing or damaged");
                faults.push(fault(*version, HINT.to_owned(), wrong));
            }
            _ => {}
        }
        faults
    }

    fn adds(&self) -> impl Iterator<Item = (u64, &deltalake::kernel::Add)> {
        self.commits.iter().filter_map(|(version, commit)| Some((*version, commit.as_ref().ok()?))).flat_map(
            |(version, actions)| {
                actions.iter().filter_map(move |action| match action {
                    Action::Add(add) => Some((version, add)),
                    _ => None,
                })
            },
        )
    }

    /// By path: the version that added each file.
    pub(super) fn added(&self) -> HashMap<String, u64> {
        self.adds().map(|(version, add)| (add.path.clone(), version)).collect()
    }

    /// Every file that a commit after `version` added as new data.
    pub(super) fn added_after(&self, version: u64) -> impl Iterator<Item = DataFile> {
        self.adds()
            .filter(move |(of, add)| *of > version && add.data_change)
            .map(|(_, add)| DataFile::from(add.clone()))
    }

    /// Every file that a commit after `base` added, or any commit where there is no base.
    pub(super) fn added_since(&self, base: Option<u64>) -> impl Iterator<Item = DataFile> {
        self.adds().filter(move |(of, _)| Some(*of) > base).map(|(_, add)| DataFile::from(add.clone()))
    }

    /// The last version in merged files, as far as the commits say.
    pub(super) fn merged_to(&self) -> u64 {
        let merged = self.adds().filter_map(|(_, add)| DataFile::from(add.clone()).merged());
        merged.map(|(_, last)| last).max().unwrap_or(0)
    }

    /// Paths of every file that a commit names.
    pub(super) fn named(&self) -> BTreeSet<String> {
        self.adds().map(|(_, add)| add.path.clone()).collect()
    }

    /// The files that one commit added.
    pub fn files_of(&self, version: u64) -> Vec<DataFile> {
        self.adds().filter(|(of, _)| *of == version).map(|(_, add)| DataFile::from(add.clone())).collect()
    }

    /// The positions in one commit.
    pub fn positions_of(&self, version: u64) -> Vec<TransactionId> {
        let Some(Ok(actions)) = self.commits.get(&version) else { return Vec::new() };
        let positions = actions.iter().filter_map(|action| match action {
            Action::Txn(id) => Some(TransactionId::new(id.app_id.clone(), id.version)),
            _ => None,
        });
        positions.collect()
    }
}

/// The bytes of a file, or what is wrong with it. A disk that does not give them has lost them; a bucket that does not answer
/// says nothing of its files.
///
/// # Errors
/// The bucket does not answer.
pub(super) async fn bytes_or_damage(
    lake: &Lake,
    store: &Arc<dyn ObjectStore>,
    path: &Path,
) -> Result<std::result::Result<Bytes, String>> {
    let read = async { store.get(path).await?.bytes().await };
    match read.await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(Err("the file is missing".to_owned())),
        Err(error) if lake.is_local() => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// What names the checkpoint of a version as the newest.
pub(super) fn hint_of(version: u64, checkpoint: &Bytes) -> Result<Bytes> {
    let num_actions = ParquetRecordBatchReaderBuilder::try_new(checkpoint.clone())
        .map_err(|error| crate::Error::Arrow(error.into()))?
        .metadata()
        .file_metadata()
        .num_rows();
    Ok(serde_json::to_vec(&json!({"version": version, "size": num_actions}))?.into())
}

fn hinted(bytes: &Bytes) -> std::result::Result<u64, String> {
    let parsed: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    parsed["version"].as_u64().ok_or_else(|| "it names no version".to_owned())
}

/// Whether the bytes are a Parquet file that reads to its end and holds the table's own description.
fn is_checkpoint(bytes: &Bytes) -> std::result::Result<(), String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|error| error.to_string())?;
    let reader = builder.build().map_err(|error| error.to_string())?;
    let mut has_metadata = false;
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        has_metadata |= batch.column_by_name("metaData").is_some_and(|column| column.null_count() < column.len());
    }
    if has_metadata { Ok(()) } else { Err("it does not describe the table".to_owned()) }
}

fn reason(error: crate::Error) -> String {
    match error {
        crate::Error::Damaged { reason, .. } => reason,
        error => error.to_string(),
    }
}
