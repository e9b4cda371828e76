//! [`News`]: what each epoch brought, kept for those who listen, and for those who were away for a while.
//!
//! One task finds it out, while somebody listens and for some minutes after. Epochs that follow each other more quickly than it
//! works come as one. What is kept has a bound in epochs and in changes of runs; who was away for longer is told so.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use karat_lake::Lake;
use karat_schemas::epoch::Epoch;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::runs_changed::{RunChange, RunsFollower};
use crate::snapshot::Snapshots;

/// Epochs that are kept.
const MOST_ENTRIES: usize = 256;
/// Changes of runs that are kept, in all of them.
const MOST_RUNS: usize = 20_000;
/// How long the task goes on when nobody listens any more.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What one epoch brought, or several together.
#[derive(Debug)]
pub(super) struct Entry {
    /// The epoch before.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) as_of_us: Option<i64>,
    /// By source and run; none when it is not known.
    pub(super) runs: Option<Vec<RunChange>>,
}

/// What comes next for a listener.
#[derive(Debug)]
pub(super) enum Next {
    Entry(Arc<Entry>),
    /// What came after the epoch of the listener is no longer kept. It may go on from this one.
    Missed(u64),
}

pub(super) struct News {
    lake: Lake,
    snapshots: Arc<Snapshots>,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

/// A row of entries without a hole.
#[derive(Default)]
struct Kept {
    is_followed: bool,
    /// Where the first entry begins.
    from: u64,
    /// The newest event time of the newest epoch.
    as_of_us: Option<i64>,
    entries: VecDeque<Arc<Entry>>,
    num_runs: usize,
}

impl Kept {
    fn begin(&mut self, from: u64, as_of_us: Option<i64>) {
        *self = Self { is_followed: true, from, as_of_us, ..Self::default() };
    }

    fn add(&mut self, entry: Entry) {
        self.num_runs += num_runs(&entry);
        self.as_of_us = entry.as_of_us;
        self.entries.push_back(Arc::new(entry));
        while self.entries.len() > MOST_ENTRIES || (self.num_runs > MOST_RUNS && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.num_runs -= num_runs(&oldest);
            self.from = oldest.to;
        }
    }

    fn newest(&self) -> u64 {
        self.entries.back().map_or(self.from, |entry| entry.to)
    }

    /// What a listener who has everything up to `after` is told next.
    fn next(&self, after: u64) -> Option<Next> {
        let newest = self.newest();
        if after == newest {
            return None;
        }
        // Numbers that are not there yet are of another lake, or of before it was restored.
        if after < self.from || after > newest {
            return Some(Next::Missed(newest));
        }
        self.entries.iter().find(|entry| entry.to > after).cloned().map(Next::Entry)
    }
}

fn num_runs(entry: &Entry) -> usize {
    entry.runs.as_ref().map_or(0, Vec::len)
}

impl News {
    pub(super) fn new(lake: Lake, snapshots: Arc<Snapshots>) -> Arc<Self> {
        Arc::new(Self { lake, snapshots, kept: Mutex::default(), newest: watch::Sender::new(0) })
    }

    /// Changes whenever there is something new. Listening is what keeps the task going.
    pub(super) fn listen(self: &Arc<Self>) -> watch::Receiver<u64> {
        let mut kept = self.kept.lock();
        let listener = self.newest.subscribe();
        if !kept.is_followed {
            let epoch = self.snapshots.current().epoch.clone();
            kept.begin(epoch.epoch, epoch.as_of_us);
            tokio::spawn(Arc::clone(self).follow(epoch));
        }
        listener
    }

    /// The newest epoch that listeners are told of, and its newest event time. Another one may be served already.
    pub(super) fn newest(&self) -> (u64, Option<i64>) {
        let kept = self.kept.lock();
        (kept.newest(), kept.as_of_us)
    }

    /// What a listener who has everything up to epoch `after` is told next; none while it has everything.
    pub(super) fn next(&self, after: u64) -> Option<Next> {
        self.kept.lock().next(after)
    }

    /// One more, as if it had just been found out.
    #[cfg(test)]
    pub(super) fn keep(&self, entry: Entry) {
        self.kept.lock().add(entry);
    }

