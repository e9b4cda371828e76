//! Account routes: registering, logging in and out, the caller's own account, API keys, the public signing keys.
//!
//! One file a resource. Answers are in the envelope; every operation lists its error answers. The application must
//! carry the accounts (`.data(access)`), which is where [`karat_http::Authenticated`] looks for them.

mod account;
mod api_keys;
mod cookie;
mod factors;
mod jwks;
mod people;
mod people_views;
mod recovery;
mod session;
#[cfg(test)]
mod tests;
mod views;

use std::sync::Arc;
use std::time::Duration;

use karat_access::Access;
use karat_http::{Origins, WindowLimit, WindowLimiter};
use poem_openapi::Tags;

pub use account::AccountApi;
pub use api_keys::ApiKeyApi;
pub use factors::FactorApi;
pub use jwks::jwks;
pub use people::PeopleApi;
pub use recovery::RecoveryApi;
pub use session::SessionApi;
pub use views::{ApiKeyView, IssuedKeyView, LoginView, TokensView, UserView};

/// Limits by client network on routes that anybody may call; `None` lifts one.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Tries to log in.
    pub login_limit: Option<WindowLimit>,
    /// Registrations.
    pub register_limit: Option<WindowLimit>,
    /// Links and codes: asking for them and presenting them.
    pub code_limit: Option<WindowLimit>,
    /// Origins of pages on other hosts that may use the cookie of a log-in.
    pub origins: Origins,
}

impl Default for AuthSettings {
    fn default() -> Self {
        let limit = |requests, minutes: u64| Some(WindowLimit { requests, window: Duration::from_secs(60 * minutes) });
        Self {
            login_limit: limit(10, 15),
            register_limit: limit(5, 60),
            code_limit: limit(20, 60),
            origins: Origins::default(),
        }
    }
}

impl AuthSettings {
    /// Without limits, for tests and measurements.
    pub fn without_limits() -> Self {
        Self { login_limit: None, register_limit: None, code_limit: None, origins: Origins::default() }
    }
}

/// The account operations in two parts: a tuple of operations holds few.
pub type AuthApis = ((AccountApi, SessionApi, ApiKeyApi), (RecoveryApi, FactorApi, PeopleApi));

/// The account operations, to be mounted under the API's prefix beside the others.
pub fn auth_apis(access: &Access, settings: &AuthSettings) -> AuthApis {
    let limiter = |limit| Arc::new(WindowLimiter::new(limit));
    let codes = limiter(settings.code_limit);
    let sessions = SessionApi::new(access.clone(), limiter(settings.login_limit), settings.origins.clone());
    (
        (AccountApi::new(access.clone(), limiter(settings.register_limit)), sessions, ApiKeyApi::new(access.clone())),
        (
            RecoveryApi::new(access.clone(), codes.clone()),
            FactorApi::new(access.clone(), codes),
            PeopleApi::new(access.clone()),
        ),
    )
}

#[derive(Tags)]
pub(crate) enum AuthTag {
    /// Accounts and log-in.
    Accounts,
    /// API keys for programs.
    ApiKeys,
    /// Other people's accounts and the audit log.
    People,
}
