//! [`Authenticated`]: the caller as an argument of a handler.
//!
//! An operation that takes it needs a credential and says so in the OpenAPI document; one that does not is public on
//! purpose. The application carries the accounts with `.data(access)`.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use karat_access::{Access, AccessError, Caller, Credential, Lease, Origin, TokenFault};
use poem::http::header;
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaSecurityScheme, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use secrecy::SecretString;

use crate::client_ip::limit_key;
use crate::harden::WholeUri;
use crate::{ApiError, Limits, client_ip, context, request_id};

const BEARER: &str = "bearer";
const API_KEY: &str = "api_key";
const API_KEY_HEADER: &str = "X-Api-Key";
/// What stands before a token in `Sec-WebSocket-Protocol`: a page cannot send another header when it opens a WebSocket.
pub const SOCKET_PROTOCOL: &str = "bearer";

/// The authenticated caller: `Authorization: Bearer` with an access token or an API key, or `X-Api-Key`.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Arc<Caller>);

impl Deref for Authenticated {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// Who asks, found out by what counts requests. It goes with the request, so that nobody has to find out again.
#[derive(Clone)]
pub(crate) struct Recognised(pub Arc<Caller>);

/// Authenticates a request outside of poem-openapi.
///
/// # Errors
/// 401 with `unauthenticated`, `invalid_token`, `token_expired` or `token_revoked`; 403 when the scopes of an API key do
/// not cover the route; 500 when the application carries no accounts.
pub async fn authenticate(request: &Request) -> Result<Arc<Caller>, ApiError> {
    let access = accounts(request)?;
    let caller = match request.data::<Recognised>() {
        Some(Recognised(caller)) => Arc::clone(caller),
        None => recognise(access, request).await?,
    };
    look_at(access, request, &caller).await?;
    Ok(caller)
}

/// [`authenticate`] by what holds at this moment, whoever was recognised when the request came in: for when its body, which may
/// take many minutes, is here.
///
/// # Errors
/// As [`authenticate`].
pub async fn authenticate_anew(request: &Request) -> Result<Arc<Caller>, ApiError> {
    let access = accounts(request)?;
    let caller = recognise(access, request).await?;
    look_at(access, request, &caller).await?;
    Ok(caller)
}

/// Who opens a connection that goes on when the request is answered. `ticket` is that of the request, and counts alone when
/// there is one.
///
/// # Errors
/// As [`authenticate`].
pub async fn lease(request: &Request, ticket: Option<&SecretString>) -> Result<Lease, ApiError> {
    let access = accounts(request)?;
    let found = match (ticket, credential(request)) {
        (Some(ticket), _) => access.lease_by_ticket(ticket).await,
        (None, Ok(credential)) => access.lease(credential).await,
        (None, Err(error)) => Err(error),
    };
    let lease = admit(access, request, found).await?;
    look_at(access, request, lease.caller()).await?;
    Ok(lease)
}

/// Who opens a connection that is none of HTTP, by what it presents there. `limits` bound what is made up.
///
/// # Errors
/// 401 when the credential does not hold; 429 when the client's network showed too many such; 500 or 503 when it cannot be looked
/// up, or not in time.
pub async fn lease_of(
    access: &Access,
    limits: Option<&Limits>,
    credential: Credential<'_>,
    origin: &Origin,
) -> Result<Lease, ApiError> {
    let client = limit_key(origin.ip.unwrap_or(IpAddr::from([0, 0, 0, 0])));
    let looked_up = match limits {
        Some(limits) => limits.look_up(access, credential, client).await,
        None => Ok(access.authenticate(credential).await),
    };
    let found = match looked_up {
        // From memory now.
        Ok(Ok(_)) => access.lease(credential).await,
        Ok(Err(error)) => Err(error),
        Err(refused) => return Err(refused.into()),
    };
    if let Err(AccessError::NotAuthenticated(fault)) = &found {
        access.note_bad_credential(*fault, origin).await;
    }
    Ok(found?)
}

async fn recognise(access: &Access, request: &Request) -> Result<Arc<Caller>, ApiError> {
    let found = match credential(request) {
        Ok(credential) => access.authenticate(credential).await,
        Err(error) => Err(error),
    };
    admit(access, request, found).await
}

/// Passes on who was found; a credential that does not hold is noted.
async fn admit<T>(access: &Access, request: &Request, found: Result<T, AccessError>) -> Result<T, ApiError> {
    match found {
        Ok(found) => Ok(found),
        Err(error) => {
            if let AccessError::NotAuthenticated(fault) = error {
                // Boxed: rare, and the way to the database would make the future of every request larger.
                Box::pin(note_bad_credential(access, fault, request)).await;
            }
            Err(error.into())
        }
    }
}

/// Remembers who calls, and whether the credential is for this route.
async fn look_at(access: &Access, request: &Request, caller: &Arc<Caller>) -> Result<(), ApiError> {
    context::remember(access, caller);
    if caller.may_call(route_of(request)) {
        return Ok(());
    }
    Box::pin(note_route_denied(access, caller, request)).await;
    Err(ApiError::forbidden("the scopes of this API key do not cover this route"))
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

async fn note_bad_credential(access: &Access, fault: TokenFault, request: &Request) {
    access.note_bad_credential(fault, &origin(request)).await;
}

async fn note_route_denied(access: &Access, caller: &Caller, request: &Request) {
    access.note_route_denied(caller, &origin(request)).await;
}

/// The path of a request as scopes name it: whole, without the prefix of the API and a slash at the end. Both prefixes
/// serve the same routes.
fn route_of(request: &Request) -> &str {
    // The router takes off what it has matched.
    let path = request.data::<WholeUri>().map_or(request.uri(), |uri| &uri.0).path();
    let route = ["/api/v1", "/api"].iter().find_map(|prefix| path.strip_prefix(prefix).filter(|p| p.starts_with('/')));
    route.unwrap_or(path).trim_end_matches('/')
}

/// What a request presents, not yet looked at.
pub(crate) fn credential(request: &Request) -> Result<Credential<'_>, AccessError> {
    let value = |name| {
        let value: Option<&poem::http::HeaderValue> = request.headers().get(name);
        // A value that is not text is no credential, but it must not count as absent.
        value.map(|value| value.to_str().unwrap_or("?"))
    };
    let (authorization, api_key) = (value(header::AUTHORIZATION.as_str()), value(API_KEY_HEADER));
    if authorization.is_none()
        && api_key.is_none()
        && let Some(token) = socket_token(request)
    {
        return Ok(Credential::of_bearer(token));
    }
    Credential::from_headers(authorization, api_key)
}

/// The token that a page sends when it opens a WebSocket: the protocol after `bearer`.
fn socket_token(request: &Request) -> Option<&str> {
    if !request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let offered = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let mut protocols = offered.split(',').map(str::trim);
    protocols.by_ref().find(|protocol| *protocol == SOCKET_PROTOCOL)?;
    protocols.next().filter(|token| !token.is_empty())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use karat_access::{AccessSettings, Actor, CallerKind, HashSettings, NewApiKey, NewUser, Role, Scopes};
    use poem::Response;
    use poem::endpoint::make;
    use poem::http::StatusCode;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::{LimitSettings, Quota};

    /// Accounts, limits in front of a route, and a key.
    async fn behind_limits() -> (tempfile::TempDir, Access, Arc<Limits>, SecretString) {
        let folder = tempfile::tempdir().unwrap();
        let hashing = HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() };
        let access = AccessSettings { hashing, ..AccessSettings::in_folder(folder.path()) };
        let access = Access::open(access).await.unwrap();
        let (username, password) = ("maria_77".to_owned(), "nine-Blue-7-boats".to_owned().into());
        let owner = NewUser { username, email: None, password, role: Role::User };
        let owner = access.create_user(owner, Actor::Shell, &Origin::default()).await.unwrap().id;
        let scopes = Scopes::parse(["read"]).unwrap();
        let new = NewApiKey { owner, name: "loader".to_owned(), scopes, expires_in: None, events_per_second: None };
        let key = access.create_api_key(new, Actor::Shell, &Origin::default()).await.unwrap().secret;
        let quota = Quota { name: "test", requests: 100, window: Duration::from_secs(60) };
        let settings = LimitSettings {
            prefixes: &["/api"],
            rules: vec![],
            anonymous: quota,
            user: quota,
            api_key: quota,
            publishing: vec![],
            owner: None,
        };
        (folder, access, Limits::new(settings, None), key)
    }

