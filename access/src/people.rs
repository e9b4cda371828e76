//! Other people's accounts, for those who may manage them.
//!
//! Nobody changes the own role here, gives a role above the own one, or removes the last admin; a moderator can only
//! disable and enable accounts with the role `user`.

use serde_json::json;
use uuid::Uuid;

use crate::store::{User, UserFilter};
use crate::{Access, AccessError, Action, Actor, AuditEvent, Caller, Origin, Permission, Role};

impl Access {
    /// At most `limit` users in order of creation.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn search_users(&self, filter: &UserFilter, limit: u32) -> Result<Vec<User>, AccessError> {
        self.inner.store.list_users(filter, limit).await
    }

    /// Gives another user a role.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`]; [`AccessError::NotFound`]; [`AccessError::LastAdmin`].
    pub async fn set_role_of(
        &self,
        caller: &Caller,
        id: Uuid,
        role: Role,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        caller.require(Permission::SetRoles)?;
        if caller.id == id || role.rank() > caller.role.rank() {
            return Err(self.refuse(caller, Action::RoleSet, Permission::SetRoles, id, origin).await);
        }
        self.set_role(id, role, caller.into(), origin).await
    }

    /// Deletes another account. It can be brought back by hand until the purge removes it for good. Answers the account
    /// as it was, so that what is kept of it elsewhere can go too.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`]; [`AccessError::NotFound`]; [`AccessError::LastAdmin`].
    pub async fn delete_user(&self, caller: &Caller, id: Uuid, origin: &Origin) -> Result<User, AccessError> {
        caller.require(Permission::ManageUsers)?;
        if caller.id == id {
            // With the password, by the route for the own account.
            return Err(self.refuse(caller, Action::UserDelete, Permission::ManageUsers, id, origin).await);
        }
        let event = AuditEvent::success(caller.into(), Action::UserDelete, id, origin);
        let (user, revoked) = self.inner.store.delete_user(id, None, &event).await?;
        self.note_gone(id, &revoked);
        Ok(user)
    }

    /// Changes another profile, enables or disables the account, or both: all of it or nothing. A new address is not
    /// verified, and a link is sent to it. Disabling ends the account's sessions at once.
    ///
    /// # Errors
    /// As [`Access::update_own_account`]; [`AccessError::Forbidden`]; [`AccessError::LastAdmin`].
    pub async fn update_user_of(
        &self,
        caller: &Caller,
        id: Uuid,
        change: crate::ProfileChange,
        is_active: Option<bool>,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        caller.require(Permission::DeactivateUsers)?;
        let before = self.find_user(id).await?.ok_or(AccessError::NotFound { what: "user" })?;
        let parsed = crate::profile::parse_change(&change)?;
        let is_active = is_active.filter(|is_active| *is_active != before.is_active);
        let mut events = Vec::new();
        if !parsed.is_empty() {
            caller.require(Permission::ManageUsers)?;
            // With the password, by the route for the own account: a stolen token would be enough here.
            if caller.id == id {
                return Err(self.refuse(caller, Action::UserUpdate, Permission::ManageUsers, id, origin).await);
            }
            events.push(AuditEvent::success(caller.into(), Action::UserUpdate, id, origin));
        }
        if let Some(is_active) = is_active {
            events.push(self.may_set_active(caller, &before, is_active, origin).await?);
        }
        if events.is_empty() && before.version == parsed.version {
            return Ok(before);
        }
        let (user, revoked) = self.inner.store.manage_user(id, &parsed, is_active, &events).await?;
        self.inner.recent.user_changed(&user);
        self.note_revoked(&revoked);
        if before.email != user.email {
            self.notify(&before, "The e-mail address of your account was changed by an admin.");
            if user.email.is_some() {
                self.send_verification(&user).await?;
            }
        }
        Ok(user)
    }

    /// Ends every session of another user; answers how many.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`]; [`AccessError::NotFound`].
    pub async fn end_sessions_of(&self, caller: &Caller, id: Uuid, origin: &Origin) -> Result<usize, AccessError> {
        caller.require(Permission::ManageUsers)?;
        self.find_user(id).await?.ok_or(AccessError::NotFound { what: "user" })?;
        let event = AuditEvent::success(caller.into(), Action::LogoutAll, id, origin);
        let revoked = self.inner.store.revoke_sessions_of(id, &event).await?;
        self.note_revoked(&revoked);
        Ok(revoked.len())
    }

    /// What is to be written when another account is enabled or disabled, if the caller may do so.
    async fn may_set_active(
        &self,
        caller: &Caller,
        target: &User,
        is_active: bool,
        origin: &Origin,
    ) -> Result<AuditEvent, AccessError> {
        let action = if is_active { Action::UserActivate } else { Action::UserDeactivate };
        let may = caller.id != target.id && (caller.has(Permission::ManageUsers) || target.role == Role::User);
        if !may {
            return Err(self.refuse(caller, action, Permission::ManageUsers, target.id, origin).await);
        }
        Ok(AuditEvent::success(caller.into(), action, target.id, origin))
    }

    /// For what the permission alone does not allow: a row that names the action and whom it concerned.
    async fn refuse(
        &self,
        caller: &Caller,
        action: Action,
        permission: Permission,
        target: Uuid,
        origin: &Origin,
    ) -> AccessError {
        let event = AuditEvent::refused(Actor::from(caller), action, Some(target), origin)
            .with_details(json!({"role": caller.role.name()}));
        self.skip_access_denied(caller, permission);
        self.audit_refusal(event).await;
        AccessError::Forbidden { permission }
    }
}
