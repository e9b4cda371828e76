//! Whether SQL works group by group, and where its result carries the columns that name the group.
//!
//! A query works *group by group* when the rows that it gives for a group depend on the rows of that group alone. Only
//! then may some groups be computed again while the others stay: a window over the whole table, a `LIMIT`, or a total
//! in a subquery would be right when it is written and wrong after the next change elsewhere. So each node of the plan
//! is judged, and one that is not known to keep groups apart is refused with its name.
//!
//! A query is *row-wise* when each row gives its results by itself, whatever rows stand beside it; the result of new
//! rows can then be added to that of old ones.

use std::collections::BTreeSet;

use karat_lake::datafusion::{
    common::{
        DFSchema, JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Distinct, Expr, Join, LogicalPlan},
};

use crate::{Error, Result};

/// For each column that names the group, the output columns that carry it unchanged.
pub(super) type Carried = Vec<BTreeSet<usize>>;

/// Follows the group's columns from the leaf to the result of `plan`, or says what does not work group by group.
///
/// `leaf` says of a node whether the groups begin there, and in which of its columns.
pub(super) fn carried(plan: &LogicalPlan, leaf: &dyn Fn(&LogicalPlan) -> Option<Carried>) -> Result<Carried> {
    if let Some(columns) = leaf(plan) {
        return Ok(columns);
    }
    refuse_subqueries(plan)?;
    let follow = |input: &LogicalPlan| carried(input, leaf);
    match plan {
        LogicalPlan::SubqueryAlias(node) => follow(&node.input),
        LogicalPlan::Filter(node) => follow(&node.input),
        LogicalPlan::Sort(node) if node.fetch.is_none() => follow(&node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => follow(input),
        LogicalPlan::Projection(node) => Ok(passed(&follow(&node.input)?, &node.expr, node.input.schema())),
        LogicalPlan::Aggregate(node) => {
            let columns = passed(&follow(&node.input)?, &node.group_expr, node.input.schema());
            complete(columns, || format!("`{}` puts rows of several groups together", plan.display()))
        }
        LogicalPlan::Distinct(Distinct::On(node)) => {
            let inner = follow(&node.input)?;
            let what = || format!("`{}` puts rows of several groups together", plan.display());
            complete(passed(&inner, &node.on_expr, node.input.schema()), what)?;
            Ok(passed(&inner, &node.select_expr, node.input.schema()))
        }
        LogicalPlan::Window(node) => {
            let inner = follow(&node.input)?;
            for expr in &node.window_expr {
                let Expr::WindowFunction(window) = unaliased(expr) else {
                    return Err(refused(format!("`{expr}` is not understood")));
                };
                let partition = passed(&inner, &window.params.partition_by, node.input.schema());
                complete(partition, || format!("the window `{expr}` is not partitioned by every key column"))?;
            }
            Ok(inner)
        }
        LogicalPlan::Join(node) => match (has_leaf(&node.left, leaf)?, has_leaf(&node.right, leaf)?) {
            (true, false) => joined_with_constant(node, follow(&node.left)?, true),
            (false, true) => joined_with_constant(node, follow(&node.right)?, false),
            _ => joined(node, &follow(&node.left)?, &follow(&node.right)?),
        },
        LogicalPlan::Union(node) => {
            let mut inputs = node.inputs.iter().map(|input| follow(input)).collect::<Result<Vec<_>>>()?.into_iter();
            let first = inputs.next().unwrap_or_default();
            let common = |one: Carried, other: Carried| one.iter().zip(&other).map(|(a, b)| a & b).collect();
            Ok(inputs.fold(first, common))
        }
        other => Err(refused(format!("`{}` looks at more than one group", other.display()))),
    }
}

/// A join keeps groups apart when the rows that meet are of one group.
fn joined(join: &Join, left: &Carried, right: &Carried) -> Result<Carried> {
    let is_met = |(left_columns, right_columns): (&BTreeSet<usize>, &BTreeSet<usize>)| {
        join.on.iter().any(|(a, b)| {
            position(a, join.left.schema()).is_some_and(|index| left_columns.contains(&index))
                && position(b, join.right.schema()).is_some_and(|index| right_columns.contains(&index))
        })
    };
    if join.null_aware || !left.iter().zip(right).all(is_met) {
        return Err(refused("it joins rows of different groups: join on every key column".to_owned()));
    }
    let width = join.left.schema().fields().len();
    let shifted = || right.iter().map(|columns| columns.iter().map(|index| index + width).collect::<BTreeSet<_>>());
    match join.join_type {
        JoinType::Inner => Ok(left.iter().zip(shifted()).map(|(one, other)| one | &other).collect()),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => Ok(left.clone()),
        JoinType::Right => Ok(shifted().collect()),
        JoinType::RightSemi | JoinType::RightAnti => Ok(right.clone()),
        other => Err(refused(format!("a {other} join does not say whose key column names the group"))),
    }
}

/// Whether rows of groups come out of `plan`; else it is the same whatever the groups hold.
fn has_leaf(plan: &LogicalPlan, leaf: &dyn Fn(&LogicalPlan) -> Option<Carried>) -> Result<bool> {
    Ok(plan.exists(|node| Ok(leaf(node).is_some()))?)
}

/// A join with rows that are the same for every group keeps groups apart, as long as each result has a row of one.
fn joined_with_constant(join: &Join, groups: Carried, is_left: bool) -> Result<Carried> {
    let width = join.left.schema().fields().len();
    match (join.join_type, is_left) {
        (JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark, true)
        | (JoinType::RightSemi | JoinType::RightAnti, false) => Ok(groups),
        (JoinType::Inner | JoinType::Right, false) => {
            Ok(groups.iter().map(|columns| columns.iter().map(|index| index + width).collect()).collect())
        }
        (other, _) => Err(refused(format!("a {other} join gives rows of no group: keep the silver table's rows"))),
    }
}

/// Refuses what is not row-wise.
pub(super) fn refuse_unless_row_wise(plan: &LogicalPlan) -> Result<()> {
    refuse_subqueries(plan)?;
    match plan {
        LogicalPlan::TableScan(node) if node.fetch.is_none() => Ok(()),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Union(_)
        | LogicalPlan::Unnest(_) => plan.inputs().into_iter().try_for_each(refuse_unless_row_wise),
        LogicalPlan::Sort(node) if node.fetch.is_none() => refuse_unless_row_wise(&node.input),
        other => Err(refused(format!(
            "below its GROUP BY, `{}` does not work row by row over the silver table",
            other.display()
        ))),
    }
}

/// Subqueries that the optimiser did not turn into joins read the whole table.
fn refuse_subqueries(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_expressions(|expr| {
        expr.apply(|part| {
            if matches!(part, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_))
            {
                found = Some(part.to_string());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    match found {
        None => Ok(()),
        Some(_) => Err(refused("a subquery in it reads the whole table".to_owned())),
    }
}

/// The output columns among `exprs` that are traced columns of the input.
fn passed(inner: &Carried, exprs: &[Expr], input: &DFSchema) -> Carried {
    let positions: Vec<Option<usize>> = exprs.iter().map(|expr| position(expr, input)).collect();
    let carrying = |columns: &BTreeSet<usize>| {
        let outputs = positions.iter().enumerate();
        let outputs = outputs.filter(|(_, index)| index.is_some_and(|index| columns.contains(&index)));
        outputs.map(|(output, _)| output).collect()
    };
    inner.iter().map(carrying).collect()
}

fn complete(columns: Carried, what: impl Fn() -> String) -> Result<Carried> {
    if columns.iter().any(BTreeSet::is_empty) { Err(refused(what())) } else { Ok(columns) }
}

fn position(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match unaliased(expr) {
        Expr::Column(column) => schema.index_of_column(column).ok(),
        _ => None,
    }
}

fn unaliased(mut expr: &Expr) -> &Expr {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    expr
}

fn refused(reason: String) -> Error {
    Error::Declaration(reason)
}
