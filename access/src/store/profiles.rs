//! What people, and those who manage them, change about accounts: profile, password, verified address, number, picture.

use uuid::Uuid;

use super::engine::{Tx, args};
use super::factors::require_factor;
use super::identities::{UsableWays, WayIn, keep_a_way_in};
use super::proof::require_session;
use super::sessions::revoke_live;
use super::users::{finish, keep_an_admin, lock, put_state, taken_or_store};
use super::{ChangeKind, NewPassword, Store, User, UserChange};
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

impl Store {
    /// Changes a profile that is still at the version the change was made to; [`AccessError::Outdated`] otherwise, and
    /// when it would change the address of somebody who proved nothing for that. `proved_in` is the session in which
    /// somebody did; [`AccessError::NotAuthenticated`] when it has ended.
    pub(crate) async fn update_user(
        &self,
        id: Uuid,
        change: &UserChange,
        proved_in: Option<Uuid>,
        event: &AuditEvent,
    ) -> Result<User, AccessError> {
        let mut tx = self.database.write().await?;
        let before = lock(&mut tx, id).await?;
        if let Some(session) = proved_in {
            require_session(&mut tx, id, session).await?;
        }
        let version = before.version;
        if version != change.version {
            return Err(AccessError::Outdated { version });
        }
        if change_profile(&mut tx, before, change).await? && proved_in.is_none() {
            // It was the account's own when it was looked at.
            return Err(AccessError::Outdated { version });
        }
        finish(tx, id, event).await
    }

    /// Changes the profile of somebody else, enables or disables the account, or both at once: all of it or nothing.
    /// Answers the account and the sessions that were revoked. [`AccessError::Outdated`] as above;
    /// [`AccessError::LastAdmin`] when no active admin would be left.
    pub(crate) async fn manage_user(
        &self,
        id: Uuid,
        change: &UserChange,
        is_active: Option<bool>,
        events: &[AuditEvent],
    ) -> Result<(User, Vec<Uuid>), AccessError> {
        let mut tx = self.database.write().await?;
        let before = match is_active {
            Some(is_active) => keep_an_admin(&mut tx, id, |_| !is_active).await?,
            None => lock(&mut tx, id).await?,
        };
        if before.version != change.version {
            return Err(AccessError::Outdated { version: before.version });
        }
        if !change.is_empty() {
            change_profile(&mut tx, before, change).await?;
        }
        let revoked = match is_active {
            Some(is_active) => put_state(&mut tx, id, is_active).await?,
            None => Vec::new(),
        };
        let user = lock(&mut tx, id).await?;
        tx.announce(ChangeKind::User, id);
        for event in events {
            tx.audit(event);
        }
        tx.commit().await?;
        Ok((user, revoked))
    }

    /// Replaces the hash if it is still the one that was checked; false when it is not.
    pub(crate) async fn replace_password_hash(&self, id: Uuid, old: &str, new: &str) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?";
        let is_replaced = tx.execute(sql, args![new, id, old]).await? > 0;
        tx.commit().await?;
        Ok(is_replaced)
    }

    /// Sets a password and revokes every session but one; open codes of the account die. Answers the revoked ones.
    /// [`AccessError::NotAuthenticated`] when the one has ended; [`AccessError::Invalid`] for a password that may not stand
    /// alone, where there is no second factor.
    pub(crate) async fn set_password(
        &self,
        id: Uuid,
        new: &NewPassword,
        keep: Option<Uuid>,
        event: &AuditEvent,
    ) -> Result<Vec<Uuid>, AccessError> {
        match self.try_set_password(id, new, keep, event).await {
            Err(error) if error.is_deadlock() => self.try_set_password(id, new, keep, event).await,
            result => result,
        }
    }

    async fn try_set_password(
        &self,
        id: Uuid,
        new: &NewPassword,
        keep: Option<Uuid>,
        event: &AuditEvent,
    ) -> Result<Vec<Uuid>, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, id).await?;
        if let Some(session) = keep {
            require_session(&mut tx, id, session).await?;
        }
        if !new.may_stand_alone {
            require_factor(&mut tx, id).await?;
        }
        let now = now_us();
        let sql = "UPDATE users SET password_hash = ?, updated_at = ?, version = version + 1 WHERE id = ?";
        tx.execute(sql, args![&new.hash, now, id]).await?;
        let sql = "UPDATE one_time_codes SET used_at = ? WHERE user_id = ? AND purpose = 'reset' AND used_at IS NULL";
        tx.execute(sql, args![now, id]).await?;
        let revoked = revoke_live(&mut tx, id, "password", keep).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(revoked)
    }

    /// Marks the address as verified if it is still the account's; false otherwise.
    pub(crate) async fn verify_email(
        &self,
        id: Uuid,
        email_key: &str,
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "UPDATE users SET is_verified = 1, updated_at = ?, version = version + 1 \
                   WHERE id = ? AND email_key = ? AND deleted_at IS NULL";
        let done = tx.execute(sql, args![now_us(), id, email_key]).await? > 0;
        if done {
            tx.audit(event);
        }
        tx.commit().await?;
        Ok(done)
    }

    /// Sets the verified telephone number, in the name of a session of its owner. [`AccessError::NotAuthenticated`] when
    /// the session has ended.
    pub(crate) async fn set_phone(
        &self,
        id: Uuid,
        session: Uuid,
        phone: &str,
        event: &AuditEvent,
    ) -> Result<User, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, id).await?;
        require_session(&mut tx, id, session).await?;
        let sql = "UPDATE users SET phone = ?, updated_at = ?, version = version + 1 WHERE id = ?";
        tx.try_execute(sql, args![phone, now_us(), id]).await.map_err(taken_or_store)?;
        finish(tx, id, event).await
    }

    /// Removes the telephone number and revokes every session but one; answers the account and what was revoked.
    /// [`AccessError::LastWayIn`] when nothing else that is usable would be left.
    pub(crate) async fn remove_phone(
        &self,
        id: Uuid,
        keep: Option<Uuid>,
        usable: &UsableWays,
        event: &AuditEvent,
    ) -> Result<(User, Vec<Uuid>), AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, id).await?;
        if let Some(session) = keep {
            require_session(&mut tx, id, session).await?;
        }
        keep_a_way_in(&mut tx, id, WayIn::Phone, usable).await?;
        let sql = "UPDATE users SET phone = NULL, updated_at = ?, version = version + 1 WHERE id = ?";
        tx.execute(sql, args![now_us(), id]).await?;
        let revoked = revoke_live(&mut tx, id, "unlinked", keep).await?;
        Ok((finish(tx, id, event).await?, revoked))
    }

    /// Sets or removes the picture, in the name of a session of its owner; answers the account and the address that it had
    /// before. Each address is answered once, also when several are set at the same time.
    /// [`AccessError::NotAuthenticated`] when the session has ended.
    pub(crate) async fn set_avatar(
        &self,
        id: Uuid,
        session: Uuid,
        url: Option<&str>,
        event: &AuditEvent,
    ) -> Result<(User, Option<String>), AccessError> {
        let mut tx = self.database.write().await?;
        let before = lock(&mut tx, id).await?.avatar_url;
        require_session(&mut tx, id, session).await?;
        let sql = "UPDATE users SET avatar_url = ?, updated_at = ?, version = version + 1 WHERE id = ?";
        tx.execute(sql, args![url, now_us(), id]).await?;
        Ok((finish(tx, id, event).await?, before))
    }
}

