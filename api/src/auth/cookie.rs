//! The refresh token of a browser: in a cookie that scripts cannot read, guarded against requests from other sites.
//!
//! "Remember me" is a mark behind the token, so that a refresh keeps the life that the log-in asked for. Whoever changes
//! the mark only changes how long the own browser keeps the cookie: the session ends when it ends.
//!
//! The guard is a second value that only our own pages can read: it is derived from the token, answered with it and
//! kept in a readable cookie, and must come back in `X-CSRF-Token`. `SameSite=Strict` alone would leave other
//! subdomains, and a request with a foreign `Origin` is refused whatever else it has.

use karat_access::derived_guard;
use karat_http::{ApiError, Origins};
use poem::Request;
use poem::http::header;
use poem_openapi::payload::Response;
use secrecy::SecretString;

use super::views::TokensView;

/// The prefix binds a cookie to this host, to `/` and to TLS.
const REFRESH: &str = "__Host-karat-refresh";
const GUARD: &str = "__Host-karat-csrf";
const GUARD_HEADER: &str = "x-csrf-token";
/// Behind a token whose cookie outlives the browser's session. No token has a dot.
const REMEMBERED: &str = ".r";

/// How long the cookie lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Until the browser is closed.
    Browser,
    /// As long as the session.
    Seconds(u64),
}

/// What a browser sent.
pub(super) struct Presented {
    pub token: SecretString,
    /// The cookie was to outlive the browser's session.
    pub is_remembered: bool,
}

/// Moves the refresh token from an answer into cookies.
pub(super) fn put<T>(answer: Response<T>, tokens: &SecretString, life: Life) -> Response<T> {
    use secrecy::ExposeSecret;
    let (mark, max_age) = match life {
        Life::Browser => ("", String::new()),
        Life::Seconds(seconds) => (REMEMBERED, format!("; Max-Age={seconds}")),
    };
    let guard = derived_guard(tokens);
    answer
        .header(
            header::SET_COOKIE,
            format!("{REFRESH}={}{mark}; Path=/; Secure; HttpOnly; SameSite=Strict{max_age}", tokens.expose_secret()),
        )
        .header(header::SET_COOKIE, format!("{GUARD}={guard}; Path=/; Secure; SameSite=Strict{max_age}"))
}

/// Removes the cookies.
pub(super) fn clear<T>(answer: Response<T>) -> Response<T> {
    answer
        .header(header::SET_COOKIE, format!("{REFRESH}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"))
        .header(header::SET_COOKIE, format!("{GUARD}=; Path=/; Secure; SameSite=Strict; Max-Age=0"))
}

/// Takes the refresh token out of the answer's body and puts the guard in.
pub(super) fn hide(tokens: &mut TokensView) -> Option<SecretString> {
    let refresh = SecretString::from(tokens.refresh_token.take()?);
    tokens.csrf_token = Some(derived_guard(&refresh));
    Some(refresh)
}

/// The token in the request's cookie, if the request comes from a page of ours.
///
/// # Errors
/// 401 without a cookie; 403 `csrf` when the guard is missing or wrong, or the `Origin` is another site's.
pub(super) fn take(request: &Request, origins: &Origins) -> Result<Presented, ApiError> {
    let value = find(request, REFRESH).ok_or_else(|| {
        ApiError::unauthorized("invalid_refresh_token", "send a `refresh_token`, or the cookie of a log-in")
    })?;
    let remembered = value.strip_suffix(REMEMBERED);
    let is_remembered = remembered.is_some();
    let token = SecretString::from(remembered.unwrap_or(&value).to_owned());
    let given = request.headers().get(GUARD_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_guarded =
        aws_lc_rs::constant_time::verify_slices_are_equal(given.as_bytes(), derived_guard(&token).as_bytes()).is_ok();
    if !origins.admits(request) || !is_guarded {
        let message = "a request with the cookie must come from a page of this host, with `X-CSRF-Token`";
        return Err(ApiError::new(poem::http::StatusCode::FORBIDDEN, "csrf", message));
    }
    Ok(Presented { token, is_remembered })
}

/// The value of a cookie.
pub(super) fn find(request: &Request, name: &str) -> Option<String> {
    let cookies = request.headers().get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}
