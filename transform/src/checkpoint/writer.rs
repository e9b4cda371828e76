//! The task that writes one pipeline's checkpoint.
//!
//! It appends what steps wrote, and now and then writes the whole state anew: also at a start whose table does not stand
//! for the store, as after a crash. Where steps write more than the copy's share of the time allows to append, it lets their
//! writes go, stays where it is, and writes the whole state anew when its share allows. A failure is logged and costs the
//! checkpoint, never a step: after a while the whole state is written anew.

use std::time::Duration;

use karat_lake::{DataFile, Lake, Table, arrow::array::RecordBatch, crash};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    CheckpointSettings, Facts, Source,
    rows::{Rows, table_spec},
};
use crate::{
    Error, Result,
    runner::POSITION,
    state::{Part, Reader, Writes},
};

/// Appended files at which the whole state is written anew, however small they are.
const MOST_FILES: usize = 1_000;

/// How long writing the whole state may take: files that no version names are removed after an hour.
const LONGEST: Duration = Duration::from_secs(45 * 60);

/// Rests after a part of the whole state, in times that it took, of all that it rests: a large state has hundreds of parts, and one
/// after the other they would take a core from the steps for most of a minute.
const REST_OF_PART: u32 = 3;

/// How long a whole state may take with such rests: what is left then is written without, long before [`LONGEST`].
const SPREAD: Duration = Duration::from_secs(10 * 60);

/// How long nothing is tried after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

pub(super) enum Message {
    Step { version: u64, writes: Writes },
    Flush(oneshot::Sender<()>),
}

pub(super) struct Writer {
    lake: Lake,
    name: String,
    limits: CheckpointSettings,
    facts: Facts,
    reader: Reader,
    source: Source,
    table: Option<Table>,
    /// Whether the table's files, with what is pending, add up to the state.
    is_whole: bool,
    pending: Pending,
    /// The newest bronze version that files go up to.
    written: u64,
    /// Bytes of the files of the last whole state.
    whole: u64,
    /// Bytes and number of the files that were appended to it.
    appended: (u64, usize),
    anew: Option<Anew>,
    /// Writes were let go that are not in the files: only the whole state goes on from there.
    lags: bool,
    /// The bronze version that the files stand for. Behind `written` while writes in between were let go: what was appended
    /// since counts when the whole state is there.
    stands_for: u64,
    has_gap: bool,
    /// When the writer has rested from its last write.
    rested: Instant,
    /// When the next part of the whole state may be written, or it may be begun after a failure.
    not_before: Option<Instant>,
}

/// What steps wrote since the last append.
#[derive(Default)]
struct Pending {
    steps: Vec<Writes>,
    bytes: usize,
    version: u64,
    since: Option<Instant>,
}

/// The whole state on its way into the table.
struct Anew {
    /// Bronze version of the snapshot, and its name as a part of files' names.
    version: u64,
    /// Version of the table at that moment.
    begun: u64,
    began: Instant,
    /// Time spent on it so far.
    took: Duration,
    replaced: Vec<String>,
    files: Vec<DataFile>,
}

