//! [`EventRates`]: keys whose owner declared how many events they publish in a second are held to it.
//!
//! A bucket of one second for each key, which counts events and not requests. A request is taken whole or not at all. One
//! with more events than a second has is taken when the bucket is full, and the key waits until its rate has caught up: so
//! no size is refused for ever, and over time nothing is published above the rate. What is kept is one moment a key: until
//! when what it published would have taken, at its rate.
//!
//! Counted in this process, or in Redis for all; while Redis is away each counts alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use karat_access::{Caller, CallerKind};
use parking_lot::Mutex;
use uuid::Uuid;

use super::count::{MAX_KEYS, make_room};
use super::{Quota, QuotaHeaders, SharedCounts, Taken};
use crate::ApiError;

/// What a key that has been quiet may publish at once, in time at its rate.
const BURST: Duration = Duration::from_secs(1);

/// Holds API keys to the events in a second that their owners declared.
pub struct EventRates {
    local: Mutex<HashMap<Uuid, Instant>>,
    shared: Option<SharedCounts>,
}

/// What became of spending.
pub(super) struct Spent {
    pub is_allowed: bool,
    /// Beyond now; with this one, if it was allowed.
    pub spent: Duration,
    /// Until it would be allowed.
    pub wait: Duration,
}

impl EventRates {
    /// Rates that are counted here, or in Redis when there is one.
    pub fn new(shared: Option<SharedCounts>) -> Arc<Self> {
        Arc::new(Self { local: Mutex::default(), shared })
    }

    /// Counts the events of a request. Ask before anything is written.
    ///
    /// # Errors
    /// 429 with `Retry-After`, `RateLimit` and `RateLimit-Policy`: then none of them was counted.
    pub async fn admit(&self, caller: &Caller, events: usize) -> Result<(), ApiError> {
        let Some((key, rate)) = rate_of(caller) else { return Ok(()) };
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let line = format!("limit: {rate} events a second, found {events} events in this request");
        // Boxed: few keys have a rate, and the way to Redis would make the future of every request larger.
        Box::pin(self.spend(key, rate, Duration::from_secs(u64::from(events)) / rate, BURST, line)).await
    }

    /// Whether not even one event would be admitted. Counts nothing: for before a large body is told apart into events, when
    /// nobody knows yet how many there are.
    ///
    /// # Errors
    /// As [`EventRates::admit`].
    pub async fn check(&self, caller: &Caller) -> Result<(), ApiError> {
        let Some((key, rate)) = rate_of(caller) else { return Ok(()) };
        let line = format!("limit: {rate} events a second, and none is left at this moment");
        // To spend nothing where the room of one event is taken away is allowed when one event would be.
        let most = BURST.saturating_sub(Duration::from_secs(1) / rate);
        Box::pin(self.spend(key, rate, Duration::ZERO, most, line)).await
    }

    async fn spend(
        &self,
        key: Uuid,
        rate: u32,
        cost: Duration,
        most: Duration,
        refusal: String,
    ) -> Result<(), ApiError> {
        let shared = match &self.shared {
            Some(shared) => shared.spend(&key.to_string(), cost, most).await,
            None => None,
        };
        let spent = shared.unwrap_or_else(|| self.spend_at(key, cost, most, Instant::now()));
        if spent.is_allowed {
            return Ok(());
        }
        let quota = Quota { name: "events", requests: rate, window: BURST };
        let left = BURST.saturating_sub(spent.spent).as_micros() * u128::from(rate) / BURST.as_micros();
        let remaining = u32::try_from(left).unwrap_or(rate);
        let taken = Taken { is_allowed: false, remaining, resets_in: spent.wait };
        let error = ApiError::too_many_requests(spent.wait).beyond(QuotaHeaders::of(quota, taken));
        Err(error.detail(refusal))
    }

    fn spend_at(&self, key: Uuid, cost: Duration, most: Duration, now: Instant) -> Spent {
        let mut until = self.local.lock();
        if until.len() >= MAX_KEYS && !until.contains_key(&key) {
            make_room(&mut until, now, |until| *until);
        }
        let spent = until.get(&key).map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let wait = (spent + cost.min(most)).saturating_sub(most);
        if !wait.is_zero() {
            return Spent { is_allowed: false, spent, wait };
        }
        let spent = spent + cost;
        until.insert(key, now + spent);
        Spent { is_allowed: true, spent, wait }
    }
}

/// A key with its declared rate.
fn rate_of(caller: &Caller) -> Option<(Uuid, u32)> {
    match caller.kind {
        CallerKind::ApiKey { key, events_per_second: Some(rate), .. } => Some((key, rate.max(1))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_bucket_holds_a_second_and_fills_with_time() {
        let (rates, key, now) = (EventRates::new(None), Uuid::now_v7(), Instant::now());
        let spend = |cost: u32, at: u32| rates.spend_at(key, MILLI * cost, BURST, now + MILLI * at);
        assert!(spend(600, 0).is_allowed && spend(400, 0).is_allowed);
        let refused = spend(100, 0);
        assert!(!refused.is_allowed);
        assert_eq!((refused.spent, refused.wait), (MILLI * 1000, MILLI * 100));
        // What was refused was not counted, and the wait that was told is enough.
        assert!(spend(100, 100).is_allowed);
        assert!(!spend(1, 100).is_allowed);
        assert!(rates.spend_at(Uuid::now_v7(), MILLI * 1000, BURST, now).is_allowed, "another key");
    }

    #[test]
    fn a_request_larger_than_the_bucket_is_taken_when_it_is_full_and_owed() {
        let (rates, key, now) = (EventRates::new(None), Uuid::now_v7(), Instant::now());
        let spend = |cost: u32, at: u32| rates.spend_at(key, MILLI * cost, BURST, now + MILLI * at);
        assert!(spend(1, 0).is_allowed);
        assert_eq!(spend(5000, 0).wait, MILLI);
        assert!(spend(5000, 1).is_allowed);
        assert_eq!(spend(1, 1).wait, MILLI * 4001);
        assert!(spend(1, 4002).is_allowed);
    }

    #[test]
    fn parallel_requests_never_pass_the_rate_together() {
        let (rates, key, now) = (EventRates::new(None), Uuid::now_v7(), Instant::now());
        let allowed = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    if rates.spend_at(key, MILLI * 100, BURST, now).is_allowed {
                        allowed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(allowed.into_inner(), 10);
    }
}
