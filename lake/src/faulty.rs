//! Failing disks for tests: writes below a folder fail as a full or broken disk makes them fail.
//!
//! In a build with debug assertions a test may arm a fault for the files under a folder of its own; a binary takes one from
//! the environment. Other builds have none: [`at`] does nothing, and the environment is not read.
//!
//! A *fault* is written `error@stage@part:n+m`: passings n to n + m - 1 (1+1 when left out, `:n+` for all from then on) of
//! the stage at a file whose path has `part` in it. Errors are `full` and `broken`, stages [`Stage`]s in lower case, such as
//! `full@write@bronze:2+3`.

use std::{io, path::Path};

#[cfg(debug_assertions)]
pub use self::armed::{Armed, arm};

/// A moment in the life of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before its first byte.
    Write,
    /// Its bytes are written, and it is not visible yet.
    Sync,
    /// It is visible, and the folder not synced: the outcome is unknown.
    Folder,
}

/// Fails where a test wants it to.
#[cfg(debug_assertions)]
pub fn at(stage: Stage, path: &Path) -> io::Result<()> {
    armed::pass(stage, &path.to_string_lossy())
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn at(_stage: Stage, _path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        io,
        path::Path,
        sync::{
            Arc, LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use parking_lot::Mutex;

    use super::Stage;

    /// Where the writes of a binary fail.
    const VARIABLE: &str = "KARAT_FAIL_AT";

    static ARMED: Mutex<Vec<Arc<Fault>>> = Mutex::new(Vec::new());
    static OF_THE_PROCESS: LazyLock<Option<Fault>> =
        LazyLock::new(|| Fault::new(String::new(), &std::env::var(VARIABLE).ok()?));

    struct Fault {
        scope: String,
        error: i32,
        stage: Stage,
        part: String,
        first: u64,
        end: u64,
        passed: AtomicU64,
    }

    /// ENOSPC and EIO of Linux, which `std` has no names for.
    const FULL: i32 = 28;
    const BROKEN: i32 = 5;

    impl Fault {
        fn new(scope: String, fault: &str) -> Option<Self> {
            let mut words = fault.splitn(3, '@');
            let error = match words.next()? {
                "full" => FULL,
                "broken" => BROKEN,
                _ => return None,
            };
            let stage = match words.next()? {
                "write" => Stage::Write,
                "sync" => Stage::Sync,
                "folder" => Stage::Folder,
                _ => return None,
            };
            let (part, passings) = words.next()?.rsplit_once(':').unwrap_or((fault.rsplit('@').next()?, "1+1"));
            let (first, count) = passings.split_once('+').unwrap_or((passings, "1"));
            let first = first.parse().ok()?;
            let end = if count.is_empty() { u64::MAX } else { first + count.parse::<u64>().ok()? };
            Some(Self { scope, error, stage, part: part.to_owned(), first, end, passed: AtomicU64::new(0) })
        }

        fn hits(&self, stage: Stage, path: &str) -> bool {
            if self.stage != stage || !path.contains(&self.scope) || !path.contains(&self.part) {
                return false;
            }
            let passing = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
            (self.first..self.end).contains(&passing)
        }
    }

    pub(super) fn pass(stage: Stage, path: &str) -> io::Result<()> {
        let fails = |fault: &Fault| fault.hits(stage, path).then(|| io::Error::from_raw_os_error(fault.error));
        let armed = ARMED.lock().iter().find_map(|fault| fails(fault));
        let of_the_process = || {
            let error = OF_THE_PROCESS.as_ref().and_then(fails)?;
            // Whoever started the process waits for it.
            tracing::warn!(?stage, path, %error, "made to fail");
            Some(error)
        };
        match armed.or_else(of_the_process) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// An armed fault; mended when dropped.
    pub struct Armed(Arc<Fault>);

    /// Arms `fault` for everything below `folder`; none when it is not written as it must be.
    pub fn arm(folder: &Path, fault: &str) -> Option<Armed> {
        let fault = Arc::new(Fault::new(format!("{}/", folder.display()), fault)?);
        ARMED.lock().push(Arc::clone(&fault));
        Some(Armed(fault))
    }

    impl Armed {
        /// How often a write came to where the fault is, failing or not.
        pub fn passed(&self) -> u64 {
            self.0.passed.load(Ordering::Relaxed)
        }
    }

    impl Drop for Armed {
        fn drop(&mut self) {
            ARMED.lock().retain(|fault| !Arc::ptr_eq(fault, &self.0));
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fault_hits_its_stage_in_its_folder_for_as_long_as_it_says() {
            let armed = arm(Path::new("/faulty/one"), "full@sync@bronze:2+2").unwrap();
            let path = "/faulty/one/lake/bronze/t/a.parquet";
            assert!(pass(Stage::Sync, path).is_ok());
            assert!(pass(Stage::Write, path).is_ok());
            assert!(pass(Stage::Sync, "/faulty/two/lake/bronze/t/a.parquet").is_ok());
            assert_eq!(pass(Stage::Sync, path).unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert!(pass(Stage::Sync, path).is_err());
            assert!(pass(Stage::Sync, path).is_ok());
            assert_eq!(armed.passed(), 4);
            drop(armed);
            let armed = arm(Path::new("/faulty/one"), "broken@write@gold:1+").unwrap();
            assert_eq!(pass(Stage::Write, "/faulty/one/gold/x").unwrap_err().raw_os_error(), Some(BROKEN));
            drop(armed);
            assert!(pass(Stage::Write, "/faulty/one/gold/x").is_ok());
            assert!(arm(Path::new("/faulty/one"), "full@nowhere@x").is_none());
        }
    }
}
