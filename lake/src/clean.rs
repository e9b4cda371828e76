//! Removes what no kept version of a table needs: data files, and log entries behind a checkpoint of the log.
//!
//! Nothing is committed, so it never conflicts with a writer, and may run in several processes at once. It is ours because
//! the stock vacuum commits to the table, which would fence its owner off.
//!
//! A version is *kept* while it is younger than the age that is asked for, and from the version on that is asked for; of
//! tables that only grow, single older ones are kept longer (`milestones`). A file goes when no kept version has it and it is
//! older than that age itself; so it must be committed within the age after it was written.

mod milestones;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, path::Path};

use self::milestones::Milestones;
use crate::{Lake, Result, Table, crash, table::now_ms};

const LOG: &str = "_delta_log";

/// Commits that are read at once.
const IN_FLIGHT: usize = 16;

/// What stays.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Versions that were the newest within this time stay, and so does every file that was written within it.
    pub age: Duration,
    /// This version and all later ones stay.
    pub version: Option<u64>,
    /// Commits after this version stay in the log, whether their files do or not: of a table that is read commit by
    /// commit from there.
    pub commits_after: Option<u64>,
    /// Single versions within this time stay: one an hour of the last day, one of six hours before.
    pub milestones: Option<Duration>,
}

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    pub files: u64,
    pub bytes: u64,
    pub log_entries: u64,
}

/// The log of a table, as its folder shows it.
#[derive(Default)]
struct Log {
    /// When each commit was written, milliseconds since 1970 UTC.
    commits: BTreeMap<u64, i64>,
    /// Every file of the log by its version.
    files: Vec<(u64, Path)>,
    checkpoints: Vec<u64>,
}

/// Cleans tables of one lake again and again, reading each commit once.
pub struct Cleaner {
    lake: Lake,
    /// By table and version: the files that it removed.
    removed: HashMap<String, BTreeMap<u64, Vec<String>>>,
    milestones: HashMap<String, Milestones>,
}

impl Cleaner {
    pub fn new(lake: Lake) -> Self {
        Self { lake, removed: HashMap::new(), milestones: HashMap::new() }
    }

    /// Removes what no kept version of `table` needs.
    ///
    /// # Errors
    /// The table does not open, or its files cannot be listed. What could not be removed is left for the next time.
    pub async fn clean(&mut self, table: &str, kept: &Kept) -> Result<Cleaned> {
        self.clean_at(table, kept, now_ms()).await
    }

    async fn clean_at(&mut self, table: &str, kept: &Kept, now_ms: i64) -> Result<Cleaned> {
        let opened = self.lake.open(table).await?;
        let cutoff_ms = now_ms - i64::try_from(kept.age.as_millis()).unwrap_or(i64::MAX);
        let (log, data) = self.list(table).await?;
        let oldest = log.oldest_kept(cutoff_ms, kept.version.unwrap_or(u64::MAX)).min(opened.version());
        let mut cleaned = Cleaned::default();
        let mut needed = self.needed(&opened, oldest).await?;
        let milestones = self.milestones.entry(table.to_owned()).or_default();
        if let Some(within) = kept.milestones {
            milestones.renew(&self.lake, &opened, within, now_ms).await?;
        }
        needed.extend(milestones.files().cloned());
        // Not beyond the pointer: who has not followed the log learns from it that commits are gone.
        let pointer = opened.last_checkpoint().await?.unwrap_or(0);
        let entries = log.behind_checkpoint(oldest.min(kept.commits_after.unwrap_or(u64::MAX)).min(pointer));
        let entries = entries.filter(|(version, _)| !milestones.has(*version)).map(|(_, path)| path.clone()).collect();
        let is_gone = |(path, object): &(String, ObjectMeta)| {
            object.last_modified.timestamp_millis() <= cutoff_ms && !needed.contains(path)
        };
        let gone: HashMap<Path, u64> =
            data.into_iter().filter(is_gone).map(|(_, object)| (object.location, object.size)).collect();
        crash::point(opened.url(), "clean.before").await;
        for path in self.delete(table, gone.keys().cloned().collect()).await? {
            cleaned.files += 1;
            cleaned.bytes += gone.get(&path).copied().unwrap_or_default();
        }
        crash::point(opened.url(), "clean.files").await;
        cleaned.log_entries = self.delete(table, entries).await?.len() as u64;
        cleaned.files += self.remove_leftovers(table, kept.age).await?;
        Ok(cleaned)
    }

