//! The event log: what the pipelines did, as rows of the Delta table `_karat.event_log` (spec M2; docs/EVENT_LOG.md).
//!
//! Called *journal* in the code, because `eventlog` is the log of the published events.
//!
//! Guarantees:
//! - It delays no step: [`Journal::note`] puts entries into a bounded queue and never waits. When the queue is full the
//!   entries are counted, and the next write says how many were left out.
//! - Each entry is written at most once, by one task of the worker ([`start`]), behind the work it tells of. A graceful stop
//!   writes what waits; a crash loses up to ten seconds of entries, and no figure depends on them.
//! - A table that cannot be written is a warning, never a reason to stop.

mod entry;
mod schema;
mod step;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use karat_lake::Lake;
use tokio::sync::{mpsc, oneshot};

pub use self::entry::{Entry, Kind, table_spec};
pub use self::writer::JournalTask;
use self::writer::Writer;
pub(crate) use self::{
    schema::column_changes,
    step::{StepEnd, StepNote},
};
use crate::bronze::writer::now_us;

/// Full name of the table.
pub const TABLE: &str = "_karat.event_log";

/// Messages, of one step each at most, that may wait for the writer.
const QUEUE: usize = 1024;

/// Where entries are noted. Clones note into the same table; one that is [`Journal::off`] forgets them.
#[derive(Clone, Default)]
pub struct Journal(Option<Arc<Noting>>);

struct Noting {
    queue: mpsc::Sender<Vec<Entry>>,
    left_out: Arc<AtomicU64>,
    /// Names this run of the worker in every row.
    worker: String,
}

/// Starts the task that writes entries into the lake.
pub fn start(lake: &Lake) -> (Journal, JournalTask) {
    let (queue, waiting) = mpsc::channel(QUEUE);
    let (close, closing) = oneshot::channel();
    let left_out = Arc::new(AtomicU64::new(0));
    let worker = uuid::Uuid::new_v4().to_string();
    let writer = Writer::new(lake.clone(), worker.clone(), Arc::clone(&left_out));
    let task = JournalTask::new(close, tokio::spawn(writer.run(waiting, closing)));
    (Journal(Some(Arc::new(Noting { queue, left_out, worker }))), task)
}

impl Journal {
    /// A journal that keeps nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Whether anybody reads what is noted: if not, entries need not be made.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes one entry, as of now.
    pub fn note(&self, entry: Entry) {
        self.note_all(vec![entry]);
    }

    /// Notes entries of one moment, as of now. Never waits.
    pub fn note_all(&self, mut entries: Vec<Entry>) {
        let Some(noting) = &self.0 else { return };
        let at_us = now_us();
        for entry in &mut entries {
            entry.at_us = at_us;
            entry.worker.clone_from(&noting.worker);
        }
        let count = entries.len() as u64;
        if noting.queue.try_send(entries).is_err() {
            noting.left_out.fetch_add(count, Ordering::Relaxed);
        }
    }
}
