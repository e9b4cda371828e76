//! Looks for damage: commits, log checkpoints and data files that are torn, empty, altered or missing.
//!
//! Nothing is changed here; `mend` has what repairs are made of. What counts as damage depends on what a table is
//! for ([`Needs`]): bronze is read commit by commit from where its merged files end, the others from the newest epoch on.

mod log;
mod mend;

use std::collections::{BTreeMap, BTreeSet};

use object_store::{ObjectStoreExt, path::Path};

pub use self::{
    log::TableLog,
    mend::{
        keep_readable, known_files, read_apart, replace_damaged, rewrite_commit, set_aside, stage_apart, unnamed_files,
    },
};
use crate::{DataFile, Error, Lake, Result, Table, TableSpec, read::read_file, table::hash_of};

/// What a table must be able to give.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Every commit that is not merged, and every file that one added, and the merged files: of bronze.
    pub every_commit: bool,
    /// This version and all later ones; the newest alone when none.
    pub from: Option<u64>,
}

/// Which kind of file is damaged: what can be done about it depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A commit, `_delta_log/<version>.json`.
    Commit,
    /// A checkpoint of the log, or the file that names the newest one. Commits hold the same.
    LogCheckpoint,
    /// A data file.
    Data,
    /// The manifest of an epoch.
    Manifest,
}

/// One damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub part: Part,
    /// Version of the table that the file belongs to.
    pub version: u64,
    /// Path below the table's folder.
    pub file: String,
    pub wrong: String,
}

/// What became of a table.
#[derive(Debug, Default)]
pub struct Inspected {
    /// The newest version that its log names, whether it can be read or not; none when there is no table.
    pub newest: Option<u64>,
    pub faults: Vec<Fault>,
}

/// Looks through a table. Data files are read whole.
///
/// # Errors
/// The folder cannot be listed or read at all.
pub async fn inspect(lake: &Lake, spec: &TableSpec, needs: &Needs) -> Result<Inspected> {
    let log = TableLog::read(lake, &spec.name).await?;
    let Some(newest) = log.newest().or(needs.from) else { return Ok(Inspected::default()) };
    if log.is_empty() && needs.from.is_none() {
        return Ok(Inspected::default());
    }
    let mut faults = log.checkpoint_faults();
    // A table that does not open is damaged in its log.
    let table = lake.open(&spec.name).await.ok();
    let merged = table.as_ref().map_or_else(|| log.merged_to(), Table::merged_to);
    faults.extend(commit_faults(&log, newest, needs, merged));
    for (version, file) in files_needed(lake, &log, spec, needs, table.as_ref()).await? {
        if let Some(wrong) = wrong_with(lake, spec, &file).await? {
            faults.push(Fault { part: Part::Data, version, file: file.path().to_owned(), wrong });
        }
    }
    Ok(Inspected { newest: Some(newest), faults })
}

/// Commits that are needed and damaged, or missing.
fn commit_faults(log: &TableLog, newest: u64, needs: &Needs, merged: u64) -> Vec<Fault> {
    let from = needs.from.unwrap_or(newest);
    let read_from = if needs.every_commit { merged.min(newest) } else { from.min(newest) };
    let begin = log.base_of(read_from).map_or(0, |base| base + 1);
    let fault =
        |version: u64, wrong: String| Fault { part: Part::Commit, version, file: log::commit_name(version), wrong };
    let end = newest.max(from);
    (begin..=end).filter_map(|version| Some(fault(version, log.commit_damage(version)?))).collect()
}

/// The files that the needed versions hold, each with the version that added it.
async fn files_needed(
    lake: &Lake,
    log: &TableLog,
    spec: &TableSpec,
    needs: &Needs,
    table: Option<&Table>,
) -> Result<BTreeSet<(u64, DataFileByPath)>> {
    let added = log.added();
    let with_version = |file: DataFile| {
        let version = added.get(file.path()).copied().unwrap_or_default();
        (version, DataFileByPath(file))
    };
    if needs.every_commit {
        let merged = table.map_or_else(|| log.merged_to(), Table::merged_to);
        let single = log.added_after(merged);
        return Ok(single.chain(table.iter().flat_map(|table| table.files().cloned())).map(with_version).collect());
    }
    // One that does not open is made anew as a whole.
    let Some(table) = table else { return Ok(BTreeSet::new()) };
    let mut files: BTreeMap<String, DataFile> =
        table.files().map(|file| (file.path().to_owned(), file.clone())).collect();
    if let Some(from) = needs.from.filter(|from| *from < table.version())
        && let Ok(old) = lake.open_at(&spec.name, from).await
    {
        files.extend(old.files().map(|file| (file.path().to_owned(), file.clone())));
    }
    Ok(files.into_values().map(with_version).collect())
}

/// A file, ordered by its path.
struct DataFileByPath(DataFile);

impl std::ops::Deref for DataFileByPath {
    type Target = DataFile;

    fn deref(&self) -> &DataFile {
        &self.0
    }
}

impl Ord for DataFileByPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.path().cmp(other.path())
    }
}

impl PartialOrd for DataFileByPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for DataFileByPath {
    fn eq(&self, other: &Self) -> bool {
        self.path() == other.path()
    }
}

impl Eq for DataFileByPath {}

/// What is wrong with a data file, if anything: its size, its checksum, or that it does not read.
async fn wrong_with(lake: &Lake, spec: &TableSpec, file: &DataFile) -> Result<Option<String>> {
    let store = lake.store_of(&spec.name)?;
    let path = match Path::parse(file.path()) {
        Ok(path) => path,
        Err(error) => return Ok(Some(error.to_string())),
    };
    let bytes = match log::bytes_or_damage(lake, &store, &path).await? {
        Ok(bytes) => bytes,
        Err(wrong) => return Ok(Some(wrong)),
    };
    if i64::try_from(bytes.len()).ok() != Some(file.size_bytes()) {
        let (expected, found) = (file.size_bytes(), bytes.len());
        return Ok(Some(format!("the file has {found} bytes, and its commit says {expected}")));
    }
    match file.hash() {
        Some(expected) if expected == hash_of(&bytes) => return Ok(None),
        Some(_) => return Ok(Some("the bytes are not those that were written".to_owned())),
        // Of a version that wrote no checksums: all that can be said is whether it reads.
        None => {}
    }
    match read_file(&spec.name, &store, &spec.schema, file).await {
        Ok(rows) => {
            let found: usize = rows.iter().map(|rows| rows.num_rows()).sum();
            let expected = file.rows().filter(|expected| *expected != found as u64);
            Ok(expected.map(|expected| format!("the file has {found} rows, and its commit says {expected}")))
        }
        Err(Error::Damaged { reason, .. }) => Ok(Some(reason)),
        Err(error @ Error::Object(_)) if !lake.is_local() => Err(error),
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Removes a damaged checkpoint of a log, whose commits from the one before on say the same. What names the newest names that
/// one then.
pub async fn discard_checkpoint(lake: &Lake, table: &str, file: &str) -> Result<()> {
    let (store, path) = (lake.store_of(table)?, Path::parse(file).map_err(object_store::Error::from)?);
    if file == log::HINT {
        let log = TableLog::read(lake, table).await?;
        let whole = log.base_of(u64::MAX).and_then(|version| Some((version, log.checkpoint(version)?)));
        if let Some((version, checkpoint)) = whole {
            store.put(&path, log::hint_of(version, checkpoint)?.into()).await?;
            return Ok(());
        }
    }
    match store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The folder of a table, as listed by the store of the lake.
pub(crate) fn folder_of(table: &str) -> Path {
    Path::from(table.replacen('.', "/", 1))
}
