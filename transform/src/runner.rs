//! Runs one pipeline: step after step, from bronze versions to epochs.
//!
//! Order of durability within a step: tables (in parallel), epoch manifest, state store. A crash leaves the state store
//! at or before the tables, never behind by an unknown amount: [`Runner::open`] reads how far each table is and runs
//! the missing steps again, committing only to the tables that lack them.
//!
//! What other crates await is boxed, here and in the neighbouring modules, so that the engine is compiled once, in this
//! crate, and not again in each that awaits it.

mod opening;
mod stepping;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use futures::future::BoxFuture;
use karat_lake::{Lake, Table, arrow::array::RecordBatch, crash, epochs::Epochs};
use karat_schemas::{epoch::Epoch, pipelines::Pipeline};

pub(crate) use self::opening::generation_folder;
use self::opening::open_store;
use crate::{
    Error, Result,
    batches::join,
    bronze::{self, read::read_after, writer::now_us},
    checkpoint::{Checkpoint, CheckpointSettings, Source},
    journal::Journal,
    plan::{PipelinePlan, declaration_number},
    shape::Shaped,
    shaper::STEP_ROWS,
    state::{StateStore, Writes},
    step::StepCounts,
    tables::{Position, Tables},
};

/// Where a pipeline reads and writes.
#[derive(Clone)]
pub struct RunnerSettings {
    /// The lake of the bronze tables.
    pub lake: Lake,
    /// The lake of the pipeline's own tables; another one while a rebuild is prepared.
    pub tables: Lake,
    /// Folder of the state stores of this pipeline, one a generation.
    pub state_folder: PathBuf,
    pub generation: u64,
    /// The declared event types, when records of another type go to this pipeline's quarantine.
    pub declared: Option<Arc<HashSet<String>>>,
    /// Writes epochs; a rebuild does not.
    pub writes_epochs: bool,
    /// When the state is written into the lake; only with epochs, and never when none.
    pub checkpoints: Option<CheckpointSettings>,
    /// Keyed silver tables are written when [`Runner::publish`] says so, and not by steps: a rebuild writes them once.
    pub publishes_later: bool,
    /// Where steps are noted.
    pub journal: Journal,
}

/// A running pipeline.
pub struct Runner {
    settings: RunnerSettings,
    plan: PipelinePlan,
    /// Dropped before the store that it reads.
    checkpoint: Option<Checkpoint>,
    store: StateStore,
    tables: Tables,
    /// See [`Tables::swap`].
    swap: Option<i64>,
    bronze: Table,
    epochs: Epochs,
    last: Epoch,
    /// Bronze version that the state store has.
    position: u64,
    as_of_us: Option<i64>,
    /// Next offset of each partition that the tables cover.
    covered: BTreeMap<u32, i64>,
    totals: StepCounts,
}

pub(crate) const POSITION: &str = "position";
pub(crate) const FINGERPRINT: &str = "fingerprint";
/// Hash of the bronze commit at the position.
pub(crate) const BRONZE_HASH: &str = "bronze_hash";
const AS_OF: &str = "as_of";
/// Which replay put the tables in their places that the store goes with; see [`Tables::swap`].
const SWAP: &str = "swap";
/// Names a store, another at each opening.
const STORE: &str = "store";

/// Bytes of bronze rows read from files in one step while catching up, of at most [`STEP_ROWS`] and a version's rows: both
/// bound memory, and this keeps columns of bytes within 32-bit offsets.
const CATCH_UP_BYTES: usize = 256 << 20;

