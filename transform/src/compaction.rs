//! Compaction of append tables: of many small files it makes one, beside the steps that append.
//!
//! Each step appends a file. Files are read and merged on their own; the owner of the table commits the exchange between
//! two steps, marked as changing no data, so it never conflicts with an append. A crash leaves at most a file that no
//! version names.

use karat_lake::{DataFile, Lake, Table};
use tokio::task::JoinHandle;

use crate::Result;

/// Files below this number of rows are small.
const SMALL_ROWS: u64 = 20_000;

/// Small files that are made one.
const FEWEST: usize = 64;
const MOST: usize = 256;

/// Rows that are merged at once, at most: they are in memory together.
const MOST_ROWS: u64 = 250_000;

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
        let replaced = small_files(table);
        if replaced.len() < FEWEST {
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

fn small_files(table: &Table) -> Vec<DataFile> {
    let (mut chosen, mut rows) = (Vec::new(), 0);
    for file in table.files() {
        let Some(count) = file.rows().filter(|rows| *rows < SMALL_ROWS) else { continue };
        rows += count;
        if rows > MOST_ROWS || chosen.len() == MOST {
            break;
        }
        chosen.push(file.clone());
    }
    chosen
}

async fn merge(lake: &Lake, table: &str, files: &[DataFile]) -> Result<Vec<DataFile>> {
    let table = lake.open(table).await?;
    let mut batches = Vec::new();
    for file in files {
        batches.extend(table.read(file, None).await?);
    }
    Ok(table.staging().stage("part", &[], &batches).await?.into_iter().collect())
}
