//! API keys.

use std::sync::Arc;

use uuid::Uuid;

use super::engine::{Row, args};
use super::proof::require_session;
use super::users::{lock, role};
use super::{ChangeKind, KeyOwner, NewKeyRow, Store, StoredKey};
use crate::time::now_us;
use crate::{AccessError, ApiKey, AuditEvent, Scopes};

/// Live keys of one owner. Who needs more has programs that share one.
const MOST_KEYS: i64 = 100;

impl Store {
    /// Adds an API key, in the name of a session of its owner when there is one. [`AccessError::NotAuthenticated`] when
    /// the session has ended, [`AccessError::TooManyKeys`] when the owner has as many as anybody may have.
    pub(crate) async fn create_key(
        &self,
        row: &NewKeyRow,
        session: Option<Uuid>,
        event: &AuditEvent,
    ) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, row.user).await?;
        if let Some(session) = session {
            require_session(&mut tx, row.user, session).await?;
        }
        let sql = "SELECT count(*) AS live FROM api_keys WHERE user_id = ? AND revoked_at IS NULL \
                   AND (expires_at IS NULL OR expires_at > ?)";
        let counted = tx.rows(sql, args![row.user, row.at]).await?;
        if counted.first().map(|row| row.int("live")).transpose()?.is_some_and(|live| live >= MOST_KEYS) {
            return Err(AccessError::TooManyKeys { most: MOST_KEYS });
        }
        let sql = "INSERT INTO api_keys (id, user_id, name, prefix, key_hash, scopes, created_at, expires_at, \
                   events_per_second) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let (scopes, rate) = (row.scopes.to_texts().join(" "), row.events_per_second.map(i64::from));
        let values =
            args![row.id, row.user, &row.name, &row.prefix, &row.key_hash, scopes, row.at, row.expires_at, rate];
        tx.later(sql, values);
        tx.audit(event);
        tx.commit().await
    }

    /// A key by its public prefix, with its owner, who is not deleted.
    pub(crate) async fn find_key(&self, prefix: &str) -> Result<Option<StoredKey>, AccessError> {
        let sql = "SELECT k.id, k.user_id, k.key_hash, k.scopes, k.events_per_second, k.expires_at, k.revoked_at, \
                   u.username, u.role, u.is_active FROM api_keys k JOIN users u ON u.id = k.user_id \
                   WHERE k.prefix = ? AND u.deleted_at IS NULL";
        self.database.row(sql, args![prefix]).await?.as_ref().map(stored_key).transpose()
    }

    /// Keys of a user: live ones first, so that none of them is beyond the limit, then those that ended; newest first.
    pub(crate) async fn list_keys(&self, user: Uuid, limit: u32) -> Result<Vec<ApiKey>, AccessError> {
        let sql = "SELECT id, user_id, name, prefix, scopes, events_per_second, created_at, expires_at, last_used_at, \
                   revoked_at FROM api_keys WHERE user_id = ? ORDER BY \
                   CASE WHEN revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?) THEN 0 ELSE 1 END, id DESC \
                   LIMIT ?";
        self.database.rows(sql, args![user, now_us(), limit]).await?.iter().map(api_key).collect()
    }

    /// Revokes a key (of that owner only, when one is given); false when there is no such live key.
    pub(crate) async fn revoke_key(
        &self,
        id: Uuid,
        owner: Option<Uuid>,
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL AND (? = '' OR user_id = ?)";
        let owner = owner.map(|id| id.to_string()).unwrap_or_default();
        let is_revoked = tx.execute(sql, args![now_us(), id, &owner, &owner]).await? > 0;
        if is_revoked {
            tx.announce(ChangeKind::ApiKey, id);
            tx.audit(event);
        }
        tx.commit().await?;
        Ok(is_revoked)
    }

    /// Moves last-used times forward. In order of the ids, so that two processes do not wait for each other.
    pub(crate) async fn touch_keys(&self, used: &[(Uuid, i64)]) -> Result<(), AccessError> {
        let mut used = used.to_vec();
        used.sort_unstable();
        let mut tx = self.database.write().await?;
        for (id, at) in used {
            let sql =
                "UPDATE api_keys SET last_used_at = ? WHERE id = ? AND (last_used_at IS NULL OR last_used_at < ?)";
            tx.later(sql, args![at, id, at]);
        }
        tx.commit().await
    }
}

fn stored_key(row: &Row) -> Result<StoredKey, AccessError> {
    Ok(StoredKey {
        id: row.id("id")?,
        key_hash: row.text("key_hash")?,
        scopes: Arc::new(scopes(row)?),
        events_per_second: events_per_second(row)?,
        expires_at: row.int_or_null("expires_at")?,
        is_revoked: row.int_or_null("revoked_at")?.is_some(),
        owner: KeyOwner {
            id: row.id("user_id")?,
            username: row.text("username")?.into(),
            role: role(row)?,
            is_active: row.truth("is_active")?,
        },
    })
}

fn api_key(row: &Row) -> Result<ApiKey, AccessError> {
    Ok(ApiKey {
        id: row.id("id")?,
        owner: row.id("user_id")?,
        name: row.text("name")?,
        prefix: row.text("prefix")?,
        scopes: scopes(row)?,
        events_per_second: events_per_second(row)?,
        created_at_us: row.int("created_at")?,
        expires_at_us: row.int_or_null("expires_at")?,
        last_used_at_us: row.int_or_null("last_used_at")?,
        revoked_at_us: row.int_or_null("revoked_at")?,
    })
}

fn events_per_second(row: &Row) -> Result<Option<u32>, AccessError> {
    let Some(rate) = row.int_or_null("events_per_second")? else { return Ok(None) };
    let wrong = |_| AccessError::Corrupt { column: "api_keys.events_per_second", found: rate.to_string() };
    u32::try_from(rate).map(Some).map_err(wrong)
}

/// Scopes are kept as their texts with spaces between.
fn scopes(row: &Row) -> Result<Scopes, AccessError> {
    let text = row.text("scopes")?;
    Scopes::parse(text.split_whitespace()).map_err(|_| AccessError::Corrupt { column: "api_keys.scopes", found: text })
}
