//! Which SQL can be cut at its aggregate, and where.

use std::{collections::BTreeSet, sync::Arc};

use karat_lake::{
    arrow::datatypes::{Field, Schema, SchemaRef},
    datafusion::{
        common::tree_node::{Transformed, TreeNode},
        logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, col, expr::AggregateFunction},
    },
};

use super::{GROUPS, refused};
use crate::{
    Result,
    gold::groupwise,
    query::{Planner, Query, plain_type},
    value::{self, Column, Value},
};

/// The only aggregate, and everything above it has one input.
pub(super) fn lowest_aggregate(plan: &LogicalPlan) -> Result<Aggregate> {
    let mut found = None;
    let mut next = plan;
    loop {
        if let LogicalPlan::Aggregate(aggregate) = next {
            found = Some(aggregate);
        }
        next = match next.inputs().as_slice() {
            [] => break,
            [input] => input,
            // Below the aggregate there may be a union of row-wise parts.
            _ if found.is_some() => break,
            _ => return Err(refused("it has several inputs above its GROUP BY")),
        };
    }
    found.cloned().ok_or_else(|| refused("it has no GROUP BY and no aggregate"))
}

/// Refuses what depends on how the rows were cut into batches: lists and picks without an order, and, unless merge was
/// asked for by name, digests, which are near the truth either way (decision 4).
pub(super) fn refuse_undecided(aggregate: &Aggregate, is_declared: bool) -> Result<()> {
    const PICKS: [&str; 6] = ["array_agg", "string_agg", "first_value", "last_value", "nth_value", "any_value"];
    const DIGESTS: [&str; 3] = ["approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight"];
    for expr in &aggregate.aggr_expr {
        let function = if let Expr::Alias(alias) = expr { alias.expr.as_ref() } else { expr };
        let Expr::AggregateFunction(AggregateFunction { func, params }) = function else { continue };
        if PICKS.contains(&func.name()) && params.order_by.is_empty() {
            return Err(refused(&format!("`{expr}` depends on the order of rows: give it an ORDER BY")));
        }
        if DIGESTS.contains(&func.name()) && !is_declared {
            return Err(refused(&format!(
                "`{expr}` depends a little on how rows were cut into batches: use `percentile` or `median`, or ask for \
                 refresh `merge`"
            )));
        }
    }
    Ok(())
}

/// Output columns that are the groups, in their order.
pub(super) fn key_columns(
    plan: &LogicalPlan,
    aggregate: &Aggregate,
    carried: &groupwise::Carried,
) -> Result<Vec<String>> {
    let output = |(index, columns): (usize, &BTreeSet<usize>)| match columns.first() {
        Some(column) => Ok(plan.schema().field(*column).name().clone()),
        None => Err(refused(&format!("it groups by `{}` and does not select it", aggregate.group_expr[index]))),
    };
    carried.iter().enumerate().map(output).collect()
}

/// Columns c0, c1, ...: the aggregate's groups, then its results, in DataFusion's types.
pub(super) fn groups_schema(aggregate: &Aggregate, num_groups: usize) -> Result<SchemaRef> {
    let mut fields = Vec::new();
    for (index, field) in aggregate.schema.fields().iter().enumerate() {
        if index < num_groups {
            Column::new(&value::to_array(&plain_type(field.data_type()), &[Value::Null])?)?;
        }
        fields.push(Field::new(format!("c{index}"), field.data_type().clone(), field.is_nullable()));
    }
    let is_plain = |expr: &Expr| !matches!(expr, Expr::GroupingSet(_));
    if !aggregate.group_expr.iter().all(is_plain) {
        return Err(refused("groups of GROUPING SETS, ROLLUP and CUBE cannot be told apart in its result"));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The plan with its aggregate replaced by a table of groups.
pub(super) async fn results_over_groups(plan: LogicalPlan, aggregate: &Aggregate, groups: &SchemaRef) -> Result<Query> {
    let planner = Planner::new(&[(GROUPS, groups.clone())])?;
    let scan = planner.logical(&format!("SELECT * FROM {GROUPS}")).await?;
    let names =
        aggregate.schema.iter().enumerate().map(|(index, (qualifier, field))| {
            col(format!("c{index}")).alias_qualified(qualifier.cloned(), field.name())
        });
    let replacement = LogicalPlanBuilder::from(scan).project(names.collect::<Vec<_>>())?.build()?;
    let rewritten = plan.transform_down(|node| {
        let is_it = matches!(&node, LogicalPlan::Aggregate(found) if found == aggregate);
        Ok(if is_it { Transformed::complete(replacement.clone()) } else { Transformed::no(node) })
    })?;
    planner.query(rewritten.data)
}