impl Runner {
    /// Opens the tables and brings them to one point. The bronze table must exist.
    pub fn open(pipeline: &Pipeline, settings: RunnerSettings) -> BoxFuture<'_, Result<Self>> {
        Box::pin(async move {
            let plan = PipelinePlan::new(pipeline).await?;
            let bronze = settings.lake.open_or_create(&bronze::table_spec(&plan.topic)).await?;
            let epochs = Epochs::of(&settings.lake, &plan.name)?;
            let last = epochs.latest().await?.unwrap_or_default();
            let mut tables = Tables::open(&settings.tables, &plan, settings.publishes_later).await?;
            let swap = if settings.writes_epochs { tables.swap().await? } else { Some(0) };
            let store = open_store(&settings, &plan, &bronze, swap).await?;
            let position = store.meta(POSITION)?.unwrap_or(0);
            // Nothing but quarantined records so far: stored as no time.
            let as_of_us = store.meta::<Option<i64>>(AS_OF)?.flatten();
            let covered = if settings.writes_epochs { last.positions.clone() } else { BTreeMap::new() };
            let totals = StepCounts::default();
            let mut runner = Self {
                settings,
                plan,
                checkpoint: None,
                store,
                tables,
                swap,
                bronze,
                epochs,
                last,
                position,
                as_of_us,
                covered,
                totals,
            };
            if runner.is_current().await? {
                runner.start_checkpoint().await?;
                // Before steps are run again: what they write stands on what waits.
                runner.find_waiting().await?;
                runner.recover().await?;
            }
            Ok(runner)
        })
    }

    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Bronze version that every table covers.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What became of the events that this runner has seen.
    pub fn totals(&self) -> &StepCounts {
        &self.totals
    }

    pub fn last_epoch(&self) -> &Epoch {
        &self.last
    }

    /// Next offset of each partition that the tables cover, and the newest event time in them.
    pub(crate) fn covered(&self) -> (BTreeMap<u32, i64>, Option<i64>) {
        (self.covered.clone(), self.as_of_us)
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.plan.fingerprint
    }

    pub(crate) fn settings(&self) -> &RunnerSettings {
        &self.settings
    }

    /// Whether the stored state was made by this declaration and code. If not, or if it or tables are gone while the others
    /// have rows, nothing may be added to it: the pipeline must be rebuilt.
    pub fn is_current(&mut self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let stored: Option<String> = self.store.meta(FINGERPRINT)?;
            match stored {
                Some(stored) => {
                    let is_whole = self.swap.is_some() && !self.lacks_tables() && !self.is_left_behind();
                    Ok(stored == self.plan.fingerprint && is_whole)
                }
                None => Ok(self.tables.positions().await?.is_empty()),
            }
        })
    }

    async fn start_checkpoint(&mut self) -> Result<()> {
        let Some(limits) = self.settings.checkpoints.filter(|_| self.settings.writes_epochs) else { return Ok(()) };
        let name = i64::try_from(uuid::Uuid::new_v4().as_u128() & u128::from(u32::MAX)).unwrap_or(1);
        let source = Source { name, before: self.store.meta(STORE)?, position: self.position };
        let reader = self.store.reader();
        self.checkpoint = Some(Checkpoint::start(&self.settings, limits, &self.plan, reader, source));
        let mut step = self.store.begin();
        step.put_meta(STORE, &name)?;
        let writes = step.into_writes();
        self.keep(writes).await
    }

    /// Says that the tables of this runner's state are put in place by a replay of that name.
    pub(crate) fn put_in_place(&mut self, swap: i64) -> Result<()> {
        let mut step = self.store.begin();
        step.put_meta(SWAP, &swap)?;
        let writes = step.into_writes();
        self.store.apply(&writes)
    }

    /// Reads bronze versions that are not processed yet and processes them; false when there were none.
    pub fn catch_up(&mut self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let newest = self.bronze.newest_version(self.position).await?;
            if newest <= self.position {
                return Ok(false);
            }
            let (to, rows, positions) = self.read_bronze(newest).await?;
            let shaped = self.shape(rows).await?;
            self.advance(to, shaped, positions).await?;
            Ok(true)
        })
    }

    /// Processes every bronze version up to `version`.
    pub fn catch_up_to(&mut self, version: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while self.position < version {
                self.catch_up_part(version).await?;
            }
            Ok(())
        })
    }

    /// Processes as many bronze versions up to `version` as fit one step.
    pub async fn catch_up_part(&mut self, version: u64) -> Result<()> {
        let (to, rows, positions) = self.read_bronze(version).await?;
        let shaped = self.shape(rows).await?;
        self.advance(to, shaped, positions).await
    }

    /// Processes shaped rows of the bronze versions after [`Runner::position`] up to `version`.
    pub async fn advance(&mut self, version: u64, shaped: Shaped, positions: BTreeMap<u32, i64>) -> Result<()> {
        self.step_to(version, shaped, positions, &BTreeMap::new()).await
    }

    async fn shape(&mut self, rows: RecordBatch) -> Result<Shaped> {
        self.plan.shaping.shape(rows, self.settings.declared.as_deref()).await
    }

    /// Ends a pause in the epochs: the next one says that the pipeline goes on. True when there was a pause.
    pub fn resume(&mut self) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            if self.last.paused.is_none() {
                return Ok(false);
            }
            let (number, written_at_us) = (self.last.epoch + 1, now_us());
            let epoch = Epoch { epoch: number, written_at_us, paused: None, ..self.last.clone() };
            self.put_epoch(epoch).await.map(|()| true)
        })
    }

    /// Writes the checkpoint to its end and closes: for a graceful stop.
    pub fn finish(self) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            if let Some(checkpoint) = &self.checkpoint {
                checkpoint.flush().await;
            }
            self.close()
        })
    }

    /// Brings the files of keyed silver tables up to date where that waits and is due, or `all` of them; true when there
    /// was something to do.
    pub fn publish(&mut self, all: bool) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            // Asked after every step, and nearly always for nothing.
            if self.position == 0 || !self.tables.is_due(all) {
                return Ok(false);
            }
            let position = self.position_at(self.position).await?;
            let mut step = self.store.begin();
            while self.tables.publish(&mut step, &mut self.plan.folds, position, all).await? {
                let writes = step.into_writes();
                self.keep(writes).await?;
                step = self.store.begin();
            }
            let writes = step.into_writes();
            self.point("publish.committed").await;
            if self.settings.writes_epochs {
                let (number, tables) = (self.last.epoch + 1, self.tables.versions());
                self.put_epoch(Epoch { epoch: number, tables, written_at_us: now_us(), ..self.last.clone() }).await?;
            }
            self.keep(writes).await?;
            Ok(true)
        })
    }

    async fn find_waiting(&mut self) -> Result<()> {
        let mut step = self.store.begin();
        if self.tables.find_waiting(&mut step).await? {
            let writes = step.into_writes();
            self.keep(writes).await?;
        }
        Ok(())
    }

    /// Makes writes permanent that do not move the position.
    async fn keep(&mut self, writes: Writes) -> Result<()> {
        self.store.apply(&writes)?;
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.take(self.position, writes).await;
        }
        Ok(())
    }

    /// Syncs the state store, so that the next start has nothing to do again.
    pub fn close(self) -> Result<()> {
        self.store.sync()
    }

    /// Rows of as many bronze versions as fit one step.
    async fn read_bronze(&mut self, newest: u64) -> Result<(u64, RecordBatch, BTreeMap<u32, i64>)> {
        let (mut to, mut batches, mut rows, mut bytes) = (self.position, Vec::new(), 0, 0);
        let (mut positions, mut covered) = (BTreeMap::new(), self.covered.clone());
        while to < newest && rows < STEP_ROWS && bytes < CATCH_UP_BYTES {
            let part = read_after(&mut self.bronze, to, &covered).await?;
            rows += part.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
            bytes += part.rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
            batches.extend(part.rows);
            covered.extend(part.positions.iter().map(|(partition, offset)| (*partition, *offset)));
            positions.extend(part.positions);
            to = part.to;
        }
        Ok((to, join(&bronze::schema(), batches)?, positions))
    }

    /// Runs the steps again that a crash left half done.
    async fn recover(&mut self) -> Result<()> {
        let reached = self.tables.positions().await?;
        let mut ends: Vec<u64> =
            reached.values().map(|(version, _)| *version).filter(|end| *end > self.position).collect();
        ends.sort_unstable();
        ends.dedup();
        for (table, (version, hash)) in &reached {
            // A table without news is far behind: its commit may be cleaned up by now.
            let expected = match self.bronze.kept_commit_hash(*version).await? {
                None if *version <= self.bronze.version() => continue,
                expected => expected,
            };
            if hash.is_some_and(|hash| Some(hash) != expected) {
                return Err(Error::ForeignBronze {
                    table: table.clone(),
                    pipeline: self.plan.name.clone(),
                    version: i64::try_from(*version).unwrap_or(i64::MAX),
                });
            }
        }
        for end in ends {
            tracing::info!(
                pipeline = self.plan.name,
                from = self.position,
                to = end,
                "a step is run again after a crash"
            );
            let done = reached.iter().map(|(table, (version, _))| (table.clone(), *version)).collect();
            // In parts: another process may have been at work for long.
            while self.position < end {
                let (to, rows, positions) = self.read_bronze(end).await?;
                let shaped = self.shape(rows).await?;
                self.step_to(to, shaped, positions, &done).await?;
            }
        }
        Ok(())
    }

    async fn position_at(&self, version: u64) -> Result<Position> {
        let hash = self.bronze.commit_hash(version).await?;
        let declaration = declaration_number(&self.plan.fingerprint);
        Ok(Position { version, hash, declaration, swap: self.swap.unwrap_or_default() })
    }

    async fn point(&self, name: &str) {
        crash::point(self.settings.tables.root(), name).await;
    }
}

/// The partition in a position's name, `topic/partition`.
pub(crate) fn partition_of(application: &str) -> Option<u32> {
    application.rsplit_once('/')?.1.parse().ok()
}
