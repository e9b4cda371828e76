//! The copy of everything that the accounts hold of the caller.

use karat_access::{Access, Identity, OwnCode, OwnData, OwnEvent, OwnFactor, OwnSession, Permission};
use karat_http::{Answer, Authenticated, error_answers, ok, timestamp};
use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};

use super::AuthTag;
use super::consent::ConsentStepView;
use super::experience::Experience;
use super::passkey_views::PasskeyView;
use super::views::{ApiKeyView, UserView, rfc3339};

error_answers! {
    /// Errors of `GET /users/me/export`.
    pub ExportError: 400, 401, 403, 404;
}

/// Everything that the accounts hold of one person, and where the rest is.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct OwnDataView {
    /// RFC 3339 in UTC.
    pub exported_at: String,
    /// The account.
    pub account: UserView,
    /// Whether there is a password. Nothing else of it can be told.
    pub has_password: bool,
    /// Log-ins at other providers.
    pub identities: Vec<OwnIdentityView>,
    /// Sessions that are still kept, ended ones included, newest first.
    pub sessions: Vec<OwnSessionView>,
    /// API keys without their secrets, revoked ones included, newest first.
    pub api_keys: Vec<ApiKeyView>,
    /// Second factors by code, without their secrets.
    pub factors: Vec<OwnFactorView>,
    /// Passkeys, without their keys.
    pub passkeys: Vec<PasskeyView>,
    /// Recovery codes that were not used.
    pub recovery_codes_left: u64,
    /// Codes and links that are still kept, without what it takes to use them, newest first.
    pub codes: Vec<OwnCodeView>,
    /// Each consent and withdrawal, newest first.
    pub consents: Vec<ConsentStepView>,
    /// What programs remember for the person.
    pub settings: Vec<OwnSettingView>,
    /// What the audit log has of the person, newest first.
    pub events: Vec<OwnEventView>,
    /// For `before` of the next page of `events`; absent when this is the last.
    pub next_before: Option<i64>,
    /// Each list has at most so many entries.
    pub most_entries: u32,
    /// The other lists that have more, whose oldest entries were left out.
    pub cut: Vec<String>,
    /// Where the runs of the person are read, which are not in this copy: a page of them, newest first.
    pub runs: String,
}

/// A log-in at another provider.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct OwnIdentityView {
    /// The provider's name.
    pub provider: String,
    /// The provider's address.
    pub issuer: String,
    /// What the provider calls the person.
    pub subject: String,
    /// The address that the provider named.
    pub email: Option<String>,
    /// RFC 3339 in UTC.
    pub linked_at: String,
}

/// A session, live or ended.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct OwnSessionView {
    /// UUID v7.
    pub id: String,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC.
    pub last_used_at: String,
    /// RFC 3339 in UTC.
    pub expires_at: String,
    /// RFC 3339 in UTC; present when it was ended.
    pub ended_at: Option<String>,
    /// What ended it.
    pub ended_by: Option<String>,
    /// Address at log-in.
    pub ip: Option<String>,
    /// Program at log-in.
    pub user_agent: Option<String>,
}

/// A second factor.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct OwnFactorView {
    /// `totp`.
    pub kind: String,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC; absent while it waits for its first code.
    pub confirmed_at: Option<String>,
}

/// A code or link.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct OwnCodeView {
    /// What for, such as `reset`, `verify`, `mfa` or `passkey`.
    pub purpose: String,
    /// Where it was sent to.
    pub address: Option<String>,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC.
    pub expires_at: String,
    /// RFC 3339 in UTC; present when it was used or replaced.
    pub used_at: Option<String>,
}

/// What a program remembers for the person.
#[derive(Debug, Object)]
pub struct OwnSettingView {
    /// As in `/user-settings`.
    pub key: String,
    /// As JSON: integers keep every digit.
    pub value: String,
}

/// A row of the audit log. Where somebody else was part of it, it does not say who, nor from where.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct OwnEventView {
    /// RFC 3339 in UTC.
    pub at: String,
    /// `anonymous`, `shell`, `system`, `user` or `api_key`.
    pub actor_kind: String,
    /// Whether the caller did it, by a session or a key.
    pub is_own_act: bool,
    /// What.
    pub action: String,
    /// `success` or `denied`.
    pub outcome: String,
    /// The caller's account, session or key that it concerned.
    pub target_id: Option<String>,
    /// From where.
    pub ip: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// Id of the request in the log.
    pub request_id: Option<String>,
    /// More facts, as JSON.
    pub details: Option<String>,
}

