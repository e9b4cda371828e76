//! The caller's own account: changing the profile, ending it, its sessions.

use secrecy::SecretString;
use uuid::Uuid;

use crate::accounts::parse_full_name;
use crate::store::{Session, User, UserChange};
use crate::{Access, AccessError, Action, AuditEvent, Caller, Email, Origin, Username};

/// What a person changes about the own account. `None` leaves a field as it is; an empty `nickname` or `full_name` removes it.
#[derive(Debug, Default)]
pub struct ProfileChange {
    /// The name.
    pub username: Option<String>,
    /// The address; a new one needs `current_password`, where the account has one, and is not verified.
    pub email: Option<String>,
    /// What others call this person.
    pub nickname: Option<String>,
    /// The person's name.
    pub full_name: Option<String>,
    /// Needed for a new address.
    pub current_password: Option<SecretString>,
    /// The version of the account that was read.
    pub version: i64,
}

impl Access {
    /// Changes the caller's profile.
    ///
    /// # Errors
    /// [`AccessError::Outdated`] when it was changed meanwhile; [`AccessError::Invalid`]; [`AccessError::Taken`];
    /// [`AccessError::InvalidCredentials`] for a new address with a wrong password; [`AccessError::FreshLoginNeeded`]
    /// for one of an account without a password.
    pub async fn update_own_account(
        &self,
        caller: &Caller,
        change: ProfileChange,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        let before = self.find_user(caller.id).await?.ok_or(AccessError::NotFound { what: "user" })?;
        let parsed = parse_change(&change)?;
        let is_new =
            |email: &Email| !before.email.as_deref().is_some_and(|old| old.eq_ignore_ascii_case(email.as_str()));
        let new_email = parsed.email.as_ref().is_some_and(is_new);
        if new_email {
            self.require_password(caller, Action::UserUpdate, "current_password", change.current_password, origin)
                .await?;
        }
        let event = AuditEvent::success(caller.into(), Action::UserUpdate, caller.id, origin);
        let proved_in = if new_email { Some(caller.require_session()?) } else { None };
        let user = self.inner.store.update_user(caller.id, &parsed, proved_in, &event).await?;
        if new_email {
            self.notify(&before, "The e-mail address of your account was changed to another one.");
            self.send_verification(&user).await?;
        }
        Ok(user)
    }

    /// Deletes the caller's account, after the password was given again, where it has one. It can be brought back by
    /// hand until the purge removes it for good. Answers the account as it was, so that what is kept of it elsewhere
    /// can go too.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`]; [`AccessError::LastAdmin`];
    /// [`AccessError::TooManyAttempts`].
    pub async fn delete_own_account(
        &self,
        caller: &Caller,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        let user = self.require_password(caller, Action::UserDelete, "password", password, origin).await?;
        let event = AuditEvent::success(caller.into(), Action::UserDelete, user.id, origin);
        let (user, revoked) = self.inner.store.delete_user(user.id, caller.session(), &event).await?;
        self.note_gone(user.id, &revoked);
        self.notify(&user, "Your account was deleted.");
        Ok(user)
    }

    /// The caller's live sessions, newest first; [`Access::LIST_ROWS`] at most.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn list_sessions(&self, user: Uuid) -> Result<Vec<Session>, AccessError> {
        self.inner.store.list_sessions(user, Self::LIST_ROWS).await
    }

    /// Ends one session of a user. Its access tokens stop working at once.
    ///
    /// # Errors
    /// [`AccessError::NotFound`] when it is not a live session of that user.
    pub async fn end_session(
        &self,
        session: Uuid,
        owner: Uuid,
        caller: &Caller,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let event = AuditEvent::success(caller.into(), Action::SessionRevoke, session, origin);
        if !self.inner.store.revoke_session(session, owner, &event).await? {
            return Err(AccessError::NotFound { what: "session" });
        }
        self.note_revoked(&[session]);
        Ok(())
    }

    /// Sets or removes the address of the caller's picture; answers the account and the address that was replaced, whose
    /// picture nobody finds any more.
    ///
    /// # Errors
    /// [`AccessError::NotFound`]; [`AccessError::NotAuthenticated`] when the session has ended.
    pub async fn set_avatar(
        &self,
        caller: &Caller,
        url: Option<&str>,
        origin: &Origin,
    ) -> Result<(User, Option<String>), AccessError> {
        let action = if url.is_some() { Action::AvatarSet } else { Action::AvatarRemove };
        let event = AuditEvent::success(caller.into(), action, caller.id, origin);
        self.inner.store.set_avatar(caller.id, caller.require_session()?, url, &event).await
    }

    /// What a deleted account leaves in memory: nothing that still works.
    pub(crate) fn note_gone(&self, user: Uuid, sessions: &[Uuid]) {
        self.inner.recent.user_gone(user);
        self.note_revoked(sessions);
    }
}

pub(crate) fn parse_change(change: &ProfileChange) -> Result<UserChange, AccessError> {
    let mut lines = Vec::new();
    let mut keep = |line: String| lines.push(line);
    let username = change.username.as_deref().map(Username::parse).transpose().map_err(&mut keep).ok().flatten();
    let email = change.email.as_deref().map(Email::parse).transpose().map_err(&mut keep).ok().flatten();
    let text = |name: &str, text: &str| {
        if text.trim().is_empty() { Ok(None) } else { parse_full_name(name, text).map(Some) }
    };
    let nickname =
        change.nickname.as_deref().map(|t| text("nickname", t)).transpose().map_err(&mut keep).ok().flatten();
    let full_name =
        change.full_name.as_deref().map(|t| text("full_name", t)).transpose().map_err(&mut keep).ok().flatten();
    if !lines.is_empty() {
        return Err(AccessError::Invalid(lines));
    }
    Ok(UserChange { username, email, nickname, full_name, version: change.version })
}
