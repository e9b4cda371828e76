//! [`Turns`]: so many folds or scans at a time, so many that wait, and no more.

use std::{sync::Arc, time::Duration};

use karat_http::ApiError;
use poem::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::load::{Counted, ServingCounters, count};
use crate::summary::Stopped;

/// Who waits beyond these would meet the deadline rather than a turn.
pub(super) const MAX_WAITING: usize = 128;

/// Who may work, first come, first served.
pub(super) struct Turns {
    running: Arc<Semaphore>,
    waiting: Semaphore,
    counters: Arc<ServingCounters>,
}

/// The right to work, for as long as it is held.
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _running: Counted,
}

impl Turns {
    /// At most `parallel` at a time, and `max_waiting` that wait.
    pub(super) fn new(parallel: usize, max_waiting: usize, counters: &Arc<ServingCounters>) -> Self {
        let (running, waiting) = (Arc::new(Semaphore::new(parallel)), Semaphore::new(max_waiting));
        Self { running, waiting, counters: Arc::clone(counters) }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// 503 when too many wait.
    pub(super) async fn next(&self) -> Result<Turn, ApiError> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(self.begin(permit));
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            count(&self.counters.refused);
            return Err(busy());
        };
        let _waiting = Counted::new(&self.counters, |counters| &counters.waiting);
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(ApiError::internal)?;
        Ok(self.begin(permit))
    }

    fn begin(&self, permit: OwnedSemaphorePermit) -> Turn {
        Turn { _permit: permit, _running: Counted::new(&self.counters, |counters| &counters.running) }
    }
}

fn busy() -> ApiError {
    let message = "too many questions at once: ask again after `Retry-After`";
    ApiError::unavailable("query_busy", message).retry_after(Duration::from_secs(1))
}

/// The answer when the memory for questions is in use.
pub(super) fn out_of_memory() -> ApiError {
    let message = "too many large questions at once: try again, or narrow `from` and `to`";
    ApiError::unavailable("query_memory", message).retry_after(Duration::from_secs(1))
}

/// The answer at the deadline.
pub(super) fn too_slow(deadline: Duration) -> ApiError {
    let message = format!("the answer took longer than {} s: narrow `from` and `to`", deadline.as_secs());
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
}

impl From<Stopped> for ApiError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::MemoryIsUsedUp => out_of_memory(),
            // For nobody: it is what made the work end.
            Stopped::NobodyWaits => {
                let message = "nobody waits for this answer any more";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_refused_and_the_others_get_their_turn_in_order() {
        let counters = Arc::<ServingCounters>::default();
        let turns = Turns::new(1, 1, &counters);
        let first = turns.next().await.unwrap();
        let mut second = Box::pin(turns.next());
        assert!((&mut second).now_or_never().is_none());
        let load = counters.load();
        assert_eq!((load.running, load.waiting), (1, 1));
        let refused = turns.next().await.err().unwrap();
        assert_eq!((refused.status().as_u16(), refused.code()), (503, "query_busy"));
        drop(first);
        let second = second.await.unwrap();
        drop(second);
        turns.next().await.unwrap();
        let load = counters.load();
        assert_eq!((load.running, load.waiting, load.refused), (0, 0, 1));
    }

    #[tokio::test]
    async fn who_leaves_while_waiting_gives_the_place_back() {
        let counters = Arc::<ServingCounters>::default();
        let turns = Turns::new(1, 1, &counters);
        let _first = turns.next().await.unwrap();
        for _ in 0..3 {
            assert!(turns.next().now_or_never().is_none());
            assert_eq!(counters.load().waiting, 0);
        }
    }
}
