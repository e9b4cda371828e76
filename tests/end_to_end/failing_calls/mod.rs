//! Calls to the system fail one by one, inside of the storage under the embedded log, the state of a pipeline and the accounts: a
//! disk that is full from a call on, and one that fails once.
//!
//! The calls are made to fail by a library that is loaded before all others ([`Shim`]), so a process of its own is needed:
//! this test binary again, as the ignored test `child` of [`accounts`], [`log`] or [`state`]. Afterwards the folder is opened without
//! faults and compared with what the child was told.

mod accounts;
mod log;
mod state;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use crate::wait::DEADLINE;

/// Which calls fail, and how.
#[derive(Debug, Clone, Copy)]
struct Fault {
    call: &'static str,
    error: Error,
    /// The first that fails, from 1.
    at: u64,
}

#[derive(Debug, Clone, Copy)]
enum Error {
    /// ENOSPC from then on.
    Full,
    /// EIO, once.
    Broken,
}

const CALLS: [&str; 5] = ["write", "sync", "open", "rename", "resize"];

/// A child that takes longer hangs.
const LONGEST: Duration = DEADLINE;

/// Where the child does its work, and what tells it that it is one.
const FOLDER: &str = "KARAT_FAILING_FOLDER";

/// The library, compiled.
struct Shim {
    folder: tempfile::TempDir,
}

/// What a child left.
struct Left {
    _folder: tempfile::TempDir,
    data: PathBuf,
    /// What it was told, line by line.
    told: Vec<String>,
    /// Whether a call failed at all.
    was_hit: bool,
}

impl Shim {
    /// None without a C compiler, which is said.
    fn compile() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/failing_calls/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(folder.path().join("shim.so")).arg(source);
        match cc.status() {
            Ok(status) => assert!(status.success(), "the library does not compile"),
            Err(error) => {
                eprintln!("left out: `cc` cannot be run: {error}");
                return None;
            }
        }
        Some(Self { folder })
    }

    /// Runs the child test `name` with a fault below its folder.
    fn run(&self, name: &str, fault: Fault) -> Left {
        let folder = tempfile::tempdir().unwrap();
        let (data, mark) = (folder.path().join("data"), folder.path().join("mark"));
        fs::create_dir(&data).unwrap();
        let (errno, count) = match fault.error {
            Error::Full => ("28", "0"),
            Error::Broken => ("5", "1"),
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1", name])
            .env("LD_PRELOAD", self.folder.path().join("shim.so"))
            .env(FOLDER, folder.path())
            .envs([("FAIL_CALL", fault.call), ("FAIL_ERRNO", errno), ("FAIL_COUNT", count)])
            .env("FAIL_AT", fault.at.to_string())
            .env("FAIL_PATH", &data)
            .env("FAIL_MARK", &mark)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("err")).unwrap())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() > LONGEST => {
                    child.kill().unwrap();
                    panic!("{fault:?}: the process hangs");
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let err = fs::read_to_string(folder.path().join("err")).unwrap();
        assert!(status.success(), "{fault:?}: {err}");
        let told = fs::read_to_string(folder.path().join("told")).unwrap_or_default();
        let told = told.lines().map(str::to_owned).collect();
        Left { data, told, was_hit: mark.exists(), _folder: folder }
    }

    /// Each call in turn, until the work is over before the call that would fail; in larger strides further on, where the same
    /// is done again and again. The number of faults that were hit.
    async fn each(&self, name: &str, check: impl AsyncFn(Fault, Left)) -> usize {
        let mut hit = 0;
        for call in CALLS {
            for error in [Error::Full, Error::Broken] {
                let mut at = 1;
                loop {
                    let fault = Fault { call, error, at };
                    let left = self.run(name, fault);
                    if !left.was_hit {
                        break;
                    }
                    hit += 1;
                    check(fault, left).await;
                    at += 1.max(at / 3);
                }
            }
        }
        hit
    }
}

/// The folder of the child: none in a process that is none.
fn child_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Notes what the child was told; not below what fails.
fn tell(folder: &Path, line: &str) {
    use std::io::Write;
    let mut told = fs::OpenOptions::new().create(true).append(true).open(folder.join("told")).unwrap();
    writeln!(told, "{line}").unwrap();
}

/// Bytes that do not compress, others for each number.
fn noise(number: u64, size: usize) -> Vec<u8> {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut bytes = vec![0; 2 << 20];
        StdRng::seed_from_u64(7).fill(&mut bytes[..]);
        bytes
    });
    let mut bytes = NOISE[..size].to_vec();
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}
