//! The binary: commands that end, and processes that serve.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use karat_lake::Lake;

use crate::wait::until;

/// The binary that was built with these tests, unless `KARAT_TEST_BINARY` names another one, such as a release build.
fn binary() -> PathBuf {
    std::env::var_os("KARAT_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_karat").into(), PathBuf::from)
}

/// Whether that is a release build: figures of others say nothing.
pub fn is_release() -> bool {
    binary().components().any(|part| part.as_os_str() == "release")
}

/// What a command said when it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A folder with everything of one instance, removed in the end unless `KARAT_KEEP` is set.
pub struct Folder {
    folder: tempfile::TempDir,
    /// In the environment of every process: where the lake is, when it is not in the folder.
    variables: Vec<(String, String)>,
}

/// A process that serves; killed when dropped.
pub struct Karat {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

fn karat(words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    // Settings of whoever runs the tests are not theirs.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KARAT_") || name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.args(words);
    command
}

/// Runs a command to its end, with `input` on its standard input.
pub async fn run_with(words: &[&str], input: &str) -> Said {
    said(karat(words), input).await
}

async fn said(mut command: Command, input: &str) -> Said {
    let input = input.to_owned();
    let work = move || {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        // A command that refuses its arguments ends without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(work).await.unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub async fn run(words: &[&str]) -> Said {
    run_with(words, "").await
}

impl Said {
    /// Standard output of a command that had to succeed, without the last line break.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end().to_owned()
    }

    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

impl Folder {
    pub fn new() -> Self {
        Self::with(Vec::new())
    }

    /// With variables in the environment of every process.
    pub fn with(variables: Vec<(String, String)>) -> Self {
        let is_kept = std::env::var_os("KARAT_KEEP").is_some();
        Self { folder: tempfile::Builder::new().disable_cleanup(is_kept).tempdir().unwrap(), variables }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the tables of the instance are.
    pub fn location(&self) -> String {
        let elsewhere = self.variables.iter().find(|(name, _)| name == "KARAT__LAKE__LOCATION");
        elsewhere.map_or_else(|| self.text("data/lake"), |(_, lake)| lake.clone())
    }

    pub fn lake(&self) -> Lake {
        Lake::at(&self.location()).unwrap()
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The data folder of the instance.
    pub fn data(&self) -> String {
        self.text("data")
    }

    /// Runs a command on the data folder.
    pub async fn run(&self, words: &[&str]) -> Said {
        self.run_with(words, "").await
    }

    pub async fn run_with(&self, words: &[&str], input: &str) -> Said {
        let mut command = karat(&[words, &["--data-dir", &self.data()]].concat());
        command.envs(self.variables.iter().cloned());
        said(command, input).await
    }

    /// Starts a process on the data folder; `name` keeps its output apart.
    pub fn start(&self, name: &str, words: &[&str]) -> Karat {
        self.start_with(name, words, &[])
    }

    /// The same, with variables in its environment.
    pub fn start_with(&self, name: &str, words: &[&str], variables: &[(&str, &str)]) -> Karat {
        self.start_in(&self.data(), name, words, variables)
    }

    /// The same, on another data folder: that of another machine.
    pub fn start_in(&self, data: &str, name: &str, words: &[&str], variables: &[(&str, &str)]) -> Karat {
        let (out, err) = (self.path(&format!("{name}.out")), self.path(&format!("{name}.err")));
        let mut command = karat(&[words, &["--data-dir", data]].concat());
        command
            .env_remove("NO_COLOR")
            .envs(self.variables.iter().cloned())
            .envs(variables.iter().copied())
            .stdin(Stdio::null());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Karat { child: command.spawn().unwrap(), out, err }
    }

    /// Creates an account with the password [`PASSWORD`], and a key of it that may publish.
    pub async fn account(&self, username: &str, role: &str) -> String {
        let words = ["user", "create", "--username", username, "--role", role, "--password-stdin"];
        self.run_with(&words, &format!("{PASSWORD}\n")).await.ok();
        self.run(&["key", "create", "--owner", username, "--scope", "publish:*"]).await.ok()
    }
}

pub const PASSWORD: &str = "Correct-Horse-91-Staple";

impl Karat {
    pub fn err(&self) -> String {
        read(&self.err)
    }

    /// The address that it listens on.
    pub async fn url(&mut self) -> String {
        self.announced(" listening ").await
    }

    /// Where it answers its metrics.
    pub async fn metrics_url(&mut self) -> String {
        self.announced("metrics are answered").await
    }

    async fn announced(&mut self, what: &str) -> String {
        let url = until("the process listens", async || {
            self.assert_alive();
            let err = read(&self.err);
            assert!(!err.contains('\u{1b}'), "escape codes in a file: {err}");
            let as_json = format!(r#""message":"{}""#, what.trim());
            let line = err.lines().find(|line| line.contains(what) || line.contains(&as_json))?;
            let address = line.split("address=").nth(1).or_else(|| line.split(r#""address":""#).nth(1))?;
            let address = address.split([' ', '"']).next()?;
            Some(format!("http://{address}"))
        });
        url.await
    }

    /// Waits for a text on standard output.
    pub async fn says(&mut self, text: &str) -> String {
        until(&format!("`{text}` on standard output"), async || {
            self.assert_alive();
            Some(read(&self.out)).filter(|out| out.contains(text))
        })
        .await
    }

    /// Bytes of memory that it has now.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the process ended with {status}:\n{}", self.err());
        }
    }

    /// The exit code, when it has ended.
    pub fn code(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap()?.code()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits until every thread of it stands still.
    pub async fn is_frozen(&self) {
        until("the process is frozen", async || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            stat.rsplit(')').next()?.trim_start().starts_with('T').then_some(())
        })
        .await;
    }

    /// Waits for its end, by itself.
    pub async fn ended(mut self) -> ExitStatus {
        until("the process ends by itself", async || self.child.try_wait().unwrap()).await
    }

    /// Waits until it ends by itself with an error, and gives what it said.
    pub async fn fails(mut self) -> String {
        let status = until("the process refuses to run", async || self.child.try_wait().unwrap()).await;
        assert!(!status.success());
        self.err()
    }

    /// SIGKILL: nothing of the process runs any more when this returns.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its first line: before that, on a busy machine, a signal meets a process that has not come to its own code.
    pub async fn has_begun(&self) {
        until("the process says something", async || (!self.err().is_empty()).then_some(())).await;
    }

    /// SIGTERM, and the exit code.
    pub async fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status: ExitStatus = until("the process stops", async || self.child.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.err());
    }
}

impl Drop for Karat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
