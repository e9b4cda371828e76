//! SQL planned once, run on batch after batch.
//!
//! Planning SQL costs milliseconds, running it on a small batch far less. A [`Query`] keeps the optimised logical plan
//! over *slots*, tables whose rows are put in before each run, and only makes the physical plan anew.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use karat_lake::{
    arrow::{
        array::{Array, ArrayRef, RecordBatch, RecordBatchOptions},
        compute::cast,
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    },
    datafusion::{
        catalog::{Session, TableProvider},
        common::tree_node::{TreeNode, TreeNodeRecursion},
        datasource::{memory::MemorySourceConfig, provider_as_source},
        error::Result as SqlResult,
        execution::{SessionStateBuilder, context::SQLOptions, session_state::SessionState},
        logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, TableType, col},
        optimizer::Optimizer,
        physical_optimizer::optimizer::PhysicalOptimizer,
        physical_plan::{ExecutionPlan, collect},
        prelude::{SessionConfig, SessionContext},
    },
    sql::changing_function,
};
use parking_lot::Mutex;

use crate::{Error, Result, batches::join, decode::ROW, functions};

/// Rows of a step at most, nearly always: smaller batches would be cut apart and then put together again.
const LARGEST_BATCH: usize = 131_072;

/// A table whose rows are put in before a run.
#[derive(Debug)]
struct Slot {
    schema: SchemaRef,
    rows: Mutex<Vec<RecordBatch>>,
}

#[async_trait]
impl TableProvider for Slot {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> SqlResult<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.lock().clone();
        Ok(MemorySourceConfig::try_new_exec(&[rows], self.schema.clone(), projection.cloned())?)
    }
}

/// A planned query. See the module.
pub struct Query {
    state: SessionState,
    plan: LogicalPlan,
    slots: HashMap<String, Arc<Slot>>,
    schema: SchemaRef,
}

/// Plans queries over declared tables.
pub struct Planner {
    context: SessionContext,
    slots: HashMap<String, Arc<Slot>>,
}

impl Planner {
    /// A planner that knows `tables`, by name and schema.
    pub fn new(tables: &[(&str, SchemaRef)]) -> Result<Self> {
        // One partition: rows keep their order, and the stages of the pipeline are what runs in parallel.
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(LARGEST_BATCH)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
        // Aggregates stay as they are written: stored state is that of one aggregate over the rows, so none may be cut
        // into two or answered from statistics.
        let mut rules = Optimizer::new().rules;
        rules.retain(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
        let mut physical_rules = PhysicalOptimizer::new().rules;
        physical_rules.retain(|rule| rule.name() != "aggregate_statistics");
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .with_optimizer_rules(rules)
            .with_physical_optimizer_rules(physical_rules);
        let context = SessionContext::new_with_state(state.build());
        functions::register(&context);
        let mut slots = HashMap::new();
        for (name, schema) in tables {
            let slot = Arc::new(Slot { schema: schema.clone(), rows: Mutex::default() });
            context.register_table(*name, slot.clone())?;
            slots.insert((*name).to_owned(), slot);
        }
        Ok(Self { context, slots })
    }

    /// Names of the tables that the SQL reads, known to this planner or not; each once.
    pub fn tables_of(&self, sql: &str) -> Result<Vec<String>> {
        let state = self.context.state();
        let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
        let tables = state.resolve_table_references(&statement)?.into_iter();
        Ok(tables.map(|table| table.table().to_owned()).collect())
    }

    /// The plan of one `SELECT`, as written: not optimised.
    pub async fn logical(&self, sql: &str) -> Result<LogicalPlan> {
        let plan = self.context.state().create_logical_plan(sql).await?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan)?;
        Ok(plan)
    }

    /// The plan of all rows of a table of this planner.
    pub fn scan(&self, table: &str) -> Result<LogicalPlan> {
        let slot = self.slots.get(table).ok_or_else(|| Error::Declaration(format!("no table `{table}`")))?;
        Ok(LogicalPlanBuilder::scan(table, provider_as_source(slot.clone()), None)?.build()?)
    }

    /// The plan with its types settled, its columns pruned and its subqueries joined, where that is possible.
    pub fn optimized(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        Ok(self.context.state().optimize(plan)?)
    }

    /// Makes a plan ready to run.
    pub fn query(&self, plan: LogicalPlan) -> Result<Query> {
        Ok(self.as_it_is(self.optimized(&plan)?))
    }

    /// Makes an optimised plan, or a part of one, ready to run.
    pub fn as_it_is(&self, plan: LogicalPlan) -> Query {
        let schema = plain_schema(plan.schema().as_arrow());
        Query { state: self.context.state(), plan, slots: self.slots.clone(), schema }
    }

    /// Plans `sql`.
    pub async fn select(&self, sql: &str) -> Result<Query> {
        let plan = self.logical(sql).await?;
        self.query(plan)
    }

    /// Plans a row-wise `SELECT` (decision 6) and carries the columns `carried` through it, whether it names them or not.
    pub async fn row_wise(&self, sql: &str, carried: &[&str]) -> Result<Query> {
        let plan = self.logical(sql).await?;
        refuse_unless_row_wise(&plan)?;
        let LogicalPlan::Projection(Projection { expr, input, .. }) = plan else {
            return Err(Error::Declaration("silver SQL must be a SELECT of columns".to_owned()));
        };
        let is_carried = |expr: &Expr| matches!(expr, Expr::Column(column) if carried.contains(&column.name.as_str()));
        let mut columns: Vec<Expr> = expr.into_iter().filter(|expr| !is_carried(expr)).collect();
        columns.extend(carried.iter().map(|name| col(*name)));
        self.query(LogicalPlanBuilder::from(input.as_ref().clone()).project(columns)?.build()?)
    }
}

