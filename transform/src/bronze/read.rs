//! Reads bronze version after version, whether their files are merged or not.

use std::collections::BTreeMap;

use karat_lake::{
    Table,
    arrow::{
        array::{AsArray, BooleanArray, RecordBatch},
        compute::filter_record_batch,
        datatypes::{Int32Type, Int64Type},
    },
};

use crate::{Result, runner::partition_of};

/// The rows of one version, or of several that are merged.
pub(crate) struct Part {
    /// The last of them.
    pub to: u64,
    pub rows: Vec<RecordBatch>,
    /// Next offset of the partitions that moved.
    pub positions: BTreeMap<u32, i64>,
}

/// What comes after version `after`. `covered` has the next offset of each partition up to there: of versions merged
/// with earlier ones, what lies below was read before.
pub(crate) async fn read_after(bronze: &mut Table, after: u64, covered: &BTreeMap<u32, i64>) -> Result<Part> {
    if let Some(part) = from_merged(bronze, after, covered).await? {
        return Ok(part);
    }
    let error = match from_commit(bronze, after + 1).await {
        Ok(part) => return Ok(part),
        Err(error) => error,
    };
    // Merged since the table was opened, and cleaned up.
    *bronze = bronze.reopened().await?;
    match from_merged(bronze, after, covered).await? {
        Some(part) => Ok(part),
        None => lost(bronze, after).ok_or(error),
    }
}

/// Versions that were merged, and whose merged file the table gave up because neither it nor the log had its rows any more:
/// what `fsck --repair` names as lost.
fn lost(bronze: &Table, after: u64) -> Option<Part> {
    let firsts = bronze.files().filter_map(|file| Some(file.merged()?.0));
    let next = firsts.filter(|first| *first > after + 1).min()?;
    tracing::warn!(table = bronze.name(), first = after + 1, last = next - 1, "no rows are left of merged versions");
    Some(Part { to: next - 1, rows: Vec::new(), positions: BTreeMap::new() })
}

async fn from_commit(bronze: &Table, version: u64) -> Result<Part> {
    let mut part = Part { to: version, rows: Vec::new(), positions: BTreeMap::new() };
    for commit in bronze.commits_between(version - 1, version).await? {
        for file in &commit.files {
            part.rows.extend(bronze.read(file, None).await?);
        }
        part.positions
            .extend(commit.positions.iter().filter_map(|id| Some((partition_of(&id.application)?, id.version))));
    }
    Ok(part)
}

async fn from_merged(bronze: &Table, after: u64, covered: &BTreeMap<u32, i64>) -> Result<Option<Part>> {
    let Some(file) = bronze.merged_file_of(after + 1) else { return Ok(None) };
    let (first, to) = file.merged().unwrap_or_default();
    let mut part = Part { to, rows: Vec::new(), positions: BTreeMap::new() };
    for mut rows in bronze.read(file, None).await? {
        if first <= after {
            rows = above(&rows, covered)?;
        }
        for (partition, offset) in places(&rows) {
            let next = part.positions.entry(partition).or_insert(0);
            *next = (offset + 1).max(*next);
        }
        part.rows.push(rows);
    }
    // Of a partition that was moved back, the rows do not say it. Files that were merged before say nothing else.
    part.positions.extend(file.merged_positions());
    Ok(Some(part))
}

fn above(rows: &RecordBatch, covered: &BTreeMap<u32, i64>) -> Result<RecordBatch> {
    let is_new = |(partition, offset)| covered.get(&partition).is_none_or(|next| offset >= *next);
    let mask: Vec<bool> = places(rows).map(is_new).collect();
    Ok(filter_record_batch(rows, &BooleanArray::from(mask))?)
}

/// Partition and offset of each row of bronze.
pub(crate) fn places(rows: &RecordBatch) -> impl Iterator<Item = (u32, i64)> + '_ {
    let partitions = rows["partition"].as_primitive::<Int32Type>();
    let offsets = rows["offset"].as_primitive::<Int64Type>();
    (0..rows.num_rows()).map(|row| (u32::try_from(partitions.value(row)).unwrap_or(u32::MAX), offsets.value(row)))
}
