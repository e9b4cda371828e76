//! What goes into the database and comes out of it, the same for every engine.

use std::sync::Arc;

use secrecy::SecretString;
use uuid::Uuid;

use crate::{Email, Origin, Role, Scopes, Username};

/// An account, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// UUID v7.
    pub id: Uuid,
    /// The name, as it was written.
    pub username: String,
    /// The address, as it was written.
    pub email: Option<String>,
    /// What others call this person.
    pub nickname: Option<String>,
    /// The person's name.
    pub full_name: Option<String>,
    /// The role.
    pub role: Role,
    /// Where the picture is.
    pub avatar_url: Option<String>,
    /// False when the account is disabled.
    pub is_active: bool,
    /// True when the address was verified.
    pub is_verified: bool,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
    /// Microseconds since 1970, UTC.
    pub updated_at_us: i64,
    /// Grows with every change; sent back with an update so that none is lost.
    pub version: i64,
}

pub(crate) struct NewUserRow {
    pub id: Uuid,
    pub username: Username,
    pub email: Option<Email>,
    pub password_hash: Option<String>,
    pub full_name: Option<String>,
    pub role: Role,
    pub at: i64,
}

pub(crate) struct StoredLogin {
    pub user: User,
    pub password_hash: Option<SecretString>,
}

pub(crate) struct NewSessionRow {
    pub id: Uuid,
    pub user: Uuid,
    pub token_hash: String,
    pub at: i64,
    pub expires_at: i64,
    pub origin: Origin,
}

pub(crate) struct RotationRequest {
    pub old_hash: String,
    pub new_hash: String,
    pub at: i64,
    /// Refreshes allowed to a session in the hour before `at`.
    pub per_hour: Option<u32>,
}

pub(crate) enum Rotation {
    /// The new token stands; the old one is used up.
    Rotated { session: Uuid, user: User },
    /// The old token had been used before: its session is revoked now.
    Reused { session: Uuid },
    /// Unknown, ended or revoked, or the account is disabled.
    Refused,
    /// Nothing changed: the session has used up its hour.
    TooMany { retry_at: i64 },
}

pub(crate) struct NewKeyRow {
    pub id: Uuid,
    pub user: Uuid,
    pub name: String,
    pub prefix: String,
    pub key_hash: String,
    pub scopes: Scopes,
    pub at: i64,
    pub expires_at: Option<i64>,
}

pub(crate) struct StoredKey {
    pub id: Uuid,
    pub key_hash: String,
    pub scopes: Arc<Scopes>,
    pub expires_at: Option<i64>,
    pub is_revoked: bool,
    pub owner: KeyOwner,
}

pub(crate) struct KeyOwner {
    pub id: Uuid,
    pub username: Arc<str>,
    pub role: Role,
    pub is_active: bool,
}

/// Something that every process must hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub seq: i64,
    pub at: i64,
    pub kind: ChangeKind,
    pub subject: Uuid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// A session was revoked.
    Session,
    /// A user's role or state changed.
    User,
    /// An API key was revoked.
    ApiKey,
}

impl ChangeKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::User => "user",
            Self::ApiKey => "api_key",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Session, Self::User, Self::ApiKey].into_iter().find(|kind| kind.name() == name)
    }
}
