//! The tables of one pipeline, open, and the commit of a step to all of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use karat_lake::{Lake, Table, TableSpec, TransactionId};
use karat_schemas::trace::Traces;
use karat_telemetry::metrics;

use crate::{
    Error, Result,
    appending::Appending,
    compaction::Compaction,
    plan::{PipelinePlan, quarantine_name, silver_name},
    publish::{Due, Prepared, Publish, PublishedTable, Waiting},
    silver::fold::FoldPlan,
    state::Step,
    step::StepOutput,
};

/// Every table that the pipeline writes, by full name.
pub struct Tables {
    pub appends: HashMap<String, Table>,
    pub keyed: HashMap<String, PublishedTable>,
    /// By table: when its files take changes; the others take them at once.
    publishing: HashMap<String, Publish>,
    lake: Lake,
    /// By append table: its small files on their way to be one.
    compactions: HashMap<String, Compaction>,
    /// By keyed table: the traces of changes that wait.
    waiting: HashMap<String, Traces>,
}

/// When a table's commit began, and how long it took.
pub(crate) struct TimedCommit {
    /// `silver`, `gold` or `quarantine`.
    pub(crate) layer: &'static str,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

impl TimedCommit {
    fn ended(table: &str, began: Instant) -> Self {
        let layer = ["silver", "gold", "quarantine"].into_iter().find(|layer| table.starts_with(layer));
        let (layer, took) = (layer.unwrap_or("other"), began.elapsed());
        metrics().committed(layer, took);
        Self { layer, began, took }
    }
}

/// Rows that a new table takes at a time: whole slots.
const PART_ROWS: usize = 1 << 16;

/// The bronze version that a step reaches, and what made the rows. Every commit says all of it, so that the newest one is
/// enough to know it (decisions 6 and 10).
#[derive(Debug, Clone, Copy)]
pub struct Position {
    pub version: u64,
    pub hash: i64,
    /// Number of the declaration, in which the content of reference tables is.
    pub declaration: i64,
    /// The replay that the tables are of: see [`Tables::swap`].
    pub swap: i64,
}

impl Position {
    /// A table's transactions for this position.
    pub fn transactions(self, table: &str) -> [TransactionId; 4] {
        let version = i64::try_from(self.version).unwrap_or(i64::MAX);
        [
            TransactionId::new(table, version),
            TransactionId::new(hash_name(table), self.hash),
            TransactionId::new(format!("{table}#declaration"), self.declaration),
            TransactionId::new(swap_name(table), self.swap),
        ]
    }
}

/// Application name of the hash beside a table's position.
fn hash_name(table: &str) -> String {
    format!("{table}#hash")
}

/// Application name of the replay that put a table in its place.
pub fn swap_name(table: &str) -> String {
    format!("{table}#swap")
}

impl Tables {
    /// Opens the tables of `plan`. Keyed silver tables that are `put_off` take changes only in [`Tables::publish`].
    pub async fn open(lake: &Lake, plan: &PipelinePlan, put_off: bool) -> Result<Self> {
        // At once: reading the log of each is most of what a start takes.
        let open = |spec: TableSpec| {
            let lake = lake.clone();
            tokio::spawn(async move { lake.open_or_create(&spec).await })
        };
        let opening: Vec<_> = plan.append_specs().into_iter().map(open).collect();
        let opening_keyed: Vec<_> = plan.keyed_specs().into_iter().map(|(spec, key)| (open(spec), key)).collect();
        let (mut appends, mut keyed) = (HashMap::new(), HashMap::new());
        for opened in opening {
            let table = opened.await??;
            appends.insert(table.name().to_owned(), table);
        }
        for (opened, key) in opening_keyed {
            let table = opened.await??;
            let (name, of_gold) = (table.name().to_owned(), table.name().starts_with("gold."));
            keyed.insert(name, PublishedTable::new(table, key, of_gold));
        }
        let when = |within| if put_off { Publish::Later } else { Publish::Within(within) };
        let publishing = plan.publish_within().map(|(name, within)| (name, when(within))).collect();
        Ok(Self {
            appends,
            keyed,
            publishing,
            lake: lake.clone(),
            compactions: HashMap::new(),
            waiting: HashMap::new(),
        })
    }

