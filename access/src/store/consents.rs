//! Consent: the present state on the user, every step of it in its own rows.

use uuid::Uuid;

use super::engine::{Row, args};
use super::users::{finish, lock};
use super::{Consent, Store, User};
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

impl Store {
    /// Records that consent to a version was `granted` or `revoked`.
    pub(crate) async fn add_consent(
        &self,
        user: Uuid,
        status: &'static str,
        version: &str,
        source: &str,
        event: &AuditEvent,
    ) -> Result<User, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, user).await?;
        let at = now_us();
        let sql = "INSERT INTO consents (id, user_id, status, version, source, at, ip) VALUES (?, ?, ?, ?, ?, ?, ?)";
        let ip = event.origin.ip_text();
        tx.execute(sql, args![Uuid::now_v7(), user, status, version, source, at, ip]).await?;
        let sql = "UPDATE users SET consent_status = ?, consent_version = ?, updated_at = ?, version = version + 1 \
                   WHERE id = ?";
        tx.execute(sql, args![status, version, at, user]).await?;
        finish(tx, user, event).await
    }

    /// The steps before a time, newest first.
    pub(crate) async fn list_consents(&self, user: Uuid, before: i64, limit: u32) -> Result<Vec<Consent>, AccessError> {
        let sql = "SELECT status, version, source, ip, at FROM consents WHERE user_id = ? AND at < ? \
                   ORDER BY at DESC, id DESC LIMIT ?";
        self.database.rows(sql, args![user, before, limit]).await?.iter().map(consent).collect()
    }
}

fn consent(row: &Row) -> Result<Consent, AccessError> {
    Ok(Consent {
        status: row.text("status")?,
        version: row.text("version")?,
        source: row.text("source")?,
        ip: row.text_or_null("ip")?,
        at_us: row.int("at")?,
    })
}
