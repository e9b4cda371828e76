//! Times are microseconds since 1970 in UTC, as the database keeps them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a statement waits for another process's transaction.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    as_us(since)
}

pub(crate) fn as_us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn as_s(micros: i64) -> u64 {
    u64::try_from(micros / 1_000_000).unwrap_or(0)
}
