//! What this process answers from: the rows of one epoch, in memory.
//!
//! A [`Snapshot`] never changes. A new epoch is loaded beside the old one and takes its place in one step, so every
//! answer, and every page of a paged answer, is of exactly one epoch. Data files are read once: an epoch costs its new
//! files.
//!
//! - [`Snapshots`] is the shared handle: the current snapshot, the ones that cursors hold, and the wait for the next.
//! - [`follow`] is the task that moves it to each new epoch.

mod columns;
mod follower;
mod loader;
mod names;
mod rollup;
mod state;
mod sync;
mod user_days;

use std::{collections::VecDeque, sync::Arc};

use karat_lake::Lake;
use karat_schemas::epoch::Epoch;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub(crate) use columns::{Columns, EXACT};
pub use follower::{Poke, follow};
use loader::Loader;
pub use names::Names;
pub(crate) use rollup::{ALL, RollUps};
pub(crate) use state::QUARTER_US;
#[cfg(test)]
pub(crate) use state::decode_histogram;
pub use state::{NO_USER, StateFile};
pub use sync::SyncRow;
pub(crate) use user_days::DAY_US;
pub use user_days::{UserDay, UserDays};

/// The full names of the tables that are held in memory, and of the one that is queried.
pub(crate) const SUMMARY_STATE: &str = "gold.summary_state";
pub(crate) const SYNC_STATUS: &str = "gold.sync_status";
pub(crate) const USER_DAYS: &str = "gold.user_days";
pub(crate) const RUNS: &str = "silver.runs";

/// Snapshots that cursors refer to and that are kept in memory; an older one is loaded again while its files exist.
const PINNED: usize = 4;

/// The rows of one epoch.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Number 0 stands for "nothing yet".
    pub epoch: Epoch,
    pub summary: SummaryState,
    /// By source and job.
    pub sync: Vec<SyncRow>,
    pub(crate) user_days: Vec<Arc<UserDays>>,
}

impl Snapshot {
    /// The days on which runs of a user started, oldest first.
    pub(crate) fn days_of(&self, user: &str) -> Vec<UserDay> {
        let mut days: Vec<_> = self.user_days.iter().flat_map(|file| file.of(user).iter().copied()).collect();
        days.sort_unstable();
        days
    }
}

/// The rows of `gold.summary_state`, and what they add up to.
#[derive(Debug, Default, Clone)]
pub struct SummaryState {
    pub(crate) files: Vec<Arc<StateFile>>,
    pub(crate) names: Arc<Names>,
    pub(crate) rollups: RollUps,
}

impl SummaryState {
    /// The state of `files`, when this is that of the files before; `names` has at least the names of both. Takes the
    /// processor for as long as the difference is large.
    #[must_use]
    pub fn moved(&self, files: Vec<Arc<StateFile>>, names: Arc<Names>) -> Self {
        let rollups = self.rollups.moved(&self.files, &files, &names);
        Self { files, names, rollups }
    }

    /// Memory of the rows and of the roll-ups, in bytes.
    pub fn num_bytes(&self) -> (usize, usize) {
        (self.files.iter().map(|file| file.num_bytes()).sum(), self.rollups.num_bytes())
    }
}

/// The current snapshot and those that cursors hold. Shared by every request.
pub struct Snapshots {
    pipeline: String,
    current: RwLock<Arc<Snapshot>>,
    pinned: Mutex<VecDeque<Arc<Snapshot>>>,
    loader: tokio::sync::Mutex<Loader>,
    health: Mutex<FollowHealth>,
    moved: watch::Sender<u64>,
}

/// How following goes, for readiness.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FollowHealth {
    pub(crate) last_looked: Option<std::time::Instant>,
    pub(crate) has_failed: bool,
}

impl Snapshots {
    /// A handle on the epochs of `pipeline`, empty until [`follow`] runs.
    ///
    /// # Errors
    /// When the lake's location cannot be used.
    pub fn new(lake: Lake, pipeline: &str) -> karat_lake::Result<Arc<Self>> {
        Ok(Self::with(Loader::new(lake, pipeline)?, pipeline))
    }

    /// The same for a pipeline whose tables are scanned and never held in memory, whatever their names.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_epochs(lake: Lake, pipeline: &str) -> karat_lake::Result<Arc<Self>> {
        Ok(Self::with(Loader::of_epochs(lake, pipeline)?, pipeline))
    }

    fn with(loader: Loader, pipeline: &str) -> Arc<Self> {
        let epoch = Epoch { pipeline: pipeline.to_owned(), ..Epoch::default() };
        Arc::new(Self {
            pipeline: pipeline.to_owned(),
            current: RwLock::new(Arc::new(Snapshot { epoch, ..Snapshot::default() })),
            pinned: Mutex::default(),
            loader: tokio::sync::Mutex::new(loader),
            health: Mutex::default(),
            moved: watch::Sender::new(0),
        })
    }

    /// Whose epochs they are.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// The snapshot of the newest epoch that was loaded.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    /// Changes to the number of each epoch as it becomes current.
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Keeps `snapshot` for the cursor that is about to be given out.
    pub fn pin(&self, snapshot: &Arc<Snapshot>) {
        let mut pinned = self.pinned.lock();
        if pinned.iter().any(|held| held.epoch.epoch == snapshot.epoch.epoch) {
            return;
        }
        if pinned.len() == PINNED {
            pinned.pop_front();
        }
        pinned.push_back(Arc::clone(snapshot));
    }

    /// The snapshot of epoch `number`: from memory, or loaded again; none when it is no longer kept.
    ///
    /// # Errors
    /// When the lake fails otherwise than by the absence of old files.
    pub async fn at(&self, number: u64) -> karat_lake::Result<Option<Arc<Snapshot>>> {
        if let Some(held) = self.held(number) {
            return Ok(Some(held));
        }
        // One at a time: the lock is also the bound on what cursors of old epochs may cost.
        let mut loader = self.loader.lock().await;
        if let Some(held) = self.held(number) {
            return Ok(Some(held));
        }
        let loaded = loader.load_number(number).await?.map(Arc::new);
        if let Some(snapshot) = &loaded {
            self.pin(snapshot);
        }
        Ok(loaded)
    }

    fn held(&self, number: u64) -> Option<Arc<Snapshot>> {
        let current = self.current();
        if current.epoch.epoch == number {
            return Some(current);
        }
        self.pinned.lock().iter().find(|held| held.epoch.epoch == number).cloned()
    }

    fn publish(&self, snapshot: Snapshot) {
        let number = snapshot.epoch.epoch;
        *self.current.write() = Arc::new(snapshot);
        self.moved.send_replace(number);
    }

    pub(crate) fn health(&self) -> FollowHealth {
        *self.health.lock()
    }
}
