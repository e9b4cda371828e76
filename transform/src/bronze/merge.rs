//! Merges the small files of bronze, so that a table with years of commits opens and reads like one with few.
//!
//! Only versions that every pipeline has behind it are merged ([`held_from`]): what a pipeline reads next, after whatever
//! crash, is there commit by commit. A rebuild, which begins at the first version, reads merged files as what they are: the
//! rows of versions one after another.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use karat_lake::{CommitSummary, DataFile, Lake, Table, TransactionId, arrow::array::RecordBatch, epochs::Epochs};
use karat_schemas::pipelines::Pipelines;

use super::table_name;
use crate::{Result, checkpoint, runner::partition_of};

/// Files that are made one: when there are so many, or as many as fit the bounds.
const ENOUGH: usize = 128;

/// Rows and bytes of a merged file.
const MOST_ROWS: u64 = 100_000;
const MOST_BYTES: i64 = 32 << 20;

/// Bytes of rows that are merged at once, as they are in memory: payloads that repeat are far smaller in their files.
const MOST_IN_MEMORY: usize = 256 << 20;

/// Rests after a merge, in times that it took: under load there are hundreds, and one after the other they would take a core from
/// the pipelines for minutes.
const REST: u32 = 3;

/// Commits that are looked at in one go.
const COMMITS: u64 = 256;

/// Versions one after another, of one day.
#[derive(Default)]
struct Group {
    first: u64,
    last: u64,
    /// Each with its version.
    files: Vec<(u64, DataFile)>,
    rows: u64,
    bytes: i64,
    /// By application: the newest positions.
    positions: HashMap<String, i64>,
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

/// Merges what is behind version `held`; returns the version up to which everything is merged. It takes its time until
/// `hurries_from`.
///
/// # Errors
/// The table does not open, or somebody else merges it: both are for the next time.
pub(crate) async fn merge(lake: &Lake, topic: &str, held: u64, hurries_from: Instant) -> Result<u64> {
    merge_within(lake, topic, held, MOST_IN_MEMORY, hurries_from).await
}

async fn merge_within(lake: &Lake, topic: &str, held: u64, in_memory: usize, hurries_from: Instant) -> Result<u64> {
    let mut table = lake.open(&table_name(topic)).await?;
    let end = held.min(table.version());
    let (mut group, mut at) = (Group::beginning(table.merged_to() + 1), table.merged_to());
    while at < end {
        let to = (at + COMMITS).min(end);
        for commit in table.commits_between(at, to).await? {
            let rows: u64 = commit.files.iter().filter_map(DataFile::rows).sum();
            let bytes: i64 = commit.files.iter().map(DataFile::size_bytes).sum();
            if group.is_full_with(rows, bytes, &commit) {
                let (next, began) = (Group::beginning(group.last + 1), Instant::now());
                std::mem::replace(&mut group, next).merge(&mut table, in_memory).await?;
                let left = hurries_from.saturating_duration_since(Instant::now());
                tokio::time::sleep(rest_after(began.elapsed(), left)).await;
            }
            group.last = commit.version;
            group.files.extend(commit.files.into_iter().map(|file| (commit.version, file)));
            group.rows += rows;
            group.bytes += bytes;
            group.positions.extend(commit.positions.into_iter().map(|id| (id.application, id.version)));
        }
        at = to;
    }
    Ok(table.merged_to())
}

/// How long the next merge waits after one that took so long, while so much time is left.
fn rest_after(took: Duration, left: Duration) -> Duration {
    (took * REST).min(left)
}

fn day_of(file: &DataFile) -> &str {
    file.path().split_once('/').map_or("", |(day, _)| day)
}

impl Group {
    fn beginning(first: u64) -> Self {
        Self { first, ..Self::default() }
    }

    /// Whether what comes next belongs to another file.
    fn is_full_with(&self, rows: u64, bytes: i64, commit: &CommitSummary) -> bool {
        // Where somebody accepted another log, offsets begin again: in one file they would say nothing.
        let is_back = |id: &TransactionId| {
            let known = self.positions.get(&id.application);
            partition_of(&id.application).is_some() && known.is_some_and(|known| id.version < *known)
        };
        let last = self.files.last().map(|(_, file)| file);
        let is_other_day = last.zip(commit.files.first()).is_some_and(|(last, next)| day_of(last) != day_of(next));
        !self.files.is_empty()
            && (is_other_day
                || commit.positions.iter().any(is_back)
                || self.files.len() >= ENOUGH
                || self.rows + rows > MOST_ROWS
                || self.bytes + bytes > MOST_BYTES)
    }

