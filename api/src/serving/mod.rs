//! What every data route shares: who sees what, how fresh it is, the cache, cursors.
//!
//! An answer goes through `Serving::answer`: the key of the question is made first, so that a client that has the
//! answer gets 304 without a scan and a cached answer is sent as the bytes that it was.

mod answer;
pub mod cache;
pub mod cursor;
pub mod freshness;
mod once;
pub mod params;
pub mod raw;
pub mod runs;
pub mod sync_state;

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::Utc;
use karat_access::{Caller, Permission, Role, RowScope};
use karat_http::ApiError;
use poem::Request;
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

pub use answer::DataAnswer;
pub(crate) use answer::{Validators, envelope};
use cache::AnswerCache;
use cursor::{Cursor, Cursors};
use freshness::{DataState, Freshness, Objective};
pub use once::OnceAnswer;
use runs::RunsReader;

use crate::{
    lag::Lag,
    lakehouse::{
        bounded_session,
        declared::DeclaredTable,
        rows::TableReader,
        sql::{SqlReader, SqlSettings},
        too_slow,
    },
    snapshot::{Snapshot, Snapshots},
    summary::Visible,
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
    /// The longest that a scan of a table may take.
    pub query_deadline: Duration,
    /// Memory for scans, in bytes, all requests together.
    pub query_memory_bytes: usize,
    /// Memory for rendered answers, in bytes.
    pub cache_bytes: usize,
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
    pub(crate) runs: RunsReader,
    pub(crate) tables: TableReader,
    pub(crate) sql: SqlReader,
    pub(crate) settings: ServingSettings,
    lag: Arc<dyn Lag>,
    cursors: Cursors,
    cache: AnswerCache,
}

/// One question: everything that its answer depends on.
pub(crate) struct Question<'a> {
    pub(crate) route: &'static str,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) visible: &'a Visible,
    /// The parameters as they were understood, defaults included.
    pub(crate) query: String,
    pub(crate) freshness: Freshness,
    /// Changes at each moment at which the clock changes the answer; 0 when it never does.
    pub(crate) clock: i64,
}

impl Serving {
    /// # Errors
    /// When the system gives no random numbers for a cursor key, or the query engine cannot be set up.
    pub fn new(
        settings: ServingSettings,
        snapshots: Arc<Snapshots>,
        lake: karat_lake::Lake,
        lag: Arc<dyn Lag>,
        cursor_key: Option<&[u8]>,
    ) -> Result<Self, ApiError> {
        let cursors = match cursor_key {
            Some(key) => Cursors::with_key(key),
            None => Cursors::with_random_key()?,
        };
        let cache = AnswerCache::new(settings.cache_bytes);
        let (session, deadline) = (bounded_session(settings.query_memory_bytes)?, settings.query_deadline);
        let runs = RunsReader::new(lake.clone(), session.clone(), deadline);
        let tables = TableReader::new(lake, session, deadline);
        let sql = SqlReader::new(Arc::clone(&tables.tables), settings.sql.clone())?;
        Ok(Self { snapshots, runs, tables, sql, settings, lag, cursors, cache })
    }

    /// Counters of the answer cache.
    pub fn cache_stats(&self) -> cache::CacheStats {
        self.cache.stats()
    }

    /// Whose rows the caller sees.
    ///
    /// # Errors
    /// 403 when the credential may not read data.
    pub(crate) fn visible_to(&self, caller: &Caller) -> Result<Visible, ApiError> {
        caller.require(Permission::ReadOwnData)?;
        Ok(match caller.row_scope() {
            RowScope::All => Visible::All,
            RowScope::Own { user, role } => Visible::Own {
                user: user.to_string(),
                granted: self.settings.granted_sources.get(&role).cloned().unwrap_or_default(),
            },
        })
    }

    /// How the snapshot stands against the log now.
    pub(crate) fn freshness(&self, snapshot: &Snapshot, now_us: i64) -> Freshness {
        let epoch = &snapshot.epoch;
        let mut freshness = Freshness::of(epoch, &*self.lag, self.settings.freshness_objective, now_us);
        if self.settings.objectives.iter().any(|promise| promise.is_met(epoch.as_of_us, now_us) == Some(false)) {
            freshness.data_state = DataState::Late;
        }
        freshness
    }

    /// Answers a question: 304, from the cache, or by `render`, which gives the bytes of the envelope.
    pub(crate) async fn answer<T>(
        &self,
        request: &Request,
        question: &Question<'_>,
        render: impl Future<Output = Result<Vec<u8>, ApiError>>,
    ) -> Result<DataAnswer<T>, ApiError> {
        let key = question.key();
        let validators = Arc::new(Validators::of(key, &question.snapshot.epoch)?);
        if validators.is_known_to(request.headers()) {
            return Ok(DataAnswer::not_modified(validators));
        }
        let body = self.cache.get_or_render(key, render).await?;
        Ok(DataAnswer::full(body, validators))
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
        let Some(cursor) = cursor else { return Ok(self.snapshots.current()) };
        let found = tokio::time::timeout(self.settings.query_deadline, self.snapshots.at(cursor.epoch)).await;
        let found = found.map_err(|_| too_slow(self.settings.query_deadline))?.map_err(ApiError::internal)?;
        found.ok_or_else(cursor::expired)
    }

    /// The cursor of the page after this one; the snapshot is kept for it.
    pub(crate) fn next_cursor<P: Serialize>(
        &self,
        snapshot: &Arc<Snapshot>,
        question: u64,
        position: P,
    ) -> Result<String, ApiError> {
        self.snapshots.pin(snapshot);
        self.cursors.write(&Cursor { epoch: snapshot.epoch.epoch, question, position })
    }
}

impl Question<'_> {
    fn key(&self) -> u128 {
        let epoch = &self.snapshot.epoch;
        let parts = (
            (
                env!("CARGO_PKG_VERSION"),
                self.route,
                &epoch.pipeline,
                epoch.generation,
                epoch.epoch,
                epoch.written_at_us,
            ),
            (self.visible, &self.query, self.freshness.data_state, self.clock),
        );
        // Derived formatting quotes each text, so no two questions run together.
        xxh3_128(format!("{parts:?}").as_bytes())
    }
}

/// A hash of a question without its page, for its cursors.
pub(crate) fn question_hash(route: &str, visible: &Visible, query: &str) -> u64 {
    xxh3_64(format!("{:?}", (route, visible, query)).as_bytes())
}

pub(crate) fn now_us() -> i64 {
    Utc::now().timestamp_micros()
}

/// Work that takes the processor for a while, off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?
}