impl Writer {
    pub(super) fn new(
        lake: Lake,
        name: String,
        limits: CheckpointSettings,
        facts: Facts,
        reader: Reader,
        source: Source,
    ) -> Self {
        Self {
            lake,
            name,
            limits,
            facts,
            reader,
            source,
            table: None,
            is_whole: false,
            pending: Pending::default(),
            written: 0,
            whole: 0,
            appended: (0, 0),
            anew: None,
            lags: false,
            stands_for: 0,
            has_gap: false,
            rested: Instant::now(),
            not_before: None,
        }
    }

    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let opened = self.open().await;
        self.settle(opened);
        loop {
            let due = self.pending.since.map(|since| since + self.limits.every);
            let worked = tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(Message::Step { version, writes }) => self.collect(version, writes).await,
                    Some(Message::Flush(done)) => {
                        let flushed = self.finish().await;
                        let _ = done.send(());
                        flushed
                    }
                    None => return,
                },
                () = until(due), if due.is_some() => self.append().await,
                () = until(self.next_part()), if self.must_write_whole() => match self.write_part().await {
                    Ok(true) => Ok(()),
                    // The store is closed.
                    Ok(false) => return,
                    Err(error) => Err(error),
                },
            };
            self.settle(worked);
        }
    }

    /// After a failure nothing is known of the table: the whole state is written anew, later.
    fn settle(&mut self, worked: Result<()>) {
        let Err(error) = worked else { return };
        tracing::warn!(table = self.name, %error, "the checkpoint was not written; it is tried again");
        (self.table, self.anew, self.is_whole, self.lags, self.has_gap) = (None, None, false, false, false);
        self.pending = Pending::default();
        self.not_before = Some(Instant::now() + AFTER_FAILURE);
    }

    /// Finds out whether the table stands for the store as it was opened.
    async fn open(&mut self) -> Result<()> {
        let mut table = self.lake.open_or_create(&table_spec(&self.name)).await?;
        let position = self.facts.position_in(&mut table).await?;
        let is_ours = self.source.before.is_some() && table.position("store").await? == self.source.before;
        let has_later = table.files().any(|file| version_of(file.path()) > self.source.position);
        self.is_whole = is_ours && position == Some(self.source.position) && !has_later;
        if self.is_whole {
            (self.written, self.whole) = (self.source.position, bytes(table.files()));
            self.stands_for = self.written;
        }
        self.table = Some(table);
        Ok(())
    }

    fn must_write_whole(&self) -> bool {
        self.anew.is_some() || self.lags || !self.is_whole
    }

    /// When the next part of the whole state may be written; none is now.
    fn next_part(&self) -> Option<Instant> {
        if self.lags && self.anew.is_none() { Some(self.rested) } else { self.not_before }
    }

    fn rest_from(&mut self, took: Duration) {
        self.rested = Instant::now() + took * self.limits.rest;
    }

    async fn collect(&mut self, version: u64, writes: Writes) -> Result<()> {
        if self.lags || (!self.is_whole && self.anew.is_none()) {
            // The whole state will have it.
            return Ok(());
        }
        self.pending.bytes += writes.bytes();
        self.pending.steps.push(writes);
        self.pending.version = version;
        self.pending.since.get_or_insert_with(Instant::now);
        if self.pending.bytes < self.limits.max_bytes {
            return Ok(());
        }
        if Instant::now() < self.rested {
            self.lag();
            return Ok(());
        }
        self.append().await
    }

    /// Lets go of what is pending, and of what follows, until the whole state is written.
    fn lag(&mut self) {
        (self.pending, self.lags, self.has_gap) = (Pending::default(), true, true);
    }

    /// Appends what is pending.
    async fn append(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let Some(table) = &mut self.table else { return Ok(()) };
        if pending.since.is_none() {
            return Ok(());
        }
        let began = Instant::now();
        let rows = tokio::task::spawn_blocking(move || rows_of(pending.steps)).await??;
        crash::point(table.url(), "checkpoint.append").await;
        let file = stage(table, pending.version, table.version() + 1, &rows).await?;
        self.written = self.written.max(pending.version);
        if !self.has_gap {
            self.stands_for = self.written;
        }
        let position = self.is_whole.then_some(self.stands_for);
        self.appended = (self.appended.0 + bytes(&file), self.appended.1 + 1);
        table.commit(Vec::new(), file.into_iter().collect(), &self.facts.transactions(position)).await?;
        table.checkpoint_when_due();
        let is_much = self.appended.0 >= self.whole.max(self.limits.min_appended) || self.appended.1 >= MOST_FILES;
        self.rest_from(began.elapsed());
        if is_much && self.anew.is_none() {
            self.lag();
        }
        Ok(())
    }

    /// A graceful stop: what is begun is ended, and what is pending is written.
    async fn finish(&mut self) -> Result<()> {
        while self.anew.is_some() || self.lags || (!self.is_whole && self.not_before.is_none()) {
            if !self.write_part().await? {
                return Ok(());
            }
        }
        self.append().await
    }

    /// Takes a snapshot; what is in the table now is replaced by it. Without a store there is none.
    fn begin_anew(&mut self) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let Some(position) = self.reader.snapshot(POSITION)? else { return Ok(()) };
        let version = match position {
            Some(text) => serde_json::from_slice(&text).map_err(|_| Error::DamagedState(POSITION.to_owned()))?,
            None => 0,
        };
        let replaced = table.files().map(|file| file.path().to_owned()).collect();
        let begun = table.version();
        // What comes after the snapshot is collected.
        self.lags = false;
        self.anew =
            Some(Anew { version, begun, began: Instant::now(), took: Duration::ZERO, replaced, files: Vec::new() });
        Ok(())
    }

    /// Goes on writing the whole state, or begins to; false when the store is closed.
    async fn write_part(&mut self) -> Result<bool> {
        self.not_before = None;
        if self.table.is_none() {
            self.open().await?;
            self.is_whole = false;
        }
        if self.anew.is_none() {
            if !self.is_whole {
                self.forget().await?;
            }
            self.begin_anew()?;
        }
        let (Some(mut anew), Some(table)) = (self.anew.take(), &mut self.table) else { return Ok(false) };
        if anew.began.elapsed() > LONGEST {
            return Err(Error::Declaration("writing the whole state took too long".to_owned()));
        }
        let began = Instant::now();
        let (reader, part_bytes) = (self.reader.clone(), self.limits.part_bytes);
        let read = tokio::task::spawn_blocking(move || {
            let mut rows = Rows::default();
            let mut push = |keyspace: &str, key: &[u8], value: Option<&[u8]>| rows.push(keyspace, key, value);
            let part = reader.part(part_bytes, &mut push)?;
            Ok::<_, Error>((part, rows.finish()?))
        });
        let (part, rows) = read.await??;
        crash::point(table.url(), "checkpoint.part").await;
        anew.files.extend(stage(table, anew.version, anew.begun, &rows).await?);
        let took = began.elapsed();
        anew.took += took;
        match part {
            Part::More => {
                self.not_before = Some(Instant::now() + rest_of_part(took, anew.began.elapsed(), self.limits.rest));
                self.anew = Some(anew);
            }
            Part::End => {
                self.written = self.written.max(anew.version);
                crash::point(table.url(), "checkpoint.whole").await;
                (self.whole, self.appended) = (bytes(&anew.files), (0, 0));
                table.commit(anew.replaced, anew.files, &self.facts.transactions(Some(self.written))).await?;
                // Whatever was appended since the snapshot follows it without a gap; what was let go after that lies behind.
                (self.is_whole, self.stands_for, self.has_gap) = (true, self.written, self.lags);
                // Between its parts it has rested for a while already.
                self.rested = anew.began + anew.took * (self.limits.rest + 1);
            }
            Part::Closed => return Ok(false),
        }
        Ok(true)
    }

    /// The files stand for no state until the whole one is there.
    async fn forget(&mut self) -> Result<()> {
        self.written = 0;
        let Some(table) = &mut self.table else { return Ok(()) };
        if table.files().len() > 0 {
            let files = table.files().map(|file| file.path().to_owned()).collect();
            table.commit(files, Vec::new(), &self.facts.transactions(None)).await?;
        }
        Ok(())
    }
}

