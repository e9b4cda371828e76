//! The one task that writes the event log of a worker.
//!
//! It keeps the table small to open: of many small files it makes one, and it drops files of rows older than [`KEPT`].
//! Several workers may write into one lake: each reads the log of the table before its own commit, and a commit that
//! another one took the version of is tried again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use karat_lake::{DataFile, Lake, Table, arrow::array::RecordBatch};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{
    Entry, Kind, TABLE,
    entry::{rows, table_spec},
};
use crate::{Result, bronze::writer::now_us};

/// How long the first entry after a quiet time waits for others.
const FIRST: Duration = Duration::from_secs(1);

/// Least time between two writes while entries keep coming: each write is a file and a version.
pub(super) const STEADY: Duration = Duration::from_secs(10);

/// Entries that are written at once, whatever the time.
const MOST: usize = 20_000;

/// Files below this number of rows are small; so many of them are made one.
const SMALL_ROWS: u64 = 20_000;
const MERGED: usize = 64;

/// Age of rows that may be dropped.
const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// Commits tried when other workers take the version.
const ATTEMPTS: usize = 5;

/// How long a stop waits for the last write.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// The running writer.
pub struct JournalTask {
    close: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl JournalTask {
    pub(super) fn new(close: oneshot::Sender<()>, task: JoinHandle<()>) -> Self {
        Self { close, task }
    }

    /// Writes what was noted so far and ends; gives up after a few seconds.
    pub async fn close(mut self) {
        let _ = self.close.send(());
        if tokio::time::timeout(LAST_WRITE, &mut self.task).await.is_err() {
            tracing::warn!(table = TABLE, "the last entries of the event log were not written in time");
            self.task.abort();
        }
    }
}

pub(super) struct Writer {
    lake: Lake,
    worker: String,
    left_out: Arc<AtomicU64>,
    table: Option<Table>,
    waiting: Vec<Entry>,
}

impl Writer {
    pub(super) fn new(lake: Lake, worker: String, left_out: Arc<AtomicU64>) -> Self {
        Self { lake, worker, left_out, table: None, waiting: Vec::new() }
    }

