//! Requests from pages of other hosts (the Fetch standard's CORS protocol): an exact list, nothing by default.

use poem::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use poem::{Request, Response};

use crate::Origins;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const HEADERS: &str = "authorization, content-type, content-encoding, if-match, if-none-match, idempotency-key, \
                       last-event-id, x-api-key, x-csrf-token, x-request-id";
const EXPOSED: &str = "content-disposition, etag, karat-as-of, karat-data-state, karat-epoch, ratelimit, \
    ratelimit-policy, retry-after, x-request-id";
/// Browsers ask again after this long.
const MAX_AGE_S: &str = "600";

/// The origin of a request, if it is in the list.
pub(crate) fn allowed_origin(origins: &Origins, request: &Request) -> Option<HeaderValue> {
    let origin = request.headers().get(header::ORIGIN)?;
    origin.to_str().is_ok_and(|text| origins.contains(text)).then(|| origin.clone())
}

/// The answer to a browser that asks first; none when the request is something else, or the origin is not allowed:
/// then it is answered without the headers, and the browser refuses.
pub(crate) fn preflight(request: &Request, origin: Option<&HeaderValue>) -> Option<Response> {
    let asks = request.method() == Method::OPTIONS && request.headers().contains_key("access-control-request-method");
    let origin = origin.filter(|_| asks)?;
    let mut response = Response::builder().status(StatusCode::NO_CONTENT).finish();
    let headers = response.headers_mut();
    add(headers, Some(origin));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    Some(response)
}

/// Marks an answer as readable by the allowed origin.
pub(crate) fn add(headers: &mut HeaderMap, origin: Option<&HeaderValue>) {
    let Some(origin) = origin else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
}
