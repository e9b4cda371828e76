//! What people asked in SQL, for the audit log.

use serde_json::json;

use crate::{Access, AccessError, Action, AuditEvent, Caller, Origin};

/// The beginning of a question that is kept.
const MAX_SQL_CHARS: usize = 1_000;

/// A question that was asked, and how it ended.
#[derive(Debug, Clone, Copy)]
pub struct QueryNote<'a> {
    /// As it was sent; its beginning is kept.
    pub sql: &'a str,
    /// `answered`, `cancelled`, or the code of the error.
    pub ended: &'a str,
    /// Rows that were answered.
    pub rows: usize,
}

impl Access {
    /// Writes that a caller asked a question, and how it ended: a row for each.
    ///
    /// # Errors
    /// [`AccessError::Store`]: then nothing that was found may be answered.
    pub async fn note_query(&self, caller: &Caller, note: QueryNote<'_>, origin: &Origin) -> Result<(), AccessError> {
        let sql: String = note.sql.chars().take(MAX_SQL_CHARS).collect();
        let is_cut = sql.len() < note.sql.len();
        let details = json!({"sql": sql, "is_cut": is_cut, "ended": note.ended, "rows": note.rows});
        let event = match note.ended {
            "answered" => AuditEvent::success(caller.into(), Action::QueryRun, caller.id, origin),
            _ => AuditEvent::refused(caller.into(), Action::QueryRun, Some(caller.id), origin),
        };
        self.inner.store.append_audit(&event.with_details(details)).await
    }
}
