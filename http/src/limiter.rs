//! A small in-process request limit: so many in a window that starts with the first one.
//!
//! Counting and deciding happen under one lock, so parallel requests cannot pass the limit together. Memory is
//! bounded: at most `max_keys` keys are held, and ended windows make room first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ApiError;
use crate::client_ip::limit_key;

/// How many requests in how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimit {
    /// Requests allowed in one window.
    pub requests: u32,
    /// Length of the window.
    pub window: Duration,
}

/// Counts requests by client network.
#[derive(Debug)]
pub struct WindowLimiter {
    limit: Option<WindowLimit>,
    max_keys: usize,
    windows: Mutex<HashMap<IpAddr, Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    ends: Instant,
    count: u32,
}

impl WindowLimiter {
    /// Enough for a busy hour; about 6 MB when full.
    const DEFAULT_MAX_KEYS: usize = 100_000;

    /// A limiter; `None` lifts the limit.
    pub fn new(limit: Option<WindowLimit>) -> Self {
        Self { limit, max_keys: Self::DEFAULT_MAX_KEYS, windows: Mutex::default() }
    }

    /// Counts one request of this client. Requests of unknown origin are counted together.
    ///
    /// # Errors
    /// 429 with the time until the window ends.
    pub fn check(&self, ip: Option<IpAddr>) -> Result<(), ApiError> {
        self.check_at(ip, Instant::now()).map_err(ApiError::too_many_requests)
    }

    fn check_at(&self, ip: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let Some(limit) = self.limit else { return Ok(()) };
        let key = limit_key(ip.unwrap_or(IpAddr::from([0, 0, 0, 0])));
        let mut windows = self.windows.lock();
        if windows.len() >= self.max_keys && !windows.contains_key(&key) {
            make_room(&mut windows, now);
        }
        let window = windows.entry(key).or_insert(Window { ends: now + limit.window, count: 0 });
        if window.ends <= now {
            *window = Window { ends: now + limit.window, count: 0 };
        }
        if window.count >= limit.requests {
            return Err(window.ends.saturating_duration_since(now));
        }
        window.count += 1;
        Ok(())
    }
}

/// Drops ended windows; if all still run, drops the one that ends first.
fn make_room(windows: &mut HashMap<IpAddr, Window>, now: Instant) {
    let before = windows.len();
    windows.retain(|_, window| window.ends > now);
    if windows.len() == before
        && let Some(first) = windows.iter().min_by_key(|(_, window)| window.ends).map(|(key, _)| *key)
    {
        windows.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(requests: u32) -> WindowLimiter {
        WindowLimiter::new(Some(WindowLimit { requests, window: Duration::from_secs(60) }))
    }

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn the_request_after_the_last_allowed_one_waits_for_the_window_to_end() {
        let (limiter, now) = (limiter(2), Instant::now());
        assert_eq!(limiter.check_at(ip("10.0.0.1"), now), Ok(()));
        assert_eq!(limiter.check_at(ip("10.0.0.1"), now), Ok(()));
        let later = now + Duration::from_secs(20);
        assert_eq!(limiter.check_at(ip("10.0.0.1"), later), Err(Duration::from_secs(40)));
        assert_eq!(limiter.check_at(ip("10.0.0.2"), later), Ok(()));
        assert_eq!(limiter.check_at(ip("10.0.0.1"), now + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn one_ipv6_network_counts_as_one_client() {
        let (limiter, now) = (limiter(1), Instant::now());
        assert_eq!(limiter.check_at(ip("2001:db8::1"), now), Ok(()));
        assert!(limiter.check_at(ip("2001:db8::ffff"), now).is_err());
        assert_eq!(limiter.check_at(ip("2001:db8:0:1::1"), now), Ok(()));
        assert_eq!(limiter.check_at(ip("::ffff:10.0.0.1"), now), Ok(()));
        assert!(limiter.check_at(ip("10.0.0.1"), now).is_err());
    }

    #[test]
    fn memory_stays_bounded_under_many_clients() {
        let mut limiter = limiter(1);
        limiter.max_keys = 10;
        for n in 0..100u8 {
            let _ = limiter.check_at(Some(IpAddr::from([10, 0, 0, n])), Instant::now());
        }
        assert!(limiter.windows.lock().len() <= 10);
    }

    #[test]
    fn parallel_requests_never_pass_the_limit_together() {
        let limiter = limiter(10);
        let allowed = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    if limiter.check(ip("10.0.0.1")).is_ok() {
                        allowed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(allowed.into_inner(), 10);
    }
}
