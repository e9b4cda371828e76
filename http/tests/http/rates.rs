//! Events in a second that were declared for a key.

use std::sync::Arc;
use std::time::Duration;

use karat_access::{Caller, CallerKind, Role, Scopes};
use karat_http::{EventRates, SharedCounts};
use karat_oracle::Redis;
use uuid::Uuid;

fn caller(events_per_second: Option<u32>) -> Caller {
    let scopes = Arc::new(Scopes::parse(["publish:*"]).unwrap());
    let kind = CallerKind::ApiKey { key: Uuid::now_v7(), scopes, events_per_second };
    Caller { id: Uuid::now_v7(), username: "loader_1".into(), role: Role::User, kind }
}

async fn status(rates: &EventRates, caller: &Caller, events: usize) -> u16 {
    rates.admit(caller, events).await.map_or_else(|error| error.status().as_u16(), |()| 200)
}

#[tokio::test]
async fn callers_without_a_declared_rate_are_not_counted() {
    let rates = EventRates::new(None);
    let (key, kind) = (caller(None), CallerKind::User { session: Uuid::now_v7() });
    let person = Caller { kind, ..caller(Some(1)) };
    for caller in [&key, &person] {
        for _ in 0..10 {
            assert_eq!(status(&rates, caller, 10_000).await, 200, "{caller:?}");
        }
    }
}

#[tokio::test]
async fn a_key_with_nothing_left_is_told_before_anybody_counts_its_events() {
    let rates = EventRates::new(None);
    let checked = async |caller: &Caller| rates.check(caller).await.map_or_else(|e| e.status().as_u16(), |()| 200);
    let (key, fast, free) = (caller(Some(1)), caller(Some(1_000_000)), caller(None));
    for _ in 0..10 {
        for caller in [&key, &fast, &free] {
            assert_eq!(checked(caller).await, 200, "asking spends nothing");
        }
    }
    // Owed for longer than this runs.
    assert_eq!(status(&rates, &key, 1_000).await, 200);
    assert_eq!((checked(&key).await, status(&rates, &key, 1).await), (429, 429));
    assert_eq!((checked(&fast).await, checked(&free).await), (200, 200));
}

#[tokio::test]
async fn processes_count_the_events_of_a_key_together_and_alone_while_redis_is_away() {
    let Some(mut redis) = Redis::start().await.unwrap() else {
        eprintln!("skipped: redis-server is not installed");
        return;
    };
    let process = || {
        // A machine that is busy with other tests is not a server that is away.
        let shared = SharedCounts::new(&redis.url().into()).unwrap().with_patience(Duration::from_secs(10));
        EventRates::new(Some(shared))
    };
    let (first, second) = (process(), process());
    // Enough to be owed for longer than this runs.
    let key = caller(Some(1));
    assert_eq!(status(&first, &key, 1_000).await, 200);
    for rates in [&first, &second] {
        assert_eq!(status(rates, &key, 1).await, 429);
        assert_eq!(status(rates, &caller(Some(1)), 1).await, 200, "another key");
    }
    redis.kill().unwrap();
    // Neither has counted the key itself so far.
    for rates in [&first, &second] {
        assert_eq!(status(rates, &key, 1_000).await, 200);
        assert_eq!(status(rates, &key, 1).await, 429);
    }
}
