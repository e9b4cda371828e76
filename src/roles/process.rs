//! The process of a role: it starts, works until a signal or the end of one of its tasks, and drains.
//!
//! Signals count from the first moment, also while the process still starts: the first process of a container would not hear
//! one that it has no handler for. Exit codes: 0 when everything was drained, 130 when not, and that of the
//! failure when there was one.

use std::{future::Future, io, process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    failure::{FAILED, Failure, Result},
    instance::FolderLock,
};

/// Time that the tasks have after a stop, to commit what they hold.
const DRAIN: Duration = Duration::from_secs(30);

/// What runs in this process.
pub struct Work {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
    lock: Option<FolderLock>,
}

impl Work {
    /// Runs what `start` starts until a signal, or until the first task ends; then stops every task and waits for them.
    pub async fn run(start: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<ExitCode> {
        let mut signals = Signals::new()?;
        let mut work = Self { stop: watch::channel(false).0, tasks: JoinSet::new(), lock: None };
        let started = tokio::select! {
            started = start(&mut work) => Some(started),
            () = signals.next() => None,
        };
        let result = match started {
            Some(Ok(())) => work.wait(&mut signals).await,
            Some(Err(failure)) => Err(failure),
            None => Ok(()),
        };
        work.end(&mut signals, result).await
    }

    /// Tells of the stop: it becomes true.
    pub fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Runs a task that ends after the stop. When it ends before, the process ends.
    pub fn spawn(&mut self, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Has the folder until every task has ended.
    pub fn hold(&mut self, lock: FolderLock) {
        self.lock = Some(lock);
    }

    /// Drops `kept` when the stop begins.
    pub fn keep_until_stopped(&mut self, kept: impl Send + 'static) {
        let mut stop = self.stopped();
        self.spawn(async move {
            let _ = stop.wait_for(|stop| *stop).await;
            drop(kept);
            Ok(())
        });
    }

    async fn wait(&mut self, signals: &mut Signals) -> Result<()> {
        tokio::select! {
            () = signals.next() => Ok(()),
            Some(ended) = self.tasks.join_next() => match ended? {
                Ok(()) => Err(Failure::new(FAILED, "a role ended by itself")),
                Err(failure) => Err(failure),
            },
        }
    }

    /// A second signal, or the deadline, ends the process at once.
    async fn end(mut self, signals: &mut Signals, mut result: Result<()>) -> Result<ExitCode> {
        let _ = self.stop.send(true);
        let drained = async {
            while let Some(ended) = self.tasks.join_next().await {
                let ended = ended.map_err(Failure::from).flatten();
                if result.is_ok() {
                    result = ended;
                }
            }
        };
        let is_drained = tokio::select! {
            () = drained => true,
            () = signals.next() => false,
            () = tokio::time::sleep(DRAIN) => false,
        };
        if !is_drained {
            tracing::warn!("stopped before everything was drained; nothing is lost, the next start goes on from here");
            return result.map(|()| ExitCode::from(130));
        }
        result.map(|()| ExitCode::SUCCESS)
    }
}

/// What asks the process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        let signal = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "stopping");
    }
}
