//! Counting in Redis, shared by every process that names the same server.
//!
//! One script counts and decides, so parallel requests of several processes cannot pass together. A server that does
//! not answer within a fraction of a second is left alone for some seconds. The first connection may take longer than a
//! request waits: it is made beside the requests, one attempt at a time.

use std::io;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt, Shared};
use karat_access::AccessError;
use parking_lot::Mutex;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisResult, Script};
use secrecy::{ExposeSecret, SecretString};

use super::rate::Spent;
use super::{Quota, Taken, redis_error};

/// An answer takes a fraction of a millisecond; what takes longer than this is away.
const PATIENCE: Duration = Duration::from_millis(100);
/// A connection looks up a name, crosses a network, and greets the server, over TLS too.
const CONNECTING: Duration = Duration::from_secs(5);
/// How long a server that was away is not asked.
const PAUSE: Duration = Duration::from_secs(2);

/// KEYS[1]: the window. ARGV: allowed requests, length in milliseconds. Answers whether the request is allowed, how
/// many were counted, and the milliseconds until the window ends.
const TAKE: &str = r"
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if count >= tonumber(ARGV[1]) then
  return {0, count, redis.call('PTTL', KEYS[1])}
end
count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {1, count, redis.call('PTTL', KEYS[1])}
";

const GIVE_BACK: &str = r"
if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then redis.call('DECR', KEYS[1]) end
return 0
";

/// KEYS[1]: until when what was spent lasts, in microseconds since 1970. ARGV: the cost and the most that is free, in
/// microseconds. Answers whether it was spent, what is spent beyond now, and how long to wait. By the server's clock, which
/// all processes share.
const SPEND: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local cost, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local spent = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') - now, 0)
local wait = spent + math.min(cost, most) - most
if wait > 0 then return {0, spent, wait} end
spent = spent + cost
local left = string.format('%.0f', math.ceil(spent / 1000) + 1)
redis.call('SET', KEYS[1], string.format('%.0f', now + spent), 'PX', left)
return {1, spent, 0}
";

/// A connection, or the attempt to make one.
type Connecting = Shared<BoxFuture<'static, RedisResult<ConnectionManager>>>;

/// Counts that several processes share.
pub struct SharedCounts {
    client: Client,
    connection: Mutex<Option<Connecting>>,
    take: Script,
    give_back: Script,
    spend: Script,
    away_until: Mutex<Option<Instant>>,
    patience: Duration,
}

impl SharedCounts {
    /// Counts on the server at `url` (`redis://` or `redis://:PASSWORD@HOST:PORT/DB`, with `rediss://` over TLS, for which
    /// the process has named its cryptography). It need not answer yet.
    ///
    /// # Errors
    /// [`AccessError::Unreachable`] when the address is none.
    pub fn new(url: &SecretString) -> Result<Self, AccessError> {
        let client = Client::open(url.expose_secret())
            .map_err(|_| redis_error("the address is no `redis://` or `rediss://` URL"))?;
        Ok(Self {
            client,
            connection: Mutex::new(None),
            take: Script::new(TAKE),
            give_back: Script::new(GIVE_BACK),
            spend: Script::new(SPEND),
            away_until: Mutex::new(None),
            patience: PATIENCE,
        })
    }

    /// The same, with so much time for an answer before the server counts as away.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Counts a request; none when the server is away.
    pub(super) async fn take(&self, key: &str, quota: Quota) -> Option<Taken> {
        let window = u64::try_from(quota.window.as_millis()).unwrap_or(u64::MAX);
        let mut call = self.take.key(format!("karat:limit:{key}"));
        call.arg(quota.requests);
        call.arg(window);
        let (allowed, count, left) = self.run::<(u8, u32, i64)>(&call).await?;
        let left = u64::try_from(left).unwrap_or(window);
        let remaining = quota.requests.saturating_sub(count);
        Some(Taken { is_allowed: allowed == 1, remaining, resets_in: Duration::from_millis(left) })
    }

    /// Takes a request back; false when the server is away.
    pub(super) async fn give_back(&self, key: &str) -> bool {
        let call = self.give_back.key(format!("karat:limit:{key}"));
        self.run::<u8>(&call).await.is_some()
    }

    /// Spends a cost of which so much is free at a time; none when the server is away.
    pub(super) async fn spend(&self, key: &str, cost: Duration, most: Duration) -> Option<Spent> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut call = self.spend.key(format!("karat:rate:{key}"));
        call.arg(micros(cost));
        call.arg(micros(most));
        let (is_allowed, spent, wait) = self.run::<(u8, u64, u64)>(&call).await?;
        let (spent, wait) = (Duration::from_micros(spent), Duration::from_micros(wait));
        Some(Spent { is_allowed: is_allowed == 1, spent, wait })
    }

    async fn run<T: redis::FromRedisValue>(&self, call: &redis::ScriptInvocation<'_>) -> Option<T> {
        if self.away_until.lock().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let answer = tokio::time::timeout(self.patience, async {
            let mut connection = self.connection().await?;
            call.invoke_async(&mut connection).await
        });
        match answer.await {
            Ok(Ok(value)) => {
                if self.away_until.lock().take().is_some() {
                    tracing::info!("redis answers again: limits are shared");
                }
                Some(value)
            }
            failed => {
                let reason = failed.map_or_else(
                    |_| "no answer in time".to_owned(),
                    |r: Result<T, _>| r.err().map(|e| e.to_string()).unwrap_or_default(),
                );
                if self.away_until.lock().replace(Instant::now() + PAUSE).is_none() {
                    tracing::warn!(reason, "redis is away: this process counts limits alone");
                }
                None
            }
        }
    }

    /// The connection. The attempt to make it goes on when nobody waits for it any more; one that failed is followed by
    /// another.
    fn connection(&self) -> Connecting {
        let mut connection = self.connection.lock();
        if let Some(begun) = connection.as_ref().filter(|begun| !matches!(begun.peek(), Some(Err(_)))) {
            return begun.clone();
        }
        let attempt = tokio::spawn(connect(self.client.clone(), self.patience));
        let attempt = attempt.map(|done| done.unwrap_or_else(|ended| Err(io::Error::from(ended).into())));
        connection.insert(attempt.boxed().shared()).clone()
    }
}

async fn connect(client: Client, patience: Duration) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(CONNECTING))
        .set_response_timeout(Some(patience));
    client.get_connection_manager_with_config(config).await
}
