//! The response headers that every answer carries. A handler's own value always wins.

use poem::http::header::{self, HeaderName};
use poem::http::{HeaderMap, HeaderValue};

use crate::context::RequestContext;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Data answers are not documents: nothing in them may load, run or be framed.
const CSP_DATA: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// The reference pages (`/docs`, `/swagger`) carry their scripts and styles inline.
const CSP_PAGE: &str = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
    form-action 'self'; object-src 'none'";
/// Two years, as browsers' preload lists ask for.
const HSTS: &str = "max-age=63072000; includeSubDomains";

/// What is added here, and some more: a map that grows is put together anew each time.
const MORE_HEADERS: usize = 10;

pub(crate) fn add_common(headers: &mut HeaderMap, context: &RequestContext, over_tls: bool) {
    headers.reserve(MORE_HEADERS);
    let is_page =
        headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with("text/html"));
    set_default(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set_default(headers, header::X_FRAME_OPTIONS, "DENY");
    set_default(headers, header::REFERRER_POLICY, "no-referrer");
    set_default(headers, header::CONTENT_SECURITY_POLICY, if is_page { CSP_PAGE } else { CSP_DATA });
    set_default(headers, HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    // Answers depend on who asks; a handler that knows better sets its own.
    set_default(headers, header::CACHE_CONTROL, "no-store");
    if over_tls {
        set_default(headers, header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        headers.insert(REQUEST_ID, id);
    }
}

fn set_default(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}
