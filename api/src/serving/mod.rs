//! What every data route shares: who sees what, how fresh it is, the cache, cursors.
//!
//! An answer goes through `Serving::answer`: the key of the question is made first, so that a client that has the
//! answer gets 304 without a scan and a cached answer is sent as the bytes that it was. Else it is rendered within a
//! deadline; what takes the processor for a while goes through `Serving::compute`, what reads tables through `Scans` and
//! `SqlReader`, a few at a time and beside the threads that answer requests, and ends soon after everybody who asked has left.

mod answer;
mod cache;
pub mod cursor;
pub mod freshness;
mod key;
mod load;
mod once;
pub mod params;
pub(crate) mod profits;
pub mod raw;
pub(crate) mod run_columns;
pub mod runs;
pub(crate) mod scans;
pub mod sync_state;
#[cfg(test)]
mod tests;
mod threads;
mod turns;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chrono::Utc;
use karat_access::{Caller, Permission, Role, RowScope};
use karat_http::ApiError;
use poem::Request;
use serde::{Serialize, de::DeserializeOwned};

pub use answer::DataAnswer;
use answer::{Has, Rendered};
pub(crate) use answer::{Validators, envelope, fresh_headers, text_header};
use cache::AnswerCache;
use cursor::{Cursor, Cursors};
use freshness::{DataState, Freshness, Objective};
pub(crate) use key::{Key, KeyParts};
use load::count;
pub use load::{ServingCounters, ServingLoad};
pub use once::OnceAnswer;
use runs::RunsReader;
use scans::Scans;
pub(crate) use threads::Threads;
use turns::MAX_WAITING;
pub(crate) use turns::{Turns, in_time};

use crate::{
    export::{ExportAnswer, ExportSettings, Exports, File, Rows},
    lag::Lag,
    lakehouse::{
        declared::DeclaredTable,
        rows::TableReader,
        sql::{SqlReader, SqlSettings},
    },
    snapshot::{Snapshot, Snapshots},
    summary::{Visible, Waiting, Work, WorkMemory},
};

/// Settings of the data routes.
#[derive(Debug, Clone)]
pub struct ServingSettings {
    /// Sources whose rows a role sees beside its own.
    pub granted_sources: HashMap<Role, Vec<String>>,
    /// Jobs that are expected to run, seen or not.
    pub declared_jobs: Vec<DeclaredJob>,
    /// How long records may wait before data counts as late; `None` for never.
    pub freshness_objective: Option<Duration>,
    /// What tables promise; data counts as late while one is missed.
    pub objectives: Vec<Objective>,
    /// The longest that an answer may take to be made.
    pub query_deadline: Duration,
    /// Memory for scans, in bytes, all requests together, and as much for folds.
    pub query_memory_bytes: usize,
    /// Memory for rendered answers, in bytes.
    pub cache_bytes: usize,
    /// Bounds of the files that are made.
    pub exports: ExportSettings,
    /// What is declared of the tables.
    pub tables: Vec<DeclaredTable>,
    pub sql: SqlSettings,
}

impl Default for ServingSettings {
    fn default() -> Self {
        Self {
            granted_sources: HashMap::new(),
            declared_jobs: Vec::new(),
            freshness_objective: Some(Duration::from_secs(5 * 60)),
            objectives: Vec::new(),
            query_deadline: Duration::from_secs(10),
            query_memory_bytes: 256 << 20,
            cache_bytes: 64 << 20,
            exports: ExportSettings::default(),
            tables: Vec::new(),
            sql: SqlSettings::default(),
        }
    }
}

/// A job that is expected to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredJob {
    pub source: String,
    pub job: String,
    /// From one start to the next; the median of its gaps when not given.
    pub interval: Option<Duration>,
}