    /// Merges the files: into one, or more where their rows do not fit in memory together.
    async fn merge(self, table: &mut Table, most_in_memory: usize) -> Result<()> {
        let (mut part, mut batches, mut in_memory) = (Self::beginning(self.first), Vec::new(), 0);
        let is_alone = self.files.len() == 1;
        for (version, file) in self.files {
            // One that stays as it is need not be read.
            let rows = if is_alone { Vec::new() } else { table.read(&file, None).await? };
            let bytes: usize = rows.iter().map(RecordBatch::get_array_memory_size).sum();
            if version > part.last && !part.files.is_empty() && in_memory + bytes > most_in_memory {
                let next = Self::beginning(part.last + 1);
                std::mem::replace(&mut part, next).put(table, &std::mem::take(&mut batches)).await?;
                in_memory = 0;
            }
            part.last = version;
            part.files.push((version, file));
            batches.extend(rows);
            in_memory += bytes;
        }
        (part.last, part.positions) = (self.last, self.positions);
        part.put(table, &batches).await
    }

    /// The next offset of each partition that the versions moved: of one that was moved back, no row says it.
    fn moved(&self) -> BTreeMap<u32, i64> {
        self.positions.iter().filter_map(|(application, next)| Some((partition_of(application)?, *next))).collect()
    }

