//! What SQL of declarations must not do, wherever it is planned.

use deltalake::datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    error::Result,
    logical_expr::{Expr, LogicalPlan, Volatility},
};

/// A function in the expressions of this node that gives something else at another time: it reads a clock or a die.
///
/// # Errors
/// When the plan cannot be walked.
pub fn changing_function(node: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    node.apply_expressions(|expr| {
        expr.apply(|part| {
            if let Expr::ScalarFunction(function) = part
                && function.func.signature().volatility != Volatility::Immutable
            {
                found = Some(part.to_string());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}
