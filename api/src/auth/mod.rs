//! Account routes: registering, logging in and out, the caller's own account and settings, API keys, the public signing
//! keys.
//!
//! One file a resource. Answers are in the envelope; every operation lists its error answers. The application must
//! carry the accounts (`.data(access)`), which is where [`karat_http::Authenticated`] looks for them.

mod account;
mod api_keys;
mod avatars;
mod consent;
mod cookie;
mod experience;
mod export;
mod factors;
mod jwks;
mod oauth;
mod passkey_views;
mod passkeys;
mod people;
mod people_views;
mod quotas;
mod recovery;
mod session;
#[cfg(test)]
mod tests;
mod tickets;
mod user_settings;
mod views;

use std::sync::Arc;

use karat_access::Access;
use karat_http::{ApiError, LimitSettings, Limits, Origins, SharedCounts};
use poem_openapi::Tags;
use secrecy::SecretString;

pub use account::AccountApi;
pub use api_keys::ApiKeyApi;
use avatars::Pictures;
pub use avatars::{AvatarApi, AvatarSettings};
pub use consent::ConsentApi;
pub use experience::{Experience, ExperienceRules};
pub use export::ExportApi;
pub use factors::FactorApi;
pub use jwks::jwks;
pub use oauth::OauthApi;
pub use passkeys::PasskeyApi;
pub use people::PeopleApi;
pub use quotas::default_quotas;
pub use recovery::RecoveryApi;
pub use session::SessionApi;
pub use tickets::TicketApi;
pub use user_settings::UserSettingsApi;
pub use views::{ApiKeyView, IssuedKeyView, LoginView, TokensView, UserView};

/// How the account routes work here.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Quotas of every route; `None` lifts them.
    pub limits: Option<LimitSettings>,
    /// Address of a Redis server, so that several processes share their counts.
    pub redis: Option<SecretString>,
    /// Origins of pages on other hosts that may use the cookie of a log-in.
    pub origins: Origins,
    /// Where pictures are kept; without it the routes say so.
    pub avatars: Option<AvatarSettings>,
    /// What gives experience.
    pub experience: ExperienceRules,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self { limits: Some(default_quotas()), ..Self::without_limits() }
    }
}

impl AuthSettings {
    /// Without limits, for tests and measurements.
    pub fn without_limits() -> Self {
        Self {
            limits: None,
            redis: None,
            origins: Origins::default(),
            avatars: None,
            experience: ExperienceRules::default(),
        }
    }

    /// The limits to put in front of the routes.
    ///
    /// # Errors
    /// When the address of Redis is none.
    pub fn limits(&self) -> Result<Option<Arc<Limits>>, ApiError> {
        let Some(settings) = &self.limits else { return Ok(None) };
        let shared = self.redis.as_ref().map(SharedCounts::new).transpose()?;
        Ok(Some(Limits::new(settings.clone(), shared)))
    }
}

/// The account operations in two parts: a tuple of operations holds few.
pub type AuthApis = (
    (AccountApi, SessionApi, ApiKeyApi, ConsentApi, ExportApi, UserSettingsApi, PasskeyApi),
    (RecoveryApi, FactorApi, PeopleApi, OauthApi, AvatarApi, TicketApi),
);

/// The account operations, to be mounted under the API's prefix beside the others.
pub fn auth_apis(access: &Access, settings: &AuthSettings, experience: &Experience) -> AuthApis {
    let sessions = SessionApi::new(access.clone(), settings.origins.clone());
    let pictures = Pictures::new(settings.avatars.clone());
    (
        (
            AccountApi::new(access.clone(), pictures.clone(), experience.clone()),
            sessions,
            ApiKeyApi::new(access.clone()),
            ConsentApi::new(access.clone()),
            ExportApi::new(access.clone(), experience.clone()),
            UserSettingsApi::new(access.clone()),
            PasskeyApi::new(access.clone()),
        ),
        (
            RecoveryApi::new(access.clone()),
            FactorApi::new(access.clone()),
            PeopleApi::new(access.clone(), pictures.clone(), experience.clone()),
            OauthApi::new(access.clone()),
            AvatarApi::new(access.clone(), pictures),
            TicketApi::new(access.clone()),
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
