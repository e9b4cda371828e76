//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Enough for a development build on a busy machine; nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Asks until there is an answer; panics with `what` after [`DEADLINE`].
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    until_else(what, String::new, ask).await
}

/// The same; what `words` says then comes with it.
pub async fn until_else<T>(what: &str, words: impl Fn() -> String, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}\n{}", words());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
