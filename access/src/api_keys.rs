//! API keys: `kk_<prefix>_<secret>`. The whole key is shown once; the prefix finds it, its SHA-256 proves it.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::authenticate::KEY_MARK;
use crate::secret::{random_hex, sha256_hex};
use crate::store::NewKeyRow;
use crate::time::{as_us, now_us};
use crate::{Access, AccessError, Action, Actor, AuditEvent, Caller, Origin, Permission, Scope, Scopes};

/// More than one process takes in a second.
const MOST_EVENTS_PER_SECOND: u32 = 1_000_000;

/// What is needed to make a key.
#[derive(Debug, Clone)]
pub struct NewApiKey {
    /// Whose key it is.
    pub owner: Uuid,
    /// A name to know it by.
    pub name: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// Its life; `None` for ever.
    pub expires_in: Option<Duration>,
    /// How many events it publishes in a second, from one to a million; `None` for as many as it likes.
    pub events_per_second: Option<u32>,
}

/// A key as it is listed, without its secret.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// UUID v7.
    pub id: Uuid,
    /// Whose key it is.
    pub owner: Uuid,
    /// The name to know it by.
    pub name: String,
    /// The public part after `kk_`.
    pub prefix: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// How many events it publishes in a second; `None` for as many as it likes.
    pub events_per_second: Option<u32>,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
    /// Microseconds since 1970, UTC.
    pub expires_at_us: Option<i64>,
    /// Microseconds since 1970, UTC; written in batches, so some seconds behind.
    pub last_used_at_us: Option<i64>,
    /// Microseconds since 1970, UTC.
    pub revoked_at_us: Option<i64>,
}

/// A key just made. This is the only time that the secret is known.
#[derive(Debug)]
pub struct IssuedKey {
    /// The whole key.
    pub secret: SecretString,
    /// As it will be listed.
    pub key: ApiKey,
}

impl Access {
    /// Makes a key. It never has more rights than its owner has at the time of use.
    ///
    /// # Errors
    /// [`AccessError::NotFound`] for an unknown owner; [`AccessError::Invalid`] for a name that is empty or too long,
    /// and for a rate that is none; [`AccessError::TooManyKeys`].
    pub async fn create_api_key(
        &self,
        new: NewApiKey,
        actor: Actor,
        origin: &Origin,
    ) -> Result<IssuedKey, AccessError> {
        self.add_api_key(new, actor, None, origin).await
    }

    /// Makes a key for the caller's own account, whose session must still live when it is made.
    ///
    /// # Errors
    /// As [`Access::create_api_key`]; [`AccessError::NotAuthenticated`] when the session has ended;
    /// [`AccessError::Forbidden`] for a caller without one, or another owner.
    pub async fn create_own_api_key(
        &self,
        caller: &Caller,
        new: NewApiKey,
        origin: &Origin,
    ) -> Result<IssuedKey, AccessError> {
        let forbidden = AccessError::Forbidden { permission: Permission::ManageOwnKeys };
        let session = caller.session().filter(|_| caller.id == new.owner).ok_or(forbidden)?;
        self.add_api_key(new, caller.into(), Some(session), origin).await
    }

    async fn add_api_key(
        &self,
        new: NewApiKey,
        actor: Actor,
        session: Option<Uuid>,
        origin: &Origin,
    ) -> Result<IssuedKey, AccessError> {
        let name = new.name.trim().to_owned();
        if !(1..=100).contains(&name.chars().count()) || name.chars().any(char::is_control) {
            let line = "`name`: must be 1 to 100 characters without control characters";
            return Err(AccessError::Invalid(vec![line.to_owned()]));
        }
        if new.events_per_second.is_some_and(|rate| !(1..=MOST_EVENTS_PER_SECOND).contains(&rate)) {
            let line = format!("`events_per_second`: must be from 1 to {MOST_EVENTS_PER_SECOND}");
            return Err(AccessError::Invalid(vec![line]));
        }
        let owner = self.find_user(new.owner).await?.ok_or(AccessError::NotFound { what: "user" })?;
        if new.scopes.contains(&Scope::PublishForOthers) && !owner.role.permits(Permission::PublishForOthers) {
            let line = format!("`scopes`: the role `{}` may not publish for others", owner.role);
            return Err(AccessError::Invalid(vec![line]));
        }
        let (id, prefix, at) = (Uuid::now_v7(), random_hex::<6>()?, now_us());
        let secret = format!("{KEY_MARK}{prefix}_{}", random_hex::<24>()?);
        let expires_at = new.expires_in.map(|life| at.saturating_add(as_us(life)));
        let key_hash = sha256_hex(&secret);
        let (user, scopes, events_per_second) = (new.owner, new.scopes, new.events_per_second);
        let row = NewKeyRow { id, user, name, prefix, key_hash, scopes, at, expires_at, events_per_second };
        let details = json!({"owner": user, "scopes": row.scopes.to_texts(), "events_per_second": events_per_second});
        let event = AuditEvent::success(actor, Action::ApiKeyCreate, id, origin).with_details(details);
        self.inner.store.create_key(&row, session, &event).await?;
        let key = ApiKey {
            id,
            owner: user,
            name: row.name,
            prefix: row.prefix,
            scopes: row.scopes,
            events_per_second,
            created_at_us: at,
            expires_at_us: expires_at,
            last_used_at_us: None,
            revoked_at_us: None,
        };
        Ok(IssuedKey { secret: secret.into(), key })
    }

    /// The keys of one owner, live ones first, then those that ended; newest first, [`Access::LIST_ROWS`] at most.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn list_api_keys(&self, owner: Uuid) -> Result<Vec<ApiKey>, AccessError> {
        self.inner.store.list_keys(owner, Self::LIST_ROWS).await
    }

    /// Revokes a key: at once here, within five seconds in other processes. With an owner, only that owner's.
    ///
    /// # Errors
    /// [`AccessError::NotFound`] when there is no such live key.
    pub async fn revoke_api_key(
        &self,
        id: Uuid,
        owner: Option<Uuid>,
        actor: Actor,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let event = AuditEvent::success(actor, Action::ApiKeyRevoke, id, origin);
        if !self.inner.store.revoke_key(id, owner, &event).await? {
            return Err(AccessError::NotFound { what: "API key" });
        }
        self.inner.recent.key_revoked(id);
        Ok(())
    }
}
