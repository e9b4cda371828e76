//! Merges the small files of bronze, so that a table with years of commits opens and reads like one with few.
//!
//! Only versions that every pipeline has behind it are merged ([`held_from`]): what a pipeline reads next, after whatever
//! crash, is there commit by commit. A rebuild, which begins at the first version, reads merged files as what they are: the
//! rows of versions one after another.

use karat_lake::{DataFile, Lake, Table, epochs::Epochs};
use karat_schemas::pipelines::Pipelines;

use super::table_name;
use crate::{Result, checkpoint};

/// Files that are made one: when there are so many, or as many as fit the bounds.
const ENOUGH: usize = 128;

/// Rows and bytes of files that are merged at once: they are in memory together.
const MOST_ROWS: u64 = 100_000;
const MOST_BYTES: i64 = 32 << 20;

/// Commits that are looked at in one go.
const COMMITS: u64 = 256;

/// Versions one after another, of one day.
#[derive(Default)]
struct Group {
    first: u64,
    last: u64,
    files: Vec<DataFile>,
    rows: u64,
    bytes: i64,
}

/// The version up to which no pipeline of the topic will read single commits again: none of them is behind it, and
/// neither is the copy of its state that a lost one is restored from.
pub(crate) async fn held_from(lake: &Lake, pipelines: &Pipelines, topic: &str, has_checkpoints: bool) -> Result<u64> {
    let mut held = u64::MAX;
    for pipeline in pipelines.pipelines.iter().filter(|pipeline| pipeline.topic == topic) {
        let epoch = Epochs::of(lake, &pipeline.name)?.latest().await?;
        held = held.min(epoch.map_or(0, |epoch| epoch.bronze_version));
        if has_checkpoints {
            held = held.min(checkpoint::position(lake, &pipeline.name).await?);
        }
    }
    Ok(if held == u64::MAX { 0 } else { held })
}

/// Merges what is behind version `held`; returns the version up to which everything is merged.
///
/// # Errors
/// The table does not open, or somebody else merges it: both are for the next time.
pub(crate) async fn merge(lake: &Lake, topic: &str, held: u64) -> Result<u64> {
    let mut table = lake.open(&table_name(topic)).await?;
    let end = held.min(table.version());
    let (mut group, mut at) = (Group::beginning(table.merged_to() + 1), table.merged_to());
    while at < end {
        let to = (at + COMMITS).min(end);
        for commit in table.commits_between(at, to).await? {
            let rows: u64 = commit.files.iter().filter_map(DataFile::rows).sum();
            let bytes: i64 = commit.files.iter().map(DataFile::size_bytes).sum();
            if group.is_full_with(rows, bytes, &commit.files) {
                let next = Group::beginning(group.last + 1);
                std::mem::replace(&mut group, next).merge(&mut table).await?;
            }
            group.last = commit.version;
            group.files.extend(commit.files);
            group.rows += rows;
            group.bytes += bytes;
        }
        at = to;
    }
    Ok(table.merged_to())
}

fn day_of(file: &DataFile) -> &str {
    file.path().split_once('/').map_or("", |(day, _)| day)
}

