//! The caller's consent.

use karat_access::{Access, Consent, ConsentPlace, Permission};
use karat_http::{Answer, ApiError, Authenticated, JsonBody, error_answers, ok, origin};
use poem::Request;
use poem_openapi::param::Query;
use poem_openapi::{Object, OpenApi};
use serde::Deserialize;

use super::AuthTag;
use super::views::rfc3339;

error_answers! {
    /// Errors of giving consent.
    pub ConsentError: 400, 401, 403, 404, 413, 415, 422;
    /// Errors of reading consent.
    pub ReadConsentError: 400, 401, 403, 404, 422;
    /// Errors of taking consent back.
    pub RevokeConsentError: 401, 403, 404;
}

/// Consent to a version of the text.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentRequest {
    /// Version of the text that was shown.
    #[oai(validator(min_length = 1, max_length = 50))]
    pub version: String,
    /// Where it was given; `api` when left out.
    #[oai(validator(min_length = 1, max_length = 100))]
    pub source: Option<String>,
}

/// The present state of consent and how it came about.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ConsentView {
    /// `none`, `granted` or `revoked`.
    pub status: String,
    /// The version that the status is about.
    pub version: Option<String>,
    /// The version of the text that is in force, where one is named.
    pub version_in_force: Option<String>,
    /// Whether events are refused while the version in force is not granted.
    pub is_required: bool,
    /// The steps, newest first; 1,000 at most.
    pub history: Vec<ConsentStepView>,
    /// For `before` of the next page of `history`; absent when this is the last.
    pub next_before: Option<String>,
}

/// One thing that was agreed to or taken back.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ConsentStepView {
    /// `granted` or `revoked`.
    pub status: String,
    /// Version of the text.
    pub version: String,
    /// Where it was given.
    pub source: String,
    /// From which address.
    pub ip: Option<String>,
    /// RFC 3339 in UTC.
    pub at: String,
}

impl From<Consent> for ConsentStepView {
    fn from(step: Consent) -> Self {
        Self { status: step.status, version: step.version, source: step.source, ip: step.ip, at: rfc3339(step.at_us) }
    }
}

/// Operations on consent.
#[derive(Clone)]
pub struct ConsentApi {
    access: Access,
}

impl ConsentApi {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }

    async fn view(&self, caller: &Authenticated, before: Option<ConsentPlace>) -> Result<ConsentView, ApiError> {
        let user = self.access.find_user(caller.id).await?;
        let user = user.ok_or_else(|| ApiError::not_found("the account was deleted"))?;
        let (history, next_before) = self.access.list_consents(caller.id, before).await?;
        let rule = &self.access.settings().consent;
        Ok(ConsentView {
            status: user.consent_status,
            version: user.consent_version,
            version_in_force: rule.version().map(str::to_owned),
            is_required: rule.is_required(),
            history: history.into_iter().map(Into::into).collect(),
            next_before: next_before.map(|place| place.to_string()),
        })
    }
}

#[OpenApi(prefix_path = "/consent", tag = "AuthTag::Accounts")]
impl ConsentApi {
    /// Read the caller's consent
    #[oai(path = "/", method = "get", operation_id = "read_consent")]
    async fn read_consent(
        &self,
        caller: Authenticated,
        /// `next_before` of the page before: older steps.
        before: Query<Option<String>>,
    ) -> Result<Answer<ConsentView>, ReadConsentError> {
        caller.require(Permission::ManageOwnAccount)?;
        let before = before.0.as_deref().map(str::parse::<ConsentPlace>).transpose();
        let before = before.map_err(|why| ApiError::validation(vec![format!("`before`: {why}")]))?;
        Ok(ok(self.view(&caller, before).await?, "the caller's consent"))
    }

    /// Consent to a version of the text
    ///
    /// Where consent is required, events of the caller and of the caller's API keys are taken from then on, if it is the
    /// version in force.
    #[oai(path = "/", method = "post", operation_id = "grant_consent")]
    async fn grant_consent(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<ConsentRequest>,
    ) -> Result<Answer<ConsentView>, ConsentError> {
        caller.require(Permission::ManageOwnAccount)?;
        let source = body.source.as_deref().unwrap_or("api");
        self.access.grant_consent(&caller, &body.version, source, &origin(request)).await?;
        Ok(ok(self.view(&caller, None).await?, "the consent was recorded"))
    }

    /// Take consent back
    ///
    /// Where consent is required, the next events of the caller and of the caller's API keys are refused. Those that were
    /// taken before stay.
    #[oai(path = "/", method = "delete", operation_id = "revoke_consent")]
    async fn revoke_consent(
        &self,
        request: &Request,
        caller: Authenticated,
    ) -> Result<Answer<ConsentView>, RevokeConsentError> {
        caller.require(Permission::ManageOwnAccount)?;
        self.access.revoke_consent(&caller, "api", &origin(request)).await?;
        Ok(ok(self.view(&caller, None).await?, "the consent was taken back"))
    }
}
