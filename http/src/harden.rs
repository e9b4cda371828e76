//! [`harden`]: the wrapper that makes every answer of an application conform.
//!
//! It gives the request an id, bounds its body, reads on behind a refusal so that the sender sees it, catches errors and panics from anything inside, renders them in the
//! envelope, adds the security headers, counts it and writes one log line under its trace, and a row of the audit log when the caller lacked a
//! permission. Nothing inside it can answer in another form, except
//! with a JSON body of its own.

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use futures::FutureExt;
use karat_access::{Origin, Permission};
use karat_telemetry::metrics;
use poem::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use poem::{Endpoint, IntoEndpoint, IntoResponse, PathPattern, Request, Response, Result};
use tracing::Instrument;
use uuid::Uuid;

use crate::client_ip::ClientAddress;
use crate::context::{self, Known, RequestContext};
use crate::host::WrongHost;
use crate::{ApiError, Origins, TrustedProxies, body, cors, headers, limit, linger::Rest, render, translate};

/// The route of requests that no route is for.
static UNMATCHED: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("unmatched"));

/// What [`harden_with`] needs to know.
#[derive(Debug, Clone)]
pub struct HardenSettings {
    /// The largest body that any route may be sent, in bytes as sent. Routes set smaller limits of their own.
    pub max_body_bytes: u64,
    /// True when TLS ends in front of this process, so that `Strict-Transport-Security` is sent on plain connections.
    pub behind_tls: bool,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Origins of pages on other hosts that may call.
    pub origins: Origins,
    /// Names in `Host` that are answered, without ports; every name when empty.
    pub allowed_hosts: Vec<String>,
}

impl Default for HardenSettings {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 * 1024 * 1024,
            behind_tls: false,
            trusted_proxies: TrustedProxies::default(),
            origins: Origins::default(),
            allowed_hosts: Vec::new(),
        }
    }
}

/// [`harden_with`] the default settings.
pub fn harden<E>(app: E) -> impl Endpoint<Output = Response> + 'static
where
    E: IntoEndpoint,
    E::Endpoint: 'static,
{
    harden_with(app, HardenSettings::default())
}

/// Wraps `app` so that every answer has the envelope, a request id and the security headers. Put it outermost.
///
/// Log lines go to the target `karat_http::access`: information for answers below 500, errors from there on.
pub fn harden_with<E>(app: E, settings: HardenSettings) -> impl Endpoint<Output = Response> + 'static
where
    E: IntoEndpoint,
    E::Endpoint: 'static,
{
    Hardened { inner: app.into_endpoint(), settings }
}

/// The methods of a path, separated by commas: an application puts them on its 405 error, and they become `Allow`, as
/// RFC 9110 asks (15.5.6).
#[derive(Debug, Clone)]
pub struct AllowedMethods(pub String);

/// The address that a request came for, kept with it: nested routers shorten its own.
#[derive(Debug, Clone)]
pub(crate) struct WholeUri(pub Uri);

struct Hardened<E> {
    inner: E,
    settings: HardenSettings,
}

impl<E: Endpoint> Endpoint for Hardened<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let client = self.settings.trusted_proxies.client_of(&request);
        request.set_data(ClientAddress(client));
        request.set_data(WholeUri(request.uri().clone()));
        let origin = cors::allowed_origin(&self.settings.origins, &request);
        let started = Instant::now();
        let context = RequestContext::from_headers(request.headers());
        let method = request.method().clone();
        let agent = request.headers().get(header::USER_AGENT).cloned();
        let over_tls = self.settings.behind_tls || request.scheme().as_str() == "https";
        let wrong_host = request.data::<WrongHost>().copied();
        let is_http1 = request.version() < Version::HTTP_2;
        // Of the level of errors, so that it is on whenever a line is.
        let span = tracing::error_span!(
            target: "karat_http::access",
            "request",
            request_id = &*context.request_id,
            trace_id = context.trace.context().trace_id_text(),
            user_id = tracing::field::Empty,
        );
        let answered = async {
            if let Some(wrong) = wrong_host {
                return (wrong.refusal().into_response(), None);
            }
            if !self.is_for_us(&request) {
                let message = "this host name is not answered here";
                let refusal = ApiError::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", message);
                return (refusal.into_response(), None);
            }
            let response = match cors::preflight(&request, origin.as_ref()) {
                Some(response) => response,
                None => self.answer(request).await,
            };
            let lacked = response.data::<render::Lacked>().copied();
            if let Some(render::Lacked(permission)) = lacked {
                // Boxed: rare, and the way to the database would make the future of every request larger.
                Box::pin(note_denied(permission, client, agent)).await;
            }
            (response, context::user())
        };
        let (mut response, user) = context::within(context.clone(), span.clone(), answered).instrument(span).await;
        cors::add(response.headers_mut(), origin.as_ref());
        headers::add_common(response.headers_mut(), &context, over_tls);
        // What follows on such a connection is not to be trusted, or not there.
        if is_http1 && (wrong_host.is_some() || response.status() == StatusCode::REQUEST_TIMEOUT) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        note(&method, &response, started, &context, user);
        Ok(response)
    }
}

