//! What repairs are made of.
//!
//! A damaged table that is made again from bronze gets its whole new content as one new version, and a checkpoint of the
//! log at that version. Reading it needs nothing from before; what is damaged before it stays unreadable, so that nobody
//! ever reads fewer rows without an error, and versions never mean two things.

use deltalake::arrow::array::RecordBatch;
use futures::TryStreamExt;
use karat_schemas::trace::Traces;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use super::{
    TableLog, folder_of,
    log::{checkpoint_name, commit_name},
    wrong_with,
};
use crate::{
    DataFile, Error, Lake, Result, Table, TableSpec, TransactionId,
    commit::Entry,
    files::{FileSpec, conform, write_file},
    table::file_schema_of,
};

/// Replaces the content of a table whose newest version cannot be read by the rows of `shadow`; returns the new version.
///
/// The new version is larger than `known`, a version that was there once, also when its commits are gone. A crash leaves
/// the table as it was, or whole; doing it again is right.
///
/// # Errors
/// [`Error::Fenced`] when somebody else committed meanwhile.
pub async fn replace_damaged(
    lake: &Lake,
    spec: &TableSpec,
    known: u64,
    shadow: &Table,
    positions: &[TransactionId],
) -> Result<u64> {
    let log = TableLog::read(lake, &spec.name).await?;
    let scratch_folder = tempfile::tempdir().map_err(|error| Error::Location(error.to_string()))?;
    let scratch = Lake::at(&scratch_folder.path().to_string_lossy())?;
    fill(&scratch, spec, &log, known).await?;
    let mut table = scratch.open(&spec.name).await?;
    let to = lake.store_of(&spec.name)?;
    let mut files = Vec::new();
    for file in shadow.files() {
        let path = Path::parse(file.path()).map_err(|error| Error::Location(error.to_string()))?;
        to.put(&path, shadow.bytes_of(&path).await?.into()).await?;
        files.push(file.clone());
    }
    // The log is made aside, of files that are in place already.
    table.replace_all_from(&to, shadow.schema(), files, positions).await?;
    publish(&scratch, &table, lake).await?;
    Ok(table.version())
}

/// Makes a table readable again that nothing can be made from again: what its damaged commits said is left out, and so
/// are its data files that do not read, as one new version.
pub async fn keep_readable(lake: &Lake, spec: &TableSpec) -> Result<()> {
    let log = TableLog::read(lake, &spec.name).await?;
    let scratch_folder = tempfile::tempdir().map_err(|error| Error::Location(error.to_string()))?;
    let scratch = Lake::at(&scratch_folder.path().to_string_lossy())?;
    fill(&scratch, spec, &log, 0).await?;
    let mut table = scratch.open(&spec.name).await?;
    let mut unreadable = Vec::new();
    for file in table.files() {
        if wrong_with(lake, spec, file).await?.is_some() {
            unreadable.push(file.path().to_owned());
        }
    }
    table.commit(unreadable, Vec::new(), &[]).await?;
    publish(&scratch, &table, lake).await
}

/// Puts the newest version of a table in `scratch` into `lake`, with a checkpoint that reading it begins at.
async fn publish(scratch: &Lake, table: &Table, lake: &Lake) -> Result<()> {
    let (name, version) = (table.name(), table.version());
    let (from, to) = (scratch.store_of(name)?, lake.store_of(name)?);
    crate::checkpoint_at(table.url(), version).await?;
    let create = PutOptions { mode: PutMode::Create, ..Default::default() };
    let commit = Path::from(commit_name(version));
    match to.put_opts(&commit, from.get(&commit).await?.bytes().await?.into(), create).await {
        Ok(_) => {}
        Err(object_store::Error::AlreadyExists { .. }) => {
            let (table, found) = (name.to_owned(), "another commit".to_owned());
            return Err(Error::Fenced { table, expected: version, found });
        }
        Err(error) => return Err(error.into()),
    }
    for name in [checkpoint_name(version), "_delta_log/_last_checkpoint".to_owned()] {
        let path = Path::from(name);
        to.put(&path, from.get(&path).await?.bytes().await?.into()).await?;
    }
    Ok(())
}