impl Query {
    /// Columns of the result, in the plain types that tables hold ([`plain_type`]).
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns of `table` that a run reads.
    pub fn columns_of(&self, table: &str) -> Result<HashSet<String>> {
        let mut names = HashSet::new();
        self.plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && scan.table_name.table() == table
            {
                names.extend(scan.projected_schema.fields().iter().map(|field| field.name().clone()));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(names)
    }

    /// Runs on the given rows; tables that are not listed are empty. The result is one batch.
    pub async fn run(&mut self, inputs: &[(&str, RecordBatch)]) -> Result<RecordBatch> {
        let plan = self.physical(inputs).await?;
        let batches = self.collect(plan).await?;
        let batches = batches.iter().map(|batch| plain(&self.schema, batch)).collect::<Result<Vec<_>>>()?;
        join(&self.schema, batches)
    }

    /// The plan over the given rows, to be run by [`Query::collect`], whole or in parts.
    pub async fn physical(&self, inputs: &[(&str, RecordBatch)]) -> Result<Arc<dyn ExecutionPlan>> {
        for (name, rows) in inputs {
            let slot = self.slots.get(*name).ok_or_else(|| Error::Declaration(format!("no table `{name}`")))?;
            *slot.rows.lock() = vec![rows.clone()];
        }
        let planned = self.state.query_planner().create_physical_plan(&self.plan, &self.state).await;
        for (name, _) in inputs {
            if let Some(slot) = self.slots.get(*name) {
                slot.rows.lock().clear();
            }
        }
        Ok(planned?)
    }

    /// Runs a physical plan.
    pub async fn collect(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
        Ok(collect(plan, self.state.task_ctx()).await?)
    }
}

/// Silver SQL sees one row at a time: no joins, groups, windows, order, limits, or functions that change by themselves.
fn refuse_unless_row_wise(plan: &LogicalPlan) -> Result<()> {
    let mut problem = None;
    plan.apply(|node| {
        let is_allowed = matches!(
            node,
            LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::TableScan(_)
                | LogicalPlan::SubqueryAlias(_)
        );
        if !is_allowed {
            problem = Some(node.display().to_string());
            return Ok(TreeNodeRecursion::Stop);
        }
        problem = problem.take().or(changing_function(node)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    match problem {
        None => Ok(()),
        Some(found) => Err(Error::Declaration(format!(
            "silver SQL must work row by row, so that replay agrees (no joins, groups, windows, order, limit or \
             volatile functions); found: {found}"
        ))),
    }
}

/// Refuses functions that give something else at another time (decision 6): a replay would not agree.
pub fn refuse_changing_functions(plan: &LogicalPlan) -> Result<()> {
    let mut problem = None;
    plan.apply_with_subqueries(|node| {
        problem = problem.take().or(changing_function(node)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    match problem {
        None => Ok(()),
        Some(found) => {
            Err(Error::Declaration(format!("`{found}` gives something else each time, so a replay would not agree")))
        }
    }
}

/// The type in which a table holds values of `data_type`: readable by every engine (spec M3).
pub fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Date64 => DataType::Date32,
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    }
}

fn plain_schema(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| {
        let data_type = if field.name() == ROW { DataType::UInt32 } else { plain_type(field.data_type()) };
        Field::new(field.name(), data_type, true)
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn plain(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| -> Result<ArrayRef> {
        let is_same = column.data_type() == field.data_type();
        Ok(if is_same { Arc::clone(column) } else { cast(column, field.data_type())? })
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_>>()?, &options)?)
}

#[cfg(test)]
mod tests {
    use karat_lake::arrow::array::{AsArray, Int64Array, UInt32Array};

    use super::*;

    fn rows(values: &[i64]) -> RecordBatch {
        let rows = UInt32Array::from_iter_values(0..u32::try_from(values.len()).unwrap());
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new(ROW, DataType::UInt32, true)]);
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(values.to_vec())), Arc::new(rows)];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[tokio::test]
    async fn a_query_runs_on_batch_after_batch_and_keeps_row_numbers() {
        let planner = Planner::new(&[("t", rows(&[]).schema())]).unwrap();
        let mut query = planner.row_wise("SELECT a * 2 AS b FROM t WHERE a > 1", &[ROW]).await.unwrap();
        for _ in 0..2 {
            let result = query.run(&[("t", rows(&[1, 2, 3]))]).await.unwrap();
            assert_eq!(
                result.column_by_name("b").unwrap().as_primitive::<karat_lake::arrow::datatypes::Int64Type>().values(),
                &[4, 6]
            );
            assert_eq!(
                result.column_by_name(ROW).unwrap().as_primitive::<karat_lake::arrow::datatypes::UInt32Type>().values(),
                &[1, 2]
            );
        }
    }

    #[tokio::test]
    async fn what_is_not_row_by_row_is_refused_in_silver() {
        let planner = Planner::new(&[("t", rows(&[]).schema())]).unwrap();
        for sql in [
            "SELECT sum(a) AS s FROM t",
            "SELECT a FROM t LIMIT 1",
            "SELECT a, random() AS r FROM t",
            "SELECT a, now() AS r FROM t",
            "SELECT DISTINCT a FROM t",
        ] {
            assert!(matches!(planner.row_wise(sql, &[ROW]).await, Err(Error::Declaration(_))), "{sql}");
        }
        assert!(planner.logical("DROP TABLE t").await.is_err());
    }
}
