//! The checkpoint: a copy of a pipeline's state store in the lake, as the Delta table `_karat.state_<pipeline>`.
//!
//! The state store is local and can be rebuilt from bronze, which takes long with much history. A process that finds no
//! state, on a new machine or after a lost disk, takes it from here instead and goes on from the bronze version that it
//! stands for; steps that the tables have already are run again, as after a crash.
//!
//! - What steps write is collected in memory and appended behind them, every half minute, when there is much, and at a
//!   graceful stop. No step waits for a write unless collecting reached its bound.
//! - When as much was appended as there is state, the whole state is written anew, read in parts from a snapshot of the
//!   store, and takes the place of the older files in one commit.
//! - Writing takes a share of the time at most. Under load the copy falls behind, by ten times as long as the whole state
//!   takes to write, and stands for the older version until then.
//! - A process that owned the pipeline before, and finds an older store of its own, takes the checkpoint instead.
//! - Every commit says which bronze version the files stand for, and of which generation, declaration and format. Files of
//!   another one are never read; while the files do not add up to a state, they stand for none. Files of later versions than
//!   the commit says are not read either: they follow a whole state that is still being written.
//!
//! A row is a pair of the store: `keyspace`, `key`, `value`, which is null when the pair was removed; identities are many to a
//! row. The name of a file
//! begins with the bronze version it goes up to, `at-<version>`: later files win. Losing the table loses nothing.

mod restore;
mod rows;
mod writer;

use std::time::Duration;

use karat_lake::TransactionId;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::restore::{position_of, restore};
use self::writer::{Message, Writer};
use crate::{
    plan::{PipelinePlan, declaration_number},
    runner::RunnerSettings,
    state::{Reader, Writes},
};

/// Raised when rows change their meaning.
const FORMAT: i64 = 2;

/// Steps that may wait for the writer.
const QUEUE: usize = 4;

/// How long a graceful stop waits for the last write.
const LAST_WRITE: Duration = Duration::from_secs(10);

/// When a checkpoint is written: on the first of these.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointSettings {
    /// Half a minute: what is lost with the disk is run again from bronze within seconds.
    pub every: Duration,
    /// Bytes of keys and values: bounds memory.
    pub max_bytes: usize,
    /// Bytes of files that may be appended before the whole state is written anew, however small it is.
    pub min_appended: u64,
    /// Rests after a write, in times that it took, where there is more to write than fits `max_bytes`: ten leaves the pipelines
    /// nine tenths of a core that would write the copy. What is lost with the disk then grows with the size of the state.
    /// The whole state takes some of that rest between its parts, so that it never takes a core for long.
    pub rest: u32,
    /// Bytes of the state that are read and written at a time.
    pub part_bytes: usize,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(30),
            max_bytes: 16 << 20,
            min_appended: 8 << 20,
            rest: 10,
            part_bytes: 8 << 20,
        }
    }
}

/// Full name of a pipeline's checkpoint table.
pub fn table_name(pipeline: &str) -> String {
    format!("_karat.state_{pipeline}")
}

/// What that table looks like.
pub(crate) fn spec_of(pipeline: &str) -> karat_lake::TableSpec {
    rows::table_spec(&table_name(pipeline))
}

/// The bronze version that the checkpoint in the lake stands for; 0 when there is none, or it stands for nothing.
pub(crate) async fn position(lake: &karat_lake::Lake, pipeline: &str) -> karat_lake::Result<u64> {
    let mut table = match lake.open(&table_name(pipeline)).await {
        Ok(table) => table,
        Err(karat_lake::Error::UnknownTable(_)) => return Ok(0),
        Err(error) => return Err(error),
    };
    Ok(table.position("position").await?.and_then(|position| u64::try_from(position).ok()).unwrap_or(0))
}

/// Which state the files are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    generation: i64,
    fingerprint: i64,
    /// Name of the store that they were written from.
    store: i64,
}

/// The store that a checkpoint is written from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    /// Its name, of this opening.
    pub(crate) name: i64,
    /// Its name before this opening. Only a checkpoint that was written under it is gone on with: another process may
    /// have written one of the same bronze version.
    pub(crate) before: Option<i64>,
    /// Its bronze version.
    pub(crate) position: u64,
}

impl Facts {
    pub(crate) fn new(settings: &RunnerSettings, plan: &PipelinePlan) -> Self {
        Self {
            generation: i64::try_from(settings.generation).unwrap_or(i64::MAX),
            fingerprint: declaration_number(&plan.fingerprint),
            store: 0,
        }
    }

    /// What a commit says: `position` is the bronze version, none while the files do not add up to a state.
    fn transactions(self, position: Option<u64>) -> [TransactionId; 5] {
        let position = position.and_then(|version| i64::try_from(version).ok()).unwrap_or(-1);
        [
            TransactionId::new("format", FORMAT),
            TransactionId::new("generation", self.generation),
            TransactionId::new("fingerprint", self.fingerprint),
            TransactionId::new("position", position),
            TransactionId::new("store", self.store),
        ]
    }

    /// The bronze version that the table's files stand for; none when they are of another state, or of none.
    async fn position_in(self, table: &mut karat_lake::Table) -> karat_lake::Result<Option<u64>> {
        let [format, generation, fingerprint, position, _] = self.transactions(None);
        for id in [format, generation, fingerprint] {
            if table.position(&id.application).await? != Some(id.version) {
                return Ok(None);
            }
        }
        Ok(table.position(&position.application).await?.and_then(|version| u64::try_from(version).ok()))
    }
}

/// The running writer of one pipeline's checkpoint. It ends when this is dropped; what it collected is then not written.
pub(crate) struct Checkpoint(mpsc::Sender<Message>);

impl Checkpoint {
    /// Starts the writer over a store.
    pub(crate) fn start(
        settings: &RunnerSettings,
        limits: CheckpointSettings,
        plan: &PipelinePlan,
        reader: Reader,
        source: Source,
    ) -> Self {
        let (queue, messages) = mpsc::channel(QUEUE);
        let facts = Facts { store: source.name, ..Facts::new(settings, plan) };
        let writer = Writer::new(settings.lake.clone(), table_name(&plan.name), limits, facts, reader, source);
        tokio::spawn(writer.run(messages));
        Self(queue)
    }

    /// Takes what a step wrote, after the store has it.
    pub(crate) async fn take(&self, version: u64, writes: Writes) {
        // A writer that is gone has said why.
        let _ = self.0.send(Message::Step { version, writes }).await;
    }

    /// Writes what was collected; gives up after a few seconds.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let flush = async {
            let _ = self.0.send(Message::Flush(done)).await;
            let _ = written.await;
        };
        if tokio::time::timeout(LAST_WRITE, flush).await.is_err() {
            tracing::warn!("the checkpoint was not written in time; it is written anew after the next start");
        }
    }
}