/// Makes a log in `scratch` that opens at the newest version of `log`: damaged commits are taken as saying nothing.
async fn fill(scratch: &Lake, spec: &TableSpec, log: &TableLog, known: u64) -> Result<()> {
    let store = scratch.store_of(&spec.name)?;
    let newest = log.newest().unwrap_or_default().max(known);
    let base = log.base_of(newest);
    match base {
        Some(base) => {
            let bytes = log.checkpoint(base).cloned().unwrap_or_default();
            store.put(&Path::from(checkpoint_name(base)), bytes.into()).await?;
        }
        // Whatever the first commit said, it created this table.
        None if log.commit_damage(0).is_some() => drop(scratch.open_or_create(spec).await?),
        None => {}
    }
    for version in base.map_or(0, |base| base + 1)..=newest {
        let path = Path::from(commit_name(version));
        match log.commit_bytes(version) {
            Some(bytes) => drop(store.put(&path, bytes.clone().into()).await?),
            None if version == 0 => {}
            None => drop(store.put(&path, SAYS_NOTHING.into()).await?),
        }
    }
    Ok(())
}

const SAYS_NOTHING: &str = "{\"commitInfo\":{\"operation\":\"WRITE\"}}\n";

/// Removes a table with everything in it, for tables whose owner makes them anew.
pub async fn set_aside(lake: &Lake, table: &str) -> Result<()> {
    let store = lake.store(table)?;
    let listed: Vec<Path> = store.list(Some(&folder_of(table))).map_ok(|object| object.location).try_collect().await?;
    // The log first: a table without one is no table.
    let (log, data): (Vec<Path>, Vec<Path>) = listed.into_iter().partition(|path| path.as_ref().contains("_delta_log"));
    for path in log.into_iter().chain(data) {
        store.delete(&path).await?;
    }
    Ok(())
}

/// Every row of a file of a table that may not open.
pub async fn read_apart(lake: &Lake, spec: &TableSpec, file: &DataFile) -> Result<Vec<RecordBatch>> {
    crate::read_file(&spec.name, &lake.store_of(&spec.name)?, &spec.schema, file).await
}

/// The files of the table at the newest whole checkpoint of its log, and those that later commits added.
///
/// # Errors
/// The checkpoint reads, and what it names does not.
pub async fn known_files(lake: &Lake, spec: &TableSpec, log: &TableLog) -> Result<Vec<DataFile>> {
    let base = log.newest().and_then(|newest| log.base_of(newest));
    let mut files: Vec<DataFile> = log.added_since(base).collect();
    if let Some(base) = base {
        files.extend(lake.open_at(&spec.name, base).await?.files().cloned());
    }
    Ok(files)
}

/// The rows of data files that no readable commit names, nor `known` has.
pub async fn unnamed_files(
    lake: &Lake,
    spec: &TableSpec,
    log: &TableLog,
    known: &[DataFile],
) -> Result<Vec<RecordBatch>> {
    let (mut named, store) = (log.named(), lake.store_of(&spec.name)?);
    named.extend(known.iter().map(|file| file.path().to_owned()));
    let listed: Vec<_> = store.list(None).try_collect().await?;
    let mut rows = Vec::new();
    for object in listed {
        let path = object.location.as_ref();
        if !path.ends_with(".parquet") || path.starts_with("_delta_log") || named.contains(path) {
            continue;
        }
        let file = DataFile::unnamed(path, object.size, &spec.partition_by);
        // One that a crash left half written holds nothing.
        rows.extend(crate::read_file(&spec.name, &store, &spec.schema, &file).await.unwrap_or_default());
    }
    Ok(rows)
}

/// Writes rows to a data file of a table that does not open.
pub async fn stage_apart(
    lake: &Lake,
    spec: &TableSpec,
    partition: &[(String, String)],
    rows: &RecordBatch,
) -> Result<DataFile> {
    let rows = conform(&spec.name, &file_schema_of(&spec.schema, &spec.partition_by), rows)?;
    let file = FileSpec { table: &spec.name, prefix: "part", partition, stats_columns: &spec.stats_columns };
    Ok(DataFile::from(write_file(&lake.store_of(&spec.name)?, &file, vec![rows]).await?))
}

