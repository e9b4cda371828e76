//! Changes of a merged table from those of a finer one.
//!
//! Figures by day, week and month are the same aggregates over coarser and coarser groups. Where the groups of one table are
//! made of those of another, and its parts are among the other's, the changed rows are aggregated once, for the finer one; what
//! that gave is some hundred rows, which are put together for the coarser one.
//!
//! A group is made of finer ones when it is an expression over them: the same group, a function of it, or a coarser
//! `date_trunc` of the same time.

use karat_lake::{
    arrow::{array::RecordBatch, datatypes::DataType},
    datafusion::{
        common::{
            ExprSchema, Result as SqlResult,
            tree_node::{Transformed, TreeNode, TreeNodeRecursion},
        },
        logical_expr::{Expr, ExprSchemable, LogicalPlanBuilder, col},
        scalar::ScalarValue,
    },
};

use super::MergePlan;
use crate::{
    Result,
    query::{Planner, Query, plain_type},
};

/// Name under which the changes of the finer table are read.
const FINER: &str = "karat_finer";

/// How the changes of a table are made of those of a finer one.
pub struct Coarser(Query);

impl Coarser {
    /// None when the groups or the parts of `plan` are not made of those of `finer`.
    pub fn of(plan: &MergePlan, finer: &MergePlan) -> Result<Option<Self>> {
        // A table without groups has a row over no rows, which no finer group gives.
        let is_same_input = plan.source == finer.source && plan.changed.input == finer.changed.input;
        if !is_same_input || plan.num_groups == 0 {
            return Ok(None);
        }
        let mut columns = Vec::new();
        for (index, group) in plan.changed.groups.iter().enumerate() {
            match over_finer(group, finer)? {
                Some(expr) => columns.push(expr.alias(format!("g{index}"))),
                None => return Ok(None),
            }
        }
        for (index, part) in plan.changed.parts.iter().enumerate() {
            match finer.changed.parts.iter().position(|other| other == part) {
                Some(found) => columns.push(finer.column(finer.num_groups + found).alias(format!("p{index}"))),
                None => return Ok(None),
            }
        }
        let planner = Planner::new(&[(FINER, finer.delta.schema().clone())])?;
        let query = planner.query(LogicalPlanBuilder::from(planner.scan(FINER)?).project(columns)?.build()?)?;
        let is_same = |(own, made): (&DataType, &DataType)| own == made;
        let types =
            |query: &Query| query.schema().fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        let (own, made) = (types(&plan.delta), types(&query));
        Ok(own.iter().zip(&made).all(is_same).then_some(Self(query)))
    }

    /// Changes as the grouping of the table itself gives them, but that a group may have several rows.
    pub async fn changes(&mut self, finer: &RecordBatch) -> Result<RecordBatch> {
        self.0.run(&[(FINER, finer.clone())]).await
    }
}

/// The group as an expression over the groups of the finer table.
fn over_finer(group: &Expr, finer: &MergePlan) -> Result<Option<Expr>> {
    let same = finer.changed.groups.iter().position(|other| other == group);
    if let Some(index) = same {
        return Ok(Some(finer.column(index)));
    }
    let schema = finer.changed.input.schema();
    // In a function, the finer group must be what it was: tables hold times and numbers in fewer types.
    let is_kept = |other: &&(usize, &Expr)| {
        other.1.get_type(schema.as_ref()).is_ok_and(|data_type| plain_type(&data_type) == data_type)
    };
    let finer_groups: Vec<(usize, &Expr)> =
        finer.changed.groups.iter().enumerate().filter(|other| is_kept(&other)).collect();
    let rewritten = group.clone().transform_down(|part| -> SqlResult<Transformed<Expr>> {
        for (index, other) in &finer_groups {
            if part == **other {
                return Ok(Transformed::new(finer.column(*index), true, TreeNodeRecursion::Jump));
            }
            if let Some(truncated) = coarser_truncation(&part, other, || finer.column(*index)) {
                return Ok(Transformed::new(truncated, true, TreeNodeRecursion::Jump));
            }
        }
        Ok(Transformed::no(part))
    })?;
    let names = finer.delta.schema();
    let is_made = rewritten.data.column_refs().iter().all(|column| {
        column.relation.is_none()
            && names.field_with_name(&column.name).is_ok()
            && schema.field_from_column(column).is_err()
    });
    Ok(is_made.then_some(rewritten.data))
}

/// `date_trunc` to a unit that is made of whole units of the finer group's `date_trunc` of the same time.
fn coarser_truncation(expr: &Expr, finer: &Expr, column: impl Fn() -> Expr) -> Option<Expr> {
    let (unit, time) = truncation(expr)?;
    let (finer_unit, finer_time) = truncation(finer)?;
    if time != finer_time || !is_made_of(unit, finer_unit) {
        return None;
    }
    let Expr::ScalarFunction(function) = expr else { return None };
    let mut function = function.clone();
    function.args[1] = column();
    Some(Expr::ScalarFunction(function))
}

fn truncation(expr: &Expr) -> Option<(&str, &Expr)> {
    let Expr::ScalarFunction(function) = expr else { return None };
    match (function.name(), function.args.as_slice()) {
        ("date_trunc", [Expr::Literal(ScalarValue::Utf8(Some(unit)), _), time]) => Some((unit, time)),
        _ => None,
    }
}

/// Whether whole units of the finer kind make one of the coarser, in UTC.
fn is_made_of(unit: &str, finer: &str) -> bool {
    const UNITS: [&str; 5] = ["second", "minute", "hour", "day", "month"];
    let place = |unit: &str| UNITS.iter().position(|known| *known == unit);
    match unit {
        "week" => place(finer).is_some_and(|finer| finer <= 3),
        "quarter" | "year" => place(finer).is_some() || (unit == "year" && finer == "quarter"),
        _ => matches!((place(unit), place(finer)), (Some(unit), Some(finer)) if finer <= unit),
    }
}

impl MergePlan {
    /// A column of what [`MergePlan::grouped`] gives.
    fn column(&self, index: usize) -> Expr {
        col(self.delta.schema().field(index).name())
    }
}

#[cfg(test)]
mod tests {
    use super::is_made_of;

    #[test]
    fn weeks_are_made_of_days_and_not_of_months() {
        for (unit, finer) in
            [("week", "day"), ("month", "day"), ("year", "quarter"), ("quarter", "month"), ("day", "hour")]
        {
            assert!(is_made_of(unit, finer), "{unit} of {finer}");
        }
        for (unit, finer) in
            [("month", "week"), ("day", "week"), ("week", "month"), ("hour", "day"), ("month", "quarter")]
        {
            assert!(!is_made_of(unit, finer), "{unit} of {finer}");
        }
    }
}
