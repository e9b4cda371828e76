//! Second factors and recovery codes.

use uuid::Uuid;

use super::engine::{Row, Tx, args};
use super::proof::require_session;
use super::users::lock;
use super::{Factor, Store, User};
use crate::password::{NEEDS_FACTOR, SHORT_ALONE};
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

    /// Removes the factor, and the recovery codes with the last second factor, in the name of a session of their owner;
    /// false when there was none. `alone_at` is as in [`part_with`].
    /// [`AccessError::NotAuthenticated`] when the session has ended.
    pub(crate) async fn remove_factor(
        &self,
        user: Uuid,
        session: Uuid,
        alone_at: Option<i64>,
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let owner = lock(&mut tx, user).await?;
        require_session(&mut tx, user, session).await?;
        // One that was never confirmed protects nothing.
        let was_any = factors_in(&mut tx, user).await?.is_any();
        let is_removed = tx.execute("DELETE FROM mfa_factors WHERE user_id = ?", args![user]).await? > 0;
        if is_removed {
            if was_any {
                part_with(&mut tx, &owner, alone_at).await?;
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

/// What goes with a second factor that was just removed: the recovery codes, when it was the last one; passkeys or an
/// authenticator that are left are what the codes stand in for too. The user is locked by the caller.
///
/// `alone_at` is the version of the account at which its password was seen to be enough alone; none where it is not.
/// [`AccessError::Invalid`] when it would be alone and is not enough; [`AccessError::Outdated`] when the account was changed
/// since then: it may have a shorter one.
pub(super) async fn part_with(tx: &mut Tx, owner: &User, alone_at: Option<i64>) -> Result<(), AccessError> {
    if factors_in(tx, owner.id).await?.is_any() {
        return Ok(());
    }
    match alone_at {
        None => return Err(AccessError::Invalid(vec![NEEDS_FACTOR.to_owned()])),
        Some(version) if version != owner.version => return Err(AccessError::Outdated { version: owner.version }),
        Some(_) => {}
    }
    tx.execute("DELETE FROM recovery_codes WHERE user_id = ?", args![owner.id]).await?;
    Ok(())
}

/// Refuses a password that is enough only beside a second factor, where there is none any more. The user is locked by the
/// caller.
pub(super) async fn require_factor(tx: &mut Tx, user: Uuid) -> Result<(), AccessError> {
    let is_any = factors_in(tx, user).await?.is_any();
    if is_any { Ok(()) } else { Err(AccessError::Invalid(vec![SHORT_ALONE.to_owned()])) }
}

pub(super) async fn put_recovery_codes(tx: &mut Tx, user: Uuid, hashes: &[String]) -> Result<(), AccessError> {
    tx.execute("DELETE FROM recovery_codes WHERE user_id = ?", args![user]).await?;
    for hash in hashes {
        tx.execute("INSERT INTO recovery_codes (code_hash, user_id) VALUES (?, ?)", args![hash, user]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{PASSKEY, USER, change, every_way, new_session, store};
    use crate::store::{NewPassword, Proof};
    use crate::{Action, Actor, Origin};

    fn event() -> AuditEvent {
        AuditEvent::success(Actor::System, Action::MfaRemove, Uuid::nil(), &Origin::default())
    }

    /// A session of the account, which has a passkey and gets an authenticator.
    async fn session(store: &Store) -> Uuid {
        let factor = "INSERT INTO mfa_factors (id, user_id, kind, secret, created_at, confirmed_at) VALUES \
                      ('01900000-0000-7000-8000-000000000004', '01900000-0000-7000-8000-000000000001', 'totp', 'x', 1, 1)";
        change(store, factor).await;
        let row = new_session(Proof::New);
        store.create_session(&row, &event()).await.unwrap();
        row.id
    }

    #[tokio::test]
    async fn security_01_of_two_factors_that_are_removed_at_once_the_second_stays_beside_a_short_password() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let (user, passkey, session) = (USER.parse().unwrap(), PASSKEY.parse().unwrap(), session(&store).await);
        // Both requests saw that there is another factor before either of them removed its own.
        assert!(store.remove_factor(user, session, None, &event()).await.unwrap());
        let refused = store.remove_passkey(passkey, user, session, None, &every_way(), &event()).await;
        assert!(matches!(&refused, Err(AccessError::Invalid(lines)) if *lines == [NEEDS_FACTOR]), "{refused:?}");
        assert!(store.find_factors(user).await.unwrap().has_passkey);
    }

    #[tokio::test]
    async fn security_01_a_short_password_and_the_removal_of_the_last_factor_do_not_pass_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let (user, passkey, session) = (USER.parse().unwrap(), PASSKEY.parse().unwrap(), session(&store).await);
        let seen = store.find_user(user).await.unwrap().unwrap().version;
        assert!(store.remove_factor(user, session, Some(seen), &event()).await.unwrap());
        let short = NewPassword { hash: "short".to_owned(), may_stand_alone: false };
        // The password that was long enough is not the one of now.
        store.set_password(user, &short, Some(session), &event()).await.unwrap();
        let refused = store.remove_passkey(passkey, user, session, Some(seen), &every_way(), &event()).await;
        assert!(matches!(refused, Err(AccessError::Outdated { .. })), "{refused:?}");
        let now = store.find_user(user).await.unwrap().unwrap().version;
        let removed = store.remove_passkey(passkey, user, session, Some(now), &every_way(), &event()).await.unwrap();
        assert!(removed.is_some());
        // The other way round: the factor is gone before the password is set.
        let refused = store.set_password(user, &short, Some(session), &event()).await;
        assert!(matches!(&refused, Err(AccessError::Invalid(lines)) if *lines == [SHORT_ALONE]), "{refused:?}");
        let refused = store.reset_by_link(user, "maria@example.org", &short, &Origin::default()).await.map(drop);
        assert!(matches!(&refused, Err(AccessError::Invalid(lines)) if *lines == [SHORT_ALONE]), "{refused:?}");
        let long = NewPassword { hash: "long".to_owned(), may_stand_alone: true };
        store.set_password(user, &long, Some(session), &event()).await.unwrap();
    }
}
