//! Reading the audit log, and checking its chain.

use serde_json::Value;
use uuid::Uuid;

use crate::{Access, AccessError};

/// Which rows are asked for; everything when nothing is given.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Done by this user or key.
    pub actor: Option<Uuid>,
    /// Done to this.
    pub target: Option<Uuid>,
    /// The name of an action.
    pub action: Option<String>,
    /// `success` or `denied`.
    pub outcome: Option<String>,
    /// From this time on, microseconds since 1970, UTC.
    pub from_us: Option<i64>,
    /// Before this time.
    pub to_us: Option<i64>,
    /// Only rows with a smaller number: the last one of the page before.
    pub before: Option<i64>,
}

/// One row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number; without gaps.
    pub seq: i64,
    /// Microseconds since 1970, UTC.
    pub at_us: i64,
    /// `anonymous`, `shell`, `user`, `api_key` or `system`.
    pub actor_kind: String,
    /// Who.
    pub actor_id: Option<Uuid>,
    /// What.
    pub action: String,
    /// Whom or what it concerned.
    pub target_id: Option<Uuid>,
    /// `success` or `denied`.
    pub outcome: String,
    /// From where.
    pub ip: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// Id of the request in the log.
    pub request_id: Option<String>,
    /// More facts.
    pub details: Option<Value>,
    /// Hash of this row and the one before it.
    pub hash: String,
}

/// What checking the chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// Rows that were checked.
    pub rows: u64,
    /// Rows from before there was a chain.
    pub unchained: u64,
    /// The newest hash. Kept elsewhere, it shows later that nothing before it was rewritten.
    pub head: String,
    /// The first thing that is wrong.
    pub broken: Option<ChainBreak>,
}

/// Where the chain breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainBreak {
    /// A row is not what was written.
    Changed {
        /// Its number.
        seq: i64,
    },
    /// A row is missing.
    Missing {
        /// Its number.
        seq: i64,
    },
    /// The newest rows are missing, or rows were added beside the head.
    Head {
        /// The number that the head names.
        expected: i64,
        /// The number of the last row.
        found: i64,
    },
}

impl Access {
    /// Rows of the audit log, newest first.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn audit_log(&self, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditRow>, AccessError> {
        self.inner.store.audit_rows(filter, limit).await
    }

    /// Recomputes the chain over the whole audit log, a page at a time.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn verify_audit_log(&self) -> Result<ChainReport, AccessError> {
        self.inner.store.verify_chain().await
    }
}
