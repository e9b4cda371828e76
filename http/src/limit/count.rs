//! Counting in this process: windows that start with their first request.
//!
//! Counting and deciding happen under one lock, so parallel requests cannot pass together. Memory is bounded: at most
//! `max_keys` windows are held; ended ones make room first, then the one that ends first.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use parking_lot::Mutex;

use super::{Quota, Taken};

/// Enough for a busy hour; about 20 MB when full.
pub(super) const MAX_KEYS: usize = 100_000;

pub(super) struct LocalCounts {
    max_keys: usize,
    windows: Mutex<HashMap<String, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends: Instant,
    count: u32,
}

impl Window {
    /// Counts a request, in a fresh window when this one has ended.
    fn take(&mut self, quota: Quota, now: Instant) -> Taken {
        if self.ends <= now {
            *self = Self { ends: now + quota.window, count: 0 };
        }
        let is_allowed = self.count < quota.requests;
        if is_allowed {
            self.count += 1;
        }
        let remaining = quota.requests.saturating_sub(self.count);
        Taken { is_allowed, remaining, resets_in: self.ends.saturating_duration_since(now) }
    }
}

impl Default for LocalCounts {
    fn default() -> Self {
        Self { max_keys: MAX_KEYS, windows: Mutex::default() }
    }
}

impl LocalCounts {
    pub(super) fn take(&self, key: &str, quota: Quota) -> Taken {
        self.take_at(key, quota, Instant::now())
    }

    /// What [`LocalCounts::take`] would refuse with now; none when it would not.
    pub(super) fn full(&self, key: &str, quota: Quota) -> Option<Taken> {
        let (windows, now) = (self.windows.lock(), Instant::now());
        let window = windows.get(key).filter(|window| window.ends > now && window.count >= quota.requests)?;
        Some(Taken { is_allowed: false, remaining: 0, resets_in: window.ends.saturating_duration_since(now) })
    }

    /// Takes one request back out of its window.
    pub(super) fn give_back(&self, key: &str) {
        if let Some(window) = self.windows.lock().get_mut(key) {
            window.count = window.count.saturating_sub(1);
        }
    }

    fn take_at(&self, key: &str, quota: Quota, now: Instant) -> Taken {
        let mut windows = self.windows.lock();
        // Most requests are of a client that is known: its key is not copied again.
        if let Some(window) = windows.get_mut(key) {
            return window.take(quota, now);
        }
        if windows.len() >= self.max_keys {
            make_room(&mut windows, now, |window| window.ends);
        }
        let mut window = Window { ends: now, count: 0 };
        let taken = window.take(quota, now);
        windows.insert(key.to_owned(), window);
        taken
    }
}

/// Drops what has ended, else what ends first: a tenth at a time, so that a flood of new keys does not look through all
/// of them each time.
pub(super) fn make_room<K: Eq + Hash, V>(held: &mut HashMap<K, V>, now: Instant, end_of: impl Fn(&V) -> Instant) {
    let before = held.len();
    held.retain(|_, value| end_of(value) > now);
    if held.len() < before {
        return;
    }
    let mut ends: Vec<Instant> = held.values().map(&end_of).collect();
    let place = (ends.len() / 10).min(ends.len().saturating_sub(1));
    if let Some(limit) = (!ends.is_empty()).then(|| *ends.select_nth_unstable(place).1) {
        held.retain(|_, value| end_of(value) > limit);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn quota(requests: u32) -> Quota {
        Quota { name: "test", requests, window: Duration::from_secs(60) }
    }

    #[test]
    fn the_request_after_the_last_allowed_one_waits_for_the_window_to_end() {
        let (counts, now) = (LocalCounts::default(), Instant::now());
        assert_eq!(counts.take_at("a", quota(2), now).remaining, 1);
        assert_eq!(counts.take_at("a", quota(2), now).remaining, 0);
        let later = counts.take_at("a", quota(2), now + Duration::from_secs(20));
        assert_eq!(later, Taken { is_allowed: false, remaining: 0, resets_in: Duration::from_secs(40) });
        assert!(counts.take_at("b", quota(2), now).is_allowed);
        assert!(counts.take_at("a", quota(2), now + Duration::from_secs(60)).is_allowed);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let counts = LocalCounts::default();
        assert!(counts.take("a", quota(1)).is_allowed);
        assert_eq!(counts.full("b", quota(1)), None);
        assert!(
            counts.full("a", quota(1)).is_some_and(|taken| !taken.is_allowed) && counts.full("a", quota(2)).is_none()
        );
        assert!(!counts.take("a", quota(1)).is_allowed);
        counts.give_back("a");
        assert_eq!(counts.full("a", quota(1)), None);
        assert!(counts.take("a", quota(1)).is_allowed);
    }

    #[test]
    fn memory_stays_bounded_under_many_keys() {
        let counts = LocalCounts { max_keys: 10, ..LocalCounts::default() };
        for n in 0..1000 {
            assert!(counts.take(&n.to_string(), quota(1)).is_allowed);
        }
        assert!(counts.windows.lock().len() <= 10);
    }

    #[test]
    fn parallel_requests_never_pass_the_limit_together() {
        let counts = LocalCounts::default();
        let allowed = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    if counts.take("a", quota(10)).is_allowed {
                        allowed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(allowed.into_inner(), 10);
    }
}
