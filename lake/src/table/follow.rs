//! Following a table's log: commit after commit, without reading the table again.

use std::collections::HashMap;

use deltalake::{Path, kernel::Action};
use futures::{StreamExt, stream};
use object_store::ObjectStoreExt;

use super::{CommitSummary, DataFile, Table, checkpoint::LONGEST_APART};
use crate::{
    Error, Result,
    commit::{self, Committed, TransactionId},
};

/// Commits that are read at once.
const IN_FLIGHT: usize = 16;

impl Table {
    /// Follows the log to its newest version; returns whether it moved. Where the commits that come next were cleaned up, the
    /// table is opened again.
    pub async fn refresh(&mut self) -> Result<bool> {
        let before = self.version;
        while self.follow(self.version + 1).await? {}
        if self.last_checkpoint().await? > Some(self.version) {
            self.reopen().await?;
        }
        Ok(self.version != before)
    }

    /// Opens the table again at its newest version.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        let mut opened = Self::open(self.url(), &self.name).await?;
        opened.may_follow_others = self.may_follow_others;
        opened.set_schema(self.schema.clone());
        *self = opened;
        Ok(())
    }

    /// The log has a checkpoint that is not older than what was just committed. Mostly another process was quick to write it.
    /// But where this handle stood still for so long that the commits after its version were cleaned up, the commit filled a
    /// hole that nobody reads: then it counts for nothing.
    pub(super) async fn found_again(
        &mut self,
        added: &[DataFile],
        positions: &[TransactionId],
        committed: u64,
    ) -> Result<Committed> {
        self.reopen().await?;
        let names: Vec<String> = positions.iter().map(|position| position.application.clone()).collect();
        let found = self.positions(&names).await?;
        let has_positions = found.iter().zip(positions).all(|(found, position)| *found == Some(position.version));
        let has_files = added.iter().all(|file| self.files.contains_key(file.path()));
        if has_positions && (has_files || !positions.is_empty()) {
            return Ok(Committed::Before(self.version));
        }
        Err(Error::Fenced {
            table: self.name.clone(),
            expected: committed,
            found: "a log that went on and was cleaned up".to_owned(),
        })
    }

    /// The version of the newest checkpoint of the log, as its pointer says. Commits are cleaned up only before that.
    pub(crate) async fn last_checkpoint(&self) -> Result<Option<u64>> {
        match self.log.object_store(None).get(&Path::from("_delta_log/_last_checkpoint")).await {
            Ok(found) => {
                let pointer: serde_json::Value = serde_json::from_slice(&found.bytes().await?).unwrap_or_default();
                Ok(pointer["version"].as_u64())
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Follows the log to `version`, reading only the commits between. False when it cannot get there this way: the
    /// version lies behind, a commit was cleaned up, or the columns changed. Then the handle must be thrown away and
    /// the table opened at that version.
    pub async fn advance_to(&mut self, version: u64) -> Result<bool> {
        while self.version < version {
            let next = self.version + 1;
            let Some(actions) = self.actions(next).await? else { return Ok(false) };
            if actions.iter().any(|action| matches!(action, Action::Metadata(_) | Action::Protocol(_))) {
                return Ok(false);
            }
            self.apply(next, actions);
        }
        Ok(self.version == version)
    }

    pub(super) async fn refresh_to(&mut self, version: u64) -> Result<()> {
        while self.version < version && self.follow(self.version + 1).await? {}
        Ok(())
    }

    /// Applies one commit of the log to this handle; false when there is none.
    async fn follow(&mut self, version: u64) -> Result<bool> {
        let Some(actions) = self.actions(version).await? else { return Ok(false) };
        self.apply(version, actions);
        Ok(true)
    }

    fn apply(&mut self, version: u64, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Add(add) => {
                    self.files.insert(add.path.clone(), DataFile::from(add));
                }
                Action::Remove(remove) => {
                    self.files.remove(&remove.path);
                }
                Action::Txn(transaction) => {
                    self.transactions.insert(transaction.app_id, Some(transaction.version));
                }
                _ => {}
            }
        }
        self.version = version;
    }

    pub(super) async fn actions(&self, version: u64) -> Result<Option<Vec<Action>>> {
        let wrap = |source| Error::storage(&self.name, source);
        let Some(bytes) = self.log.read_commit_entry(version).await.map_err(wrap)? else { return Ok(None) };
        commit::parse(&self.name, version, &bytes).map(Some)
    }

    /// What each version after `from` up to `to` added, in commit order.
    pub async fn commits_between(&self, from: u64, to: u64) -> Result<Vec<CommitSummary>> {
        let mut commits = Vec::new();
        let read = (from + 1..=to).map(|version| async move { (version, self.actions(version).await) });
        let mut read = stream::iter(read).buffered(IN_FLIGHT);
        while let Some((version, actions)) = read.next().await {
            let actions = actions?.ok_or_else(|| self.missing(version))?;
            let mut commit = CommitSummary { version, files: Vec::new(), positions: Vec::new() };
            for action in actions {
                match action {
                    Action::Add(add) if add.data_change => commit.files.push(DataFile::from(add)),
                    Action::Txn(id) => commit.positions.push(TransactionId::new(id.app_id, id.version)),
                    _ => {}
                }
            }
            commits.push(commit);
        }
        Ok(commits)
    }

    /// The ids of the first few traces of the rows that this version added, and how many records had one. Nothing when its commit
    /// is cleaned up.
    pub async fn traces(&self) -> Result<(Vec<String>, u64)> {
        let actions = self.actions(self.version).await?.unwrap_or_default();
        Ok(commit::traces(&actions))
    }

    /// Paths of the files that `version` removed.
    pub(crate) async fn removed_by(&self, version: u64) -> Result<Vec<String>> {
        let actions = self.actions(version).await?.ok_or_else(|| self.missing(version))?;
        let removed = actions.into_iter().filter_map(|action| match action {
            Action::Remove(remove) => Some(remove.path),
            _ => None,
        });
        Ok(removed.collect())
    }

    /// Looks at every commit that this version was read from: one that is empty, or torn between two lines, reads as a
    /// smaller one without an error. The positions in them are learnt by the way: to look for one in the whole log costs as
    /// much as opening the table again, and a start asks for dozens.
    pub(super) async fn require_whole_commits(&mut self) -> Result<()> {
        let begin = match self.last_checkpoint().await? {
            Some(checkpoint) if checkpoint <= self.version => checkpoint + 1,
            // Some version was read from an older one, of which the hint says nothing.
            Some(_) => self.version.saturating_sub(LONGEST_APART),
            None => 0,
        };
        let begin = begin.min(self.version);
        let (mut known, mut is_every) = (HashMap::new(), begin == 0);
        let mut commits = stream::iter((begin..=self.version).map(|version| self.whole(version))).buffered(IN_FLIGHT);
        while let Some(commit) = commits.next().await {
            match commit? {
                Some(transactions) => {
                    known.extend(transactions.into_iter().map(|id| (id.application, Some(id.version))))
                }
                None => is_every = false,
            }
        }
        drop(commits);
        (self.transactions, self.knows_every_transaction) = (known, is_every);
        self.actions(self.version).await.map(drop)
    }

    /// The positions in a commit that is whole; none when there is no such commit any more.
    async fn whole(&self, version: u64) -> Result<Option<Vec<TransactionId>>> {
        let wrap = |source| Error::storage(&self.name, source);
        let Some(bytes) = self.log.read_commit_entry(version).await.map_err(wrap)? else { return Ok(None) };
        commit::require_whole(&self.name, version, &bytes)?;
        Ok(Some(commit::transactions(&bytes)))
    }

    fn missing(&self, version: u64) -> Error {
        Error::Damaged {
            table: self.name.clone(),
            file: format!("_delta_log/{version:020}.json"),
            reason: "the commit file is missing".to_owned(),
        }
    }

    /// Hash of the commit file of `version` in 63 bits: what a position of the next layer remembers beside the number,
    /// so that a table that was deleted and made again is noticed (decision 10).
    pub async fn commit_hash(&self, version: u64) -> Result<i64> {
        let wrap = |source| Error::storage(&self.name, source);
        let bytes = self.log.read_commit_entry(version).await.map_err(wrap)?.unwrap_or_default();
        Ok(i64::try_from(xxhash_rust::xxh3::xxh3_64(&bytes) >> 1).unwrap_or_default())
    }

    /// [`Table::commit_hash`], when the commit is there.
    pub async fn kept_commit_hash(&self, version: u64) -> Result<Option<i64>> {
        let wrap = |source| Error::storage(&self.name, source);
        let is_kept = self.log.read_commit_entry(version).await.map_err(wrap)?.is_some();
        Ok(if is_kept { Some(self.commit_hash(version).await?) } else { None })
    }

    /// The newest version in the log, looked for after `known` and what this handle knows: older commits may be gone.
    pub async fn newest_version(&self, known: u64) -> Result<u64> {
        let mut version = known.max(self.version);
        let wrap = |source| Error::storage(&self.name, source);
        while self.log.read_commit_entry(version + 1).await.map_err(wrap)?.is_some() {
            version += 1;
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use deltalake::arrow::{
        array::{Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef},
    };

    use super::*;
    use crate::{Lake, TableSpec};

    fn schema(column: &str) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new(column, DataType::Int64, true)]))
    }

    fn spec() -> TableSpec {
        TableSpec {
            name: "silver.t".to_owned(),
            schema: schema("a"),
            partition_by: Vec::new(),
            stats_columns: vec!["a".to_owned()],
            append_only: false,
        }
    }

    async fn append(table: &mut Table, value: i64) {
        let rows = RecordBatch::try_new(schema("a"), vec![Arc::new(Int64Array::from(vec![value]))]).unwrap();
        table.append(&[rows], &[TransactionId::new("silver.t", value)]).await.unwrap();
    }

    fn paths(table: &Table) -> Vec<String> {
        table.files().map(|file| file.path().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_reader_advances_to_the_same_files_as_a_table_opened_there() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(&folder.path().to_string_lossy()).unwrap();
        let mut writer = lake.open_or_create(&spec()).await.unwrap();
        let mut reader = lake.open("silver.t").await.unwrap();
        for value in 1..=4 {
            append(&mut writer, value).await;
        }
        let first = paths(&writer).remove(0);
        writer.commit(vec![first], Vec::new(), &[TransactionId::new("silver.t", 5)]).await.unwrap();
        for version in [2, 5] {
            assert!(reader.advance_to(version).await.unwrap());
            let opened = lake.open_at("silver.t", version).await.unwrap();
            assert_eq!((reader.version(), paths(&reader)), (version, paths(&opened)));
        }
        assert_eq!(reader.position("silver.t").await.unwrap(), Some(5));
    }

    #[tokio::test]
    async fn positions_are_known_from_the_commits_since_the_checkpoint_and_else_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(&folder.path().to_string_lossy()).unwrap();
        let mut writer = lake.open_or_create(&spec()).await.unwrap();
        let id = |application: &str, version| [TransactionId::new(application, version)];
        for (application, version) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            writer.commit(Vec::new(), Vec::new(), &id(application, version)).await.unwrap();
        }
        let mut opened = lake.open("silver.t").await.unwrap();
        assert!(opened.knows_every_transaction);
        for (application, version) in [("a", Some(3)), ("b", Some(2)), ("c", Some(4)), ("d", None)] {
            assert_eq!(opened.position(application).await.unwrap(), version);
        }
        crate::checkpoint_at(writer.url(), 4).await.unwrap();
        writer.commit(Vec::new(), Vec::new(), &id("b", 5)).await.unwrap();
        for version in 0..=4 {
            std::fs::remove_file(folder.path().join(format!("silver/t/_delta_log/{version:020}.json"))).unwrap();
        }
        let mut opened = lake.open("silver.t").await.unwrap();
        assert!(!opened.knows_every_transaction && opened.transactions.len() == 1);
        for (application, version) in [("a", Some(3)), ("b", Some(5)), ("c", Some(4)), ("d", None)] {
            assert_eq!(opened.position(application).await.unwrap(), version);
        }
    }

    #[tokio::test]
    async fn an_empty_commit_is_refused_however_many_came_after_it_without_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(&folder.path().to_string_lossy()).unwrap();
        let mut writer = lake.open_or_create(&spec()).await.unwrap();
        for version in 1..=130 {
            writer.commit(Vec::new(), Vec::new(), &[TransactionId::new("a", version)]).await.unwrap();
        }
        std::fs::write(folder.path().join("silver/t/_delta_log/00000000000000000020.json"), "").unwrap();
        assert!(lake.open("silver.t").await.is_err());
    }

    #[tokio::test]
    async fn a_table_of_lists_opens_again_whatever_their_items_are_called() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(&folder.path().to_string_lossy()).unwrap();
        let list = |item: &str| {
            let item = Arc::new(Field::new(item, DataType::Int64, true));
            let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::List(item), true)]));
            TableSpec { schema, stats_columns: Vec::new(), ..spec() }
        };
        lake.open_or_create(&list("item")).await.unwrap();
        lake.open_or_create(&list("item")).await.unwrap();
        lake.open_or_create(&list("element")).await.unwrap();
    }

    #[tokio::test]
    async fn a_commit_that_is_torn_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(&folder.path().to_string_lossy()).unwrap();
        let mut table = lake.open_or_create(&spec()).await.unwrap();
        append(&mut table, 1).await;
        let first = paths(&table);
        let staged = table.staging().stage("part", &[], &table.read_all().await.unwrap()).await.unwrap();
        let id = [TransactionId::new("silver.t", 2)];
        table.commit(first, staged.into_iter().collect(), &id).await.unwrap();
        let commit = folder.path().join("silver/t/_delta_log/00000000000000000002.json");
        let whole = std::fs::read(&commit).unwrap();
        // Between and around lines, and here and there.
        let is_tried =
            |length: &usize| length.is_multiple_of(13) || whole[length.saturating_sub(1)..=*length].contains(&b'\n');
        for length in (0..whole.len()).filter(is_tried) {
            std::fs::write(&commit, &whole[..length]).unwrap();
            let opened = lake.open("silver.t").await;
            assert!(opened.is_err(), "torn after {length} of {} bytes and opened", whole.len());
        }
        std::fs::write(&commit, &whole).unwrap();
        assert_eq!(lake.open("silver.t").await.unwrap().version(), 2);
        // The same in the middle of the log.
        append(&mut table, 3).await;
        for length in (0..whole.len()).filter(is_tried) {
            std::fs::write(&commit, &whole[..length]).unwrap();
            let opened = lake.open("silver.t").await;
            assert!(opened.is_err(), "torn after {length} of {} bytes and opened", whole.len());
        }
        std::fs::write(&commit, &whole).unwrap();
        assert_eq!(lake.open("silver.t").await.unwrap().version(), 3);
    }

    #[tokio::test]
    async fn a_reader_cannot_go_back_nor_past_the_end_nor_over_new_columns() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(&folder.path().to_string_lossy()).unwrap();
        let mut writer = lake.open_or_create(&spec()).await.unwrap();
        append(&mut writer, 1).await;
        let mut reader = lake.open("silver.t").await.unwrap();
        assert!(!reader.advance_to(0).await.unwrap());
        assert!(!reader.advance_to(2).await.unwrap());
        writer.replace_all(&schema("b"), Vec::new(), &[TransactionId::new("silver.t", 2)]).await.unwrap();
        assert!(!reader.advance_to(2).await.unwrap());
    }
}