    /// Writes entries until `closing`, or nobody can note any more.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Vec<Entry>>, mut closing: oneshot::Receiver<()>) {
        let mut last: Option<Instant> = None;
        let mut due: Option<Instant> = None;
        loop {
            let is_due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = &mut closing => break,
                () = is_due => {
                    self.write().await;
                    (last, due) = (Some(Instant::now()), None);
                }
                entries = queue.recv() => match entries {
                    Some(entries) => {
                        self.waiting.extend(entries);
                        let soonest = Instant::now() + FIRST;
                        let due_at = due.unwrap_or_else(|| last.map_or(soonest, |last| soonest.max(last + STEADY)));
                        due = Some(if self.waiting.len() < MOST { due_at } else { Instant::now() });
                    }
                    None => break,
                },
            }
        }
        while let Ok(entries) = queue.try_recv() {
            self.waiting.extend(entries);
        }
        self.write().await;
    }

    /// Writes what waits. Entries that cannot be written are counted, for the next write to say so.
    async fn write(&mut self) {
        let missing = self.left_out.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let mut entry = Entry::new(Kind::LeftOut);
            (entry.at_us, entry.worker, entry.num_rows) = (now_us(), self.worker.clone(), Some(missing));
            self.waiting.push(entry);
        }
        let entries = std::mem::take(&mut self.waiting);
        if entries.is_empty() {
            return;
        }
        if let Err(error) = self.append(&entries).await {
            tracing::warn!(table = TABLE, %error, entries = entries.len(), "entries of the event log were not written");
            self.table = None;
            let lost = entries.iter().filter(|entry| entry.kind != Kind::LeftOut).count() as u64;
            self.left_out.fetch_add(missing + lost, Ordering::Relaxed);
            return;
        }
        if let Err(error) = self.tidy().await {
            tracing::debug!(table = TABLE, %error, "the event log was not tidied; a later write does it");
            self.table = None;
        }
    }

    async fn append(&mut self, entries: &[Entry]) -> Result<()> {
        let rows = rows(entries)?;
        let table = self.open().await?;
        let staged: Vec<DataFile> = table.staging().stage("part", &[], &[rows]).await?.into_iter().collect();
        let mut attempt = 1;
        loop {
            table.refresh().await?;
            match table.commit(Vec::new(), staged.clone(), &[]).await {
                Ok(_) => break,
                // Another worker was faster: nothing of ours was written.
                Err(karat_lake::Error::Fenced { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
        table.checkpoint_when_due();
        Ok(())
    }

    async fn open(&mut self) -> Result<&mut Table> {
        let table = match self.table.take() {
            Some(table) => table,
            None => self.lake.open_or_create(&table_spec()).await?,
        };
        Ok(self.table.insert(table))
    }

    /// Makes one file of many small ones, and drops old ones, in one version.
    async fn tidy(&mut self) -> Result<()> {
        let table = self.open().await?;
        let oldest_ms = now_us() / 1000 - i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        let is_old = |file: &DataFile| file.written_at_ms() < oldest_ms;
        let is_small = |file: &DataFile| !is_old(file) && file.rows().is_some_and(|rows| rows < SMALL_ROWS);
        let small: Vec<DataFile> = table.files().filter(|file| is_small(file)).cloned().collect();
        if small.len() < MERGED {
            return Ok(());
        }
        let mut batches: Vec<RecordBatch> = Vec::new();
        for file in &small {
            batches.extend(table.read(file, None).await?);
        }
        let merged: Vec<DataFile> = table.staging().stage("part", &[], &batches).await?.into_iter().collect();
        let old = table.files().filter(|file| is_old(file));
        let removed = old.chain(&small).map(|file| file.path().to_owned()).collect();
        table.commit(removed, merged, &[]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> Vec<Entry> {
        (0..count).map(|epoch| Entry { epoch: Some(epoch as u64), ..Entry::of(Kind::Step, "shop") }).collect()
    }

    fn writer(lake: &Lake) -> Writer {
        Writer::new(lake.clone(), "w".to_owned(), Arc::default())
    }

    async fn rows_of(table: &Table) -> usize {
        table.read_all().await.unwrap().iter().map(RecordBatch::num_rows).sum()
    }

    #[tokio::test]
    async fn small_files_become_one_and_no_row_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let mut writer = writer(&lake);
        for _ in 0..MERGED {
            writer.waiting = entries(3);
            writer.write().await;
        }
        let table = lake.open(TABLE).await.unwrap();
        assert_eq!((table.files().len(), rows_of(&table).await), (1, 3 * MERGED));
    }

    #[tokio::test]
    async fn two_workers_write_into_one_table() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let (mut one, mut other) = (writer(&lake), writer(&lake));
        for _ in 0..3 {
            for writer in [&mut one, &mut other] {
                writer.waiting = entries(2);
                writer.write().await;
            }
        }
        assert_eq!(rows_of(&lake.open(TABLE).await.unwrap()).await, 12);
    }

    #[tokio::test]
    async fn a_full_queue_delays_nobody_and_the_next_write_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        // One thread and no await in between: the writer cannot take anything before the queue is full.
        let (journal, task) = super::super::start(&lake);
        for _ in 0..super::super::QUEUE + 5 {
            journal.note_all(entries(2));
        }
        task.close().await;
        let table = lake.open(TABLE).await.unwrap();
        let rows = table.read_all().await.unwrap();
        let (mut missing, mut written) = (Vec::new(), 0);
        for batch in &rows {
            use karat_lake::arrow::{array::AsArray, datatypes::Int64Type};
            let kinds = batch.column_by_name("kind").unwrap().as_string::<i32>();
            let counts = batch.column_by_name("num_rows").unwrap().as_primitive::<Int64Type>();
            missing.extend(
                (0..batch.num_rows()).filter(|row| kinds.value(*row) == "left_out").map(|row| counts.value(row)),
            );
            written += kinds.iter().flatten().filter(|kind| *kind == "step").count();
        }
        assert_eq!((missing, written), (vec![10], 2 * super::super::QUEUE));
    }
}