    /// Removes files, many at once where the store can; returns those that are gone now.
    async fn delete(&self, table: &str, files: Vec<Path>) -> Result<Vec<Path>> {
        let deleted = self.lake.store(table)?.delete_stream(stream::iter(files.into_iter().map(Ok)).boxed());
        Ok(deleted.filter_map(|path| std::future::ready(path.ok())).collect().await)
    }

    /// Temporary files of writes that a crash ended; only a local disk has them.
    async fn remove_leftovers(&self, table: &str, age: Duration) -> Result<u64> {
        let Ok(folder) = self.lake.table_url(table)?.to_file_path() else { return Ok(0) };
        let removed = tokio::task::spawn_blocking(move || crate::leftovers::remove(&folder, age)).await?;
        // What could not be removed is left for the next time.
        Ok(removed.unwrap_or(0))
    }

    /// Paths of every file of the versions from `oldest` on.
    async fn needed(&mut self, table: &Table, oldest: u64) -> Result<HashSet<String>> {
        let known = self.removed.entry(table.name().to_owned()).or_default();
        known.retain(|version, _| *version > oldest && *version <= table.version());
        let unknown: Vec<u64> = (oldest + 1..=table.version()).filter(|version| !known.contains_key(version)).collect();
        let read = unknown.into_iter().map(|version| async move { (version, table.removed_by(version).await) });
        let mut read = stream::iter(read).buffer_unordered(IN_FLIGHT);
        while let Some((version, removed)) = read.next().await {
            known.insert(version, removed?);
        }
        let current = table.files().map(|file| file.path().to_owned());
        Ok(current.chain(known.values().flatten().cloned()).collect())
    }

    /// The log of a table, and its data files by their paths below its folder.
    async fn list(&self, table: &str) -> Result<(Log, Vec<(String, ObjectMeta)>)> {
        let folder = Path::from(table.replacen('.', "/", 1));
        let (mut log, mut data) = (Log::default(), Vec::new());
        let mut listed = self.lake.store(table)?.list(Some(&folder));
        while let Some(object) = listed.try_next().await? {
            let Some(below) = object.location.as_ref().strip_prefix(folder.as_ref()) else { continue };
            let below = below.trim_start_matches('/').to_owned();
            match below.strip_prefix(LOG) {
                Some(name) => log.add(name.trim_start_matches('/'), &object),
                None if below.ends_with(".parquet") => data.push((below, object)),
                None => {}
            }
        }
        Ok((log, data))
    }
}

impl Log {
    fn add(&mut self, name: &str, object: &ObjectMeta) {
        let Some((version, kind)) = name.split_once('.') else { return };
        let Ok(version) = version.parse::<u64>() else { return };
        match kind {
            "json" => drop(self.commits.insert(version, object.last_modified.timestamp_millis())),
            "checkpoint.parquet" => self.checkpoints.push(version),
            // Of another writer: it knows what to do with them.
            _ => return,
        }
        self.files.push((version, object.location.clone()));
    }