/// How long the next part waits after one that took so long, of a whole state that was begun so long ago.
fn rest_of_part(took: Duration, elapsed: Duration, rest: u32) -> Duration {
    if elapsed < SPREAD { took * REST_OF_PART.min(rest) } else { Duration::ZERO }
}

/// One row a key that steps wrote: the newest. Identities are each written once.
fn rows_of(steps: Vec<Writes>) -> Result<RecordBatch> {
    let mut rows = Rows::default();
    let mut push = |keyspace: &str, key: &[u8], value: Option<&[u8]>| rows.push(keyspace, key, value);
    let mut newest = Writes::default();
    for step in steps {
        step.each_identity(&mut push);
        newest.take_pairs(step);
    }
    newest.each_pair(&mut push);
    rows.finish()
}

fn bytes<'f>(files: impl IntoIterator<Item = &'f DataFile>) -> u64 {
    files.into_iter().map(|file| u64::try_from(file.size_bytes()).unwrap_or_default()).sum()
}

/// The bronze version that a file of the checkpoint goes up to.
pub(super) fn version_of(path: &str) -> u64 {
    let version = path.strip_prefix("at-").and_then(|rest| rest.split('-').next());
    version.and_then(|version| version.parse().ok()).unwrap_or(u64::MAX)
}

/// Names sort by bronze version, and those of one bronze version in the order in which they were begun.
async fn stage(table: &Table, version: u64, begun: u64, rows: &RecordBatch) -> Result<Option<DataFile>> {
    Ok(table.staging().stage(&format!("at-{version:020}-{begun:020}"), &[], std::slice::from_ref(rows)).await?)
}