    fn request(access: &Access, key: &str) -> Request {
        let mut request = Request::builder().uri_str("/api/runs").header(API_KEY_HEADER, key).finish();
        request.set_data(access.clone());
        request
    }

    #[tokio::test]
    async fn who_was_recognised_by_the_limits_is_not_looked_up_again() {
        let (_folder, access, limits, key) = behind_limits().await;
        // The key is gone when the route asks who it is.
        let route = make(|mut request: Request| async move {
            request.headers_mut().remove(API_KEY_HEADER);
            let caller = authenticate(&request).await?;
            Ok::<_, poem::Error>(Response::builder().body(caller.username.to_string()))
        });
        let ask = async |key: &str| limits.call(&route, request(&access, key)).await;
        let answer = ask(key.expose_secret()).await.unwrap();
        assert_eq!(answer.into_body().into_string().await.unwrap(), "maria_77");
        // Nor is a key that is none taken for anybody.
        assert_eq!(ask("kk_00_00").await.unwrap_err().status(), StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_looked_up_in_time_is_answered_503() {
        let (_folder, access, limits, key) = behind_limits().await;
        let limits = limits.without_turns();
        let route = make(|_| async { Ok::<_, poem::Error>(Response::builder().body("ok")) });
        let late = limits.call(&route, request(&access, key.expose_secret())).await.unwrap();
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(late.headers().contains_key("retry-after"));
        let other = limits.call(&route, request(&access, "no key at all")).await.unwrap();
        assert_eq!(other.status(), StatusCode::OK, "nobody has to look");
    }

    #[tokio::test]
    async fn a_connection_that_is_none_of_http_is_under_the_bound_of_made_up_keys_too() {
        let (_folder, access, limits, key) = behind_limits().await;
        let open = async |limits: &Limits, ip: &str, key: &str| {
            let origin = Origin::new(Some(ip.parse().unwrap()), None, None);
            let lease = lease_of(&access, Some(limits), Credential::ApiKey(key), &origin).await;
            lease.map(|lease| lease.caller().username.to_string()).map_err(|error| error.status())
        };
        for number in 0..100 {
            let refused = open(limits.as_ref(), "192.0.2.1", format!("kk_{number:04x}_00").as_str()).await;
            assert_eq!(refused, Err(StatusCode::UNAUTHORIZED), "{number}");
        }
        let key = key.expose_secret();
        assert_eq!(
            open(limits.as_ref(), "192.0.2.1", key).await,
            Err(StatusCode::TOO_MANY_REQUESTS),
            "it is not known yet"
        );
        assert_eq!(open(limits.as_ref(), "192.0.2.2", key).await, Ok("maria_77".to_owned()));
        assert_eq!(open(limits.as_ref(), "192.0.2.1", key).await, Ok("maria_77".to_owned()), "it is known now");
        let busy = limits.without_turns();
        let late = open(busy.as_ref(), "192.0.2.2", "kk_00_01").await;
        assert_eq!(late, Err(StatusCode::SERVICE_UNAVAILABLE));
    }

    #[tokio::test]
    async fn security_26_who_was_recognised_by_the_limits_is_refused_when_the_key_is_revoked_before_the_body_is_here() {
        let (_folder, access, limits, key) = behind_limits().await;
        let route = make(|request: Request| async move {
            let caller = authenticate(&request).await?;
            let CallerKind::ApiKey { key, .. } = caller.kind else { panic!("{caller:?} has no key") };
            accounts(&request)?.revoke_api_key(key, None, Actor::Shell, &Origin::default()).await.unwrap();
            let caller = authenticate_anew(&request).await?;
            Ok::<_, poem::Error>(Response::builder().body(caller.username.to_string()))
        });
        let answer = limits.call(&route, request(&access, key.expose_secret())).await;
        assert_eq!(answer.unwrap_err().status(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_page_names_its_token_behind_bearer_when_it_opens_a_socket() {
        for (protocols, expected) in [
            ("bearer, abc", Some("abc")),
            ("chat,bearer,abc,more", Some("abc")),
            ("bearer", None),
            ("bearer, ", None),
            ("abc", None),
        ] {
            let opens = Request::builder().header("upgrade", "websocket").header("sec-websocket-protocol", protocols);
            assert_eq!(socket_token(&opens.finish()), expected, "{protocols}");
        }
        let asks = Request::builder().header("sec-websocket-protocol", "bearer, abc").finish();
        assert_eq!(socket_token(&asks), None, "it opens nothing");
    }

    #[test]
    fn a_route_has_one_name_under_both_prefixes_and_behind_the_router() {
        for (uri, expected) in [
            ("/api/v1/runs", "/runs"),
            ("/api/runs/?limit=1", "/runs"),
            ("/api/v1/jobs/a/b/runs", "/jobs/a/b/runs"),
            ("/api-keys", "/api-keys"),
            ("/docs/", "/docs"),
            ("/api/v1", "/v1"),
        ] {
            let mut request = Request::builder().uri_str("/behind").finish();
            request.set_data(WholeUri(uri.parse().unwrap()));
            assert_eq!(route_of(&request), expected, "{uri}");
        }
    }
}