/// Writes a commit in the place of a damaged one: with other rows, it would be another truth, so callers bring the
/// same ones. The damaged file is kept beside the log. Checkpoints from this version on go, for they may say otherwise.
pub async fn rewrite_commit(
    lake: &Lake,
    spec: &TableSpec,
    version: u64,
    files: &[DataFile],
    positions: &[TransactionId],
) -> Result<()> {
    let store = lake.store_of(&spec.name)?;
    let path = Path::from(commit_name(version));
    if let Ok(found) = store.get(&path).await {
        let kept = Path::from(format!("_damaged/{version:020}-{}.json", crate::table::now_ms()));
        store.put(&kept, found.bytes().await?.into()).await?;
    }
    let bytes = if version == 0 { first_commit(spec).await? } else { commit_of(spec, files, positions)? };
    let listed: Vec<Path> =
        store.list(Some(&Path::from("_delta_log"))).map_ok(|object| object.location).try_collect().await?;
    for other in listed {
        let name = other.filename().unwrap_or_default();
        let is_later =
            name.split_once(".checkpoint").is_some_and(|(of, _)| of.parse::<u64>().is_ok_and(|of| of >= version));
        if is_later || name == "_last_checkpoint" {
            store.delete(&other).await?;
        }
    }
    store.put(&path, bytes.into()).await?;
    Ok(())
}

fn commit_of(spec: &TableSpec, files: &[DataFile], positions: &[TransactionId]) -> Result<bytes::Bytes> {
    let adds: Vec<_> = files.iter().map(|file| file.add().as_ref().clone()).collect();
    let entry = Entry {
        table: &spec.name,
        partition_by: &spec.partition_by,
        adds: &adds,
        removes: Vec::new(),
        metadata: None,
        transactions: positions,
        traces: &Traces::default(),
    };
    entry.bytes()
}

/// The commit that creates the table.
async fn first_commit(spec: &TableSpec) -> Result<bytes::Bytes> {
    let folder = tempfile::tempdir().map_err(|error| Error::Location(error.to_string()))?;
    let scratch = Lake::at(&folder.path().to_string_lossy())?;
    scratch.open_or_create(spec).await?;
    Ok(scratch.store_of(&spec.name)?.get(&Path::from(commit_name(0))).await?.bytes().await?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use deltalake::{
        arrow::{
            array::{Int64Array, RecordBatch},
            datatypes::{DataType, Field, Schema},
        },
        kernel::Add,
    };

    use super::*;

    fn spec() -> TableSpec {
        TableSpec {
            name: "gold.t".to_owned(),
            schema: Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)])),
            partition_by: Vec::new(),
            stats_columns: Vec::new(),
            append_only: false,
        }
    }

    fn rows(value: i64) -> RecordBatch {
        RecordBatch::try_new(spec().schema, vec![Arc::new(Int64Array::from(vec![value]))]).unwrap()
    }

    /// A table whose one file was written long ago.
    async fn old_table(lake: &Lake, value: i64) -> Table {
        let mut table = lake.open_or_create(&spec()).await.unwrap();
        let file = table.staging().stage("slot-00000", &[], &[rows(value)]).await.unwrap().unwrap();
        let old = DataFile::from(Add { modification_time: 0, ..file.add().as_ref().clone() });
        table.commit(Vec::new(), vec![old], &[TransactionId::new("gold.t", value)]).await.unwrap();
        table
    }

    #[tokio::test]
    async fn a_damaged_table_is_replaced_by_one_that_took_long_to_make() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let known = old_table(&lake, 1).await.version();
        std::fs::write(folder.path().join("gold/t").join(commit_name(known)), "torn").unwrap();
        assert!(lake.open("gold.t").await.is_err());
        let shadow = old_table(&Lake::at(other.path().to_str().unwrap()).unwrap(), 2).await;
        let positions = [TransactionId::new("gold.t", 2)];
        let version = replace_damaged(&lake, &spec(), known, &shadow, &positions).await.unwrap();
        let mut table = lake.open("gold.t").await.unwrap();
        assert_eq!((table.version(), table.position("gold.t").await.unwrap()), (version, Some(2)));
        assert_eq!(table.read_all().await.unwrap(), [rows(2)]);
    }
}