    /// The position and its hash of each table that has one.
    pub async fn positions(&mut self) -> Result<BTreeMap<String, (u64, Option<i64>)>> {
        let mut positions = BTreeMap::new();
        let keyed = self.keyed.values_mut().map(PublishedTable::table_mut);
        for table in self.appends.values_mut().chain(keyed) {
            let name = table.name().to_owned();
            if let Some(version) = table.position(&name).await? {
                let hash = table.position(&hash_name(&name)).await?;
                positions.insert(name, (u64::try_from(version).unwrap_or_default(), hash));
            }
        }
        Ok(positions)
    }

    /// Names the replay that put these tables in their places, 0 when none did. None while a replay has put some of them
    /// there and not the others.
    pub async fn swap(&mut self) -> Result<Option<i64>> {
        let mut swaps = BTreeSet::new();
        let keyed = self.keyed.values_mut().map(PublishedTable::table_mut);
        for table in self.appends.values_mut().chain(keyed) {
            let application = swap_name(table.name());
            swaps.insert(table.position(&application).await?.unwrap_or(0));
        }
        Ok(if swaps.len() <= 1 { swaps.pop_first().or(Some(0)) } else { None })
    }

    /// Version of each table.
    pub fn versions(&self) -> BTreeMap<String, u64> {
        let keyed = self.keyed.values().map(PublishedTable::table);
        self.appends.values().chain(keyed).map(|table| (table.name().to_owned(), table.version())).collect()
    }

    /// Finds the changes that waited when the process ended; true when there are some.
    pub async fn find_waiting(&mut self, step: &mut Step<'_>) -> Result<bool> {
        let mut is_behind = false;
        for table in self.keyed.values_mut() {
            is_behind |= table.find_waiting(step).await?;
        }
        Ok(is_behind)
    }

    /// Whether changes wait that are due, or any with `all`.
    pub fn is_due(&self, all: bool) -> bool {
        self.keyed.iter().any(|(name, table)| table.is_due(when(&self.publishing, name), all))
    }

    /// Commits what waits in the tables where it is due, or in `all`; true when a part is left, of a new table
    /// that takes every row. The keyed tables' rows are those of `folds`.
    pub async fn publish(
        &mut self,
        step: &mut Step<'_>,
        folds: &mut [FoldPlan],
        position: Position,
        all: bool,
    ) -> Result<bool> {
        let mut is_more = false;
        for fold in folds {
            let name = silver_name(&fold.name);
            let Some(table) = self.keyed.get_mut(&name) else { continue };
            if !table.is_due(when(&self.publishing, &name), all) {
                continue;
            }
            let prepared = match table.take_waiting(step) {
                Some(Waiting::Keys(keys)) => table.prepare_keys(step, keys, fold).await?,
                Some(Waiting::Every { after }) => {
                    let (changes, last) = fold.next_rows(step, after.as_ref(), PART_ROWS).await?;
                    table.written_to(step, last);
                    table.prepare(step, changes).await?
                }
                None => continue,
            };
            let is_last = !table.is_behind();
            is_more |= !is_last;
            let positions = position.transactions(&name);
            let traces = if is_last { self.waiting.remove(&name).unwrap_or_default() } else { Traces::default() };
            let began = Instant::now();
            table.commit(prepared, if is_last { &positions } else { &[] }, &traces).await?;
            TimedCommit::ended(&name, began);
            table.table().checkpoint_when_due();
        }
        Ok(is_more)
    }

