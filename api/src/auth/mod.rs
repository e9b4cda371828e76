//! Account routes: registering, logging in and out, the caller's own account, API keys, the public signing keys.
//!
//! One file a resource. Answers are in the envelope; every operation lists its error answers. The application must
//! carry the accounts (`.data(access)`), which is where [`karat_http::Authenticated`] looks for them.

mod account;
mod api_keys;
mod jwks;
mod session;
#[cfg(test)]
mod tests;
mod views;

use std::sync::Arc;
use std::time::Duration;

use karat_access::Access;
use karat_http::{WindowLimit, WindowLimiter};
use poem_openapi::Tags;

pub use account::AccountApi;
pub use api_keys::ApiKeyApi;
pub use jwks::jwks;
pub use session::SessionApi;
pub use views::{ApiKeyView, IssuedKeyView, TokensView, UserView};

/// Limits by client network on routes that anybody may call; `None` lifts one.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Tries to log in.
    pub login_limit: Option<WindowLimit>,
    /// Registrations.
    pub register_limit: Option<WindowLimit>,
}

impl Default for AuthSettings {
    fn default() -> Self {
        let limit = |requests, minutes: u64| Some(WindowLimit { requests, window: Duration::from_secs(60 * minutes) });
        Self { login_limit: limit(10, 15), register_limit: limit(5, 60) }
    }
}

/// The account operations, to be mounted under the API's prefix beside the others.
pub fn auth_apis(access: &Access, settings: &AuthSettings) -> (AccountApi, SessionApi, ApiKeyApi) {
    let registrations = Arc::new(WindowLimiter::new(settings.register_limit));
    let logins = Arc::new(WindowLimiter::new(settings.login_limit));
    (
        AccountApi::new(access.clone(), registrations),
        SessionApi::new(access.clone(), logins),
        ApiKeyApi::new(access.clone()),
    )
}

#[derive(Tags)]
pub(crate) enum AuthTag {
    /// Accounts and log-in.
    Accounts,
    /// API keys for programs.
    ApiKeys,
}
