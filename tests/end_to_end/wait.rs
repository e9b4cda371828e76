//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Enough for a development build on a busy machine; nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Between two questions: soon at first, and rarer the longer it takes, so that waiting does not make the machine slower.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

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
        tokio::time::sleep((start.elapsed() / 20).clamp(PAUSES.0, PAUSES.1)).await;
    }
}
