//! Where a column of a result comes from.
//!
//! Keys are read from the rows *before* the SQL and name the rows *after* it. Both agree only when the SQL passes the
//! key through as it is: under `lower(k) AS k`, the keys `A` and `a` would be two rows of the one key `a`.

use karat_lake::datafusion::{
    common::JoinType,
    logical_expr::{Expr, LogicalPlan},
};

use crate::{Error, Result};

/// Refuses `plan` unless each column of `key` is a column of that name of `table`, passed through unchanged.
pub fn require_plain(plan: &LogicalPlan, table: &str, key: &[String]) -> Result<()> {
    let is_plain = |name: &&String| {
        let output = plan.schema().index_of_column_by_name(None, name);
        output.and_then(|output| origin(plan, output)).is_some_and(|origin| origin == (table, name.as_str()))
    };
    let changed: Vec<String> = key.iter().filter(|name| !is_plain(name)).map(|name| format!("`{name}`")).collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(Error::Declaration(format!(
        "the SQL must pass the key {} through as it is, because rows are told apart by the value that they come with: \
         compute it in the layer before",
        changed.join(", ")
    )))
}

/// The table and its column from which column `output` of `plan` is taken unchanged; none when it is computed.
fn origin(plan: &LogicalPlan, output: usize) -> Option<(&str, &str)> {
    match plan {
        LogicalPlan::TableScan(scan) => Some((scan.table_name.table(), plan.schema().field(output).name())),
        LogicalPlan::Projection(projection) => of_expr(projection.expr.get(output)?, &projection.input),
        LogicalPlan::Aggregate(aggregate) => of_expr(aggregate.group_expr.get(output)?, &aggregate.input),
        LogicalPlan::Window(window) => origin(&window.input, output),
        LogicalPlan::Filter(filter) => origin(&filter.input, output),
        LogicalPlan::Sort(sort) => origin(&sort.input, output),
        LogicalPlan::Limit(limit) => origin(&limit.input, output),
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, output),
        LogicalPlan::Distinct(distinct) => origin(distinct.input(), output),
        // The other side of an outer join may be missing, and then the column is NULL instead of its value.
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match join.join_type {
                JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti if output < left => {
                    origin(&join.left, output)
                }
                JoinType::Inner => origin(&join.right, output - left),
                _ => None,
            }
        }
        _ => None,
    }
}

fn of_expr<'p>(expr: &Expr, input: &'p LogicalPlan) -> Option<(&'p str, &'p str)> {
    match expr {
        Expr::Alias(alias) => of_expr(&alias.expr, input),
        Expr::Column(column) => origin(input, input.schema().maybe_index_of_column(column)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::query::Planner;

    async fn is_plain(sql: &str) -> bool {
        let fields = ["k", "v"].map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let planner = Planner::new(&[("t", schema.clone()), ("r", schema)]).unwrap();
        let plan = planner.logical(sql).await.unwrap();
        require_plain(&plan, "t", &["k".to_owned()]).is_ok()
    }

    #[tokio::test]
    async fn a_key_may_pass_through_whatever_keeps_it() {
        for sql in [
            "SELECT * FROM t",
            "SELECT k, upper(v) AS v FROM t WHERE v <> ''",
            "SELECT u.k AS k FROM t AS u",
            "SELECT k, count(*) AS n FROM t GROUP BY k HAVING count(*) > 1",
            "SELECT DISTINCT k FROM t ORDER BY k LIMIT 3",
            "WITH o AS (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v) AS n FROM t) SELECT k, max(n) FROM o GROUP BY 1",
            "SELECT a.k, b.v FROM t AS a LEFT JOIN t AS b ON a.k = b.k",
            "SELECT t.k, r.v FROM t LEFT JOIN r ON r.k = t.v",
            "SELECT t.k, r.v FROM r JOIN t ON r.k = t.k",
        ] {
            assert!(is_plain(sql).await, "{sql}");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_computed_or_another_column_is_refused() {
        for sql in [
            "SELECT lower(k) AS k, v FROM t",
            "SELECT v AS k FROM t",
            "SELECT v FROM t",
            "SELECT k || '' AS k FROM t",
            "SELECT 'x' AS k, v FROM t",
            "SELECT k FROM (SELECT lower(k) AS k FROM t)",
            "SELECT lower(k) AS k, count(*) AS n FROM t GROUP BY k",
            "SELECT max(k) AS k, v FROM t GROUP BY v",
            "SELECT b.k AS k FROM t AS a LEFT JOIN t AS b ON a.k = b.v",
            "SELECT k, count(*) AS n FROM t GROUP BY ROLLUP (k)",
            // Rows of another table do not name groups, and there may be some that no group has.
            "SELECT r.k FROM r JOIN t ON r.k = t.k",
            "SELECT r.k FROM r LEFT JOIN t ON r.k = t.k",
            "SELECT t.k FROM r LEFT JOIN t ON r.k = t.k",
            "SELECT t.k FROM t FULL JOIN r ON r.k = t.k",
        ] {
            assert!(!is_plain(sql).await, "{sql}");
        }
    }
}
