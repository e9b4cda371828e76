//! Whose rows of a table a caller sees (decision 32).

use karat_http::ApiError;
use karat_lake::datafusion::logical_expr::{Expr, ident, lit};

use super::tables::Facts;
use crate::summary::Visible;

/// The column that says whose a row is, and the one that says which source it is of.
const USER: &str = "user_id";
const SOURCE: &str = "source";

/// Whether the caller may see any row of the table.
pub(crate) fn may_see(visible: &Visible, facts: &Facts) -> bool {
    match visible {
        Visible::All => true,
        Visible::Own { granted, .. } => facts.has_text(USER) || (!granted.is_empty() && facts.has_text(SOURCE)),
    }
}

/// The condition that only visible rows of the table meet; none when all are visible.
///
/// # Errors
/// 403 when nothing in the table says whose its rows are.
pub(crate) fn visible_rows(visible: &Visible, facts: &Facts, table: &str) -> Result<Option<Expr>, ApiError> {
    if !may_see(visible, facts) {
        let message = format!(
            "the rows of `{table}` are nobody's own: it has no text column `{USER}`, and only roles that see everybody's \
             data read it"
        );
        return Err(ApiError::forbidden(message));
    }
    Ok(only_visible(visible, facts.has_text(USER), facts.has_text(SOURCE)))
}

/// The same for a table that has these columns.
pub(crate) fn only_visible(visible: &Visible, has_user: bool, has_source: bool) -> Option<Expr> {
    let Visible::Own { user, granted } = visible else { return None };
    let own = has_user.then(|| ident(USER).eq(lit(user.as_str())));
    let granted: Vec<Expr> = granted.iter().map(|source| lit(source.as_str())).collect();
    let granted = (has_source && !granted.is_empty()).then(|| ident(SOURCE).in_list(granted, false));
    match (own, granted) {
        (Some(own), Some(granted)) => Some(own.or(granted)),
        // A caller of whom nothing is known sees nothing.
        (own, granted) => Some(own.or(granted).unwrap_or_else(|| lit(false))),
    }
}