    /// The first version that was the newest within the time.
    fn oldest_kept(&self, cutoff_ms: i64, at_most: u64) -> u64 {
        // Milestones stand alone before the others.
        let versions = || self.commits.keys().rev();
        let gap = versions().zip(versions().skip(1)).find(|(version, before)| **before + 1 != **version);
        let first = gap.map_or(0, |(version, _)| *version);
        let mut commits = self.commits.range(first..).peekable();
        while let Some((version, _)) = commits.next() {
            let is_kept = commits.peek().is_none_or(|(_, replaced_ms)| **replaced_ms > cutoff_ms);
            if is_kept || *version >= at_most {
                return *version;
            }
        }
        at_most
    }

    /// Files of the log that are needed only to read versions before `oldest`, from the last checkpoint but one: when the last
    /// is damaged, the commits from there on say the same.
    fn behind_checkpoint(&self, oldest: u64) -> impl Iterator<Item = &(u64, Path)> {
        let mut checkpoints: Vec<u64> = self.checkpoints.iter().copied().filter(|version| *version <= oldest).collect();
        checkpoints.sort_unstable();
        let from = checkpoints.iter().rev().nth(1).copied().unwrap_or(0);
        self.files.iter().filter(move |(version, _)| *version < from)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use deltalake::arrow::{
        array::{Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;
    use crate::{TableSpec, TransactionId};

    const HOUR_MS: i64 = 3_600_000;

    fn spec() -> TableSpec {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let (partition_by, stats_columns) = (Vec::new(), Vec::new());
        TableSpec { name: "gold.t".to_owned(), schema, partition_by, stats_columns, append_only: false }
    }

    fn rows(value: i64) -> RecordBatch {
        RecordBatch::try_new(spec().schema, vec![Arc::new(Int64Array::from(vec![value]))]).unwrap()
    }

    /// A table whose every version replaces its one file.
    async fn replaced(lake: &Lake, versions: i64) -> Table {
        let mut table = lake.open_or_create(&spec()).await.unwrap();
        for value in 1..=versions {
            let removed = table.files().map(|file| file.path().to_owned()).collect();
            let added = table.staging().stage("slot-00000", &[], &[rows(value)]).await.unwrap().into_iter().collect();
            table.commit(removed, added, &[TransactionId::new("gold.t", value)]).await.unwrap();
        }
        table
    }

    fn count(folder: &tempfile::TempDir, below: &str, end: &str) -> usize {
        let Ok(files) = std::fs::read_dir(folder.path().join(below)) else { return 0 };
        files.filter(|file| file.as_ref().unwrap().path().to_string_lossy().ends_with(end)).count()
    }

    fn kept(age: Duration, version: Option<u64>) -> Kept {
        Kept { age, version, commits_after: None, milestones: None }
    }

    #[tokio::test]
    async fn what_kept_versions_need_stays_and_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let mut table = replaced(&lake, 20).await;
        let mut cleaner = Cleaner::new(lake.clone());
        let hour = Duration::from_secs(3600);
        assert_eq!(cleaner.clean("gold.t", &kept(hour, None)).await.unwrap(), Cleaned::default());
        // A file that a commit will name later is old enough to be kept by its age alone.
        let staged = table.staging().stage("slot-00000", &[], &[rows(21)]).await.unwrap();
        assert_eq!(cleaner.clean("gold.t", &kept(hour, Some(1))).await.unwrap(), Cleaned::default());
        let cleaned = cleaner.clean("gold.t", &kept(Duration::ZERO, Some(15))).await.unwrap();
        // Files of versions 1 to 14, and the one that no version names.
        assert_eq!((cleaned.files, cleaned.log_entries), (15, 0));
        for version in 15..=20 {
            let old = lake.open_at("gold.t", version).await.unwrap();
            assert_eq!(old.read_all().await.unwrap(), [rows(i64::try_from(version).unwrap())]);
        }
        drop(staged);
        table.commit(Vec::new(), Vec::new(), &[]).await.unwrap();
        assert_eq!(count(&folder, "gold/t", ".parquet"), 6);
    }

    #[tokio::test]
    async fn a_file_that_was_cleaned_up_before_its_commit_is_not_named_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let mut table = replaced(&lake, 1).await;
        let file = table.staging().stage("slot-00001", &[], &[rows(2)]).await.unwrap().unwrap();
        let add = file.add().as_ref().clone();
        let old = crate::DataFile::from(deltalake::kernel::Add { modification_time: now_ms() - HOUR_MS, ..add });
        table.commit(Vec::new(), vec![old.clone()], &[]).await.unwrap();
        table.commit(vec![old.path().to_owned()], Vec::new(), &[]).await.unwrap();
        Cleaner::new(lake.clone()).clean("gold.t", &kept(Duration::ZERO, None)).await.unwrap();
        let late = table.commit(Vec::new(), vec![old.clone()], &[]).await;
        assert!(matches!(late, Err(crate::Error::CleanedUp { file, .. }) if file == old.path()));
        assert_eq!(lake.open("gold.t").await.unwrap().version(), table.version());
    }

    #[tokio::test]
    async fn when_the_newest_checkpoint_is_damaged_the_one_before_and_the_commits_say_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let table = replaced(&lake, 20).await;
        for version in [4, 10, 18] {
            crate::checkpoint_at(table.url(), version).await.unwrap();
        }
        Cleaner::new(lake.clone()).clean("gold.t", &kept(Duration::ZERO, None)).await.unwrap();
        let log = folder.path().join("gold/t/_delta_log");
        std::fs::write(log.join("00000000000000000018.checkpoint.parquet"), "damaged").unwrap();
        let faults = crate::fsck::inspect(&lake, &spec(), &crate::fsck::Needs::default()).await.unwrap().faults;
        assert_eq!(faults.len(), 2, "{faults:?}");
        for fault in faults {
            assert_eq!(fault.part, crate::fsck::Part::LogCheckpoint);
            crate::fsck::discard_checkpoint(&lake, "gold.t", &fault.file).await.unwrap();
        }
        let opened = lake.open("gold.t").await.unwrap();
        assert_eq!((opened.version(), opened.last_checkpoint().await.unwrap()), (20, Some(10)));
        assert_eq!(opened.read_all().await.unwrap(), [rows(20)]);
        let inspected = crate::fsck::inspect(&lake, &spec(), &crate::fsck::Needs::default()).await.unwrap();
        assert!(inspected.faults.is_empty(), "{:?}", inspected.faults);
    }

