//! The caller's API keys.

use std::time::Duration;

use karat_access::{Access, Actor, NewApiKey, Permission, Scopes};
use karat_http::{Answer, ApiError, Authenticated, Created, JsonBody, created, error_answers, ok, origin};
use poem::Request;
use poem_openapi::OpenApi;
use poem_openapi::param::Path;
use uuid::Uuid;

use super::AuthTag;
use super::views::{ApiKeyView, IssuedKeyView, NewApiKeyRequest};

/// Ten years: who wants more leaves the end out.
const MOST_DAYS: u32 = 3_650;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

error_answers! {
    /// Errors of `GET /api-keys`.
    pub ListKeysError: 401, 403;
    /// Errors of `POST /api-keys`.
    pub CreateKeyError: 400, 401, 403, 404, 409, 413, 415, 422;
    /// Errors of `DELETE /api-keys/{id}`.
    pub RevokeKeyError: 401, 403, 404;
}

/// Operations on API keys.
#[derive(Clone)]
pub struct ApiKeyApi {
    access: Access,
}

impl ApiKeyApi {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }
}

#[OpenApi(prefix_path = "/api-keys", tag = "AuthTag::ApiKeys")]
impl ApiKeyApi {
    /// List the caller's API keys
    ///
    /// Live ones first, then those that were revoked or are over; newest first, 1,000 at most.
    #[oai(path = "/", method = "get", operation_id = "list_api_keys")]
    async fn list(&self, caller: Authenticated) -> Result<Answer<Vec<ApiKeyView>>, ListKeysError> {
        caller.require(Permission::ManageOwnKeys)?;
        let keys = self.access.list_api_keys(caller.id).await?;
        Ok(ok(keys.into_iter().map(Into::into).collect(), "the caller's API keys"))
    }

    /// Make an API key
    ///
    /// The answer holds the whole key; it is never shown again. Scopes give it rights of its owner, and those of routes
    /// (`route:/runs`, `route:/runs/*`) refuse it everywhere else.
    #[oai(path = "/", method = "post", operation_id = "create_api_key")]
    async fn create(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<NewApiKeyRequest>,
    ) -> Result<Created<IssuedKeyView>, CreateKeyError> {
        caller.require(Permission::ManageOwnKeys)?;
        let JsonBody(body) = body;
        let scopes = Scopes::parse(&body.scopes).map_err(ApiError::validation)?;
        if body.expires_in_days.is_some_and(|days| !(1..=MOST_DAYS).contains(&days)) {
            Err(ApiError::validation(vec![format!("`expires_in_days`: must be from 1 to {MOST_DAYS}")]))?;
        }
        let expires_in = body.expires_in_days.map(|days| DAY.saturating_mul(days));
        let events_per_second = body.events_per_second;
        let new = NewApiKey { owner: caller.id, name: body.name, scopes, expires_in, events_per_second };
        let issued = self.access.create_own_api_key(&caller, new, &origin(request)).await?;
        Ok(created(issued.into(), "the key is shown this once: store it now"))
    }

    /// Revoke one of the caller's API keys
    #[oai(path = "/:id", method = "delete", operation_id = "revoke_api_key")]
    async fn revoke(
        &self,
        request: &Request,
        caller: Authenticated,
        id: Path<String>,
    ) -> Result<Answer<String>, RevokeKeyError> {
        caller.require(Permission::ManageOwnKeys)?;
        let key = Uuid::parse_str(&id).map_err(|_| ApiError::not_found("there is no such API key"))?;
        let actor = Actor::from(&*caller.0);
        self.access.revoke_api_key(key, Some(caller.id), actor, &origin(request)).await?;
        Ok(ok(key.to_string(), "the key was revoked"))
    }
}
