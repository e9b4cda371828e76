//! [`Authenticated`]: the caller as an argument of a handler.
//!
//! An operation that takes it needs a credential and says so in the OpenAPI document; one that does not is public on
//! purpose. The application carries the accounts with `.data(access)`.

use std::ops::Deref;
use std::sync::Arc;

use karat_access::{Access, AccessError, Caller, Credential, Origin};
use poem::http::header;
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

use crate::{ApiError, client_ip, context, request_id};

const BEARER: &str = "bearer";
const API_KEY: &str = "api_key";
const API_KEY_HEADER: &str = "X-Api-Key";

/// The authenticated caller: `Authorization: Bearer` with an access token or an API key, or `X-Api-Key`.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Arc<Caller>);

impl Deref for Authenticated {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// Authenticates a request outside of poem-openapi.
///
/// # Errors
/// 401 with `unauthenticated`, `invalid_token`, `token_expired` or `token_revoked`; 500 when the application carries
/// no accounts.
pub async fn authenticate(request: &Request) -> Result<Arc<Caller>, ApiError> {
    let access = accounts(request)?;
    let caller = access.authenticate(credential(request)?).await?;
    context::remember(access, &caller);
    Ok(caller)
}

/// Asks for the consent of whoever publishes, where it is required. Of a key that is its owner.
///
/// # Errors
/// 403 `consent_needed`; 500 or 503 when it cannot be looked up.
pub async fn require_consent(request: &Request, caller: &Caller) -> Result<(), ApiError> {
    let access = accounts(request)?;
    if access.has_consented(caller.id).await? {
        return Ok(());
    }
    // Boxed: rare, and the way to the database would make the future of every request larger.
    Err(Box::pin(access.refuse_without_consent(caller, &origin(request))).await.into())
}

fn accounts(request: &Request) -> Result<&Access, ApiError> {
    request.data().ok_or_else(|| ApiError::internal("the application was built without `.data(access)`"))
}

/// What a request presents, not yet looked at.
pub(crate) fn credential(request: &Request) -> Result<Credential<'_>, AccessError> {
    let value = |name| {
        let value: Option<&poem::http::HeaderValue> = request.headers().get(name);
        // A value that is not text is no credential, but it must not count as absent.
        value.map(|value| value.to_str().unwrap_or("?"))
    };
    Credential::from_headers(value(header::AUTHORIZATION.as_str()), value(API_KEY_HEADER))
}

/// Where a request came from, for sessions and the audit log.
pub fn origin(request: &Request) -> Origin {
    let user_agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Origin::new(client_ip(request), user_agent, request_id().as_deref())
}

impl<'a> ApiExtractor<'a> for Authenticated {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        registry.create_security_scheme(BEARER, bearer_scheme());
        registry.create_security_scheme(API_KEY, api_key_scheme());
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![BEARER, API_KEY]
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> Result<Self> {
        Ok(Self(authenticate(request).await?))
    }
}

fn bearer_scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "http",
        description: Some("An access token from log-in, or an API key."),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some("JWT"),
        flows: None,
        openid_connect_url: None,
    }
}

fn api_key_scheme() -> MetaSecurityScheme {
    MetaSecurityScheme {
        ty: "apiKey",
        description: Some("An API key (`kk_...`)."),
        name: Some(API_KEY_HEADER),
        key_in: Some("header"),
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    }
}
