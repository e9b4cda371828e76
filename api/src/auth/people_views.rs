//! Request and answer bodies of the routes on other people's accounts.

use karat_access::AuditRow;
use poem_openapi::Object;
use serde::Deserialize;

use super::views::{UserView, rfc3339};

/// Some accounts.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct UsersPage {
    /// In order of creation.
    pub users: Vec<UserView>,
    /// For `after` of the next page; null when this is the last.
    pub next: Option<String>,
}

/// An account for somebody.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUserRequest {
    /// 3 to 30 of letters A to Z, digits and `_`; unique without case.
    #[oai(validator(min_length = 3, max_length = 30, pattern = "^[A-Za-z0-9_]+$"))]
    pub username: String,
    /// In ASCII; unique without case.
    #[oai(validator(max_length = 254))]
    pub email: Option<String>,
    /// As at registration.
    #[oai(validator(min_length = 8, max_length = 128))]
    pub password: String,
    /// `user` when left out.
    pub role: Option<String>,
}

/// What is changed about an account. A field that is left out stays as it is; an empty `nickname` or `full_name` removes it.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserChangeRequest {
    /// 3 to 30 of letters A to Z, digits and `_`; unique without case.
    #[oai(validator(min_length = 3, max_length = 30, pattern = "^[A-Za-z0-9_]+$"))]
    pub username: Option<String>,
    /// A new address has to be confirmed again.
    #[oai(validator(max_length = 254))]
    pub email: Option<String>,
    /// What others call this person.
    #[oai(validator(max_length = 100))]
    pub nickname: Option<String>,
    /// The person's name.
    #[oai(validator(max_length = 100))]
    pub full_name: Option<String>,
    /// False disables the account and ends its sessions at once.
    pub is_active: Option<bool>,
    /// The version of the account that was read: 409 when it was changed meanwhile.
    pub version: i64,
}

/// A role.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRequest {
    /// `user`, `moderator`, `operator` or `admin`.
    pub role: String,
}

/// Some rows of the audit log.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct AuditPage {
    /// Newest first.
    pub rows: Vec<AuditView>,
    /// For `before` of the next page; null when this is the last.
    pub next: Option<i64>,
}

/// One security event.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct AuditView {
    /// Its number; without gaps.
    pub seq: i64,
    /// RFC 3339 in UTC.
    pub at: String,
    /// `anonymous`, `shell`, `system`, `user` or `api_key`.
    pub actor_kind: String,
    /// Who.
    pub actor_id: Option<String>,
    /// What.
    pub action: String,
    /// Whom or what it concerned.
    pub target_id: Option<String>,
    /// `success` or `denied`.
    pub outcome: String,
    /// From where.
    pub ip: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// Id of the request in the log.
    pub request_id: Option<String>,
    /// More facts, as JSON.
    pub details: Option<String>,
    /// Over this row and the one before.
    pub hash: String,
}

impl From<AuditRow> for AuditView {
    fn from(row: AuditRow) -> Self {
        Self {
            seq: row.seq,
            at: rfc3339(row.at_us),
            actor_kind: row.actor_kind,
            actor_id: row.actor_id.map(|id| id.to_string()),
            action: row.action,
            target_id: row.target_id.map(|id| id.to_string()),
            outcome: row.outcome,
            ip: row.ip,
            user_agent: row.user_agent,
            request_id: row.request_id,
            details: row.details.map(|details| details.to_string()),
            hash: row.hash,
        }
    }
}