    async fn follow(self: Arc<Self>, mut at: Epoch) {
        let mut follower = RunsFollower::new(self.lake.clone());
        let mut moved = self.snapshots.moved();
        let mut left_alone = Duration::ZERO;
        loop {
            let next = self.snapshots.current().epoch.clone();
            if next.epoch != at.epoch {
                let runs = match follower.between(&at, &next).await {
                    Ok(runs) => runs,
                    Err(error) => {
                        tracing::warn!(%error, epoch = next.epoch, "what changed is not known; listeners are told so");
                        follower = RunsFollower::new(self.lake.clone());
                        None
                    }
                };
                self.kept.lock().add(Entry { from: at.epoch, to: next.epoch, as_of_us: next.as_of_us, runs });
                self.newest.send_replace(next.epoch);
                at = next;
                continue;
            }
            match tokio::time::timeout(LOOK_EVERY, moved.changed()).await {
                Ok(Ok(())) => continue,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
            left_alone = if self.newest.receiver_count() > 0 { Duration::ZERO } else { left_alone + LOOK_EVERY };
            if left_alone >= PATIENCE && self.give_up() {
                return;
            }
        }
    }

    /// Ends following, unless somebody began to listen just now.
    fn give_up(&self) -> bool {
        let mut kept = self.kept.lock();
        if self.newest.receiver_count() > 0 {
            return false;
        }
        *kept = Kept::default();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: usize) -> RunChange {
        RunChange {
            source: "crm".to_owned(),
            run_id: number.to_string(),
            job: "load".to_owned(),
            status: "completed".to_owned(),
            previous_status: None,
            user_id: None,
        }
    }

    fn entry(from: u64, to: u64, runs: usize) -> Entry {
        Entry { from, to, as_of_us: None, runs: Some((0..runs).map(change).collect()) }
    }

    /// The epochs that a listener is told next, and whether it missed some.
    fn next(kept: &Kept, after: u64) -> Option<(u64, bool)> {
        kept.next(after).map(|next| match next {
            Next::Entry(entry) => (entry.to, false),
            Next::Missed(newest) => (newest, true),
        })
    }

    #[test]
    fn a_listener_goes_on_where_it_was_or_is_told_that_it_missed_some() {
        let mut kept = Kept::default();
        kept.begin(5, None);
        assert_eq!((next(&kept, 5), next(&kept, 4), next(&kept, 6)), (None, Some((5, true)), Some((5, true))));
        for (from, to) in [(5, 6), (6, 9), (9, 10)] {
            kept.add(entry(from, to, 1));
        }
        let told: Vec<_> = (4..=11).map(|after| next(&kept, after)).collect();
        let (first, second, third) = (Some((6, false)), Some((9, false)), Some((10, false)));
        let missed = Some((10, true));
        assert_eq!(told, [missed, first, second, second, second, third, None, missed]);
    }

    #[test]
    fn the_newest_epoch_has_its_own_time() {
        let mut kept = Kept::default();
        kept.begin(5, Some(50));
        assert_eq!((kept.newest(), kept.as_of_us), (5, Some(50)));
        kept.add(Entry { as_of_us: Some(60), ..entry(5, 6, 1) });
        assert_eq!((kept.newest(), kept.as_of_us), (6, Some(60)));
    }

    #[test]
    fn what_is_kept_is_bounded_in_epochs_and_in_changes() {
        let mut kept = Kept::default();
        kept.begin(0, None);
        for number in 0..1_000 {
            kept.add(entry(number, number + 1, 1));
        }
        assert_eq!(
            (kept.entries.len(), kept.from, kept.num_runs),
            (MOST_ENTRIES, 1_000 - MOST_ENTRIES as u64, MOST_ENTRIES)
        );
        kept.add(entry(1_000, 1_001, MOST_RUNS));
        assert_eq!((kept.entries.len(), kept.from, kept.num_runs), (1, 1_000, MOST_RUNS));
        assert_eq!(next(&kept, 999), Some((1_001, true)));
        assert_eq!(next(&kept, 1_000), Some((1_001, false)));
    }
}
