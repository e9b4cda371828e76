//! Which refresh serves a gold table.

use karat_lake::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    require_storable,
};
use karat_schemas::pipelines::{Gold, Refresh};

use super::{
    GoldChanges,
    accumulate::AccumulatePlan,
    full::FullPlan,
    keys::KeysPlan,
    merge::{Coarser, MergePlan},
};
use crate::{
    Error, Result,
    query::{Planner, refuse_changing_functions},
    reference::ReferenceRows,
    silver::fold::weighted_schema,
    state::Step,
    value::Value,
};

/// A planned gold table.
pub struct GoldPlan {
    mode: Mode,
    reason: String,
    input: SchemaRef,
}

enum Mode {
    Merge(Box<MergePlan>),
    Accumulate(Box<AccumulatePlan>),
    Keys(Box<KeysPlan>),
    Full(Box<FullPlan>),
}

/// What a gold table is computed from.
pub struct Source<'a> {
    pub table: &'a str,
    pub schema: &'a SchemaRef,
    /// Key columns of a row: the silver key, or partition and offset.
    pub key: &'a [String],
    pub is_append_only: bool,
}

impl GoldPlan {
    /// Plans `gold` over the silver tables; picks the one that its SQL names, and the reference tables.
    pub async fn new(gold: &Gold, sources: &[Source<'_>], references: &[ReferenceRows]) -> Result<(Self, String)> {
        let context = |error: Error| Error::Declaration(format!("gold table `{}`: {error}", gold.name));
        let tables = Planner::new(&[])?.tables_of(&gold.sql).map_err(context)?;
        let known = |table: &String| sources.iter().find(|source| source.table == *table);
        let [source] = tables.iter().filter_map(known).collect::<Vec<_>>()[..] else {
            let found = tables.join("`, `");
            return Err(context(Error::Declaration(format!(
                "its SQL must read one silver table of its pipeline; found `{found}`"
            ))));
        };
        let joined: Vec<&ReferenceRows> =
            references.iter().filter(|reference| tables.contains(&reference.name)).collect();
        let (mode, reason) = Mode::new(gold, source, &joined).await.map_err(context)?;
        tracing::debug!(table = gold.name, refresh = mode.word(), reason, "refresh chosen");
        let plan = Self { mode, reason, input: weighted_schema(source.schema) };
        require_storable(&format!("gold.{}", gold.name), plan.schema())
            .map_err(|error| Error::Declaration(error.to_string()))?;
        Ok((plan, source.table.to_owned()))
    }

    pub fn schema(&self) -> &SchemaRef {
        match &self.mode {
            Mode::Merge(plan) => plan.schema(),
            Mode::Accumulate(plan) => plan.schema(),
            Mode::Keys(plan) => plan.schema(),
            Mode::Full(plan) => plan.schema(),
        }
    }

    /// Columns that name a group; empty for a table of one row.
    pub fn key(&self) -> &[String] {
        match &self.mode {
            Mode::Merge(plan) => plan.key(),
            Mode::Accumulate(plan) => plan.key(),
            Mode::Keys(plan) => plan.key(),
            Mode::Full(plan) => plan.key(),
        }
    }

    /// The word for the refresh, for `karat table show`.
    pub fn refresh(&self) -> &'static str {
        self.mode.word()
    }

    /// Why it is refreshed so, in words that follow "because".
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Schema of the changes that [`GoldPlan::apply`] takes.
    pub fn input(&self) -> &SchemaRef {
        &self.input
    }

    /// Whether the table has rows, or may have, before its silver table does: then it is applied at every step.
    pub fn speaks_of_nothing(&self) -> bool {
        matches!(self.mode, Mode::Full(_)) || self.key().is_empty()
    }

    /// Name of the keyspace that holds the table's state.
    pub fn keyspace(name: &str) -> String {
        format!("gold.{name}")
    }

    /// Takes weighted changes. `now_us` is the time of the batch, for revisions.
    ///
    /// Some changes cannot be taken from state alone; then the groups are returned and [`GoldPlan::recompute`] must be
    /// called with what [`GoldPlan::needed_of`] makes of every row of the silver table.
    ///
    /// `grouped` is what [`GoldPlan::grouped`] or a [`Coarser`] made of these changes, when something did.
    pub async fn apply(
        &mut self,
        step: &mut Step<'_>,
        changes: &RecordBatch,
        grouped: Option<RecordBatch>,
        now_us: i64,
    ) -> Result<Applied> {
        match &mut self.mode {
            Mode::Merge(plan) => {
                let grouped = match grouped {
                    Some(grouped) => grouped,
                    None => plan.grouped(changes).await?,
                };
                plan.apply(step, &grouped, now_us).await
            }
            Mode::Accumulate(plan) => plan.apply(step, changes, now_us).await,
            Mode::Keys(plan) => plan.apply(step, changes).await,
            Mode::Full(plan) => plan.apply(step, changes).await,
        }
    }

    /// How the changes of this table by group are made of those of `finer`; none when they are not.
    pub fn coarser_than(&self, finer: &Self) -> Result<Option<Coarser>> {
        match (&self.mode, &finer.mode) {
            (Mode::Merge(plan), Mode::Merge(finer)) => Coarser::of(plan, finer),
            _ => Ok(None),
        }
    }

    /// Changed rows by group, for [`GoldPlan::apply`] and coarser tables; none when this table does not group them.
    pub async fn grouped(&mut self, changes: &RecordBatch) -> Result<Option<RecordBatch>> {
        match &mut self.mode {
            Mode::Merge(plan) => plan.grouped(changes).await.map(Some),
            Mode::Accumulate(_) | Mode::Keys(_) | Mode::Full(_) => Ok(None),
        }
    }

