//! Which refresh serves a gold table.

use karat_lake::arrow::datatypes::SchemaRef;
use karat_schemas::pipelines::{Gold, Refresh};

use super::{GoldChanges, keys::KeysPlan, merge::MergePlan};
use crate::{Error, Result, reference::ReferenceRows, state::Step, value::Value};
use karat_lake::arrow::array::RecordBatch;

/// A planned gold table.
pub enum GoldPlan {
    Merge(Box<MergePlan>),
    Keys(Box<KeysPlan>),
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
        let named: Vec<&Source<'_>> = sources.iter().filter(|source| names_table(&gold.sql, source.table)).collect();
        let [source] = named.as_slice() else {
            let message = format!(
                "gold table `{}` must read one silver table of its pipeline; its SQL names {}",
                gold.name,
                named.len()
            );
            return Err(Error::Declaration(message));
        };
        let context = |error: Error| Error::Declaration(format!("gold table `{}`: {error}", gold.name));
        let joined: Vec<&ReferenceRows> =
            references.iter().filter(|reference| names_table(&gold.sql, &reference.name)).collect();
        let plan = match gold.refresh {
            Refresh::Keys => Self::Keys(Box::new(KeysPlan::new(gold, source, &joined).await.map_err(context)?)),
            Refresh::Auto if !joined.is_empty() && !gold.key.is_empty() => {
                Self::Keys(Box::new(KeysPlan::new(gold, source, &joined).await.map_err(context)?))
            }
            _ if !joined.is_empty() => {
                let message = "it joins a reference table, which needs refresh `keys`: name its group columns in `key`";
                return Err(context(Error::Declaration(message.to_owned())));
            }
            Refresh::Merge => Self::Merge(Box::new(MergePlan::new(gold, source).await.map_err(context)?)),
            Refresh::Auto => match MergePlan::new(gold, source).await {
                Ok(plan) => Self::Merge(Box::new(plan)),
                Err(reason) if !gold.key.is_empty() => {
                    tracing::info!(table = gold.name, %reason, "refresh by keys, because the table cannot be merged");
                    Self::Keys(Box::new(KeysPlan::new(gold, source, &joined).await.map_err(context)?))
                }
                Err(reason) => {
                    return Err(context(Error::Declaration(format!(
                        "it cannot be merged ({reason}), and without `key` it cannot be refreshed by keys: name its group columns in `key`"
                    ))));
                }
            },
        };
        Ok((plan, source.table.to_owned()))
    }

    pub fn schema(&self) -> &SchemaRef {
        match self {
            Self::Merge(plan) => plan.schema(),
            Self::Keys(plan) => plan.schema(),
        }
    }

    pub fn key(&self) -> &[String] {
        match self {
            Self::Merge(plan) => plan.key(),
            Self::Keys(plan) => plan.key(),
        }
    }

    /// The word for the refresh, for `karat table show`.
    pub fn refresh(&self) -> &'static str {
        match self {
            Self::Merge(_) => "merge",
            Self::Keys(_) => "keys",
        }
    }

    /// Name of the keyspace that holds the table's state.
    pub fn keyspace(name: &str) -> String {
        format!("gold.{name}")
    }

    /// Takes weighted changes. `now_us` is the time of the batch, for revisions.
    ///
    /// Some changes cannot be taken from state alone; then the groups are returned and [`GoldPlan::recompute`] must be
    /// called with every row of the silver table.
    pub async fn apply(&mut self, step: &mut Step<'_>, changes: &RecordBatch, now_us: i64) -> Result<Applied> {
        match self {
            Self::Merge(plan) => plan.apply(step, changes, now_us).await,
            Self::Keys(plan) => plan.apply(step, changes).await,
        }
    }

    /// Recomputes whole groups from `rows`, every row of the silver table, weight +1 each.
    pub async fn recompute(
        &mut self,
        step: &mut Step<'_>,
        groups: &[Vec<Value>],
        rows: &RecordBatch,
        now_us: i64,
    ) -> Result<GoldChanges> {
        match self {
            Self::Merge(plan) => plan.recompute(step, groups, rows, now_us).await,
            Self::Keys(plan) => plan.recompute(step, groups, rows).await,
        }
    }
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
