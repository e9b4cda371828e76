//! The database of a store: its memory, its journal, and the threads that write and merge its files.

use std::{path::Path, thread};

use fjall::{Database, DatabaseBuilder};

/// Bytes of the journal: what is read again at a start after a crash, and kept on disk beside the sorted files.
const JOURNAL: u64 = 128 << 20;

/// Blocks of the store that are kept in memory, of those that were read: most of what is kept for a million keys. A store
/// that is smaller takes no more than it is large.
const CACHE_BYTES: u64 = 192 << 20;

/// Threads of the storage crate: as many as it takes by itself on a machine with many cores, and at least three. The first
/// merges nothing, so that buffers never wait for a merge: a merge that it is told of it hands to the others, again and again while
/// all of them are busy. Of two threads, that is a second core for as long as one long merge lasts and another is due; of three,
/// the third takes it, or finds that it is under way.
fn threads() -> usize {
    thread::available_parallelism().map_or(3, |cores| cores.get().clamp(3, 4))
}

pub(super) fn builder(folder: &Path) -> DatabaseBuilder<Database> {
    Database::builder(folder).cache_size(CACHE_BYTES).max_journaling_size(JOURNAL).worker_threads(threads())
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Weak,
            atomic::{AtomicBool, Ordering},
        },
        time::{Duration, Instant},
    };

    use fjall::{
        AbstractTree, Keyspace, KeyspaceCreateOptions,
        compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict},
    };

    use super::*;

    /// Holds a merge up, at what it merges first, for as long as somebody has the other end.
    #[derive(Clone)]
    struct HeldUp {
        holder: Weak<()>,
        is_held: Arc<AtomicBool>,
    }

    impl Factory for HeldUp {
        fn name(&self) -> &'static str {
            "held up"
        }

        fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
            Box::new(self.clone())
        }
    }

    impl CompactionFilter for HeldUp {
        fn filter_item(&mut self, _: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
            self.is_held.store(true, Ordering::Relaxed);
            while self.holder.strong_count() > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(Verdict::Keep)
        }
    }

    /// More files, one over the other, than are left unmerged.
    fn fill(keyspace: &Keyspace) {
        for value in 0..6_u8 {
            keyspace.insert("key", [value]).unwrap();
            keyspace.rotate_memtable_and_wait().unwrap();
        }
    }

    fn wait_until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what} in time");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_merge_that_is_due_does_not_wait_for_a_long_one_of_another_keyspace() {
        let folder = tempfile::tempdir().unwrap();
        let (holder, is_held) = (Arc::new(()), Arc::new(AtomicBool::new(false)));
        let (weak, held) = (Arc::downgrade(&holder), Arc::clone(&is_held));
        let held_up = move |keyspace: &str| -> Option<Arc<dyn Factory>> {
            let factory =
                || -> Arc<dyn Factory> { Arc::new(HeldUp { holder: weak.clone(), is_held: Arc::clone(&held) }) };
            (keyspace == "long").then(factory)
        };
        let database = builder(folder.path()).with_compaction_filter_factories(Arc::new(held_up)).open().unwrap();
        // Let go before the database waits for its threads, also when the test fails.
        let holding = holder;
        let long = database.keyspace("long", KeyspaceCreateOptions::default).unwrap();
        let short = database.keyspace("short", KeyspaceCreateOptions::default).unwrap();
        fill(&long);
        wait_until("the long merge did not begin", || is_held.load(Ordering::Relaxed));
        fill(&short);
        wait_until("the other merge was not done", || short.tree.l0_run_count() < 4);
        assert!(long.tree.l0_run_count() >= 4, "it is still held up");
        drop(holding);
        wait_until("the long merge was not done", || long.tree.l0_run_count() < 4);
    }
}
