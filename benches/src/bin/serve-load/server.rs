//! The server, as a process of its own: this program once more.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use karat_benches::{Error, Result, serving::Served, slices::SlicePlan};
use serde::{Deserialize, Serialize};

/// Days of the rows.
pub(crate) const DAYS: u32 = 365;

/// Where the server listens: its first line.
#[derive(Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) app: SocketAddr,
    pub(crate) carried: SocketAddr,
    pub(crate) bare: SocketAddr,
}

/// Is the server, until standard input ends, so never longer than whoever started it. The line on it is the length of the text.
pub(crate) fn serve(sources: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let plan = SlicePlan { sources, jobs: 10, days: DAYS, rows_per_slice: 1, runs_per_row: 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(Served::start(folder.path(), plan))?;
    let addresses = Addresses { app: served.app, carried: served.carried, bare: served.bare };
    println!("{}", serde_json::to_string(&addresses)?);
    for line in std::io::stdin().lines() {
        let length =
            line?.trim().parse::<usize>().map_err(|_| Error::Usage("expected the length of the text".to_owned()))?;
        served.set_length(length);
        println!("{length}");
    }
    println!("{}", served.load().misses);
    runtime.shutdown_background();
    Ok(())
}

/// The server, as a process of its own.
pub(crate) struct Server {
    process: Child,
    orders: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    pub(crate) addresses: Addresses,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(sources: u32) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", "--sources", &sources.to_string()]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, said) = (process.stdin.take(), process.stdout.take());
        let said = said.ok_or_else(|| Error::Usage("the server has no output".to_owned()))?;
        let mut said = BufReader::new(said);
        let addresses = serde_json::from_str(&next_line(&mut said)?)?;
        Ok(Self { process, orders, said, addresses })
    }

    /// Makes the fixed text so long.
    pub(crate) fn set_length(&mut self, bytes: usize) -> Result<()> {
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{bytes}")?;
        }
        next_line(&mut self.said).map(drop)
    }

    /// Ends it, and gives the number of answers that it rendered.
    pub(crate) fn stop(mut self) -> Result<u64> {
        self.orders = None;
        let misses = next_line(&mut self.said)?;
        misses.trim().parse().map_err(|_| Error::WrongResult(format!("the server ended with `{misses}`")))
    }
}

impl Drop for Server {
    /// It ends by itself when its orders do, and takes its folder with it.
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}

fn next_line(said: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    match said.read_line(&mut line)? {
        0 => Err(Error::WrongResult("the server ended; it says why above".to_owned())),
        _ => Ok(line),
    }
}