impl Group {
    fn beginning(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Whether what comes next belongs to another file.
    fn is_full_with(&self, rows: u64, bytes: i64, files: &[DataFile]) -> bool {
        let is_other_day =
            self.files.last().zip(files.first()).is_some_and(|(last, next)| day_of(last) != day_of(next));
        !self.files.is_empty()
            && (is_other_day
                || self.files.len() >= ENOUGH
                || self.rows + rows > MOST_ROWS
                || self.bytes + bytes > MOST_BYTES)
    }

    async fn merge(self, table: &mut Table) -> Result<()> {
        let replaced = self.files.iter().map(|file| file.path().to_owned()).collect();
        // A large one stays as it is and says what it holds.
        if let [only] = self.files.as_slice() {
            return Ok(table.merge(replaced, vec![only.with_versions(self.first, self.last)]).await?);
        }
        let mut batches = Vec::new();
        for file in &self.files {
            batches.extend(table.read(file, None).await?);
        }
        let Some(first) = self.files.first() else { return Ok(()) };
        let day = day_of(first).split_once('=').map(|(column, day)| (column.to_owned(), day.to_owned()));
        let merged = table.staging().stage("merged", &day.into_iter().collect::<Vec<_>>(), &batches).await?;
        let merged = merged.map(|merged| merged.with_versions(self.first, self.last));
        Ok(table.merge(replaced, merged.into_iter().collect()).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use karat_eventlog::{Headers, Record};
    use karat_lake::{TransactionId, arrow::array::RecordBatch};

    use super::*;
    use crate::bronze::{
        position_name,
        read::{places, read_after},
        rows::from_records,
        table_spec,
    };

    const TOPIC: &str = "karat.events";
    const COMMITS: i64 = 300;

    /// Two records a commit, of two partitions.
    async fn filled(lake: &Lake) -> Table {
        let mut table = lake.open_or_create(&table_spec(TOPIC)).await.unwrap();
        for number in 0..COMMITS {
            let record = |partition| Record {
                topic: TOPIC.into(),
                partition,
                offset: number,
                timestamp_us: 1_770_000_000_000_000,
                key: None,
                headers: Headers::default(),
                payload: format!("{partition}/{number}").into(),
            };
            let rows = from_records(&[record(0), record(1)], 1_770_000_000_000_000).unwrap();
            let day = [("ingest_date".to_owned(), "2026-02-02".to_owned())];
            let file = table.staging().stage("part", &day, &[rows]).await.unwrap();
            let positions = [0, 1].map(|partition| TransactionId::new(position_name(TOPIC, partition), number + 1));
            table.commit(Vec::new(), file.into_iter().collect(), &positions).await.unwrap();
        }
        table
    }

    /// Everything after a version, in the order in which it is read.
    async fn read_all(bronze: &mut Table, after: u64, covered: i64) -> Vec<(u32, i64)> {
        let mut covered: BTreeMap<u32, i64> = [(0, covered), (1, covered)].into();
        let (mut at, mut read) = (after, Vec::new());
        while at < COMMITS.unsigned_abs() {
            let part = read_after(bronze, at, &covered).await.unwrap();
            assert!(part.to > at);
            at = part.to;
            read.extend(part.rows.iter().flat_map(|rows: &RecordBatch| places(rows).collect::<Vec<_>>()));
            covered.extend(part.positions);
        }
        assert_eq!(covered, [(0, COMMITS), (1, COMMITS)].into());
        read
    }

    fn everything_from(first: i64) -> Vec<(u32, i64)> {
        (first..COMMITS).flat_map(|number| [(0, number), (1, number)]).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn merged_versions_read_as_they_were_from_anywhere_also_when_their_commits_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let mut writer = filled(&lake).await;
        let mut before = lake.open(writer.name()).await.unwrap();
        // Nothing that a pipeline may still read is merged.
        assert_eq!(merge(&lake, TOPIC, 100).await.unwrap(), 0);
        assert_eq!(merge(&lake, TOPIC, 290).await.unwrap(), 256);
        // Again, nothing is left to do.
        assert_eq!(merge(&lake, TOPIC, 290).await.unwrap(), 256);
        let mut merged = lake.open(writer.name()).await.unwrap();
        assert_eq!(merged.files().len(), 2 + 44);
        for (after, covered) in [(0, 0), (5, 5), (128, 128), (200, 200), (256, 256), (299, 299)] {
            assert_eq!(read_all(&mut merged, after, covered).await, everything_from(covered), "after {after}");
        }
        // The writer goes on beside it, over the commits of the merge.
        writer.commit(Vec::new(), Vec::new(), &[TransactionId::new(position_name(TOPIC, 2), 1)]).await.unwrap();
        assert_eq!(writer.version(), 303);

        let log = folder.path().join("bronze/karat_events/_delta_log");
        let url = writer.url().clone();
        karat_lake::checkpoint_at(&url, 250).await.unwrap();
        for version in 0..=250 {
            std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
        }
        // A handle from before the merge, as a replay under way has one.
        assert_eq!(read_all(&mut before, 7, 7).await, everything_from(7));
        let mut opened = lake.open(writer.name()).await.unwrap();
        assert_eq!(read_all(&mut opened, 0, 0).await, everything_from(0));
        assert_eq!(opened.newest_version(0).await.unwrap(), 303);
        // A merged file that is damaged, and whose rows the log has no more: the rest is read all the same.
        let first = opened.merged_file_of(1).unwrap().path().to_owned();
        opened.merge(vec![first], Vec::new()).await.unwrap();
        assert_eq!(read_all(&mut opened, 0, 0).await, everything_from(128));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_merges_at_once_one_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let writer = filled(&lake).await;
        let _ = tokio::join!(merge(&lake, TOPIC, 300), merge(&lake, TOPIC, 300));
        let mut table = lake.open(writer.name()).await.unwrap();
        assert_eq!(read_all(&mut table, 0, 0).await, everything_from(0));
        let rows: usize = table.read_all().await.unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 600);
    }
}