/// Shared by the data routes.
pub struct Serving {
    pub(crate) snapshots: Arc<Snapshots>,
    /// Of pipelines beside that of the runs, by name.
    others: BTreeMap<String, Arc<Snapshots>>,
    pub(crate) tables: Arc<TableReader>,
    pub(crate) runs: RunsReader,
    pub(crate) sql: SqlReader,
    pub(crate) settings: ServingSettings,
    lag: Arc<dyn Lag>,
    cursors: Cursors,
    cache: Arc<AnswerCache>,
    folds: Turns,
    fold_memory: Arc<WorkMemory>,
    counters: Arc<ServingCounters>,
    exports: Exports,
}

/// Whose rows a caller sees, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) visible: Visible,
    role: Role,
}

/// One question: with the epoch, everything that its answer depends on.
pub(crate) struct Question {
    /// Route, scope and parameters without the page: see [`Scope::asks`].
    pub(crate) id: Key,
    /// What else the answer depends on: the page, ages.
    pub(crate) page: KeyParts,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) freshness: Freshness,
    /// Changes at each moment at which the clock changes the answer; 0 when it never does.
    pub(crate) clock: i64,
}

impl Serving {
    /// # Errors
    /// When the system gives no random numbers for a cursor key, or the query engine cannot be set up.
    pub fn new(
        mut settings: ServingSettings,
        snapshots: Arc<Snapshots>,
        lake: karat_lake::Lake,
        lag: Arc<dyn Lag>,
        cursor_key: Option<&[u8]>,
        counters: Arc<ServingCounters>,
    ) -> Result<Self, ApiError> {
        for granted in settings.granted_sources.values_mut() {
            granted.sort();
            granted.dedup();
        }
        let cursors = match cursor_key {
            Some(key) => Cursors::with_key(key),
            None => Cursors::with_random_key()?,
        };
        let cache = AnswerCache::new(settings.cache_bytes, &counters)?;
        let scans = Scans::new(settings.query_memory_bytes, &counters)?;
        let tables = Arc::new(TableReader::new(lake, scans));
        let runs = RunsReader::new(&tables);
        let sql = SqlReader::new(Arc::clone(&tables.tables), settings.sql.clone(), &counters)?;
        let folds = Turns::new(std::thread::available_parallelism().map_or(1, usize::from), MAX_WAITING, &counters);
        let fold_memory = WorkMemory::of_bytes(settings.query_memory_bytes);
        let exports = Exports::new(settings.exports.clone());
        Ok(Self {
            snapshots,
            others: BTreeMap::new(),
            tables,
            runs,
            sql,
            settings,
            lag,
            cursors,
            cache,
            folds,
            fold_memory,
            counters,
            exports,
        })
    }

    /// With the epochs of further pipelines.
    #[must_use]
    pub fn with_others(mut self, others: &[Arc<Snapshots>]) -> Self {
        self.others = others.iter().map(|other| (other.pipeline().to_owned(), Arc::clone(other))).collect();
        self
    }

    /// The epochs of `pipeline`; none when it is not served here.
    pub(crate) fn snapshots_of(&self, pipeline: &str) -> Option<&Arc<Snapshots>> {
        if self.snapshots.pipeline() == pipeline { Some(&self.snapshots) } else { self.others.get(pipeline) }
    }

    /// The newest snapshot of each pipeline: that of the runs first, the others by name.
    pub(crate) fn newest(&self) -> Vec<Arc<Snapshot>> {
        self.all_snapshots().map(|snapshots| snapshots.current()).collect()
    }

    /// The epochs of the pipeline whose newest one has the table of this full name; none when no pipeline has it.
    pub(crate) fn snapshots_with(&self, table: &str) -> Option<&Arc<Snapshots>> {
        self.all_snapshots().find(|snapshots| snapshots.current().epoch.tables.contains_key(table))
    }

    fn all_snapshots(&self) -> impl Iterator<Item = &Arc<Snapshots>> {
        std::iter::once(&self.snapshots).chain(self.others.values())
    }

    /// Whose rows the caller sees.
    ///
    /// # Errors
    /// 403 when the credential may not read data.
    pub(crate) fn scope_of(&self, caller: &Caller) -> Result<Scope, ApiError> {
        caller.require(Permission::ReadOwnData)?;
        let visible = match caller.row_scope() {
            RowScope::All => Visible::All,
            RowScope::Own { user, role } => Visible::Own {
                user: user.to_string(),
                granted: self.settings.granted_sources.get(&role).cloned().unwrap_or_default(),
            },
        };
        Ok(Scope { visible, role: caller.role })
    }

