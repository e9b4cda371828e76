//! [`Uploads`]: large bodies on their way, of which slow ones give way when others wait for room.
//!
//! Slow is who sent less than 64 KiB a second since the last step of its room, over three seconds at least. That harms nobody
//! while there is room. An upload that waits for room itself, or is here, is not watched.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

const SLOW_BYTES_PER_SECOND: u128 = 64 * 1024;
const JUDGED_AFTER: Duration = Duration::from_secs(3);

/// The uploads that are watched: at most as many as there is room for.
pub(super) struct Uploads {
    watched: Mutex<HashMap<u64, Arc<Upload>>>,
    next: AtomicU64,
    judged_after: Duration,
}

struct Upload {
    since: Instant,
    /// What had come then, in bytes.
    from: usize,
    held: usize,
    come: AtomicUsize,
    gives_way: Notify,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { watched: Mutex::default(), next: AtomicU64::new(0), judged_after: JUDGED_AFTER }
    }
}

impl Uploads {
    /// Watches an upload that made a step: so many bytes have come, and so many are held for it.
    pub(super) fn watch(self: &Arc<Self>, come: usize, held: usize) -> Watched {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (since, gives_way) = (Instant::now(), Notify::new());
        let upload = Arc::new(Upload { since, from: come, held, come: AtomicUsize::new(come), gives_way });
        self.watched.lock().insert(number, Arc::clone(&upload));
        Watched { uploads: Arc::clone(self), number, upload }
    }

    /// Makes the slow upload give way for which most is held, if there is one.
    pub(super) fn make_one_give_way(&self) {
        let (mut watched, now) = (self.watched.lock(), Instant::now());
        let slow = watched.iter().filter(|(_, upload)| self.is_slow(upload, now));
        let Some(number) = slow.max_by_key(|(_, upload)| upload.held).map(|(number, _)| *number) else { return };
        if let Some(upload) = watched.remove(&number) {
            upload.gives_way.notify_one();
        }
    }

    fn is_slow(&self, upload: &Upload, now: Instant) -> bool {
        let took = now.saturating_duration_since(upload.since);
        let come = upload.come.load(Ordering::Relaxed).saturating_sub(upload.from);
        took >= self.judged_after && (come as u128) * 1_000 < took.as_millis() * SLOW_BYTES_PER_SECOND
    }

    /// The same, which judges after another time.
    #[cfg(test)]
    pub(super) fn judging_after(judged_after: Duration) -> Arc<Self> {
        Arc::new(Self { judged_after, ..Self::default() })
    }
}

/// An upload, watched until this is dropped.
pub(super) struct Watched {
    uploads: Arc<Uploads>,
    number: u64,
    upload: Arc<Upload>,
}

impl Watched {
    /// So many bytes have come.
    pub(super) fn note(&self, come: usize) {
        self.upload.come.store(come, Ordering::Relaxed);
    }

    /// Resolves when the upload has to give way.
    pub(super) async fn gives_way(&self) {
        self.upload.gives_way.notified().await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.uploads.watched.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_slow_upload_gives_way_for_which_most_is_held() {
        let uploads = Uploads::judging_after(Duration::ZERO);
        let (small, large, fast) = (uploads.watch(0, 10), uploads.watch(0, 20), uploads.watch(0, 30));
        fast.note(usize::MAX);
        // Slow is who sent nothing for a millisecond.
        tokio::time::sleep(Duration::from_millis(2)).await;
        uploads.make_one_give_way();
        tokio::time::timeout(Duration::from_secs(10), large.gives_way()).await.unwrap();
        uploads.make_one_give_way();
        tokio::time::timeout(Duration::from_secs(10), small.gives_way()).await.unwrap();
        uploads.make_one_give_way();
        assert_eq!(uploads.watched.lock().keys().copied().collect::<Vec<_>>(), [fast.number]);
        drop((small, large, fast));
        assert!(uploads.watched.lock().is_empty());
    }

    #[test]
    fn nobody_is_judged_in_the_first_seconds() {
        let uploads = Arc::new(Uploads::default());
        let upload = uploads.watch(0, 10);
        uploads.make_one_give_way();
        assert_eq!(uploads.watched.lock().len(), 1);
        drop(upload);
    }
}