    /// What a recomputation of groups needs of some `rows` of the silver table, weight +1 each: little of many. That of several
    /// parts of the table is put together one after the other.
    pub async fn needed_of(&mut self, groups: &[Vec<Value>], rows: &RecordBatch) -> Result<RecordBatch> {
        match &mut self.mode {
            Mode::Merge(plan) => plan.grouped_of(groups, rows).await,
            Mode::Keys(plan) => plan.rows_of(groups, rows),
            Mode::Accumulate(_) | Mode::Full(_) => Err(never_recomputed()),
        }
    }

    /// Recomputes whole groups from what is `needed` of every row of the silver table.
    pub async fn recompute(
        &mut self,
        step: &mut Step<'_>,
        groups: &[Vec<Value>],
        needed: &RecordBatch,
        now_us: i64,
    ) -> Result<GoldChanges> {
        match &mut self.mode {
            Mode::Merge(plan) => plan.recompute(step, needed, now_us).await,
            Mode::Keys(plan) => plan.recompute(step, groups, needed).await,
            Mode::Accumulate(_) | Mode::Full(_) => Err(never_recomputed()),
        }
    }
}

fn never_recomputed() -> Error {
    Error::Declaration("state of this refresh never asks for a recomputation".to_owned())
}

impl Mode {
    /// The declared mode, or with `auto` the cheapest that is right; and why.
    async fn new(gold: &Gold, source: &Source<'_>, joined: &[&ReferenceRows]) -> Result<(Self, String)> {
        refuse_clocks(gold, source, joined).await?;
        let is_declared = "it is declared".to_owned();
        if !joined.is_empty() {
            let is_possible = matches!(gold.refresh, Refresh::Auto | Refresh::Keys) && !gold.key.is_empty();
            if !is_possible {
                let message = "it joins a reference table, which needs refresh `keys`: name its group columns in `key`";
                return Err(Error::Declaration(message.to_owned()));
            }
            let plan = KeysPlan::new(gold, source, joined).await?;
            return Ok((Self::Keys(Box::new(plan)), "it joins a reference table".to_owned()));
        }
        match gold.refresh {
            Refresh::Auto => Self::cheapest(gold, source).await,
            Refresh::Merge => match Self::merged(gold, source).await? {
                Ok((mode, _)) => Ok((mode, is_declared)),
                Err(reasons) => Err(Error::Declaration(format!("it cannot be merged: {reasons}"))),
            },
            Refresh::Keys => {
                let plan = KeysPlan::new(gold, source, &[]).await;
                let plan =
                    plan.map_err(|error| Error::Declaration(format!("it cannot be refreshed by keys: {error}")))?;
                Ok((Self::Keys(Box::new(plan)), is_declared))
            }
            Refresh::Full => Ok((Self::Full(Box::new(FullPlan::new(gold, source).await?)), is_declared)),
        }
    }

    async fn cheapest(gold: &Gold, source: &Source<'_>) -> Result<(Self, String)> {
        let reasons = match Self::merged(gold, source).await? {
            Ok(merged) => return Ok(merged),
            Err(reasons) => reasons,
        };
        let last_resort = "or set `refresh = \"full\"`, which reads the whole silver table at each change";
        if gold.key.is_empty() {
            return Err(Error::Declaration(format!(
                "it cannot be merged ({reasons}), and without `key` it cannot be refreshed by keys: \
                 name its group columns in `key`, {last_resort}"
            )));
        }
        match KeysPlan::new(gold, source, &[]).await {
            Ok(plan) => Ok((Self::Keys(Box::new(plan)), format!("it cannot be merged: {reasons}"))),
            Err(reason) => Err(Error::Declaration(format!(
                "it cannot be merged ({reasons}) nor refreshed by keys ({reason}): change its SQL, {last_resort}"
            ))),
        }
    }

    /// One of the two merges, or why neither can be.
    async fn merged(gold: &Gold, source: &Source<'_>) -> Result<std::result::Result<(Self, String), String>> {
        if gold.latest.is_some() {
            return Ok(Err("`latest` is for refresh `keys`".to_owned()));
        }
        let subtractable = match MergePlan::new(gold, source).await {
            Ok(plan) => {
                let reason = "its aggregates can be added to and subtracted from".to_owned();
                return Ok(Ok((Self::Merge(Box::new(plan)), reason)));
            }
            Err(reason) => reason,
        };
        Ok(match AccumulatePlan::new(gold, source).await {
            Ok(plan) => {
                let reason = format!(
                    "its silver table is only appended to, and the state of its aggregates can be added to; \
                     they cannot be subtracted from: {subtractable}"
                );
                Ok((Self::Accumulate(Box::new(plan)), reason))
            }
            Err(reason) => Err(format!("{subtractable}; {reason}")),
        })
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Merge(_) | Self::Accumulate(_) => "merge",
            Self::Keys(_) => "keys",
            Self::Full(_) => "full",
        }
    }
}

async fn refuse_clocks(gold: &Gold, source: &Source<'_>, joined: &[&ReferenceRows]) -> Result<()> {
    let references = joined.iter().map(|reference| (reference.name.as_str(), reference.rows.schema()));
    let tables: Vec<_> = [(source.table, source.schema.clone())].into_iter().chain(references).collect();
    let planner = Planner::new(&tables)?;
    refuse_changing_functions(&planner.logical(&gold.sql).await?)
}

/// The outcome of [`GoldPlan::apply`].
pub struct Applied {
    pub changes: GoldChanges,
    /// Groups that must be recomputed from the silver rows; `changes` leaves them out.
    pub recompute: Vec<Vec<Value>>,
}

/// Whether the SQL has the name of the table as a word.
pub(crate) fn names_table(sql: &str, table: &str) -> bool {
    sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == table)
}

#[cfg(test)]
mod tests;
