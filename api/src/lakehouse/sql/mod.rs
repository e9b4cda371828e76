//! Read-only SQL over the tables of an epoch of each pipeline.
//!
//! - One `SELECT` a question: its text, its statement and its plan are each judged (`guard`, `statement`), and its context
//!   has the tables of the epoch that it names and nothing else: no files, no addresses, no settings.
//! - Each question has a pool of memory of its own, writes nothing to disk, and ends at a deadline. A few run at a time.
//! - What functions make is in no pool. A value of one has a bound that is found before it is made (`growth`), so that those of a
//!   batch take as much as the pool at most; functions whose values have no such bound are left out (`LEFT_OUT`).
//! - It runs on threads of its own, whose stacks are as deep as what is let through needs, and beside those that answer other
//!   requests. Dropping the future of a question ends its work at the next batch.
//!
//! Not bounded: what an aggregate made of many rows (`string_agg`), within the pool, and a join then puts on every row of a batch.

mod error;
mod growth;
mod guard;
mod joined;
mod statement;
mod written_out;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::TryStreamExt;
use karat_http::ApiError;
use karat_lake::datafusion::{
    catalog::MemorySchemaProvider,
    dataframe::DataFrame,
    error::DataFusionError,
    execution::{
        SessionStateBuilder,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::{SessionConfig, SessionContext},
};
use serde_json::value::RawValue;

pub(crate) use self::{error::is_of_values, guard::MAX_CHARS};
use self::{
    error::{not_answered, not_planned},
    growth::{BATCH_ROWS, PARTITIONS, ValueBound, bounded_functions},
    joined::BoundedPlanner,
};
use super::{
    json::{JsonRows, Shape},
    tables::Tables,
    types::type_name,
};
use crate::serving::{ServingCounters, Threads, Turns, in_time};

/// Layers whose tables are asked.
const LAYERS: [&str; 3] = ["gold", "silver", "quarantine"];
/// Functions whose values can be far larger than what they read.
const LEFT_OUT: [&str; 14] = [
    "repeat",
    "lpad",
    "rpad",
    "range",
    "generate_series",
    "gen_series",
    "array_repeat",
    "array_resize",
    "array_replace",
    "array_replace_n",
    "array_replace_all",
    "array_to_string",
    "array_transform",
    "arrays_zip",
];

/// Bounds of questions in SQL.
#[derive(Debug, Clone)]
pub struct SqlSettings {
    /// The longest that a question may take.
    pub deadline: Duration,
    /// Memory for all questions at a time, in bytes.
    pub memory_bytes: usize,
    /// Questions at a time; further ones are refused.
    pub parallel: usize,
    /// An answer ends before it would be larger.
    pub answer_bytes: usize,
}

impl Default for SqlSettings {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), memory_bytes: 256 << 20, parallel: 2, answer_bytes: 8 << 20 }
    }
}

/// Answers questions. Shared by every request.
pub(crate) struct SqlReader {
    tables: Arc<Tables>,
    threads: Threads,
    turns: Turns,
    settings: SqlSettings,
}

/// The answer to a question.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Name and type of each column.
    pub(crate) columns: Vec<(String, String)>,
    /// The full names of the tables that were read.
    pub(crate) tables: Vec<String>,
    /// A list of rows, each a list of values.
    pub(crate) rows: Box<RawValue>,
    pub(crate) num_rows: usize,
    /// Whether there are more rows than these.
    pub(crate) is_truncated: bool,
}

impl SqlReader {
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn new(
        tables: Arc<Tables>,
        settings: SqlSettings,
        counters: &Arc<ServingCounters>,
    ) -> Result<Self, ApiError> {
        let threads = Threads::new("sql", settings.parallel)?;
        // Nobody waits: a question may take as long as its deadline.
        let turns = Turns::new(settings.parallel, 0, counters);
        Ok(Self { tables, threads, turns, settings })
    }