/// Waits for a moment; none is now.
async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::restore::read_into, *};
    use crate::state::StateStore;

    const NAME: &str = "_karat.state_test";
    const SPACE: &str = "a";

    struct World {
        _folder: tempfile::TempDir,
        lake: Lake,
        store: StateStore,
        writer: Writer,
    }

    impl World {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let lake = Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap();
            let store = StateStore::open(&folder.path().join("state"), &[SPACE.to_owned()]).unwrap();
            // One pair a part.
            let limits = CheckpointSettings { part_bytes: 1, ..CheckpointSettings::default() };
            let facts = Facts { generation: 0, fingerprint: 1, store: 2 };
            let source = Source { name: 2, before: None, position: 0 };
            let mut writer = Writer::new(lake.clone(), NAME.to_owned(), limits, facts, store.reader(), source);
            writer.open().await.unwrap();
            Self { _folder: folder, lake, store, writer }
        }

        /// A step that adds a key; the writer takes it or has let go.
        async fn step(&mut self, version: u64) {
            let mut step = self.store.begin();
            step.put(SPACE, version.to_be_bytes().to_vec(), vec![1]);
            step.put_meta(POSITION, &version).unwrap();
            let writes = step.into_writes();
            self.store.apply(&writes).unwrap();
            self.writer.collect(version, writes).await.unwrap();
        }

        async fn write_whole(&mut self) {
            while self.writer.must_write_whole() {
                assert!(self.writer.write_part().await.unwrap());
            }
        }

        /// What a process without state would go on from: the position, and the steps that it has.
        async fn restored(&self) -> (Option<u64>, Vec<u64>) {
            let mut table = self.lake.open(NAME).await.unwrap();
            let position = self.writer.facts.position_in(&mut table).await.unwrap();
            let folder = tempfile::tempdir().unwrap();
            let mut store = StateStore::open(folder.path(), &[SPACE.to_owned()]).unwrap();
            read_into(&mut store, &table, position.unwrap_or(0)).await.unwrap();
            let steps = store.begin().scan(SPACE).unwrap();
            let steps = steps.into_iter().map(|(key, _)| u64::from_be_bytes(key.try_into().unwrap())).collect();
            (position, steps)
        }
    }

    #[tokio::test]
    async fn the_parts_of_a_whole_state_leave_time_to_the_steps_and_none_waits_when_the_writer_stops() {
        let mut world = World::new().await;
        for version in 1..4 {
            world.step(version).await;
        }
        let began = Instant::now();
        assert!(world.writer.write_part().await.unwrap() && world.writer.anew.is_some());
        assert!(world.writer.next_part() > Some(began + world.writer.anew.as_ref().unwrap().took * REST_OF_PART));
        world.writer.finish().await.unwrap();
        assert_eq!((world.writer.must_write_whole(), world.writer.next_part()), (false, None));
        assert_eq!(world.restored().await, (Some(3), vec![1, 2, 3]));
        let second = Duration::from_secs(1);
        assert_eq!(rest_of_part(second, SPREAD - second, 10), second * REST_OF_PART);
        assert_eq!(rest_of_part(second, SPREAD - second, 1), second);
        assert_eq!(rest_of_part(second, SPREAD, 10), Duration::ZERO);
    }

    #[tokio::test]
    async fn what_is_appended_behind_a_gap_counts_when_the_whole_state_is_there() {
        let mut world = World::new().await;
        world.step(1).await;
        world.write_whole().await;
        world.step(2).await;
        world.writer.append().await.unwrap();
        assert_eq!(world.restored().await, (Some(2), vec![1, 2]));
        // Step 3 is let go, and step 4 lies behind the snapshot that has both.
        world.writer.lag();
        world.step(3).await;
        assert!(world.writer.write_part().await.unwrap() && world.writer.anew.is_some());
        world.step(4).await;
        world.writer.append().await.unwrap();
        assert_eq!(world.restored().await, (Some(2), vec![1, 2]));
        // It falls behind again meanwhile: step 5 is nowhere, and what follows it must wait for the next whole state.
        world.writer.lag();
        world.step(5).await;
        while world.writer.anew.is_some() {
            assert!(world.writer.write_part().await.unwrap());
        }
        assert_eq!(world.restored().await, (Some(4), vec![1, 2, 3, 4]));
        assert!(world.writer.write_part().await.unwrap() && world.writer.anew.is_some());
        world.step(6).await;
        world.writer.append().await.unwrap();
        assert_eq!(world.restored().await, (Some(4), vec![1, 2, 3, 4]));
        world.write_whole().await;
        world.step(7).await;
        world.writer.append().await.unwrap();
        assert_eq!(world.restored().await, (Some(7), vec![1, 2, 3, 4, 5, 6, 7]));
    }
}
