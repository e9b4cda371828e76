//! Rendered answers, kept as bytes.
//!
//! - The key names everything that an answer depends on, so nothing in here is ever stale and nothing expires by time.
//! - All answers together take at most the given memory, whatever clients do: what is asked for less often leaves
//!   first, and an answer that is larger than a part of the memory is not kept.
//! - Requests for the same missing answer wait for one rendering. It belongs to all of them: it goes on while one of
//!   them is there, and ends when the last one leaves. A failure, or a panic, is the answer of all who waited, and is
//!   not kept.

use std::{
    collections::HashMap,
    hash::RandomState,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use karat_http::ApiError;
use parking_lot::Mutex;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter, sync::Cache};

use super::{
    answer::Rendered,
    key::Key,
    load::{ServingCounters, count},
};

/// What an entry takes beside its body: key, headers, its places in lists.
const ENTRY_BYTES: usize = 512;
/// Parts of the memory, each with a lock of its own. Few, because an answer must fit into one.
const SHARDS: usize = 4;
/// For how many answers the cache remembers that they were asked for, in relation to its memory.
const USUAL_BYTES: usize = 4096;

type Kept = Cache<Key, Rendered, Sizes, RandomState, Evictions>;
type Boxed = BoxFuture<'static, Result<Rendered, ApiError>>;
type Rendering = Shared<Boxed>;

/// A bounded store of answers by key.
pub(crate) struct AnswerCache {
    kept: Kept,
    under_way: Mutex<UnderWay>,
    counters: Arc<ServingCounters>,
}

/// The renderings that somebody waits for, so never more than there are requests.
#[derive(Default)]
struct UnderWay {
    by_key: HashMap<Key, (u64, WeakShared<Boxed>)>,
    num_begun: u64,
}

enum Found {
    Kept(Rendered),
    UnderWay(Rendering),
    Begun(Rendering),
}

impl AnswerCache {
    /// A cache of at most `max_bytes` of answers; 0 keeps none.
    ///
    /// # Errors
    /// When the cache below refuses its options.
    pub(crate) fn new(max_bytes: usize, counters: &Arc<ServingCounters>) -> Result<Arc<Self>, ApiError> {
        let mut options = OptionsBuilder::new();
        options.shards(SHARDS);
        options.estimated_items_capacity((max_bytes / USUAL_BYTES).max(1));
        // A part is rounded up.
        options.weight_capacity((max_bytes - max_bytes % SHARDS) as u64);
        let options = options.build().map_err(ApiError::internal)?;
        let kept = Cache::with_options(options, Sizes, RandomState::new(), Evictions(Arc::clone(counters)));
        Ok(Arc::new(Self { kept, under_way: Mutex::default(), counters: Arc::clone(counters) }))
    }

    /// The answer under `key`, when it is kept. The caller counts what it is for.
    pub(crate) fn get(&self, key: &Key) -> Option<Rendered> {
        self.kept.get(key)
    }

    /// The answer under `key`, rendered now when it is not there and nobody renders it already.
    ///
    /// # Errors
    /// What the rendering fails with; nothing is kept then.
    pub(crate) async fn get_or_render<F>(self: &Arc<Self>, key: Key, render: F) -> Result<Rendered, ApiError>
    where
        F: Future<Output = Result<Rendered, ApiError>> + Send + 'static,
    {
        match self.find_or_begin(key, render) {
            Found::Kept(kept) => {
                count(&self.counters.hits);
                Ok(kept)
            }
            Found::UnderWay(rendering) => {
                count(&self.counters.shared);
                rendering.await
            }
            Found::Begun(rendering) => {
                count(&self.counters.misses);
                rendering.await
            }
        }
    }

    /// No rendering may be dropped in here: that takes the lock.
    fn find_or_begin<F>(self: &Arc<Self>, key: Key, render: F) -> Found
    where
        F: Future<Output = Result<Rendered, ApiError>> + Send + 'static,
    {
        let mut under_way = self.under_way.lock();
        if let Some(rendering) = under_way.by_key.get(&key).and_then(|(_, rendering)| rendering.upgrade()) {
            return Found::UnderWay(rendering);
        }
        // What is kept leaves the list afterwards, so between the caller's look and this one it may have been both.
        if let Some(kept) = self.kept.get(&key) {
            return Found::Kept(kept);
        }
        under_way.num_begun += 1;
        let number = under_way.num_begun;
        let entry = Entry { cache: Arc::clone(self), key, number };
        let rendering = async move {
            let rendered = AssertUnwindSafe(render).catch_unwind().await;
            let rendered = rendered.unwrap_or_else(|_| Err(ApiError::internal("the rendering of an answer panicked")));
            if let Ok(rendered) = &rendered {
                entry.cache.keep(key, rendered);
            }
            // Dropped too when everybody leaves before this.
            drop(entry);
            rendered
        };
        let rendering = rendering.boxed().shared();
        if let Some(weak) = rendering.downgrade() {
            under_way.by_key.insert(key, (number, weak));
        }
        Found::Begun(rendering)
    }

    fn keep(&self, key: Key, rendered: &Rendered) {
        self.kept.insert(key, rendered.clone());
        self.counters.answers.store(self.kept.len() as u64, Ordering::Relaxed);
        self.counters.bytes.store(self.kept.weight(), Ordering::Relaxed);
    }
}

/// The place of a rendering in the list. A later rendering of the same key has another number.
struct Entry {
    cache: Arc<AnswerCache>,
    key: Key,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut under_way = self.cache.under_way.lock();
        if under_way.by_key.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            under_way.by_key.remove(&self.key);
        }
    }
}

#[derive(Clone)]
struct Sizes;

impl Weighter<Key, Rendered> for Sizes {
    fn weight(&self, _: &Key, rendered: &Rendered) -> u64 {
        (rendered.body.len() + ENTRY_BYTES) as u64
    }
}

/// Counts what leaves, and frees it outside the locks.
#[derive(Clone)]
struct Evictions(Arc<ServingCounters>);

impl Lifecycle<Key, Rendered> for Evictions {
    type RequestState = Vec<Rendered>;

    fn begin_request(&self) -> Vec<Rendered> {
        Vec::new()
    }

    fn on_evict(&self, left: &mut Vec<Rendered>, _: Key, rendered: Rendered) {
        count(&self.0.evictions);
        left.push(rendered);
    }
}

#[cfg(test)]
mod tests;
