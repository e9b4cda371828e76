//! [`Caller`]: who is asking, already authenticated. Handlers ask it for each permission by name.

use std::sync::Arc;

use uuid::Uuid;

use crate::{AccessError, Permission, Role, Scope, Scopes};

/// An authenticated user, or a program that acts for one through an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user's id. For an API key: its owner's.
    pub id: Uuid,
    /// The user's name.
    pub username: Arc<str>,
    /// The user's role now, not when the credential was issued.
    pub role: Role,
    /// How the caller proved who it is.
    pub kind: CallerKind,
}

/// The kind of credential behind a [`Caller`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerKind {
    /// An access token of a session.
    User {
        /// The session.
        session: Uuid,
    },
    /// An API key.
    ApiKey {
        /// The key.
        key: Uuid,
        /// What the key may be used for.
        scopes: Arc<Scopes>,
        /// How many events its owner declared that it publishes in a second; none for as many as it likes.
        events_per_second: Option<u32>,
    },
}

/// Whose rows a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowScope {
    /// Everybody's.
    All,
    /// Those of one user, and of the sources granted to the role.
    Own {
        /// The user.
        user: Uuid,
        /// The role, for granted sources.
        role: Role,
    },
}

impl Caller {
    /// Whether the caller has a permission: its role includes it and, for an API key, a scope covers it. No key may
    /// manage accounts, keys or roles, whoever owns it.
    pub fn has(&self, permission: Permission) -> bool {
        self.role.permits(permission)
            && match &self.kind {
                CallerKind::User { .. } => true,
                CallerKind::ApiKey { scopes, .. } => key_permits(scopes, permission),
            }
    }

    /// Asks for a permission.
    ///
    /// # Errors
    /// [`AccessError::Forbidden`] naming it.
    pub fn require(&self, permission: Permission) -> Result<(), AccessError> {
        if self.has(permission) { Ok(()) } else { Err(AccessError::Forbidden { permission }) }
    }

    /// Whether the caller may call the route at this path, which has no prefix of the API, as far as the scopes of an API
    /// key say. What it may do there is asked for as a permission.
    pub fn may_call(&self, path: &str) -> bool {
        match &self.kind {
            CallerKind::User { .. } => true,
            CallerKind::ApiKey { scopes, .. } => scopes.allow_route(path),
        }
    }

    /// Whether the caller may publish events of this type.
    pub fn may_publish(&self, event_type: &str) -> bool {
        match &self.kind {
            CallerKind::User { .. } => self.has(Permission::Publish),
            CallerKind::ApiKey { scopes, .. } => {
                self.role.permits(Permission::Publish) && scopes.allow_publishing(event_type)
            }
        }
    }

    /// Whether `user_id` in a payload of this caller is honoured.
    pub fn may_publish_for_others(&self) -> bool {
        matches!(self.kind, CallerKind::ApiKey { .. }) && self.has(Permission::PublishForOthers)
    }

    /// Whose rows the caller sees. Ask for [`Permission::ReadOwnData`] first.
    pub fn row_scope(&self) -> RowScope {
        if self.has(Permission::ReadAllData) { RowScope::All } else { RowScope::Own { user: self.id, role: self.role } }
    }

    /// The session behind an access token; `None` for an API key.
    pub fn session(&self) -> Option<Uuid> {
        match self.kind {
            CallerKind::User { session } => Some(session),
            CallerKind::ApiKey { .. } => None,
        }
    }

    /// The session, for what a key cannot do.
    pub(crate) fn require_session(&self) -> Result<Uuid, AccessError> {
        self.session().ok_or(AccessError::NotFound { what: "session" })
    }
}

fn key_permits(scopes: &Scopes, permission: Permission) -> bool {
    use Permission as P;
    match permission {
        P::Publish => scopes.allow_any_publishing(),
        P::PublishForOthers => scopes.contains(&Scope::PublishForOthers),
        P::ReadOwnData | P::ReadAllData | P::Query => scopes.contains(&Scope::Read),
        P::ManageOwnAccount
        | P::ManageOwnKeys
        | P::ReadUsers
        | P::DeactivateUsers
        | P::ManageUsers
        | P::SetRoles
        | P::ReadAudit
        | P::OperatePipelines
        | P::Review => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_caller(role: Role, scopes: &[&str]) -> Caller {
        let scopes = Arc::new(Scopes::parse(scopes).unwrap());
        let kind = CallerKind::ApiKey { key: Uuid::now_v7(), scopes, events_per_second: None };
        Caller { id: Uuid::now_v7(), username: "key_owner".into(), role, kind }
    }

    #[test]
    fn security_59_an_admins_key_cannot_manage_anything() {
        let caller = key_caller(Role::Admin, &["publish:*", "publish_for_others", "read"]);
        let allowed: Vec<_> = Permission::ALL.into_iter().filter(|p| caller.has(*p)).collect();
        use Permission as P;
        assert_eq!(allowed, [P::Publish, P::PublishForOthers, P::ReadOwnData, P::ReadAllData, P::Query]);
    }

    #[test]
    fn a_key_never_has_more_than_its_owner() {
        let caller = key_caller(Role::User, &["read"]);
        assert!(!caller.has(Permission::ReadAllData) && !caller.has(Permission::Publish));
        assert_eq!(caller.row_scope(), RowScope::Own { user: caller.id, role: Role::User });
        assert!(matches!(
            caller.require(Permission::Query),
            Err(AccessError::Forbidden { permission: Permission::Query })
        ));
    }

    #[test]
    fn publishing_for_others_is_only_for_keys_with_that_scope() {
        assert!(key_caller(Role::Operator, &["publish:*", "publish_for_others"]).may_publish_for_others());
        assert!(!key_caller(Role::User, &["publish:*", "publish_for_others"]).may_publish_for_others());
        assert!(!key_caller(Role::Admin, &["publish:*"]).may_publish_for_others());
    }

    #[test]
    fn security_59_the_routes_of_a_key_give_it_nothing_that_its_owner_lacks() {
        let caller = key_caller(Role::User, &["read", "route:/users", "route:/runs"]);
        assert!(caller.may_call("/users") && caller.may_call("/runs") && !caller.may_call("/jobs"));
        assert!(!caller.has(Permission::ReadUsers) && !caller.has(Permission::ReadAllData));
    }

    #[test]
    fn a_key_publishes_what_its_scopes_name() {
        let caller = key_caller(Role::User, &["publish:a"]);
        assert!(caller.may_publish("a") && !caller.may_publish("b"));
    }
}
