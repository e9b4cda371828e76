//! Rendered answers, kept as bytes.
//!
//! The key names everything that an answer depends on, so nothing in here is ever stale and nothing expires by time; the
//! oldest entries leave when the space is used up. Requests for the same missing answer wait for one rendering.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use karat_http::ApiError;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Entries at most, whatever their size: an entry costs more than its bytes.
const MAX_ENTRIES: usize = 10_000;

/// A bounded store of answers by key.
pub struct AnswerCache {
    max_bytes: usize,
    entries: Mutex<Entries>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<u128, Arc<OnceCell<Bytes>>>,
    oldest_first: VecDeque<u128>,
    bytes: usize,
}

/// How often an answer was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
}

impl AnswerCache {
    /// A cache of at most `max_bytes` of answers; 0 keeps none.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, entries: Mutex::default(), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// Counters since the start.
    pub fn stats(&self) -> CacheStats {
        CacheStats { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed) }
    }

    /// The answer under `key`, rendered now when it is not there.
    ///
    /// # Errors
    /// What `render` fails with; nothing is kept then.
    pub async fn get_or_render<F>(&self, key: u128, render: F) -> Result<Bytes, ApiError>
    where
        F: Future<Output = Result<Vec<u8>, ApiError>>,
    {
        let (cell, is_new) = self.cell(key);
        if let Some(body) = cell.get() {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(body.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let rendered = cell.get_or_try_init(|| async { render.await.map(Bytes::from) }).await.cloned();
        if is_new {
            self.settle(key, rendered.as_ref().ok().map(Bytes::len));
        }
        rendered
    }

    fn cell(&self, key: u128) -> (Arc<OnceCell<Bytes>>, bool) {
        let mut entries = self.entries.lock();
        if let Some(cell) = entries.by_key.get(&key) {
            return (Arc::clone(cell), false);
        }
        let cell = Arc::<OnceCell<Bytes>>::default();
        entries.by_key.insert(key, Arc::clone(&cell));
        entries.oldest_first.push_back(key);
        while entries.oldest_first.len() > MAX_ENTRIES {
            entries.remove_oldest();
        }
        (cell, true)
    }

    /// Counts a new entry's bytes and makes room, or forgets it when its rendering failed.
    fn settle(&self, key: u128, bytes: Option<usize>) {
        let mut entries = self.entries.lock();
        match bytes {
            Some(bytes) if entries.by_key.contains_key(&key) => entries.bytes += bytes,
            Some(_) => {}
            None => {
                entries.by_key.remove(&key);
                entries.oldest_first.retain(|held| *held != key);
            }
        }
        while entries.bytes > self.max_bytes && !entries.oldest_first.is_empty() {
            entries.remove_oldest();
        }
    }
}

impl Entries {
    fn remove_oldest(&mut self) {
        if let Some(cell) = self.oldest_first.pop_front().and_then(|key| self.by_key.remove(&key)) {
            self.bytes = self.bytes.saturating_sub(cell.get().map_or(0, Bytes::len));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(cache: &AnswerCache, key: u128, size: usize) -> usize {
        cache.get_or_render(key, async { Ok(vec![0; size]) }).await.unwrap().len()
    }

    #[tokio::test]
    async fn an_answer_is_rendered_once_and_the_oldest_leaves_first() {
        let cache = AnswerCache::new(100);
        assert_eq!(get(&cache, 1, 40).await, 40);
        assert_eq!(get(&cache, 1, 41).await, 40);
        get(&cache, 2, 40).await;
        get(&cache, 3, 40).await;
        assert_eq!(get(&cache, 3, 9).await, 40);
        assert_eq!(get(&cache, 1, 9).await, 9);
        assert_eq!(cache.stats(), CacheStats { hits: 2, misses: 4 });
    }

    #[tokio::test]
    async fn requests_for_one_missing_answer_share_its_rendering() {
        let cache = AnswerCache::new(1000);
        let renderings = AtomicU64::new(0);
        let one = || {
            cache.get_or_render(5, async {
                renderings.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(vec![1])
            })
        };
        let (first, second, third) = tokio::join!(one(), one(), one());
        assert_eq!((first.unwrap(), second.unwrap(), third.unwrap().len()), (vec![1].into(), vec![1].into(), 1));
        assert_eq!(renderings.into_inner(), 1);
    }

    #[tokio::test]
    async fn a_failed_rendering_is_not_kept() {
        let cache = AnswerCache::new(1000);
        let failed = cache.get_or_render(1, async { Err(ApiError::internal("away")) }).await;
        assert_eq!(failed.unwrap_err().status(), 500);
        assert_eq!(get(&cache, 1, 3).await, 3);
        assert_eq!(cache.entries.lock().bytes, 3);
    }
}
