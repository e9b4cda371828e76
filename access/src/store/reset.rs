//! A password set by a link that was mailed, and what that does to the other ways into the account.

use serde_json::json;
use uuid::Uuid;

use super::engine::{Tx, args};
use super::factors::require_factor;
use super::sessions::revoke_live;
use super::users::lock;
use super::{ChangeKind, NewPassword, Store};
use crate::time::now_us;
use crate::{AccessError, Action, Actor, AuditEvent, Origin};

/// What setting a password by a link ended.
pub(crate) struct Reset {
    pub sessions: Vec<Uuid>,
    pub keys: Vec<Uuid>,
    /// The address was confirmed only by this, so the other ways in were removed.
    pub is_first_proof: bool,
}

impl Store {
    /// Sets the password of whoever reads the mail of an address, which is confirmed by that; every session ends and
    /// every open code dies. Until then anybody may have put the address there: of an account whose address was never
    /// confirmed the second factor, passkeys, number, log-ins by others and API keys go too, or whoever made them would come
    /// back by them.
    ///
    /// [`AccessError::CodeRefused`] when the account is gone, disabled, or has another address by now;
    /// [`AccessError::Invalid`] for a password that may not stand alone, where no second factor is left.
    pub(crate) async fn reset_by_link(
        &self,
        id: Uuid,
        email_key: &str,
        new: &NewPassword,
        origin: &Origin,
    ) -> Result<Reset, AccessError> {
        let mut tx = self.database.write().await?;
        let user = match lock(&mut tx, id).await {
            Err(AccessError::NotFound { .. }) => return Err(AccessError::CodeRefused),
            user => user?,
        };
        let is_theirs = user.email.as_deref().is_some_and(|email| email.eq_ignore_ascii_case(email_key));
        if !is_theirs || !user.is_active {
            return Err(AccessError::CodeRefused);
        }
        let now = now_us();
        let sql = "UPDATE users SET password_hash = ?, is_verified = 1, updated_at = ?, version = version + 1 \
                   WHERE id = ?";
        tx.execute(sql, args![&new.hash, now, id]).await?;
        let sessions = revoke_live(&mut tx, id, "password", None).await?;
        let is_first_proof = !user.is_verified;
        let event = AuditEvent::success(Actor::User(id), Action::PasswordReset, id, origin);
        tx.audit(&event.with_details(json!({"other_ways_in_removed": is_first_proof})));
        let mut keys = Vec::new();
        if is_first_proof {
            tx.audit(&AuditEvent::success(Actor::User(id), Action::EmailVerify, id, origin));
            keys = remove_other_ways_in(&mut tx, id, now).await?;
        }
        if !new.may_stand_alone {
            require_factor(&mut tx, id).await?;
        }
        let sql = "UPDATE one_time_codes SET used_at = ? WHERE user_id = ? AND used_at IS NULL";
        tx.execute(sql, args![now, id]).await?;
        for key in &keys {
            tx.audit(&AuditEvent::success(Actor::User(id), Action::ApiKeyRevoke, *key, origin));
        }
        tx.commit().await?;
        Ok(Reset { sessions, keys, is_first_proof })
    }
}

/// Answers the API keys that were revoked; the caller commits.
async fn remove_other_ways_in(tx: &mut Tx, user: Uuid, now: i64) -> Result<Vec<Uuid>, AccessError> {
    for sql in [
        "DELETE FROM identities WHERE user_id = ?",
        "DELETE FROM mfa_factors WHERE user_id = ?",
        "DELETE FROM passkeys WHERE user_id = ?",
        "DELETE FROM recovery_codes WHERE user_id = ?",
        "UPDATE users SET phone = NULL WHERE id = ?",
    ] {
        tx.execute(sql, args![user]).await?;
    }
    let sql = "SELECT id FROM api_keys WHERE user_id = ? AND revoked_at IS NULL ORDER BY id";
    let live = tx.rows_locked(sql, args![user]).await?;
    let keys = live.iter().map(|row| row.id("id")).collect::<Result<Vec<_>, _>>()?;
    for key in &keys {
        tx.execute("UPDATE api_keys SET revoked_at = ? WHERE id = ?", args![now, *key]).await?;
        tx.announce(ChangeKind::ApiKey, *key);
    }
    Ok(keys)
}
