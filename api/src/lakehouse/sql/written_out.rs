//! How large expressions become when the columns of the queries below are written out in them.
//!
//! The planner does that when it moves a condition down through a query: a sum of a hundred columns, each of which is such a
//! sum, is ten thousand parts, then a million. That memory is in no pool and no deadline ends that work, so it is found out
//! before.

use karat_lake::datafusion::{
    common::{
        Column, DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, LogicalPlan},
};

/// The parts of the largest expression of a plan. A subquery in an expression is a plan of its own, and counts as one part.
pub(super) fn largest(plan: &LogicalPlan) -> Result<usize> {
    let mut largest = 0;
    sizes(plan, &mut largest)?;
    Ok(largest)
}

/// For each column of the plan, its parts; for those of a union, a join and the like, as many as the largest has.
fn sizes(plan: &LogicalPlan, largest: &mut usize) -> Result<Vec<usize>> {
    let mut below = Vec::new();
    for input in plan.inputs() {
        below.push(sizes(input, largest)?);
    }
    let most = below.iter().flatten().copied().max().unwrap_or(1);
    let columns = match (plan, &below[..]) {
        (LogicalPlan::Projection(projection), [columns]) => {
            let of_column = sizes_in(projection.input.schema(), columns);
            projection.expr.iter().map(|expr| size_of(expr, &of_column)).collect::<Result<Vec<usize>>>()?
        }
        (LogicalPlan::Aggregate(aggregate), [columns]) => {
            let of_column = sizes_in(aggregate.input.schema(), columns);
            let groups = aggregate.group_expr.iter().map(|expr| size_of(expr, &of_column));
            let groups = groups.collect::<Result<Vec<usize>>>()?;
            vec![groups.into_iter().max().unwrap_or(1); plan.schema().fields().len()]
        }
        (LogicalPlan::Filter(filter), [columns]) => {
            let size = size_of(&filter.predicate, &sizes_in(filter.input.schema(), columns))?;
            *largest = size.max(*largest);
            columns.clone()
        }
        (LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_), [columns]) => columns.clone(),
        (LogicalPlan::Join(join), _) => {
            if let Some(condition) = &join.filter {
                *largest = size_of(condition, &|_: &Column| most)?.max(*largest);
            }
            vec![most; plan.schema().fields().len()]
        }
        _ => vec![most; plan.schema().fields().len()],
    };
    *largest = columns.iter().copied().fold(*largest, usize::max);
    Ok(columns)
}

/// The size of a column of `schema`, of whose columns these are the sizes.
fn sizes_in(schema: &DFSchema, sizes: &[usize]) -> impl Fn(&Column) -> usize {
    move |column: &Column| schema.maybe_index_of_column(column).and_then(|at| sizes.get(at)).copied().unwrap_or(1)
}

fn size_of(expr: &Expr, of_column: &impl Fn(&Column) -> usize) -> Result<usize> {
    let mut size = 0_usize;
    expr.apply(|part| {
        let parts = if let Expr::Column(column) = part { of_column(column) } else { 1 };
        size = size.saturating_add(parts);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(size)
}
