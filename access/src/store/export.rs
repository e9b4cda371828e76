//! What the database holds of one person, beside what other routes list too. Hashes and secrets are not read.

use uuid::Uuid;

use super::audit::{audit_columns, audit_row};
use super::engine::{Row, args};
use super::sessions::session;
use super::{Session, Store};
use crate::AccessError;
use crate::audit::AuditRow;
use crate::codes::{RESET, VERIFY};

/// A session, live or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSession {
    /// As it is listed while it lives.
    pub session: Session,
    /// Microseconds since 1970, UTC.
    pub revoked_at_us: Option<i64>,
    /// What ended it: `logout`, `deactivated` and so on.
    pub revoked_reason: Option<String>,
}

/// A second factor, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFactor {
    /// `totp`.
    pub kind: String,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
    /// Microseconds since 1970, UTC; none while it waits for its first code.
    pub confirmed_at_us: Option<i64>,
}

/// A code or link, without what it takes to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCode {
    /// `reset`, `verify` or `mfa`.
    pub purpose: String,
    /// Where it was sent to.
    pub address: Option<String>,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
    /// Microseconds since 1970, UTC.
    pub expires_at_us: i64,
    /// Microseconds since 1970, UTC.
    pub used_at_us: Option<i64>,
}

impl Store {
    /// Sessions of a user that are still kept, ended ones included, newest first.
    pub(crate) async fn own_sessions(&self, user: Uuid, limit: u32) -> Result<Vec<OwnSession>, AccessError> {
        let sql = "SELECT id, user_id, created_at, last_used_at, expires_at, ip, user_agent, revoked_at, revoked_reason \
                   FROM sessions WHERE user_id = ? ORDER BY id DESC LIMIT ?";
        self.database.rows(sql, args![user, limit]).await?.iter().map(own_session).collect()
    }

    /// Second factors of a user, confirmed or not.
    pub(crate) async fn own_factors(&self, user: Uuid) -> Result<Vec<OwnFactor>, AccessError> {
        let sql = "SELECT kind, created_at, confirmed_at FROM mfa_factors WHERE user_id = ? ORDER BY created_at";
        self.database.rows(sql, args![user]).await?.iter().map(own_factor).collect()
    }

    /// How many recovery codes of a user were not used.
    pub(crate) async fn own_recovery_codes(&self, user: Uuid) -> Result<u64, AccessError> {
        let sql = "SELECT count(*) AS n FROM recovery_codes WHERE user_id = ? AND used_at IS NULL";
        let counted = self.database.row(sql, args![user]).await?.map(|row| row.int("n")).transpose()?;
        Ok(u64::try_from(counted.unwrap_or(0)).unwrap_or(0))
    }

    /// Codes and links that were made for a user and are still kept, newest first.
    pub(crate) async fn own_codes(&self, user: Uuid, limit: u32) -> Result<Vec<OwnCode>, AccessError> {
        let sql = "SELECT purpose, address, created_at, expires_at, used_at FROM one_time_codes \
                   WHERE user_id = ? ORDER BY created_at DESC, id DESC LIMIT ?";
        self.database.rows(sql, args![user, limit]).await?.iter().map(own_code).collect()
    }

    /// Rows of the audit log that a user, a key or a session of theirs did or was concerned by, newest first.
    pub(crate) async fn own_audit_rows(
        &self,
        user: Uuid,
        before: i64,
        limit: u32,
    ) -> Result<Vec<AuditRow>, AccessError> {
        let sql = concat!(
            "WITH own AS (SELECT id FROM users WHERE id = ? UNION ALL SELECT id FROM api_keys WHERE user_id = ? \
             UNION ALL SELECT id FROM sessions WHERE user_id = ?), \
             places AS (SELECT l.seq AS place FROM audit_log l JOIN own ON own.id = l.actor_id \
             UNION SELECT l.seq FROM audit_log l JOIN own ON own.id = l.target_id) SELECT ",
            audit_columns!(),
            " FROM audit_log JOIN places ON places.place = audit_log.seq WHERE seq < ? ORDER BY seq DESC LIMIT ?"
        );
        self.database.rows(sql, args![user, user, user, before, limit]).await?.iter().map(audit_row).collect()
    }
}

fn own_session(row: &Row) -> Result<OwnSession, AccessError> {
    Ok(OwnSession {
        session: session(row)?,
        revoked_at_us: row.int_or_null("revoked_at")?,
        revoked_reason: row.text_or_null("revoked_reason")?,
    })
}

fn own_factor(row: &Row) -> Result<OwnFactor, AccessError> {
    Ok(OwnFactor {
        kind: row.text("kind")?,
        created_at_us: row.int("created_at")?,
        confirmed_at_us: row.int_or_null("confirmed_at")?,
    })
}

fn own_code(row: &Row) -> Result<OwnCode, AccessError> {
    let purpose = row.text("purpose")?;
    // What the others are bound to is no address of the person.
    let is_sent = [RESET, VERIFY].contains(&purpose.as_str());
    let address = if is_sent { Some(row.text("address")?) } else { None };
    Ok(OwnCode {
        purpose,
        address,
        created_at_us: row.int("created_at")?,
        expires_at_us: row.int("expires_at")?,
        used_at_us: row.int_or_null("used_at")?,
    })
}
