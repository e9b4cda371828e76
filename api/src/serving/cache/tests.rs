//! The cache under askers who leave, fail and come at once.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize},
    time::Duration,
};

use karat_schemas::epoch::Epoch;
use proptest::prelude::*;
use tokio::sync::{Barrier, oneshot};

use super::*;
use crate::serving::{answer::Validators, key::KeyParts, load::ServingLoad};

fn key(number: u32) -> Key {
    KeyParts::default().number("number", number).key()
}

fn rendered(number: u32, size: usize) -> Rendered {
    Rendered::new(vec![0; size], Validators::of(&key(number), &Epoch::default()).unwrap())
}

struct Asked {
    cache: Arc<AnswerCache>,
    counters: Arc<ServingCounters>,
}

impl Asked {
    fn of_bytes(max_bytes: usize) -> Self {
        let counters = Arc::<ServingCounters>::default();
        Self { cache: AnswerCache::new(max_bytes, &counters).unwrap(), counters }
    }

    /// The size of the answer, which is `size` when it is rendered now.
    async fn get(&self, number: u32, size: usize) -> usize {
        let render = async move { Ok(rendered(number, size)) };
        self.cache.get_or_render(key(number), render).await.unwrap().body.len()
    }

    fn num_under_way(&self) -> usize {
        self.cache.under_way.lock().by_key.len()
    }

    async fn until(&self, holds: impl Fn(ServingLoad) -> bool) {
        let wait = async {
            while !holds(self.counters.load()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it does not come to hold");
    }
}

/// Sets its flag when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn an_answer_is_rendered_once_and_its_bytes_are_shared() {
    let asked = Asked::of_bytes(1 << 20);
    assert_eq!((asked.get(1, 40).await, asked.get(1, 41).await), (40, 40));
    let again = |number| asked.cache.get_or_render(key(number), std::future::pending());
    let (first, second) = (again(1).await.unwrap(), again(1).await.unwrap());
    assert_eq!(first.body.as_ptr(), second.body.as_ptr());
    let load = asked.counters.load();
    assert_eq!((load.hits, load.misses, load.shared, load.answers), (3, 1, 0, 1));
    assert_eq!(load.bytes, (40 + ENTRY_BYTES) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_parallel_askers_share_one_rendering() {
    for round in 0..20 {
        let asked = Arc::new(Asked::of_bytes(1 << 20));
        let (renderings, all) = (Arc::<AtomicUsize>::default(), Arc::new(Barrier::new(100)));
        let one = || {
            let (asked, renderings, all) = (Arc::clone(&asked), Arc::clone(&renderings), Arc::clone(&all));
            tokio::spawn(async move {
                all.wait().await;
                let render = async move {
                    renderings.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    Ok(rendered(5, 7))
                };
                asked.cache.get_or_render(key(5), render).await.unwrap().body.len()
            })
        };
        for task in (0..100).map(|_| one()).collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), 7);
        }
        assert_eq!(renderings.load(Ordering::Relaxed), 1, "round {round}");
        let load = asked.counters.load();
        assert_eq!((load.misses, load.hits + load.shared), (1, 99));
        assert_eq!(asked.num_under_way(), 0);
    }
}