/// Operations on the copy.
#[derive(Clone)]
pub struct ExportApi {
    access: Access,
    experience: Experience,
}

impl ExportApi {
    pub(super) fn new(access: Access, experience: Experience) -> Self {
        Self { access, experience }
    }

    fn view(&self, data: OwnData) -> OwnDataView {
        OwnDataView {
            exported_at: timestamp(),
            runs: format!("/api/v1/runs?user={}", data.user.id),
            account: self.experience.profile(data.user),
            has_password: data.has_password,
            identities: all(data.identities),
            sessions: all(data.sessions),
            api_keys: all(data.api_keys),
            factors: all(data.factors),
            passkeys: all(data.passkeys),
            recovery_codes_left: data.recovery_codes_left,
            codes: all(data.codes),
            consents: all(data.consents),
            settings: data.settings.members().map(OwnSettingView::from).collect(),
            events: all(data.events),
            next_before: data.next_before,
            most_entries: Access::LIST_ROWS,
            cut: data.cut.into_iter().map(str::to_owned).collect(),
        }
    }
}

#[OpenApi(tag = "AuthTag::Accounts")]
impl ExportApi {
    /// Get a copy of everything that the accounts hold of the caller
    ///
    /// Own data only, without secrets and hashes. `events` comes in pages; the copy names the lists of which it does not
    /// have everything, and where the caller's runs are read.
    #[oai(path = "/users/me/export", method = "get", operation_id = "export_own_data")]
    async fn export(
        &self,
        caller: Authenticated,
        /// `next_before` of the copy before: older events.
        before: Query<Option<i64>>,
    ) -> Result<Answer<OwnDataView>, ExportError> {
        caller.require(Permission::ManageOwnAccount)?;
        let data = self.access.export_own_data(&caller, before.0).await?;
        Ok(ok(self.view(data), "everything that the accounts hold of the caller"))
    }
}

fn all<T, V: From<T>>(list: Vec<T>) -> Vec<V> {
    list.into_iter().map(V::from).collect()
}

impl From<Identity> for OwnIdentityView {
    fn from(identity: Identity) -> Self {
        Self {
            provider: identity.provider,
            issuer: identity.issuer,
            subject: identity.subject,
            email: identity.email,
            linked_at: rfc3339(identity.created_at_us),
        }
    }
}

impl From<OwnSession> for OwnSessionView {
    fn from(own: OwnSession) -> Self {
        Self {
            id: own.session.id.to_string(),
            created_at: rfc3339(own.session.created_at_us),
            last_used_at: rfc3339(own.session.last_used_at_us),
            expires_at: rfc3339(own.session.expires_at_us),
            ended_at: own.revoked_at_us.map(rfc3339),
            ended_by: own.revoked_reason,
            ip: own.session.ip,
            user_agent: own.session.user_agent,
        }
    }
}

impl From<OwnFactor> for OwnFactorView {
    fn from(factor: OwnFactor) -> Self {
        let confirmed_at = factor.confirmed_at_us.map(rfc3339);
        Self { kind: factor.kind, created_at: rfc3339(factor.created_at_us), confirmed_at }
    }
}

impl From<OwnCode> for OwnCodeView {
    fn from(code: OwnCode) -> Self {
        Self {
            purpose: code.purpose,
            address: code.address,
            created_at: rfc3339(code.created_at_us),
            expires_at: rfc3339(code.expires_at_us),
            used_at: code.used_at_us.map(rfc3339),
        }
    }
}

impl From<(&str, &str)> for OwnSettingView {
    fn from((key, value): (&str, &str)) -> Self {
        Self { key: key.to_owned(), value: value.to_owned() }
    }
}

impl From<OwnEvent> for OwnEventView {
    fn from(event: OwnEvent) -> Self {
        Self {
            at: rfc3339(event.at_us),
            actor_kind: event.actor_kind,
            is_own_act: event.is_own_act,
            action: event.action,
            outcome: event.outcome,
            target_id: event.target_id.map(|id| id.to_string()),
            ip: event.ip,
            user_agent: event.user_agent,
            request_id: event.request_id,
            details: event.details.map(|details| details.to_string()),
        }
    }
}