    #[tokio::test]
    async fn a_milestone_stays_readable_when_its_log_and_its_files_would_be_gone() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let mut table = replaced(&lake, 5).await;
        let kept = Kept { milestones: Some(Duration::from_secs(7 * 24 * 3600)), ..kept(Duration::ZERO, None) };
        let mut cleaner = Cleaner::new(lake.clone());
        // In the first hour every version is there, and none is kept for longer.
        cleaner.clean("gold.t", &kept).await.unwrap();
        assert_eq!(count(&folder, "_karat/kept", ".json"), 0);
        cleaner.clean_at("gold.t", &kept, now_ms() + HOUR_MS).await.unwrap();
        for value in 6..=20 {
            let removed = table.files().map(|file| file.path().to_owned()).collect();
            let added = table.staging().stage("slot-00000", &[], &[rows(value)]).await.unwrap().into_iter().collect();
            table.commit(removed, added, &[TransactionId::new("gold.t", value)]).await.unwrap();
        }
        for version in [18, 19] {
            crate::checkpoint_at(table.url(), version).await.unwrap();
        }
        // One that begins anew learns of it.
        for mut cleaner in [cleaner, Cleaner::new(lake.clone())] {
            cleaner.clean("gold.t", &kept).await.unwrap();
            assert_eq!(lake.open_at("gold.t", 5).await.unwrap().read_all().await.unwrap(), [rows(5)]);
            assert_eq!(lake.open_at("gold.t", 5).await.unwrap().position("gold.t").await.unwrap(), Some(5));
            assert_eq!(lake.open("gold.t").await.unwrap().read_all().await.unwrap(), [rows(20)]);
            assert!(lake.open_at("gold.t", 7).await.is_err());
            assert_eq!(count(&folder, "gold/t", ".parquet"), 2);
            // Commits 5, 18, 19 and 20.
            assert_eq!(count(&folder, "gold/t/_delta_log", ".json"), 4);
        }
    }

    #[tokio::test]
    async fn a_handle_that_stood_still_while_the_log_was_cleaned_commits_into_no_hole() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let appended = TableSpec { append_only: true, ..spec() };
        let moved = |place: &str, value| [TransactionId::new(place, value)];
        let mut busy = lake.open_or_create(&appended).await.unwrap();
        busy.append(&[rows(0)], &moved("ours", 1)).await.unwrap();
        let (mut idle, mut reader) =
            (lake.open_or_create(&appended).await.unwrap(), lake.open_or_create(&appended).await.unwrap());
        for value in 1..=20 {
            busy.append(&[rows(value)], &moved("theirs", value)).await.unwrap();
        }
        for version in [18, 19] {
            crate::checkpoint_at(busy.url(), version).await.unwrap();
        }
        // As a milestone keeps it: that the own version is there says nothing.
        let kept_entry = folder.path().join("gold/t/_delta_log/00000000000000000001.json");
        let entry = std::fs::read(&kept_entry).unwrap();
        Cleaner::new(lake.clone()).clean("gold.t", &kept(Duration::ZERO, None)).await.unwrap();
        std::fs::write(&kept_entry, entry).unwrap();
        let refused = idle.append(&[rows(21)], &moved("ours", 2)).await;
        assert!(matches!(refused, Err(crate::Error::Fenced { .. })), "{refused:?}");
        // It knows the table as it is now, and the same rows go in.
        assert_eq!((idle.version(), idle.position("theirs").await.unwrap()), (21, Some(20)));
        idle.append(&[rows(21)], &moved("ours", 2)).await.unwrap();
        assert!(reader.refresh().await.unwrap());
        assert_eq!((reader.version(), reader.position("ours").await.unwrap()), (22, Some(2)));
        assert_eq!(lake.open("gold.t").await.unwrap().read_all().await.unwrap().len(), 22);
    }

    #[tokio::test]
    async fn the_log_goes_up_to_the_checkpoint_that_kept_versions_are_read_from() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let mut table = replaced(&lake, 20).await;
        let mut cleaner = Cleaner::new(lake.clone());
        for version in [4, 8, 16] {
            let url = table.url().clone();
            deltalake::checkpoints::create_checkpoint_from_table_url_and_cleanup(url, version, Some(false), None)
                .await
                .unwrap();
        }
        let cleaned = cleaner.clean("gold.t", &kept(Duration::ZERO, Some(12))).await.unwrap();
        // Commits 0 to 3: version 12 is read from the checkpoint at 8, or without it from the one before. The newest is behind a
        // kept version.
        assert_eq!((cleaned.files, cleaned.log_entries), (11, 4));
        for version in [12, 16, 20] {
            let old = lake.open_at("gold.t", version).await.unwrap();
            assert_eq!(old.read_all().await.unwrap(), [rows(i64::try_from(version).unwrap())]);
        }
        let cleaned = cleaner.clean("gold.t", &kept(Duration::ZERO, None)).await.unwrap();
        // Commits 4 to 7, and the oldest checkpoint.
        assert_eq!((cleaned.files, cleaned.log_entries), (8, 5));
        let mut opened = lake.open("gold.t").await.unwrap();
        assert_eq!((opened.version(), opened.position("gold.t").await.unwrap()), (20, Some(20)));
        // The writer goes on, whatever was removed behind it.
        table.commit(Vec::new(), Vec::new(), &[TransactionId::new("gold.t", 21)]).await.unwrap();
        assert_eq!(lake.open("gold.t").await.unwrap().version(), 21);
    }
}