    /// Puts one file with the rows in the place of the group's.
    async fn put(self, table: &mut Table, rows: &[RecordBatch]) -> Result<()> {
        let replaced = self.files.iter().map(|(_, file)| file.path().to_owned()).collect();
        // A large one stays as it is and says what it holds.
        let says = |file: &DataFile| file.with_versions(self.first, self.last).with_positions(&self.moved());
        if let [(_, only)] = self.files.as_slice() {
            return Ok(table.merge(replaced, vec![says(only)]).await?);
        }
        let Some((_, first)) = self.files.first() else { return Ok(()) };
        let day = day_of(first).split_once('=').map(|(column, day)| (column.to_owned(), day.to_owned()));
        let merged = table.staging().stage("merged", &day.into_iter().collect::<Vec<_>>(), rows).await?;
        Ok(table.merge(replaced, merged.iter().map(says).collect()).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use karat_eventlog::{Headers, Record};
    use karat_schemas::pipelines::{BUILT_IN, parse};

    use super::*;
    use crate::{
        bronze::{
            position_name,
            read::{places, read_after},
            rows::from_records,
            table_spec,
        },
        journal::Journal,
        rebuild,
        runner::RunnerSettings,
    };

    const TOPIC: &str = "karat.events";
    const COMMITS: i64 = 300;

    async fn filled(lake: &Lake) -> Table {
        let mut table = lake.open_or_create(&table_spec(TOPIC)).await.unwrap();
        fill(&mut table, 0..COMMITS).await;
        table
    }

    /// Two records a commit, of two partitions.
    async fn fill(table: &mut Table, numbers: Range<i64>) {
        fill_partitions(table, &[0, 1], numbers).await;
    }

    /// One record of each partition a commit.
    async fn fill_partitions(table: &mut Table, partitions: &[u32], numbers: Range<i64>) {
        for number in numbers {
            let record = |partition| Record {
                topic: TOPIC.into(),
                partition,
                offset: number,
                timestamp_us: 1_770_000_000_000_000,
                key: None,
                headers: Headers::default(),
                payload: format!("{partition}/{number}").into(),
            };
            let records: Vec<Record> = partitions.iter().map(|partition| record(*partition)).collect();
            let rows = from_records(&records, 1_770_000_000_000_000).unwrap();
            let day = [("ingest_date".to_owned(), "2026-02-02".to_owned())];
            let file = table.staging().stage("part", &day, &[rows]).await.unwrap();
            let position = |partition: &u32| TransactionId::new(position_name(TOPIC, *partition), number + 1);
            let positions: Vec<TransactionId> = partitions.iter().map(position).collect();
            table.commit(Vec::new(), file.into_iter().collect(), &positions).await.unwrap();
        }
    }

    async fn merge_now(lake: &Lake, topic: &str, held: u64) -> Result<u64> {
        merge(lake, topic, held, Instant::now()).await
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
        assert_eq!(merge_now(&lake, TOPIC, 100).await.unwrap(), 0);
        assert_eq!(merge_now(&lake, TOPIC, 290).await.unwrap(), 256);
        // Again, nothing is left to do.
        assert_eq!(merge_now(&lake, TOPIC, 290).await.unwrap(), 256);
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

    #[test]
    fn a_merge_rests_longer_than_it_took_while_there_is_time() {
        let second = Duration::from_secs(1);
        assert_eq!(rest_after(second, 100 * second), 3 * second);
        assert_eq!(rest_after(second, second), second);
        assert_eq!(rest_after(second, Duration::ZERO), Duration::ZERO);
    }

    fn merged_versions(table: &Table) -> Vec<(u64, u64)> {
        let mut merged: Vec<(u64, u64)> = table.files().filter_map(DataFile::merged).collect();
        merged.sort_unstable();
        merged
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_of_a_log_and_of_the_one_accepted_in_its_place_are_in_different_files() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let mut writer = lake.open_or_create(&table_spec(TOPIC)).await.unwrap();
        fill(&mut writer, 0..130).await;
        let accepted = [0, 1].map(|partition| TransactionId::new(position_name(TOPIC, partition), 0));
        writer.commit(Vec::new(), Vec::new(), &accepted).await.unwrap();
        fill(&mut writer, 0..20).await;
        merge_now(&lake, TOPIC, 151).await.unwrap();
        let table = lake.open(writer.name()).await.unwrap();
        assert_eq!(merged_versions(&table), [(1, 128), (129, 130)]);
        // The rest is merged with what comes; two versions in between are merges.
        fill(&mut writer, 20..130).await;
        merge_now(&lake, TOPIC, 263).await.unwrap();
        let table = lake.open(writer.name()).await.unwrap();
        assert_eq!(merged_versions(&table), [(1, 128), (129, 130), (131, 261)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_rebuild_over_merged_versions_covers_no_offsets_that_an_accepted_topic_gives_again() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap();
        let mut writer = lake.open_or_create(&table_spec(TOPIC)).await.unwrap();
        fill(&mut writer, 0..3).await;
        let accepted = [0, 1].map(|partition| TransactionId::new(position_name(TOPIC, partition), 0));
        writer.commit(Vec::new(), Vec::new(), &accepted).await.unwrap();
        // The other partition has nothing since.
        fill_partitions(&mut writer, &[1], 0..130).await;
        merge_now(&lake, TOPIC, writer.version()).await.unwrap();
        let mut merged = lake.open(writer.name()).await.unwrap();
        assert_eq!(merged_versions(&merged), [(1, 3), (4, 132)]);
        let part = read_after(&mut merged, 3, &BTreeMap::new()).await.unwrap();
        assert_eq!((part.to, part.positions), (132, BTreeMap::from([(0, 0), (1, 128)])));
        // A file that was merged before files said so, or that was repaired.
        let silent = merged.merged_file_of(4).unwrap().with_positions(&BTreeMap::new());
        merged.merge(vec![silent.path().to_owned()], vec![silent]).await.unwrap();
        let pipeline = parse(BUILT_IN).unwrap().pipelines.remove(0);
        let settings = RunnerSettings {
            lake: lake.clone(),
            tables: lake.clone(),
            state_folder: folder.path().join("state"),
            generation: 0,
            declared: None,
            writes_epochs: true,
            checkpoints: None,
            publishes_later: false,
            journal: Journal::off(),
        };
        let mut shadow = rebuild::start(&pipeline, &settings).await.unwrap();
        while shadow.catch_up().await.unwrap() {}
        rebuild::swap(&pipeline, &settings, shadow).await.unwrap();
        let epoch = Epochs::of(&lake, &pipeline.name).unwrap().latest().await.unwrap().unwrap();
        assert_eq!((epoch.bronze_version, epoch.covers()), (137, BTreeMap::from([(0, 0), (1, 130)])));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_does_not_fit_in_memory_together_is_merged_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let writer = filled(&lake).await;
        let file = writer.files().next().unwrap();
        let rows = writer.read(file, None).await.unwrap();
        let bytes: usize = rows.iter().map(RecordBatch::get_array_memory_size).sum();
        merge_within(&lake, TOPIC, 300, bytes * 50, Instant::now()).await.unwrap();
        let mut table = lake.open(writer.name()).await.unwrap();
        let merged = merged_versions(&table);
        assert!(merged.len() > 4 && merged.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{merged:?}");
        assert_eq!((merged[0].0, merged[merged.len() - 1].1), (1, 256));
        assert_eq!(read_all(&mut table, 0, 0).await, everything_from(0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_merges_at_once_one_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let writer = filled(&lake).await;
        let _ = tokio::join!(merge_now(&lake, TOPIC, 300), merge_now(&lake, TOPIC, 300));
        let mut table = lake.open(writer.name()).await.unwrap();
        assert_eq!(read_all(&mut table, 0, 0).await, everything_from(0));
        let rows: usize = table.read_all().await.unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, 600);
    }
}