    /// How the snapshot stands against the log now.
    pub(crate) fn freshness(&self, snapshot: &Snapshot, now_us: i64) -> Freshness {
        let epoch = &snapshot.epoch;
        let mut freshness = Freshness::of(epoch, &*self.lag, self.settings.freshness_objective, now_us);
        // The objectives are those of the pipeline of the runs.
        let is_promised = epoch.pipeline == self.snapshots.pipeline();
        let is_missed = |promise: &Objective| promise.is_met(epoch.as_of_us, now_us) == Some(false);
        if is_promised && self.settings.objectives.iter().any(is_missed) {
            freshness.data_state = DataState::Late;
        }
        freshness
    }

    /// Answers a question: 304, from the cache, or by `render`, which gives the bytes of the envelope.
    ///
    /// # Errors
    /// 504 at the deadline; what `render` fails with.
    pub(crate) async fn answer<T>(
        &self,
        request: &Request,
        question: Question,
        render: impl Future<Output = Result<Vec<u8>, ApiError>> + Send + 'static,
    ) -> Result<DataAnswer<T>, ApiError> {
        let (key, snapshot) = question.key();
        let has = Has::of(request.headers(), &key);
        let rendered = match self.cache.get(&key) {
            // The headers of a kept answer are ready; writing them takes longer than everything else that a 304 needs.
            Some(kept) if has == Has::This => return Ok(self.not_modified(kept.validators)),
            None if has == Has::This => {
                return Ok(self.not_modified(Arc::new(Validators::of(&key, &snapshot.epoch)?)));
            }
            Some(kept) => {
                count(&self.counters.hits);
                kept
            }
            // Boxed: most answers are there, and the way to the others would make the future of every request larger.
            None => Box::pin(self.render(key, snapshot, render)).await?,
        };
        if has == Has::Anything {
            return Ok(self.not_modified(rendered.validators));
        }
        Ok(DataAnswer::full(rendered.body, rendered.validators))
    }

    fn not_modified<T>(&self, validators: Arc<Validators>) -> DataAnswer<T> {
        count(&self.counters.not_modified);
        DataAnswer::not_modified(validators)
    }

    /// What is kept, or under way, is not rendered again.
    async fn render(
        &self,
        key: Key,
        snapshot: Arc<Snapshot>,
        render: impl Future<Output = Result<Vec<u8>, ApiError>> + Send + 'static,
    ) -> Result<Rendered, ApiError> {
        let deadline = self.settings.query_deadline;
        let render = async move {
            let body = in_time(deadline, render).await?;
            Ok::<_, ApiError>(Rendered::new(body, Validators::of(&key, &snapshot.epoch)?))
        };
        self.cache.get_or_render(key, render).await
    }

    /// Answers a question with a file: 304, or the rows that `rows` gives, which hold what they are read from.
    ///
    /// # Errors
    /// 503 when too many files are made; what fails before the first byte.
    pub(crate) async fn export(
        &self,
        request: &Request,
        question: Question,
        file: File,
        rows: impl FnOnce() -> Rows,
    ) -> Result<ExportAnswer, ApiError> {
        let data_state = question.freshness.data_state.name();
        let (key, snapshot) = question.key();
        let validators = Validators::weak(&key, &snapshot.epoch)?;
        let known = ExportAnswer::not_modified(&validators, snapshot.epoch.epoch, data_state);
        if Has::of(request.headers(), &key) != Has::Nothing {
            count(&self.counters.not_modified);
            return Ok(known);
        }
        let place = self.exports.place()?;
        let download = self.exports.start(place, rows(), file.form).await?;
        known.with(download, file)
    }

    /// What one of several folds of a file may use.
    pub(crate) fn fold_work(&self) -> (Work, Waiting) {
        Work::within(&self.fold_memory)
    }