    /// Answers `sql` from these versions of tables, by full name, with at most `limit` rows.
    ///
    /// # Errors
    /// 400 for what is not answered; 422 for what fails on the values or takes too much memory; 503 when too many run; 504
    /// at the deadline.
    pub(crate) async fn answer(
        &self,
        sql: String,
        versions: &BTreeMap<String, u64>,
        limit: usize,
    ) -> Result<Answered, ApiError> {
        guard::check(&sql)?;
        let turn = self.turns.next().await?;
        let is_asked = |name: &str| name.split_once('.').is_some_and(|(layer, _)| LAYERS.contains(&layer));
        let versions = versions.iter().filter(|(name, _)| is_asked(name.as_str()));
        let work = Work {
            tables: Arc::clone(&self.tables),
            versions: versions.map(|(name, version)| (name.clone(), *version)).collect(),
            memory_bytes: self.settings.memory_bytes / self.settings.parallel.max(1),
            answer_bytes: self.settings.answer_bytes,
            limit,
        };
        let ended = self.threads.run(turn, async move { work.answer(&sql).await });
        in_time(self.settings.deadline, ended).await
    }
}

/// A question under way.
struct Work {
    tables: Arc<Tables>,
    versions: BTreeMap<String, u64>,
    memory_bytes: usize,
    answer_bytes: usize,
    limit: usize,
}

impl Work {
    async fn answer(&self, sql: &str) -> Result<Answered, ApiError> {
        let bound = ValueBound::within(self.memory_bytes);
        let context = self.context(&bound).map_err(ApiError::internal)?;
        let state = context.state();
        let parsed = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect);
        let parsed = parsed.map_err(|error| not_planned(error, None))?;
        let unknown_function = statement::check_statement(&parsed, &state)?;
        let asked = statement::tables_of(&parsed, &state, &self.versions)?;
        for (name, version) in &asked {
            let provider = self.tables.provider(name, *version).await.map_err(ApiError::internal)?;
            context.register_table(name.as_str(), provider).map_err(ApiError::internal)?;
        }
        // With the tables that are there now.
        let state = context.state();
        let planned = state.statement_to_plan(parsed).await;
        let plan = planned.map_err(|error| not_planned(error, unknown_function.as_deref()))?;
        statement::check_plan(&plan)?;
        bound.divide_among(&plan).map_err(ApiError::internal)?;
        let columns = plan.schema().fields().iter();
        let columns = columns.map(|field| (field.name().clone(), type_name(field.data_type()))).collect();
        // One more than asked tells whether there are more.
        let frame = DataFrame::new(state, plan).limit(0, Some(self.limit.saturating_add(1)));
        let stream = async { frame?.execute_stream().await };
        let mut stream = stream.await.map_err(|error| not_planned(error, unknown_function.as_deref()))?;
        let mut rows = JsonRows::new(Shape::Lists, self.limit, self.answer_bytes);
        let mut is_truncated = false;
        while let Some(batch) = stream.try_next().await.map_err(not_answered)? {
            if !rows.add(&batch).map_err(ApiError::internal)? {
                is_truncated = true;
                break;
            }
        }
        let num_rows = rows.len();
        let tables = asked.into_iter().map(|(name, _)| name).collect();
        Ok(Answered { columns, tables, rows: rows.finish().map_err(ApiError::internal)?, num_rows, is_truncated })
    }

    /// A context without tables, which can reach nothing.
    fn context(&self, bound: &ValueBound) -> Result<SessionContext, DataFusionError> {
        let no_disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(self.memory_bytes, 1.0)
            .with_disk_manager_builder(no_disk)
            .build_arc()?;
        let config = SessionConfig::new()
            .with_target_partitions(PARTITIONS)
            .with_batch_size(BATCH_ROWS)
            .with_information_schema(false)
            .set_bool("datafusion.execution.enable_recursive_ctes", false);
        let functions = bounded_functions(bound);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_expr_planners(vec![Arc::new(BoundedPlanner::new(&functions, bound))])
            .with_default_features();
        let context = SessionContext::new_with_state(state.build());
        functions.into_iter().for_each(|function| context.register_udf(function));
        for name in LEFT_OUT {
            context.deregister_udf(name);
            context.deregister_udtf(name);
            context.deregister_higher_order_function(name);
        }
        let catalog = context.catalog("datafusion");
        let catalog = catalog.ok_or_else(|| DataFusionError::Internal("there is no catalog".to_owned()))?;
        for layer in LAYERS {
            catalog.register_schema(layer, Arc::new(MemorySchemaProvider::new()))?;
        }
        Ok(context)
    }
}
