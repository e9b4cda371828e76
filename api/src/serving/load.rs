//! [`ServingCounters`]: what the data routes count about themselves, for `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counted while the data routes work; made by whoever reads it.
#[derive(Debug, Default)]
pub struct ServingCounters {
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) shared: AtomicU64,
    pub(super) not_modified: AtomicU64,
    pub(super) evictions: AtomicU64,
    pub(super) answers: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) running: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// The counters at one moment; those that count events, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServingLoad {
    /// Answers that were there.
    pub hits: u64,
    /// Answers that were rendered.
    pub misses: u64,
    /// Requests that waited for the rendering of another one.
    pub shared: u64,
    /// Requests whose client had the answer.
    pub not_modified: u64,
    /// Answers that made room for others, or were too large to be kept.
    pub evictions: u64,
    /// Answers that are kept now.
    pub answers: u64,
    /// Memory of the kept answers.
    pub bytes: u64,
    /// Folds, scans and questions in SQL that run now.
    pub running: u64,
    /// Those that wait for their turn.
    pub waiting: u64,
    /// Those refused because too many waited, or ran where none may wait.
    pub refused: u64,
}

impl ServingCounters {
    pub fn load(&self) -> ServingLoad {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServingLoad {
            hits: read(&self.hits),
            misses: read(&self.misses),
            shared: read(&self.shared),
            not_modified: read(&self.not_modified),
            evictions: read(&self.evictions),
            answers: read(&self.answers),
            bytes: read(&self.bytes),
            running: read(&self.running),
            waiting: read(&self.waiting),
            refused: read(&self.refused),
        }
    }
}

/// Counts an event.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts something for as long as it lives.
pub(super) struct Counted {
    counters: Arc<ServingCounters>,
    of: fn(&ServingCounters) -> &AtomicU64,
}

impl Counted {
    pub(super) fn new(counters: &Arc<ServingCounters>, of: fn(&ServingCounters) -> &AtomicU64) -> Self {
        count(of(counters));
        Self { counters: Arc::clone(counters), of }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.of)(&self.counters).fetch_sub(1, Ordering::Relaxed);
    }
}
