//! Reads the tables of an epoch, each data file once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use karat_lake::{DataFile, Error, Lake, Result, Table, arrow::array::RecordBatch, epochs::Epochs};
use karat_schemas::epoch::Epoch;
use parking_lot::Mutex;

use super::{Names, SUMMARY_STATE, SYNC_STATUS, Snapshot, StateFile, SummaryState, SyncRow, USER_DAYS, UserDays};

/// Files read at a time.
const PARALLEL_READS: usize = 4;

pub(super) struct Loader {
    lake: Lake,
    epochs: Epochs,
    /// Whether the rows of tables are held.
    holds_rows: bool,
    /// Grows only; a snapshot has a copy as of its loading.
    names: Arc<Mutex<Names>>,
    published: Arc<Names>,
    state: Files<StateFile>,
    /// The state that was loaded last; the next one is made from it.
    summary: SummaryState,
    sync: Files<Vec<SyncRow>>,
    user_days: Files<UserDays>,
}

/// What was read from the files of one table.
struct Files<T> {
    by_path: HashMap<String, Arc<T>>,
    version: Option<u64>,
    /// The files of `version`, by path.
    paths: Vec<String>,
    /// The table at the newest version read: the next one is a commit or two away.
    table: Option<Table>,
}

impl<T> Default for Files<T> {
    fn default() -> Self {
        Self { by_path: HashMap::new(), version: None, paths: Vec::new(), table: None }
    }
}

impl Loader {
    pub(super) fn new(lake: Lake, pipeline: &str) -> Result<Self> {
        Ok(Self {
            epochs: Epochs::of(&lake, pipeline)?,
            lake,
            holds_rows: true,
            names: Arc::default(),
            published: Arc::default(),
            state: Files::default(),
            summary: SummaryState::default(),
            sync: Files::default(),
            user_days: Files::default(),
        })
    }

    /// Of a pipeline whose rows are not held.
    pub(super) fn of_epochs(lake: Lake, pipeline: &str) -> Result<Self> {
        Ok(Self { holds_rows: false, ..Self::new(lake, pipeline)? })
    }

    pub(super) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Loads epoch `number` again; none when its manifest, versions or files are gone.
    ///
    /// # Errors
    /// The lake does not answer.
    pub(super) async fn load_number(&mut self, number: u64) -> Result<Option<Snapshot>> {
        let Some(epoch) = self.epochs.get(number).await? else { return Ok(None) };
        match self.load(epoch).await {
            Ok(snapshot) => Ok(Some(snapshot)),
            // Old versions and files are cleaned up by age, so a failure here is how "no longer kept" looks, where the lake
            // answers at all.
            Err(Error::Storage { .. } | Error::Object(_) | Error::UnknownTable(_) | Error::Damaged { .. }) => {
                self.epochs.latest().await?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn load(&mut self, epoch: Epoch) -> Result<Snapshot> {
        if !self.holds_rows {
            return Ok(Snapshot { epoch, ..Snapshot::default() });
        }
        let names = Arc::clone(&self.names);
        let parse_state = move |batches: &[RecordBatch]| Ok(StateFile::from_batches(batches, &mut names.lock())?);
        let version = epoch.tables.get(SUMMARY_STATE).copied();
        let files = self.state.load(&self.lake, SUMMARY_STATE, version, parse_state).await?;
        let version = epoch.tables.get(SYNC_STATUS).copied();
        let parse_sync = |batches: &[RecordBatch]| Ok(SyncRow::from_batches(batches)?);
        let sync_files = self.sync.load(&self.lake, SYNC_STATUS, version, parse_sync).await?;
        let mut sync: Vec<SyncRow> = sync_files.iter().flat_map(|rows| rows.iter().cloned()).collect();
        sync.sort_by(|left, right| (&left.source, &left.job).cmp(&(&right.source, &right.job)));
        let version = epoch.tables.get(USER_DAYS).copied();
        let parse_days = |batches: &[RecordBatch]| Ok(UserDays::from_batches(batches)?);
        let user_days = self.user_days.load(&self.lake, USER_DAYS, version, parse_days).await?;
        Ok(Snapshot { epoch, summary: self.summary_of(files).await?, sync, user_days })
    }

    async fn summary_of(&mut self, files: Vec<Arc<StateFile>>) -> Result<SummaryState> {
        let (before, names) = (self.summary.clone(), self.names());
        self.summary = tokio::task::spawn_blocking(move || before.moved(files, names)).await?;
        Ok(self.summary.clone())
    }

    /// Forgets files that `newest` does not have.
    pub(super) fn keep_only(&mut self, newest: &Snapshot) {
        debug_assert!(!self.holds_rows || self.state.version == newest.epoch.tables.get(SUMMARY_STATE).copied());
        self.state.keep_only_current();
        self.sync.keep_only_current();
        self.user_days.keep_only_current();
    }

    fn names(&mut self) -> Arc<Names> {
        let names = self.names.lock();
        if names.num_names() != self.published.num_names() {
            self.published = Arc::new(names.clone());
        }
        Arc::clone(&self.published)
    }
}

impl<T: Send + Sync + 'static> Files<T> {
    /// The files of `version`; none of them when the epoch has no such table yet.
    async fn load<P>(&mut self, lake: &Lake, table: &str, version: Option<u64>, parse: P) -> Result<Vec<Arc<T>>>
    where
        P: Fn(&[RecordBatch]) -> Result<T> + Clone + Send + 'static,
    {
        if self.version != version {
            self.move_to(lake, table, version, parse).await?;
        }
        Ok(self.paths.iter().filter_map(|path| self.by_path.get(path).cloned()).collect())
    }

    async fn move_to<P>(&mut self, lake: &Lake, table: &str, version: Option<u64>, parse: P) -> Result<()>
    where
        P: Fn(&[RecordBatch]) -> Result<T> + Clone + Send + 'static,
    {
        let mut paths = Vec::new();
        if let Some(version) = version {
            let opened = self.table_at(lake, table, version).await?;
            paths.extend(opened.files().map(|file| file.path().to_owned()));
            let missing: Vec<_> =
                opened.files().filter(|file| !self.by_path.contains_key(file.path())).cloned().collect();
            let from = &opened;
            let reads = stream::iter(missing.into_iter().map(|file| read(from, file, parse.clone())));
            let read: Vec<_> = reads.buffer_unordered(PARALLEL_READS).try_collect().await?;
            self.by_path.extend(read);
            if self.table.as_ref().is_none_or(|newest| newest.version() < version) {
                self.table = Some(opened);
            }
        }
        (self.version, self.paths) = (version, paths);
        Ok(())
    }

    /// The table at `version`, from the one at hand when it lies before.
    async fn table_at(&mut self, lake: &Lake, name: &str, version: u64) -> Result<Table> {
        if let Some(mut table) = self.table.take_if(|table| table.version() <= version)
            && table.advance_to(version).await?
        {
            return Ok(table);
        }
        lake.open_at(name, version).await
    }

    fn keep_only_current(&mut self) {
        let current: HashSet<&String> = self.paths.iter().collect();
        self.by_path.retain(|path, _| current.contains(path));
    }
}

async fn read<T, P>(table: &Table, file: DataFile, parse: P) -> Result<(String, Arc<T>)>
where
    T: Send + 'static,
    P: FnOnce(&[RecordBatch]) -> Result<T> + Send + 'static,
{
    let batches = table.read(&file, None).await?;
    let parsed = tokio::task::spawn_blocking(move || parse(&batches)).await??;
    Ok((file.path().to_owned(), Arc::new(parsed)))
}
