//! [`Work`]: how far a fold may go. It ends soon after nobody waits for it, and all folds together have one bound of
//! memory.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

/// Rows between two looks at whether the work still counts: well below a millisecond.
pub(crate) const STRIDE: usize = 1024;

/// Why a fold ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everybody who waited for it has left, or its deadline has passed.
    NobodyWaits,
    /// The memory of all folds is in use.
    MemoryIsUsedUp,
}

/// The memory of all folds together, in bytes.
#[derive(Debug)]
pub struct WorkMemory {
    free: Mutex<usize>,
}

/// What one fold may use. Its memory is given back when it is dropped.
#[derive(Debug)]
pub struct Work {
    is_stopped: Arc<AtomicBool>,
    memory: Arc<WorkMemory>,
    taken: Cell<usize>,
}

/// Held by who waits for some work, which is stopped when this is dropped.
#[derive(Debug)]
pub struct Waiting(Arc<AtomicBool>);

impl WorkMemory {
    pub fn of_bytes(bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(bytes) })
    }
}

impl Work {
    /// Work within `memory`, and what its asker holds.
    pub fn within(memory: &Arc<WorkMemory>) -> (Self, Waiting) {
        let is_stopped = Arc::<AtomicBool>::default();
        let work = Self { is_stopped: Arc::clone(&is_stopped), memory: Arc::clone(memory), taken: Cell::new(0) };
        (work, Waiting(is_stopped))
    }

    /// Work that nobody stops and that may take all memory: for measurements.
    pub fn unbounded() -> Self {
        Self { is_stopped: Arc::default(), memory: WorkMemory::of_bytes(usize::MAX), taken: Cell::new(0) }
    }

    /// To be asked every thousand rows or so.
    ///
    /// # Errors
    /// When nobody waits any more.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.is_stopped.load(Ordering::Relaxed) { Err(Stopped::NobodyWaits) } else { Ok(()) }
    }

    /// Counts `bytes` that are about to be used, until the end of this work.
    ///
    /// # Errors
    /// When so much is not free.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Stopped> {
        let mut free = self.memory.free.lock();
        *free = free.checked_sub(bytes).ok_or(Stopped::MemoryIsUsedUp)?;
        self.taken.set(self.taken.get().saturating_add(bytes));
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        *self.memory.free.lock() += self.taken.get();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_by_all_work_and_given_back_at_its_end() {
        let memory = WorkMemory::of_bytes(100);
        let (first, _waits) = Work::within(&memory);
        let (second, _waits_too) = Work::within(&memory);
        first.take(60).unwrap();
        assert_eq!(second.take(41), Err(Stopped::MemoryIsUsedUp));
        second.take(40).unwrap();
        drop(first);
        second.take(60).unwrap();
        drop(second);
        assert_eq!(*memory.free.lock(), 100);
    }

    #[test]
    fn work_is_stopped_when_nobody_waits_for_it() {
        let (work, waiting) = Work::within(&WorkMemory::of_bytes(0));
        work.check().unwrap();
        drop(waiting);
        assert_eq!(work.check(), Err(Stopped::NobodyWaits));
    }
}
