//! Aggregates in their roles: over rows, over states, and to values.

use std::sync::Arc;

use karat_lake::{
    arrow::datatypes::{Field, Schema, SchemaRef},
    datafusion::{
        datasource::memory::MemorySourceConfig,
        physical_expr::aggregate::AggregateFunctionExpr,
        physical_plan::{
            ExecutionPlan,
            aggregates::{AggregateExec, AggregateInputMode, AggregateMode},
        },
    },
};

use super::refused;
use crate::{Result, query::Query};

/// The aggregate in another role.
pub(super) fn node(
    aggregate: &AggregateExec,
    mode: AggregateMode,
    input: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let functions = aggregate.aggr_expr();
    let is_raw = mode.input_mode() == AggregateInputMode::Raw;
    let (groups, functions, filters) = if is_raw {
        (aggregate.group_expr().clone(), functions.to_vec(), aggregate.filter_expr().to_vec())
    } else {
        (
            aggregate.group_expr().as_final(),
            functions.iter().map(merging).collect::<Result<_>>()?,
            vec![None; functions.len()],
        )
    };
    Ok(Arc::new(AggregateExec::try_new(mode, groups, functions, filters, input, aggregate.input_schema())?))
}

/// The function that merges the state of `function`.
///
/// The planner fits functions to the order in which they read rows, and states come in another:
/// - A function that reads sorted rows takes the newest as the last without comparing; this one compares.
/// - A function may be turned around to spare a sort. The lists of the two named here are left in the declared order
///   all the same, so they are merged in that order.
fn merging(function: &Arc<AggregateFunctionExpr>) -> Result<Arc<AggregateFunctionExpr>> {
    let is_turned_back = function.is_reversed() && ["array_agg", "string_agg"].contains(&function.fun().name());
    let declared = if is_turned_back { function.reverse_expr().map(Arc::new) } else { None };
    let function = declared.unwrap_or_else(|| Arc::clone(function));
    let comparing = Arc::clone(&function).with_beneficial_ordering(false)?;
    Ok(comparing.map_or(function, Arc::new))
}

/// The aggregation over rows in a physical plan.
pub(super) fn raw_aggregate(plan: &Arc<dyn ExecutionPlan>) -> Result<&AggregateExec> {
    let mut next = plan;
    loop {
        if let Some(aggregate) = next.downcast_ref::<AggregateExec>()
            && aggregate.mode().input_mode() == AggregateInputMode::Raw
        {
            return Ok(aggregate);
        }
        next = match next.children().as_slice() {
            [child] => child,
            _ => return Err(refused("it is not planned as one aggregation")),
        };
    }
}

/// Schema of the partial state; checks that the aggregate is planned as one.
pub(super) async fn state_schema(aggregate: &Query, num_columns: usize) -> Result<SchemaRef> {
    let plan = aggregate.physical(&[]).await?;
    let raw = raw_aggregate(&plan)?;
    let partial = node(raw, AggregateMode::Partial, Arc::clone(raw.input()))?;
    let memory = MemorySourceConfig::try_new_exec(&[vec![]], partial.schema(), None)?;
    let last = node(raw, AggregateMode::Final, memory)?;
    if last.schema().fields().len() != num_columns {
        return Err(refused("its aggregate is not planned as it is written"));
    }
    // Names are those that the merging aggregate looks for; that a column has no NULL need not hold for stored state.
    let fields: Vec<Field> =
        partial.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Ok(Arc::new(Schema::new(fields)))
}