    /// The bytes that a question is answered with, for who is told them again and again: from the cache, or by `render`.
    ///
    /// # Errors
    /// As [`Serving::answer`].
    pub(crate) async fn bytes(
        &self,
        question: Question,
        render: impl Future<Output = Result<Vec<u8>, ApiError>> + Send + 'static,
    ) -> Result<Bytes, ApiError> {
        let (key, snapshot) = question.key();
        Ok(self.render(key, snapshot, render).await?.body)
    }

    /// Work that takes the processor for a while, off the async threads: as many at a time as there are processors. It
    /// is told to end when the answer is no longer waited for.
    ///
    /// # Errors
    /// 503 when too many wait for their turn; what `work` fails with.
    pub(crate) async fn compute<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Self, &Work) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.folds.next().await?;
        let (allowed, waiting) = Work::within(&self.fold_memory);
        let running = tokio::task::spawn_blocking(move || {
            // Until the work has ended, which may be after its asker left.
            let _turn = turn;
            let serving: &Self = &self;
            work(serving, &allowed)
        });
        let done = running.await.map_err(ApiError::internal)?;
        drop(waiting);
        done
    }

    /// Reads a cursor, or none.
    pub(crate) fn read_cursor<P: DeserializeOwned>(&self, text: Option<&str>) -> Result<Option<Cursor<P>>, ApiError> {
        text.map(|text| self.cursors.read(text)).transpose()
    }

    /// The snapshot that a request is answered from: the current one, or that of its cursor.
    ///
    /// # Errors
    /// 410 when the cursor's epoch is gone; 504 at the deadline.
    pub(crate) async fn snapshot_of<P>(&self, cursor: Option<&Cursor<P>>) -> Result<Arc<Snapshot>, ApiError> {
        self.snapshot_in(&self.snapshots, cursor).await
    }

    /// The same among the epochs of any pipeline.
    ///
    /// # Errors
    /// As [`Self::snapshot_of`].
    pub(crate) async fn snapshot_in<P>(
        &self,
        snapshots: &Snapshots,
        cursor: Option<&Cursor<P>>,
    ) -> Result<Arc<Snapshot>, ApiError> {
        let Some(cursor) = cursor else { return Ok(snapshots.current()) };
        let find = async { snapshots.at(cursor.epoch).await.map_err(ApiError::internal) };
        in_time(self.settings.query_deadline, find).await?.ok_or_else(cursor::expired)
    }

    /// The cursor of the page after this one; the snapshot is kept for it.
    pub(crate) fn next_cursor<P: Serialize>(
        &self,
        snapshot: &Arc<Snapshot>,
        question: Key,
        position: P,
    ) -> Result<String, ApiError> {
        if let Some(snapshots) = self.snapshots_of(&snapshot.epoch.pipeline) {
            snapshots.pin(snapshot);
        }
        self.cursors.write(&Cursor { epoch: snapshot.epoch.epoch, question: question.short(), position })
    }
}

impl Scope {
    /// The parts of a question to `route`, to which its parameters are added.
    pub(crate) fn asks(&self, route: &'static str) -> KeyParts {
        let mut parts = KeyParts::of("question");
        parts.text("version", env!("CARGO_PKG_VERSION")).text("route", route).text("role", self.role.name());
        if let Visible::Own { user, granted } = &self.visible {
            parts.text("user", user);
            granted.iter().for_each(|source| {
                parts.text("granted", source);
            });
        }
        parts
    }
}

impl Question {
    fn key(self) -> (Key, Arc<Snapshot>) {
        let Self { id, page: mut parts, snapshot, freshness, clock } = self;
        let epoch = &snapshot.epoch;
        parts
            .key_of("question", &id)
            .text("format", "json")
            .text("pipeline", &epoch.pipeline)
            .number("generation", epoch.generation)
            .number("epoch", epoch.epoch)
            .number("written_at", epoch.written_at_us)
            .number("state", freshness.data_state as u8)
            .number("clock", clock);
        (parts.key(), snapshot)
    }
}

pub(crate) fn now_us() -> i64 {
    Utc::now().timestamp_micros()
}
