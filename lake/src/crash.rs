//! Crash points: named places where a test ends the work, as a crash would.
//!
//! Code on the way of an event passes [`point`]s. In a build with debug assertions a test may arm one of them, for the
//! tables under a folder of its own; nothing goes beyond it from then on: every point under that folder holds for ever,
//! until the test throws the whole runtime away and drops what it armed. A binary takes one from the environment instead,
//! and aborts there (`KARAT_CRASH_AT`) or stands still as a whole until somebody sends it `SIGCONT` (`KARAT_FREEZE_AT`). Other
//! builds have no points at all: [`point`] does nothing, and the environment is not read.
//!
//! A *spot* is written `name@part:n`: the n-th passing (1 when left out) of the point `name` at an address that has
//! `part` in it (any when left out), such as `commit.after@silver/runs:2`.
//!
//! Not a library: its switches are one for the whole process, and tests of one process run side by side.

use url::Url;

#[cfg(debug_assertions)]
pub use self::armed::{Armed, arm};

/// Passes the point `name` while working on what is at `at`: a lake, or a table.
#[cfg(debug_assertions)]
pub async fn point(at: &Url, name: &str) {
    armed::pass(at.as_str(), name).await;
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub async fn point(_at: &Url, _name: &str) {}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        path::Path,
        sync::{
            Arc, LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use parking_lot::Mutex;
    use tokio::sync::watch;

    static ARMED: Mutex<Vec<Arc<Spot>>> = Mutex::new(Vec::new());

    /// Where a binary aborts, and where it stands still.
    static ABORTS: LazyLock<Option<Spot>> = LazyLock::new(|| Spot::named_by("KARAT_CRASH_AT"));
    static FREEZES: LazyLock<Option<Spot>> = LazyLock::new(|| Spot::named_by("KARAT_FREEZE_AT"));

    struct Spot {
        /// Folder of the test, as a part of addresses.
        scope: String,
        name: String,
        part: String,
        nth: u64,
        passed: AtomicU64,
        reached: watch::Sender<bool>,
    }

    impl Spot {
        fn named_by(variable: &str) -> Option<Self> {
            std::env::var(variable).ok().map(|spot| Self::new(String::new(), &spot))
        }

        fn new(scope: String, spot: &str) -> Self {
            let (place, nth) = spot.rsplit_once(':').unwrap_or((spot, "1"));
            let (name, part) = place.split_once('@').unwrap_or((place, ""));
            Self {
                scope,
                name: name.to_owned(),
                part: part.to_owned(),
                nth: nth.parse().unwrap_or(1),
                passed: AtomicU64::new(0),
                reached: watch::Sender::new(false),
            }
        }

        /// Whether this passing is the one.
        fn is_here(&self, at: &str, name: &str) -> bool {
            self.name == name && at.contains(&self.part) && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.nth
        }
    }

    pub(super) async fn pass(at: &str, name: &str) {
        if ABORTS.as_ref().is_some_and(|spot| spot.is_here(at, name)) {
            std::process::abort();
        }
        if FREEZES.as_ref().is_some_and(|spot| spot.is_here(at, name)) {
            freeze();
        }
        if ARMED.lock().iter().any(|spot| holds(spot, at, name)) {
            std::future::pending::<()>().await;
        }
    }

    /// Stops every thread of this process: the call comes back when the process is sent `SIGCONT`.
    fn freeze() {
        let stopped = std::process::Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status();
        assert!(stopped.is_ok_and(|status| status.success()), "`kill` does not stop this process");
    }

    fn holds(spot: &Spot, at: &str, name: &str) -> bool {
        if !at.contains(&spot.scope) {
            return false;
        }
        let is_reached = *spot.reached.borrow();
        if !is_reached && spot.is_here(at, name) {
            spot.reached.send_replace(true);
            return true;
        }
        is_reached
    }

    /// An armed spot; disarmed when dropped.
    pub struct Armed(Arc<Spot>);

    /// Arms `spot` for everything below `folder`.
    pub fn arm(folder: &Path, spot: &str) -> Armed {
        let spot = Arc::new(Spot::new(format!("{}/", folder.display()), spot));
        ARMED.lock().push(Arc::clone(&spot));
        Armed(spot)
    }

    impl Armed {
        /// Waits until the spot is reached.
        pub async fn reached(&self) {
            // The sender is ours: this cannot fail.
            let _ = self.0.reached.subscribe().wait_for(|reached| *reached).await;
        }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            ARMED.lock().retain(|spot| !Arc::ptr_eq(spot, &self.0));
        }
    }

    #[cfg(test)]
    mod tests {
        use futures::FutureExt;

        use super::*;

        fn passes(at: &str, name: &str) -> bool {
            pass(at, name).now_or_never().is_some()
        }

        #[test]
        fn nothing_under_the_folder_goes_on_after_the_armed_passing() {
            let armed = arm(Path::new("/crash/one"), "commit.after@silver/runs:2");
            let runs = "file:///crash/one/lake/silver/runs/";
            assert!(passes(runs, "commit.after") && passes(runs, "commit.before"));
            assert!(passes("file:///crash/one/lake/gold/a/", "commit.after"), "another table");
            assert!(passes("file:///crash/other/lake/silver/runs/", "commit.after"), "another folder");
            assert!(armed.reached().now_or_never().is_none());
            assert!(!passes(runs, "commit.after"), "the second passing");
            assert!(armed.reached().now_or_never().is_some());
            assert!(!passes("file:///crash/one/lake/gold/a/", "file.before"));
            assert!(passes("file:///crash/other/lake/gold/a/", "file.before"));
            drop(armed);
            assert!(passes(runs, "commit.after"));
        }
    }
}
