//! Security events, as the audit log keeps them. Rows are only ever added; the database itself refuses the rest.

pub(crate) mod chain;
mod log;

use serde_json::Value;
use uuid::Uuid;

pub use log::{AuditFilter, AuditRow, ChainBreak, ChainReport};

use crate::{Caller, CallerKind, Origin};

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Nobody known: a failed log-in, for example.
    Anonymous,
    /// A person at the command line, who owns the data folder.
    Shell,
    /// Upkeep that nobody asked for at the moment.
    System,
    /// A user with a session.
    User(Uuid),
    /// An API key.
    ApiKey(Uuid),
}

/// What was done or tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Action {
    Register,
    Login,
    LoginMfa,
    Refresh,
    RefreshReuse,
    Logout,
    LogoutAll,
    SessionRevoke,
    UserCreate,
    UserUpdate,
    UserDeactivate,
    UserActivate,
    UserDelete,
    UserPurge,
    RoleSet,
    PasswordChange,
    PasswordReset,
    PasswordResetRequest,
    EmailVerify,
    EmailVerifyRequest,
    PhoneCodeRequest,
    PhoneLink,
    PhoneUnlink,
    OauthLogin,
    OauthLink,
    OauthUnlink,
    MfaEnroll,
    MfaConfirm,
    MfaRemove,
    RecoveryCodeUse,
    RecoveryCodesRenew,
    PasskeyAdd,
    PasskeyRemove,
    PasskeyLogin,
    ConsentGrant,
    ConsentRevoke,
    AvatarSet,
    AvatarRemove,
    ApiKeyCreate,
    ApiKeyRevoke,
    SigningKeyRotate,
    QueryRun,
    ReplayOrder,
    CredentialRefused,
    AccessDenied,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It was refused.
    Denied,
}

/// One row of the audit log before it is written.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// Whom or what it concerned.
    pub target: Option<Uuid>,
    /// How it ended.
    pub outcome: Outcome,
    /// From where.
    pub origin: Origin,
    /// More facts; never secrets.
    pub details: Option<Value>,
}

impl AuditEvent {
    pub(crate) fn success(actor: Actor, action: Action, target: Uuid, origin: &Origin) -> Self {
        let (target, outcome) = (Some(target), Outcome::Success);
        Self { actor, action, target, outcome, origin: origin.clone(), details: None }
    }

    pub(crate) fn denied(action: Action, target: Option<Uuid>, origin: &Origin) -> Self {
        let (actor, outcome) = (Actor::Anonymous, Outcome::Denied);
        Self { actor, action, target, outcome, origin: origin.clone(), details: None }
    }

    /// A refusal of somebody who is known.
    pub(crate) fn refused(actor: Actor, action: Action, target: Option<Uuid>, origin: &Origin) -> Self {
        Self { actor, action, target, outcome: Outcome::Denied, origin: origin.clone(), details: None }
    }

    pub(crate) fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
}

impl From<&Caller> for Actor {
    fn from(caller: &Caller) -> Self {
        match caller.kind {
            CallerKind::User { .. } => Self::User(caller.id),
            CallerKind::ApiKey { key, .. } => Self::ApiKey(key),
        }
    }
}

impl Actor {
    pub(crate) fn columns(self) -> (&'static str, Option<Uuid>) {
        match self {
            Self::Anonymous => ("anonymous", None),
            Self::Shell => ("shell", None),
            Self::System => ("system", None),
            Self::User(id) => ("user", Some(id)),
            Self::ApiKey(id) => ("api_key", Some(id)),
        }
    }
}

impl Action {
    /// The name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Login => "login",
            Self::LoginMfa => "login_mfa",
            Self::Refresh => "refresh",
            Self::RefreshReuse => "refresh_reuse",
            Self::Logout => "logout",
            Self::LogoutAll => "logout_all",
            Self::SessionRevoke => "session_revoke",
            Self::UserCreate => "user_create",
            Self::UserUpdate => "user_update",
            Self::UserDeactivate => "user_deactivate",
            Self::UserActivate => "user_activate",
            Self::UserDelete => "user_delete",
            Self::UserPurge => "user_purge",
            Self::RoleSet => "role_set",
            Self::PasswordChange => "password_change",
            Self::PasswordReset => "password_reset",
            Self::PasswordResetRequest => "password_reset_request",
            Self::EmailVerify => "email_verify",
            Self::EmailVerifyRequest => "email_verify_request",
            Self::PhoneCodeRequest => "phone_code_request",
            Self::PhoneLink => "phone_link",
            Self::PhoneUnlink => "phone_unlink",
            Self::OauthLogin => "oauth_login",
            Self::OauthLink => "oauth_link",
            Self::OauthUnlink => "oauth_unlink",
            Self::MfaEnroll => "mfa_enroll",
            Self::MfaConfirm => "mfa_confirm",
            Self::MfaRemove => "mfa_remove",
            Self::RecoveryCodeUse => "recovery_code_use",
            Self::RecoveryCodesRenew => "recovery_codes_renew",
            Self::PasskeyAdd => "passkey_add",
            Self::PasskeyRemove => "passkey_remove",
            Self::PasskeyLogin => "passkey_login",
            Self::ConsentGrant => "consent_grant",
            Self::ConsentRevoke => "consent_revoke",
            Self::AvatarSet => "avatar_set",
            Self::AvatarRemove => "avatar_remove",
            Self::ApiKeyCreate => "api_key_create",
            Self::ApiKeyRevoke => "api_key_revoke",
            Self::SigningKeyRotate => "signing_key_rotate",
            Self::QueryRun => "query_run",
            Self::ReplayOrder => "replay_order",
            Self::CredentialRefused => "credential_refused",
            Self::AccessDenied => "access_denied",
        }
    }
}

impl Outcome {
    /// The name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
        }
    }
}