#[tokio::test]
async fn the_rendering_goes_on_for_those_who_wait_when_the_first_asker_leaves() {
    let asked = Arc::new(Asked::of_bytes(1 << 20));
    let (done, is_done) = oneshot::channel::<()>();
    let first = {
        let cache = Arc::clone(&asked.cache);
        let render = async move {
            is_done.await.map_err(ApiError::internal)?;
            Ok::<_, ApiError>(rendered(1, 3))
        };
        tokio::spawn(async move { cache.get_or_render(key(1), render).await })
    };
    asked.until(|load| load.misses == 1).await;
    let second = tokio::spawn({
        let asked = Arc::clone(&asked);
        async move { asked.get(1, 999).await }
    });
    asked.until(|load| load.shared == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    done.send(()).unwrap();
    assert_eq!(second.await.unwrap(), 3);
    assert_eq!((asked.get(1, 999).await, asked.num_under_way()), (3, 0));
    assert_eq!(asked.counters.load().bytes, (3 + ENTRY_BYTES) as u64);
}

#[tokio::test]
async fn the_rendering_ends_when_the_last_asker_leaves_and_leaves_nothing() {
    let asked = Arc::new(Asked::of_bytes(1 << 20));
    let ended = Arc::<AtomicBool>::default();
    let askers: Vec<_> = (0..3)
        .map(|_| {
            let (cache, flag) = (Arc::clone(&asked.cache), Flag(Arc::clone(&ended)));
            let render = async move {
                // Held by the rendering; the others are dropped unused.
                let _flag = flag;
                std::future::pending().await
            };
            tokio::spawn(async move { cache.get_or_render(key(1), render).await })
        })
        .collect();
    asked.until(|load| (load.misses, load.shared) == (1, 2)).await;
    ended.store(false, Ordering::Relaxed);
    for (left, asker) in askers.into_iter().enumerate() {
        assert_eq!((ended.load(Ordering::Relaxed), asked.num_under_way()), (false, 1), "{left} have left");
        asker.abort();
        assert!(asker.await.unwrap_err().is_cancelled());
    }
    assert_eq!((ended.load(Ordering::Relaxed), asked.num_under_way()), (true, 0));
    assert_eq!((asked.counters.load().answers, asked.get(1, 4).await), (0, 4));
}

#[tokio::test]
async fn a_failure_or_a_panic_is_told_to_all_who_wait_and_is_not_kept() {
    let asked = Asked::of_bytes(1 << 20);
    for (number, has_panicked) in [(1, false), (2, true)] {
        let one = || {
            asked.cache.get_or_render(key(number), async move {
                // Each of the three looks at it once before it ends.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                assert!(!has_panicked, "as this test wants it");
                Err(ApiError::unavailable("away", "it is away"))
            })
        };
        let (first, second, third) = tokio::join!(one(), one(), one());
        let expected = if has_panicked { 500 } else { 503 };
        for failed in [first, second, third] {
            assert_eq!(failed.unwrap_err().status().as_u16(), expected);
        }
        assert_eq!((asked.num_under_way(), asked.counters.load().answers), (0, u64::from(number) - 1));
        assert_eq!(asked.get(number, 3).await, 3);
    }
    let load = asked.counters.load();
    assert_eq!((load.misses, load.shared), (4, 4));
}

#[tokio::test]
async fn what_is_too_large_is_answered_and_not_kept() {
    for max_bytes in [0, 1, 100, 8192] {
        let asked = Asked::of_bytes(max_bytes);
        assert_eq!((asked.get(1, 9000).await, asked.get(1, 9001).await), (9000, 9001), "{max_bytes}");
        assert_eq!((asked.counters.load().bytes, asked.counters.load().evictions), (0, 2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_bound_holds_whatever_is_asked_and_whoever_leaves(
        max_bytes in 0..200_000usize,
        asks in prop::collection::vec((0..40u32, 0..20_000usize, 0..4u8), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let asked = Asked::of_bytes(max_bytes);
            for (number, size, how) in asks {
                let render = async move {
                    tokio::task::yield_now().await;
                    if how == 1 { Err(ApiError::internal("as this test wants it")) } else { Ok(rendered(number, size)) }
                };
                let mut asking = Box::pin(asked.cache.get_or_render(key(number), render));
                // Some leave before the answer is there.
                match how {
                    0 => drop((&mut asking).now_or_never()),
                    _ => drop(asking.await),
                }
                let held: usize = asked.cache.kept.iter().map(|(_, kept)| kept.body.len() + ENTRY_BYTES).sum();
                prop_assert!(held <= max_bytes, "{held} of {max_bytes}");
                prop_assert_eq!(held as u64, asked.cache.kept.weight());
            }
            prop_assert_eq!(asked.num_under_way(), 0);
            Ok(())
        })?;
    }
}
