//! Compaction of append tables: of many small files it makes one, beside the steps that append.
//!
//! Each step appends a file. Files are read and merged on their own; the owner of the table commits the exchange between
//! two steps, marked as changing no data, so it never conflicts with an append. A crash leaves at most a file that no
//! version names.

use karat_lake::{DataFile, Lake, Table};
use tokio::task::JoinHandle;

use crate::Result;

/// Files below both of these are small.
const SMALL_ROWS: u64 = 20_000;
const SMALL_BYTES: i64 = 4 << 20;

/// Small files that are made one: when there are so many, or as many as fit the bounds.
const ENOUGH: usize = 64;
const MOST: usize = 256;

/// Rows and bytes of files that are merged at once, at most: they are in memory together. A dozen small files fit.
const MOST_ROWS: u64 = 250_000;
const MOST_BYTES: i64 = 64 << 20;

/// Versions between two looks at a table's files.
const LOOK_EVERY: u64 = 16;

/// A merge under way.
pub(crate) struct Compaction {
    replaced: Vec<DataFile>,
    merging: JoinHandle<Result<Vec<DataFile>>>,
}

impl Compaction {
    /// Begins to merge small files of `table`, if there are enough.
    pub(crate) fn begin(lake: &Lake, table: &Table) -> Option<Self> {
        if !table.version().is_multiple_of(LOOK_EVERY) {
            return None;
        }
        let replaced = worth_merging(table.files());
        if replaced.is_empty() {
            return None;
        }
        let (lake, name, files) = (lake.clone(), table.name().to_owned(), replaced.clone());
        Some(Self { replaced, merging: tokio::spawn(async move { merge(&lake, &name, &files).await }) })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.merging.is_finished()
    }

    /// Puts the merged file in the place of the small ones. What could not be merged stays as it is.
    pub(crate) async fn commit(mut self, table: &mut Table) -> Result<()> {
        match (&mut self.merging).await? {
            Ok(merged) => {
                let replaced = self.replaced.iter().map(|file| file.path().to_owned()).collect();
                match table.exchange(replaced, merged).await {
                    // The table stood still since.
                    Ok(_) | Err(karat_lake::Error::CleanedUp { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => tracing::warn!(table = table.name(), %error, "small files were not merged"),
        }
        Ok(())
    }
}

impl Drop for Compaction {
    /// Nobody would take the file, and the table may be on its way out.
    fn drop(&mut self) {
        self.merging.abort();
    }
}

/// Small ones of `files`, if there are enough to make one of them.
fn worth_merging<'a>(files: impl Iterator<Item = &'a DataFile>) -> Vec<DataFile> {
    let (mut chosen, mut rows, mut bytes) = (Vec::new(), 0, 0);
    for file in files {
        let Some(count) = file.rows().filter(|rows| *rows < SMALL_ROWS) else { continue };
        if file.size_bytes() >= SMALL_BYTES {
            continue;
        }
        if rows + count > MOST_ROWS || bytes + file.size_bytes() > MOST_BYTES || chosen.len() == MOST {
            return chosen;
        }
        rows += count;
        bytes += file.size_bytes();
        chosen.push(file.clone());
    }
    if chosen.len() < ENOUGH { Vec::new() } else { chosen }
}

async fn merge(lake: &Lake, table: &str, files: &[DataFile]) -> Result<Vec<DataFile>> {
    let table = lake.open(table).await?;
    let mut batches = Vec::new();
    for file in files {
        batches.extend(table.read(file, None).await?);
    }
    Ok(table.staging().stage("part", &[], &batches).await?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::{
        TableSpec,
        arrow::{
            array::{Int64Array, RecordBatch},
            datatypes::{DataType, Field, Schema},
        },
    };

    use super::*;

    /// A table of so many files with so many rows each.
    async fn filled(lake: &Lake, files: usize, rows: i64) -> Table {
        let schema = Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, false)]));
        let spec = TableSpec {
            name: "silver.numbers".to_owned(),
            schema: Arc::clone(&schema),
            partition_by: Vec::new(),
            stats_columns: Vec::new(),
            append_only: true,
        };
        let mut table = lake.open_or_create(&spec).await.unwrap();
        for _ in 0..files {
            let numbers = Arc::new(Int64Array::from_iter_values(0..rows));
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![numbers]).unwrap();
            let file = table.staging().stage("part", &[], &[batch]).await.unwrap();
            table.commit(Vec::new(), file.into_iter().collect(), &[]).await.unwrap();
        }
        table
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn files_are_merged_when_they_are_many_or_have_rows_enough_and_large_ones_stay() {
        for (files, rows, merged) in [(63, 1, 0), (64, 1, 64), (25, 10_000, 0), (26, 10_000, 25), (14, 20_000, 0)] {
            let folder = tempfile::tempdir().unwrap();
            let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
            let table = filled(&lake, files, rows).await;
            assert_eq!(worth_merging(table.files()).len(), merged, "{files} files of {rows} rows");
        }
    }
}
