//! What goes into the database and comes out of it, the same for every engine.

use std::sync::Arc;

use secrecy::SecretString;
use uuid::Uuid;

use super::Proof;
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
    /// The telephone number in E.164, verified.
    pub phone: Option<String>,
    /// `none`, `granted` or `revoked`.
    pub consent_status: String,
    /// The version of the text that the status is about.
    pub consent_version: Option<String>,
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
    pub phone: Option<String>,
    pub is_verified: bool,
    pub at: i64,
}

/// What a person may change about the own account. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct UserChange {
    pub username: Option<Username>,
    /// A new address is not verified.
    pub email: Option<Email>,
    /// `Some(None)` removes it.
    pub nickname: Option<Option<String>>,
    pub full_name: Option<Option<String>>,
    /// The version that the change was made to.
    pub version: i64,
}

impl UserChange {
    /// Whether everything stays as it is.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { username, email, nickname, full_name, version: _ } = self;
        username.is_none() && email.is_none() && nickname.is_none() && full_name.is_none()
    }
}

/// A session as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// UUID v7.
    pub id: Uuid,
    /// Whose it is.
    pub user: Uuid,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
    /// Microseconds since 1970, UTC.
    pub last_used_at_us: i64,
    /// Microseconds since 1970, UTC.
    pub expires_at_us: i64,
    /// Address at log-in.
    pub ip: Option<String>,
    /// Program at log-in.
    pub user_agent: Option<String>,
}

/// Which users are asked for.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Part of the username or the address, without case.
    pub search: Option<String>,
    /// With this role.
    pub role: Option<Role>,
    /// Enabled or disabled.
    pub is_active: Option<bool>,
    /// After this one in order of creation.
    pub after: Option<Uuid>,
}

/// A code that works once, before it is sent.
pub(crate) struct NewCodeRow {
    pub id: Uuid,
    pub purpose: &'static str,
    pub user: Option<Uuid>,
    /// What it is bound to: an address, a number, a session.
    pub address: String,
    pub code_hash: String,
    pub tries: i64,
    pub at: i64,
    pub expires_at: i64,
}

/// What presenting a code came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CodeUse {
    /// It was right and is used up now.
    Accepted { user: Option<Uuid>, address: String },
    /// Unknown, ended, used, or wrong once too often.
    Refused,
}

/// An attempt that may fail, counted before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Allowed,
    /// Too many failed; this many microseconds to wait.
    Wait {
        micros: i64,
    },
}

/// A log-in at another provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// UUID v7.
    pub id: Uuid,
    /// Whose it is.
    pub user: Uuid,
    /// Name of the provider in the settings.
    pub provider: String,
    /// Who says so.
    pub issuer: String,
    /// The person there.
    pub subject: String,
    /// The address that the provider named.
    pub email: Option<String>,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
}

pub(crate) struct Factor {
    pub secret: String,
    pub last_step: i64,
    pub is_confirmed: bool,
}

/// One thing that was agreed to or taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Of this step.
    pub id: Uuid,
    /// `granted` or `revoked`.
    pub status: String,
    /// Version of the text.
    pub version: String,
    /// Where it was given: `web`, `api` and so on.
    pub source: String,
    /// Address of the client.
    pub ip: Option<String>,
    /// Microseconds since 1970, UTC.
    pub at_us: i64,
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
    /// What the log-in rests on.
    pub proof: Proof,
}

/// A password to be set.
pub(crate) struct NewPassword {
    pub hash: String,
    /// Whether it is enough without a second factor.
    pub may_stand_alone: bool,
}

pub(crate) struct RotationRequest {
    pub old_hash: String,
    pub new_hash: String,
    pub at: i64,
    /// Refreshes allowed to a session in the hour before `at`.
    pub per_hour: Option<u32>,
}

/// A session that somebody gets tokens of, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub session: Uuid,
    pub user: Box<User>,
    pub ends_at: i64,
}

/// What came of a rotation; `T` is what was made for it meanwhile.
pub(crate) enum Rotation<T> {
    /// The new token stands; the old one is used up.
    Rotated { granted: Granted, made: T },
    /// The old token had been used before: its session is revoked now.
    Reused { session: Uuid },
    /// Unknown, ended or revoked, or the account is disabled.
    Refused,
    /// Nothing changed: the session has used up its hour.
    TooMany { session: Uuid, retry_at: i64 },
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
    pub events_per_second: Option<u32>,
}

pub(crate) struct StoredKey {
    pub id: Uuid,
    pub key_hash: String,
    pub scopes: Arc<Scopes>,
    pub events_per_second: Option<u32>,
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
    /// What changed. None when a newer version wrote it and this one cannot read it: its place in the feed counts all
    /// the same, or nothing behind it would ever be heard.
    pub what: Option<(ChangeKind, Uuid)>,
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
