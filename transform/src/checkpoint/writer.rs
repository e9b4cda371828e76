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
    state::{Cursor, Part, Reader, Writes},
};

/// Bytes of the state that are read and written at a time.
const PART_BYTES: usize = 8 << 20;

/// Appended files at which the whole state is written anew, however small they are.
const MOST_FILES: usize = 1_000;

/// How long writing the whole state may take: files that no version names are removed after an hour.
const LONGEST: Duration = Duration::from_secs(45 * 60);

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
    /// When the writer has rested from its last write.
    rested: Instant,
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
    cursor: Cursor,
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
        (self.table, self.anew, self.is_whole, self.lags) = (None, None, false, false);
        self.pending = Pending::default();
        self.not_before = Some(Instant::now() + AFTER_FAILURE);
    }

    /// Finds out whether the table stands for the store as it was opened.
    async fn open(&mut self) -> Result<()> {
        let mut table = self.lake.open_or_create(&table_spec(&self.name)).await?;
        let position = self.facts.position_in(&mut table).await?;
        let is_ours = self.source.before.is_some() && table.position("store").await? == self.source.before;
        self.is_whole = is_ours && position == Some(self.source.position);
        if self.is_whole {
            (self.written, self.whole) = (self.source.position, bytes(table.files()));
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
        (self.pending, self.lags) = (Pending::default(), true);
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
        let position = self.is_whole.then_some(self.written);
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
        self.anew = Some(Anew {
            cursor: Cursor::default(),
            version,
            begun,
            began: Instant::now(),
            took: Duration::ZERO,
            replaced,
            files: Vec::new(),
        });
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
        let (reader, mut cursor) = (self.reader.clone(), std::mem::take(&mut anew.cursor));
        let read = tokio::task::spawn_blocking(move || {
            let mut rows = Rows::default();
            let mut push = |keyspace: &str, key: &[u8], value: Option<&[u8]>| rows.push(keyspace, key, value);
            let part = reader.part(&mut cursor, PART_BYTES, &mut push)?;
            Ok::<_, Error>((part, cursor, rows.finish()?))
        });
        let (part, cursor, rows) = read.await??;
        anew.cursor = cursor;
        crash::point(table.url(), "checkpoint.part").await;
        anew.files.extend(stage(table, anew.version, anew.begun, &rows).await?);
        anew.took += began.elapsed();
        match part {
            Part::More => self.anew = Some(anew),
            Part::End => {
                self.written = self.written.max(anew.version);
                crash::point(table.url(), "checkpoint.whole").await;
                (self.whole, self.appended) = (bytes(&anew.files), (0, 0));
                table.commit(anew.replaced, anew.files, &self.facts.transactions(Some(self.written))).await?;
                self.is_whole = true;
                self.rest_from(anew.took);
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

/// Names sort by bronze version, and those of one bronze version in the order in which they were begun.
async fn stage(table: &Table, version: u64, begun: u64, rows: &RecordBatch) -> Result<Option<DataFile>> {
    Ok(table.stage(&format!("at-{version:020}-{begun:020}"), &[], std::slice::from_ref(rows)).await?)
}

/// Waits for a moment; none is now.
async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}
