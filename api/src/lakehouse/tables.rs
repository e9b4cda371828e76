//! Versions of tables, opened once: what a version is (`Facts`), and the version for the query engine.
//!
//! A handle of each table stays open at the newest version that was asked for, so that the next version costs the commits
//! between. A version never changes, so what is known of it is kept until others take its place.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use karat_lake::{
    DataFile, Lake, Table, VersionSummary,
    arrow::datatypes::{DataType, SchemaRef},
    datafusion::catalog::TableProvider,
};
use parking_lot::Mutex;

/// Versions whose facts are kept.
const KNOWN_FACTS: usize = 128;
/// Versions that are kept open for the query engine.
const OPEN_VERSIONS: usize = 16;

/// What a version of a table is.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: u64,
    pub(crate) schema: SchemaRef,
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// When its newest file was written, milliseconds since 1970 UTC; none of a table without files.
    pub(crate) newest_file_ms: Option<i64>,
}

impl Facts {
    fn of(table: &Table) -> Self {
        Self {
            version: table.version(),
            schema: Arc::clone(table.schema()),
            files: table.files().len() as u64,
            rows: table.files().filter_map(DataFile::rows).sum(),
            bytes: table.files().map(|file| u64::try_from(file.size_bytes()).unwrap_or(0)).sum(),
            newest_file_ms: table.files().map(DataFile::written_at_ms).max(),
        }
    }

    /// Whether there is a text column of this name.
    pub(crate) fn has_text(&self, column: &str) -> bool {
        self.schema
            .field_with_name(column)
            .is_ok_and(|field| matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View))
    }
}

/// The way to the tables. Shared by every request.
pub(crate) struct Tables {
    lake: Lake,
    /// By full name, each at the newest version that was asked for.
    handles: Mutex<HashMap<String, Table>>,
    facts: Kept<Arc<Facts>>,
    providers: Kept<Arc<dyn TableProvider>>,
}

impl Tables {
    pub(crate) fn new(lake: Lake) -> Self {
        let (facts, providers) = (Kept::new(KNOWN_FACTS), Kept::new(OPEN_VERSIONS));
        Self { lake, handles: Mutex::default(), facts, providers }
    }

    /// What version `version` of the table `name` is, when that has been asked before.
    pub(crate) fn known_facts(&self, name: &str, version: u64) -> Option<Arc<Facts>> {
        self.facts.get(name, version)
    }

    /// What version `version` of the table `name` is.
    ///
    /// # Errors
    /// The lake does not answer, or no longer has that version.
    pub(crate) async fn facts(&self, name: &str, version: u64) -> karat_lake::Result<Arc<Facts>> {
        if let Some(facts) = self.known_facts(name, version) {
            return Ok(facts);
        }
        let table = self.open(name, version).await?;
        // The statistics of each file are text that has to be read.
        let (table, facts) = tokio::task::spawn_blocking(move || {
            let facts = Facts::of(&table);
            (table, Arc::new(facts))
        })
        .await?;
        self.put_back(name, table);
        self.facts.put(name, version, Arc::clone(&facts));
        Ok(facts)
    }

    /// That version for the query engine, with file pruning by statistics.
    ///
    /// # Errors
    /// As [`Self::facts`].
    pub(crate) async fn provider(&self, name: &str, version: u64) -> karat_lake::Result<Arc<dyn TableProvider>> {
        if let Some(provider) = self.providers.get(name, version) {
            return Ok(provider);
        }
        let table = self.open(name, version).await?;
        let provider = table.provider().await;
        self.put_back(name, table);
        let provider = provider?;
        self.providers.put(name, version, Arc::clone(&provider));
        Ok(provider)
    }

    /// The last versions up to `version`, newest first and at most `limit`.
    ///
    /// # Errors
    /// As [`Self::facts`].
    pub(crate) async fn history(
        &self,
        name: &str,
        version: u64,
        limit: u64,
    ) -> karat_lake::Result<Vec<VersionSummary>> {
        let table = self.open(name, version).await?;
        let history = table.history(limit).await;
        self.put_back(name, table);
        history
    }

    /// The table at `version`: from the handle at hand when that is not behind it.
    async fn open(&self, name: &str, version: u64) -> karat_lake::Result<Table> {
        let held = self.handles.lock().remove(name);
        if let Some(mut table) = held {
            if table.version() > version {
                self.put_back(name, table);
            } else if table.advance_to(version).await? {
                return Ok(table);
            }
        }
        self.lake.open_at(name, version).await
    }

    /// Keeps a handle, unless there is one of a newer version.
    fn put_back(&self, name: &str, table: Table) {
        let mut handles = self.handles.lock();
        if handles.get(name).is_none_or(|held| held.version() < table.version()) {
            handles.insert(name.to_owned(), table);
        }
    }
}

/// The newest values by table and version.
struct Kept<T> {
    capacity: usize,
    newest_last: Mutex<VecDeque<(String, u64, T)>>,
}

impl<T: Clone> Kept<T> {
    fn new(capacity: usize) -> Self {
        Self { capacity, newest_last: Mutex::default() }
    }

    fn get(&self, name: &str, version: u64) -> Option<T> {
        let kept = self.newest_last.lock();
        let found = kept.iter().rev().find(|(of, at, _)| *at == version && of == name);
        found.map(|(_, _, value)| value.clone())
    }

    fn put(&self, name: &str, version: u64, value: T) {
        let mut kept = self.newest_last.lock();
        if kept.len() == self.capacity {
            kept.pop_front();
        }
        kept.push_back((name.to_owned(), version, value));
    }
}