/// Writes a change of a locked user; answers whether the address is another one now.
async fn change_profile(tx: &mut Tx, before: User, change: &UserChange) -> Result<bool, AccessError> {
    let id = before.id;
    let username = change.username.as_ref().map_or(before.username, |name| name.as_str().to_owned());
    let email = change.email.as_ref().map(|email| email.as_str().to_owned()).or(before.email.clone());
    let is_same = email.as_deref().map(str::to_ascii_lowercase) == before.email.as_deref().map(str::to_ascii_lowercase);
    let sql = "UPDATE users SET username = ?, username_key = ?, email = ?, email_key = ?, is_verified = ?, \
               nickname = ?, full_name = ?, updated_at = ?, version = version + 1 WHERE id = ?";
    let values = args![
        &username,
        username.to_ascii_lowercase(),
        email.clone(),
        email.map(|email| email.to_ascii_lowercase()),
        before.is_verified && is_same,
        change.nickname.clone().unwrap_or(before.nickname),
        change.full_name.clone().unwrap_or(before.full_name),
        now_us(),
        id,
    ];
    tx.try_execute(sql, values).await.map_err(taken_or_store)?;
    if !is_same {
        // A link that was sent to the old address must not verify or reset anything any more.
        let sql = "UPDATE one_time_codes SET used_at = ? WHERE user_id = ? AND used_at IS NULL";
        tx.execute(sql, args![now_us(), id]).await?;
    }
    Ok(!is_same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{USER, change, store};
    use crate::store::{NewSessionRow, Proof};
    use crate::{Action, Actor, Email, Origin};

    #[tokio::test]
    async fn security_41_an_address_that_was_the_own_one_a_moment_ago_is_not_put_back_without_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let id: Uuid = USER.parse().unwrap();
        let event = AuditEvent::success(Actor::User(id), Action::UserUpdate, id, &Origin::default());
        let email = Email::parse("maria@example.org").unwrap();
        let put_back = |version| UserChange { email: Some(email.clone()), version, ..UserChange::default() };
        store.update_user(id, &put_back(1), None, &event).await.unwrap();
        // A change with the password comes between the look at the account and this one.
        change(&store, "UPDATE users SET email = 'new@example.org', email_key = 'new@example.org'").await;
        let refused = store.update_user(id, &put_back(2), None, &event).await;
        assert!(matches!(refused, Err(AccessError::Outdated { .. })), "{refused:?}");
        let user = store.find_user(id).await.unwrap().unwrap();
        assert_eq!((user.email.as_deref(), user.version), (Some("new@example.org"), 2));
        let row = NewSessionRow {
            id: Uuid::now_v7(),
            user: id,
            token_hash: "x".to_owned(),
            at: now_us(),
            expires_at: now_us() + 1_000_000_000,
            origin: Origin::default(),
            proof: Proof::New,
        };
        store.create_session(&row, &event).await.unwrap();
        let user = store.update_user(id, &put_back(2), Some(row.id), &event).await.unwrap();
        assert_eq!(user.email.as_deref(), Some("maria@example.org"));
    }
}
