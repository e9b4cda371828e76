//! Second factors and recovery codes.

use uuid::Uuid;

use super::engine::{Row, Tx, args};
use super::proof::require_session;
use super::users::lock;
use super::{Factor, Store};
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

/// Which second factors an account has, beside its recovery codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factors {
    /// A confirmed authenticator.
    pub has_totp: bool,
    /// One passkey or more.
    pub has_passkey: bool,
}

impl Factors {
    /// Whether there is one.
    pub fn is_any(self) -> bool {
        self.has_totp || self.has_passkey
    }

    fn of(rows: &[Row]) -> Result<Self, AccessError> {
        let kinds = rows.iter().map(|row| row.text("kind")).collect::<Result<Vec<_>, _>>()?;
        let has = |kind: &str| kinds.iter().any(|one| one == kind);
        Ok(Self { has_totp: has("totp"), has_passkey: has("passkey") })
    }
}

const FACTORS: &str = "SELECT kind FROM mfa_factors WHERE user_id = ? AND confirmed_at IS NOT NULL \
                       UNION ALL SELECT 'passkey' AS kind FROM passkeys WHERE user_id = ?";

impl Store {
    /// The second factors of a user.
    pub(crate) async fn find_factors(&self, user: Uuid) -> Result<Factors, AccessError> {
        Factors::of(&self.database.rows(FACTORS, args![user, user]).await?)
    }

    /// The factor of a user, confirmed or not.
    pub(crate) async fn find_factor(&self, user: Uuid) -> Result<Option<Factor>, AccessError> {
        let sql = "SELECT secret, last_step, confirmed_at FROM mfa_factors WHERE user_id = ?";
        let row = self.database.row(sql, args![user]).await?;
        row.map(|row| {
            let is_confirmed = row.int_or_null("confirmed_at")?.is_some();
            Ok(Factor { secret: row.text("secret")?, last_step: row.int("last_step")?, is_confirmed })
        })
        .transpose()
    }

    /// Begins to set up a factor in place of one that was never confirmed, in the name of a session of its owner; false
    /// when there is a confirmed one. [`AccessError::NotAuthenticated`] when the session has ended.
    pub(crate) async fn enroll_factor(
        &self,
        user: Uuid,
        session: Uuid,
        secret: &str,
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, user).await?;
        require_session(&mut tx, user, session).await?;
        tx.execute("DELETE FROM mfa_factors WHERE user_id = ? AND confirmed_at IS NULL", args![user]).await?;
        let sql = "SELECT id FROM mfa_factors WHERE user_id = ?";
        if !tx.rows(sql, args![user]).await?.is_empty() {
            return Ok(false);
        }
        let sql = "INSERT INTO mfa_factors (id, user_id, kind, secret, created_at) VALUES (?, ?, 'totp', ?, ?)";
        tx.execute(sql, args![Uuid::now_v7(), user, secret, now_us()]).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(true)
    }

    /// Confirms the factor with the step of a right code and puts recovery codes in place, in the name of a session of
    /// its owner; false when there is nothing to confirm. [`AccessError::NotAuthenticated`] when the session has ended.
    pub(crate) async fn confirm_factor(
        &self,
        user: Uuid,
        session: Uuid,
        step: i64,
        codes: &[String],
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, user).await?;
        require_session(&mut tx, user, session).await?;
        let sql = "UPDATE mfa_factors SET confirmed_at = ?, last_step = ? WHERE user_id = ? AND confirmed_at IS NULL";
        if tx.execute(sql, args![now_us(), step, user]).await? == 0 {
            return Ok(false);
        }
        put_recovery_codes(&mut tx, user, codes).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(true)
    }

    /// Uses up a time step; false when it, or a later one, was used before.
    pub(crate) async fn use_step(&self, user: Uuid, step: i64) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let sql =
            "UPDATE mfa_factors SET last_step = ? WHERE user_id = ? AND last_step < ? AND confirmed_at IS NOT NULL";
        let is_used = tx.execute(sql, args![step, user, step]).await? > 0;
        tx.commit().await?;
        Ok(is_used)
    }

    /// Uses up the time step of a right code and puts recovery codes in place of those that are there, in the name of a
    /// session of their owner; false when the step, or a later one, was used before.
    /// [`AccessError::NotAuthenticated`] when the session has ended.
    pub(crate) async fn renew_recovery_codes(
        &self,
        user: Uuid,
        session: Uuid,
        step: i64,
        codes: &[String],
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, user).await?;
        require_session(&mut tx, user, session).await?;
        let sql =
            "UPDATE mfa_factors SET last_step = ? WHERE user_id = ? AND last_step < ? AND confirmed_at IS NOT NULL";
        if tx.execute(sql, args![step, user, step]).await? == 0 {
            return Ok(false);
        }
        put_recovery_codes(&mut tx, user, codes).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(true)
    }

    /// Uses up a recovery code; false when it is unknown or was used before.
    pub(crate) async fn use_recovery_code(
        &self,
        user: Uuid,
        code_hash: &str,
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "UPDATE recovery_codes SET used_at = ? WHERE code_hash = ? AND user_id = ? AND used_at IS NULL";
        let is_used = tx.execute(sql, args![now_us(), code_hash, user]).await? > 0;
        if is_used {
            tx.audit(event);
        }
        tx.commit().await?;
        Ok(is_used)
    }

    /// Removes the factor, and the recovery codes with the last second factor, in the name of a session of their owner; false when there was none.
    /// [`AccessError::NotAuthenticated`] when the session has ended.
    pub(crate) async fn remove_factor(
        &self,
        user: Uuid,
        session: Uuid,
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, user).await?;
        require_session(&mut tx, user, session).await?;
        let is_removed = tx.execute("DELETE FROM mfa_factors WHERE user_id = ?", args![user]).await? > 0;
        if is_removed {
            // Passkeys may be left, which the codes stand in for too.
            if !factors_in(&mut tx, user).await?.is_any() {
                tx.execute("DELETE FROM recovery_codes WHERE user_id = ?", args![user]).await?;
            }
            tx.audit(event);
        }
        tx.commit().await?;
        Ok(is_removed)
    }
}

/// The second factors of a user as the transaction sees them. The user is locked by the caller.
pub(super) async fn factors_in(tx: &mut Tx, user: Uuid) -> Result<Factors, AccessError> {
    Factors::of(&tx.rows(FACTORS, args![user, user]).await?)
}

pub(super) async fn put_recovery_codes(tx: &mut Tx, user: Uuid, hashes: &[String]) -> Result<(), AccessError> {
    tx.execute("DELETE FROM recovery_codes WHERE user_id = ?", args![user]).await?;
    for hash in hashes {
        tx.execute("INSERT INTO recovery_codes (code_hash, user_id) VALUES (?, ?)", args![hash, user]).await?;
    }
    Ok(())
}
