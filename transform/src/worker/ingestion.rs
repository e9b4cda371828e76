//! From one topic to its bronze table, for as long as the worker runs.
//!
//! A disk that is full or broken, a store or a log that does not answer, a damaged file: bronze *waits*, which the event log and the
//! log of the process say, while the door, the pipelines and the other topics go on. Then it opens the table again, which
//! settles what became of the last commit, and goes on from the positions in it. Any other failure is the worker's.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::WorkerSettings;
use crate::{
    Error, Result,
    bronze::{BronzeBatch, BronzeWriter},
    journal::{Entry, Journal, Kind},
};

/// How long bronze waits after a failure: twice as long after each further one. Events wait in the log meanwhile.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The same when the log does not answer: looking for it costs little, and it is there again for everybody at once.
const LONGEST_WAIT_FOR_LOG: Duration = Duration::from_secs(3);

/// Runs until `stop`, or a failure that waiting does not mend.
pub(super) async fn run(
    settings: WorkerSettings,
    topic: String,
    pipelines: Vec<mpsc::Sender<BronzeBatch>>,
    journal: Journal,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut wait = FIRST_WAIT;
    loop {
        let began = Instant::now();
        let error = match run_once(&settings, &topic, pipelines.clone(), stop.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if !may_pass(&error) => return Err(error),
            Err(error) => error,
        };
        if began.elapsed() > LONGEST_WAIT {
            wait = FIRST_WAIT;
        }
        let longest = if matches!(error, Error::Log(_)) { LONGEST_WAIT_FOR_LOG } else { LONGEST_WAIT };
        wait = wait.min(longest);
        tracing::error!(topic, %error, ?wait, "bronze waits; it is tried again");
        journal.note(Entry::new(Kind::Pause).message(format_args!("bronze {topic}: {error}")));
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(longest),
        }
    }
}

async fn run_once(
    settings: &WorkerSettings,
    topic: &str,
    pipelines: Vec<mpsc::Sender<BronzeBatch>>,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let log = settings.log.clone();
    let writer = BronzeWriter::open(topic, settings.bronze, log, &settings.lake, pipelines).await?;
    writer.run(&settings.group, stop).await
}

/// Whether the files of the table are what failed, or the log did not answer. Another owner, or a log that lacks records, is no
/// matter of waiting.
fn may_pass(error: &Error) -> bool {
    use karat_lake::Error::{CleanedUp, Damaged, Object, Storage};
    match error {
        // Files that came too late for their commit are written again.
        Error::Lake(CleanedUp { .. } | Damaged { .. } | Object(_) | Storage { .. }) => true,
        Error::Log(error) => error.is_retriable(),
        _ => false,
    }
}