    /// Takes the rows that a step appends. Tables that `has` the position already take none.
    pub fn appending(&self, has: impl Fn(&str) -> bool) -> Appending {
        let tables = self.appends.iter().filter(|(name, _)| !has(name));
        Appending::new(tables.map(|(name, table)| (name.clone(), table.staging())).collect())
    }

    /// Commits a step's output: all tables at once, each with the position. Tables that `has` the position already are
    /// left alone; of those, keyed ones have their slots read anew, because the files are from an earlier attempt.
    pub(crate) async fn commit(
        &mut self,
        step: &mut Step<'_>,
        plan: &mut PipelinePlan,
        output: StepOutput,
        mut appending: Appending,
        position: Position,
        has: impl Fn(&str) -> bool,
    ) -> Result<Vec<TimedCommit>> {
        let traces = &output.traces;
        appending.begin(&quarantine_name(&plan.name), output.quarantine);
        let mut prepared: HashMap<String, Prepared> = HashMap::new();
        for (name, changes) in output.keyed {
            let Some(table) = self.keyed.get_mut(&name) else { continue };
            if has(&name) {
                continue;
            }
            let is_changed = changes.upserts.num_rows() > 0 || !changes.deleted_keys.is_empty();
            let files = match table.due(step, changes, when(&self.publishing, &name))? {
                Due::Nothing => {
                    if is_changed {
                        self.waiting.entry(name).or_default().merge(traces);
                    }
                    continue;
                }
                Due::Changes(changes) => table.prepare(step, changes).await?,
                Due::Keys(keys) => match plan.folds.iter_mut().find(|fold| silver_name(&fold.name) == name) {
                    Some(fold) => table.prepare_keys(step, keys, fold).await?,
                    None => return Err(Error::DamagedState(PublishedTable::waiting_keyspace(&name))),
                },
            };
            if !files.is_empty() {
                prepared.insert(name, files);
            }
        }
        for (name, table) in &mut self.keyed {
            if has(name) {
                table.take_over(step).await?;
            }
        }
        let mut appended = appending.written().await?;
        let append = self.appends.iter_mut().filter_map(|(name, table)| {
            let file = appended.remove(name)?;
            Some(async move {
                let began = Instant::now();
                table.commit_traced(Vec::new(), vec![file], &position.transactions(name), traces).await?;
                let commit = TimedCommit::ended(name, began);
                table.checkpoint_when_due();
                Ok::<_, crate::Error>(commit)
            })
        });
        let publish = self.keyed.iter_mut().filter_map(|(name, table)| {
            let files = prepared.remove(name)?;
            let mut all = self.waiting.remove(name).unwrap_or_default();
            all.merge(traces);
            Some(async move {
                let began = Instant::now();
                table.commit(files, &position.transactions(name), &all).await?;
                let commit = TimedCommit::ended(name, began);
                table.table().checkpoint_when_due();
                Ok::<_, crate::Error>(commit)
            })
        });
        let (append, publish) = (append.collect::<Vec<_>>(), publish.collect::<Vec<_>>());
        let (appended, published) = tokio::try_join!(try_join_all(append), try_join_all(publish))?;
        self.compact().await?;
        Ok(appended.into_iter().chain(published).collect())
    }

    /// Exchanges small files of append tables that are merged by now, and begins to merge others.
    async fn compact(&mut self) -> Result<()> {
        for (name, table) in &mut self.appends {
            if let Some(compaction) = self.compactions.remove(name) {
                if compaction.is_done() {
                    compaction.commit(table).await?;
                } else {
                    self.compactions.insert(name.clone(), compaction);
                }
            } else if let Some(begun) = Compaction::begin(&self.lake, table) {
                self.compactions.insert(name.clone(), begun);
            }
        }
        Ok(())
    }
}

/// When the files of a table take changes.
fn when(publishing: &HashMap<String, Publish>, table: &str) -> Publish {
    publishing.get(table).copied().unwrap_or(Publish::AtOnce)
}
