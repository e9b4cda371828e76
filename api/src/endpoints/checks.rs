//! Which SQL an endpoint may have: one `SELECT` that gives the same whenever it is asked, with the parameters that are
//! declared, and with the caller's rows alone unless it is declared otherwise.

use std::collections::BTreeSet;

use karat_lake::{
    datafusion::{
        common::{TableReference, tree_node::TreeNodeRecursion},
        error::Result,
        logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, utils::split_conjunction},
    },
    sql::changing_function,
};
use karat_schemas::pipelines::{Endpoint, Rows};

/// The parameter that is the id of who asks.
pub(super) const CALLER: &str = "caller";
/// The parameter that is the newest event time of the epoch.
pub(super) const AS_OF: &str = "as_of";
/// The column that says whose a row is.
const OWNER: &str = "user_id";

/// Everything that is wrong with `plan`, which is not optimised.
///
/// # Errors
/// When the plan cannot be walked.
pub(super) fn problems(declared: &Endpoint, plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut problems = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let Some(function) = changing_function(node)? {
            problems.insert(format!(
                "its SQL has `{function}`, which gives something else each time, while answers are kept: use `:{AS_OF}`"
            ));
        }
        if is_no_query(node) {
            problems.insert(format!("its SQL is no SELECT: found `{}`", node.display()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    for name in undeclared(declared, plan)? {
        problems.insert(format!("its SQL has `{name}`, which is no declared parameter"));
    }
    let used = plan.get_parameter_names()?;
    for parameter in declared.parameters.iter().filter(|one| !used.contains(&format!(":{}", one.name))) {
        problems.insert(format!("its parameter `{}` is not in its SQL: use or remove it", parameter.name));
    }
    if declared.rows == Rows::Own {
        let mut open = BTreeSet::new();
        find_open(plan, &[], &mut open)?;
        for table in open {
            problems.insert(format!(
                "its SQL reads `{table}` without `{OWNER} = :{CALLER}` in the WHERE of that table: add it, or declare \
                 `rows = \"all\"` with the `roles` that may see everybody's rows"
            ));
        }
    }
    Ok(problems.into_iter().collect())
}

/// The placeholders that stand for nothing.
///
/// # Errors
/// When the plan cannot be walked.
pub(super) fn undeclared(declared: &Endpoint, plan: &LogicalPlan) -> Result<Vec<String>> {
    let is_known = |id: &String| {
        id.strip_prefix(':').is_some_and(|name| {
            [CALLER, AS_OF].contains(&name) || declared.parameters.iter().any(|one| one.name == name)
        })
    };
    Ok(plan.get_parameter_names()?.into_iter().filter(|id| !is_known(id)).collect())
}

/// Names of the tables that the plan reads.
///
/// # Errors
/// When the plan cannot be walked.
pub(super) fn tables_of(plan: &LogicalPlan) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.insert(scan.table_name.table().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

/// What is not a `SELECT`, or may never end.
fn is_no_query(node: &LogicalPlan) -> bool {
    matches!(
        node,
        LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::DescribeTable(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::RecursiveQuery(_)
    )
}

/// Collects the tables that are read without the caller's condition. `bound` are the relations for which a condition
/// stands above: it holds through what keeps rows as they are, and no further. Below a projection or a group the same
/// name could be another value.
fn find_open(plan: &LogicalPlan, bound: &[TableReference], open: &mut BTreeSet<String>) -> Result<()> {
    plan.apply_subqueries(|subquery| {
        // Whatever holds outside, a subquery reads on its own.
        find_open(subquery, &[], open)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    match plan {
        LogicalPlan::TableScan(scan) => {
            if !bound.contains(&scan.table_name) {
                open.insert(scan.table_name.table().to_owned());
            }
            Ok(())
        }
        LogicalPlan::Filter(filter) => {
            let here = split_conjunction(&filter.predicate).into_iter().filter_map(owned_by_caller);
            let bound: Vec<TableReference> = bound.iter().cloned().chain(here).collect();
            find_open(&filter.input, &bound, open)
        }
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::TableScan(_) if bound.contains(&alias.alias) => Ok(()),
            input => find_open(input, &[], open),
        },
        LogicalPlan::Join(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => {
            plan.inputs().into_iter().try_for_each(|input| find_open(input, bound, open))
        }
        _ => plan.inputs().into_iter().try_for_each(|input| find_open(input, &[], open)),
    }
}

/// The relation whose rows are the caller's by this condition.
fn owned_by_caller(condition: &Expr) -> Option<TableReference> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    let (column, value) = match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), value) | (value, Expr::Column(column)) => (column, value),
        _ => return None,
    };
    let is_caller = matches!(value, Expr::Placeholder(placeholder) if placeholder.id.strip_prefix(':') == Some(CALLER));
    (is_caller && column.name == OWNER).then(|| column.relation.clone()).flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use karat_schemas::pipelines;

    use super::super::PlannedEndpoint;

    fn tables() -> Vec<(String, SchemaRef)> {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let table = |name: &str| {
            let fields = vec![
                field("user_id", DataType::Utf8),
                field("job", DataType::Utf8),
                field("runs", DataType::Int64),
                field("amount", DataType::Decimal128(38, 2)),
                field("state", DataType::Binary),
            ];
            (name.to_owned(), Arc::new(Schema::new(fields)) as SchemaRef)
        };
        vec![table("jobs"), table("days")]
    }

    async fn planned(rest: &str, sql: &str) -> std::result::Result<PlannedEndpoint, Vec<String>> {
        let text = format!(
            "version = 1\n[[topic]]\nname = \"t\"\n[[pipeline]]\nname = \"p\"\ntopic = \"t\"\n[[pipeline.endpoint]]\n\
             name = \"e\"\n{rest}\nsql = \"\"\"{sql}\"\"\"\n"
        );
        let file = pipelines::parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        PlannedEndpoint::new(file.endpoints[0].clone(), &tables()).await
    }

    async fn refused(rest: &str, sql: &str) -> String {
        planned(rest, sql).await.err().map(|problems| problems.join("\n")).unwrap_or_else(|| panic!("taken: {sql}"))
    }

    #[tokio::test]
    async fn the_callers_rows_are_taken_in_every_form_that_holds_for_each_table() {
        for sql in [
            "SELECT job, runs FROM jobs WHERE user_id = :caller",
            "SELECT job, sum(runs) AS runs FROM jobs AS j WHERE :caller = j.user_id AND runs > 1 GROUP BY job",
            "SELECT a.job FROM jobs a JOIN days b ON a.job = b.job WHERE a.user_id = :caller AND b.user_id = :caller",
            "WITH mine AS (SELECT * FROM jobs WHERE user_id = :caller) SELECT job, count(*) AS n FROM mine GROUP BY job",
            "SELECT job FROM jobs WHERE user_id = :caller UNION ALL SELECT job FROM days WHERE user_id = :caller",
        ] {
            let taken = planned("", sql).await;
            assert!(taken.is_ok(), "{sql}: {:?}", taken.err());
        }
    }

    #[tokio::test]
    async fn sql_that_could_read_the_rows_of_others_is_refused() {
        for (sql, table) in [
            ("SELECT job FROM jobs", "jobs"),
            ("SELECT job, :caller AS who FROM jobs", "jobs"),
            ("SELECT job FROM jobs WHERE user_id = :caller OR runs > 0", "jobs"),
            ("SELECT job FROM jobs WHERE NOT (user_id = :caller)", "jobs"),
            ("SELECT job FROM jobs WHERE job = :caller", "jobs"),
            ("SELECT job FROM jobs WHERE user_id >= :caller", "jobs"),
            ("SELECT a.job FROM jobs a JOIN days b ON a.job = b.job WHERE a.user_id = :caller", "days"),
            (
                "SELECT job FROM (SELECT job, max(user_id) AS user_id FROM jobs GROUP BY job) WHERE user_id = :caller",
                "jobs",
            ),
            ("SELECT job, max(user_id) AS owner FROM jobs GROUP BY job HAVING max(user_id) = :caller", "jobs"),
            ("SELECT job, (SELECT sum(runs) FROM days) AS n FROM jobs WHERE user_id = :caller", "days"),
            ("SELECT job FROM jobs WHERE user_id = :caller AND job IN (SELECT job FROM days)", "days"),
            ("SELECT job FROM jobs WHERE user_id = :caller UNION ALL SELECT job FROM days", "days"),
        ] {
            let problems = refused("", sql).await;
            assert!(problems.contains(&format!("reads `{table}` without `user_id = :caller`")), "{sql}: {problems}");
            assert!(planned("rows = \"all\"\nroles = [\"admin\"]", sql).await.is_ok(), "{sql}");
        }
    }

    #[tokio::test]
    async fn what_is_no_select_changes_by_itself_or_has_wrong_parameters_is_refused() {
        let all = "rows = \"all\"\nroles = [\"admin\"]";
        let days = "parameters = [{ name = \"days\", type = \"int\" }]";
        for (rest, sql, words) in [
            (all, "DROP TABLE jobs", "DDL"),
            (all, "INSERT INTO jobs SELECT * FROM days", "DML"),
            (all, "SELECT 1 AS a; SELECT 2 AS a", ""),
            (all, "EXPLAIN SELECT job FROM jobs", "no SELECT"),
            (all, "SELECT job FROM nowhere", "nowhere"),
            (all, "SELECT nope FROM jobs", "nope"),
            (all, "SELECT job, now() AS at FROM jobs", "now()"),
            (all, "SELECT job FROM jobs WHERE runs > random()", "random()"),
            (all, "SELECT job FROM jobs WHERE runs > :days", "`:days`, which is no declared parameter"),
            (all, "SELECT job FROM jobs WHERE runs > $1", "`$1`, which is no declared parameter"),
            (days, "SELECT job FROM jobs WHERE user_id = :caller", "parameter `days` is not in its SQL"),
            (all, "SELECT state FROM jobs", "column `state`"),
            (all, "SELECT a.job, b.job FROM jobs a JOIN days b ON a.job = b.job", "two columns `job`"),
            ("order = [\"nope desc\"]", "SELECT job FROM jobs WHERE user_id = :caller", "`order` names `nope`"),
            ("rows = \"all\"\nroles = [\"boss\"]", "SELECT job FROM jobs", "unknown role `boss`"),
        ] {
            let problems = refused(rest, sql).await;
            assert!(problems.contains(words), "{sql}: {problems}");
        }
        assert!(planned(days, "SELECT job FROM jobs WHERE user_id = :caller AND runs > :days").await.is_ok());
    }
}