impl<E: Endpoint> Hardened<E> {
    fn is_for_us(&self, request: &Request) -> bool {
        if self.settings.allowed_hosts.is_empty() {
            return true;
        }
        let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
        let host = host.or_else(|| request.uri().host()).unwrap_or_default();
        // An IPv6 address has colons of its own, inside brackets.
        let name = if host.ends_with(']') { host } else { host.rsplit_once(':').map_or(host, |(name, _)| name) };
        self.settings.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }

    async fn answer(&self, mut request: Request) -> Response {
        let rest = Rest::of(&mut request);
        let response = self.answer_at_once(request).await;
        if let Some(rest) = rest
            && (response.status().is_client_error() || response.status().is_server_error())
        {
            rest.linger().await;
        }
        response
    }

    async fn answer_at_once(&self, mut request: Request) -> Response {
        if let Err(error) = body::limit_body(&mut request, self.settings.max_body_bytes) {
            return error.into_response();
        }
        let is_head = request.method() == Method::HEAD;
        match AssertUnwindSafe(self.inner.call(request)).catch_unwind().await {
            Ok(Ok(output)) => conform(output.into_response(), is_head),
            Ok(Err(error)) => from_error(error),
            Err(panic) => ApiError::internal(format!("panic: {}", panic_text(&*panic))).into_response(),
        }
    }
}

/// Answers that a handler built by itself, with a failing status and something other than JSON, get the envelope.
fn conform(response: Response, is_head: bool) -> Response {
    let status = response.status();
    if status.is_success() || status.is_redirection() || status.is_informational() || is_head {
        return response;
    }
    let is_json = response.content_type().is_some_and(|t| t.starts_with("application/") && t.contains("json"));
    if is_json {
        return response;
    }
    let mut rendered = translate::from_status(status).into_response();
    let quota = ["ratelimit", "ratelimit-policy"].map(HeaderName::from_static);
    let kept = [header::ALLOW, header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::CONTENT_RANGE];
    for name in kept.into_iter().chain(quota) {
        if let Some(value) = response.headers().get(&name) {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    *rendered.extensions_mut() = response.extensions().clone();
    rendered
}

fn from_error(error: poem::Error) -> Response {
    if error.is_from_response() {
        return conform(error.into_response(), false);
    }
    let (pattern, allowed) = (error.data::<PathPattern>().cloned(), error.data::<AllowedMethods>().cloned());
    let quota = error.data::<limit::QuotaHeaders>().cloned();
    let mut response = render::error_response(&translate::to_api_error(error), &context::current());
    if let Some(quota) = quota {
        limit::put(&mut response, quota);
    }
    if let Some(pattern) = pattern {
        response.set_data(pattern);
    }
    if let Some(Ok(allowed)) = allowed.map(|allowed| HeaderValue::try_from(allowed.0)) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// Puts into the audit log that the caller lacked a permission.
async fn note_denied(permission: Permission, client: Option<IpAddr>, agent: Option<HeaderValue>) {
    let Some(Known { access, caller }) = context::take_caller() else { return };
    let agent = agent.as_ref().and_then(|agent| agent.to_str().ok());
    let origin = Origin::new(client, agent, context::request_id().as_deref());
    access.note_access_denied(&caller, permission, &origin).await;
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// Leaves a line in the log, a span, and figures.
fn note(method: &Method, response: &Response, started: Instant, context: &RequestContext, user: Option<Uuid>) {
    // The pattern, not the path: paths hold ids, and tickets may stand in query strings.
    let route = response.data::<PathPattern>().map_or_else(|| Arc::clone(&UNMATCHED), |pattern| Arc::clone(&pattern.0));
    let (status, took) = (response.status().as_u16(), started.elapsed());
    metrics().answered(method.as_str(), &route, status, took);
    context.trace.answered(method, &route, status, took);
    let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let (request_id, route) = (&*context.request_id, &*route);
    let trace_id = context.trace.context().trace_id_text();
    let user_id = user.map(tracing::field::display);
    if status < 500 {
        tracing::info!(target: "karat_http::access", request_id, trace_id, user_id, %method, route, status, duration_us, "answered");
    } else {
        tracing::error!(target: "karat_http::access", request_id, trace_id, user_id, %method, route, status, duration_us, "answered");
    }
}
