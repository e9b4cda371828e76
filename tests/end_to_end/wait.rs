//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Enough for a development build on a busy machine; nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Asks until there is an answer; panics with `what` after [`DEADLINE`].
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
