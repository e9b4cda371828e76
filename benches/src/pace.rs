//! Waking tasks at the times at which their requests are due.
//!
//! The timers of the runtime go by whole milliseconds, and come up to two of them late: as long as what is measured takes. Here a
//! thread sleeps by the clock of the system, which is late by some tenths of that, and wakes the tasks in turn.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::Result;

/// Tasks that take turns, one every `gap`.
pub struct Pace {
    bells: Arc<[Notify]>,
}

impl Pace {
    /// The first of so many tasks is due at `start`, the next one `gap` later, and after the last one the first again, until
    /// `end`. The thread ends then.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(tasks: u32, start: Instant, gap: Duration, end: Instant) -> Result<Self> {
        let bells: Arc<[Notify]> = (0..tasks).map(|_| Notify::new()).collect();
        let rung = Arc::clone(&bells);
        thread::Builder::new().name("pace".to_owned()).spawn(move || ring(&rung, start, gap, end))?;
        Ok(Self { bells })
    }

    /// Waits until a task is due, which must be at one of its times before the end.
    pub async fn wait(&self, task: u32, due: Instant) {
        let Some(bell) = self.bells.get(task as usize) else { return };
        // One who was late finds the bell rung for a time that has passed.
        while Instant::now() < due {
            bell.notified().await;
        }
    }
}

fn ring(bells: &[Notify], start: Instant, gap: Duration, end: Instant) {
    let mut due = start;
    for bell in bells.iter().cycle() {
        if due >= end {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        bell.notify_one();
        due += gap;
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn each_task_is_woken_at_every_time_of_its_own_and_never_before() {
        let (tasks, gap, start) = (3, Duration::from_micros(300), Instant::now() + Duration::from_millis(5));
        let end = start + gap * 100;
        let pace = Pace::start(tasks, start, gap, end).unwrap();
        let woken = join_all((0..tasks).map(|task| {
            let pace = &pace;
            async move {
                let (mut due, mut woken) = (start + gap * task, 0);
                while due < end {
                    pace.wait(task, due).await;
                    assert!(Instant::now() >= due);
                    woken += 1;
                    due += gap * tasks;
                }
                woken
            }
        }));
        let woken = tokio::time::timeout(Duration::from_secs(30), woken).await.unwrap();
        assert_eq!(woken, [34, 33, 33]);
    }

    #[tokio::test]
    async fn one_who_comes_late_does_not_wait() {
        let start = Instant::now();
        let pace = Pace::start(1, start, Duration::from_millis(1), start + Duration::from_millis(1)).unwrap();
        tokio::time::timeout(Duration::from_secs(30), pace.wait(0, start)).await.unwrap();
    }
}
