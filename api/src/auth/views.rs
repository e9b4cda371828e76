//! Request and answer bodies of the account routes.

use chrono::{DateTime, SecondsFormat};
use karat_access::{ApiKey, Factors, IssuedKey, LoginOutcome, Registration, TokenPair, User};
use poem_openapi::Object;
use poem_openapi::types::Example;
use secrecy::ExposeSecret;
use serde::Deserialize;

/// What a person gives to register: a username, an e-mail address or both.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(example)]
pub struct RegisterRequest {
    /// 3 to 30 of letters A to Z, digits and `_`; unique without case.
    #[oai(validator(min_length = 3, max_length = 30, pattern = "^[A-Za-z0-9_]+$"))]
    pub username: Option<String>,
    /// In ASCII; unique without case.
    #[oai(validator(max_length = 254))]
    pub email: Option<String>,
    /// 8 to 128 characters with upper and lower case, a digit and a special character.
    #[oai(validator(min_length = 8, max_length = 128))]
    pub password: String,
    /// The person's name.
    #[oai(validator(min_length = 1, max_length = 100))]
    pub full_name: Option<String>,
}

/// A username or an e-mail address, and the password.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(example)]
pub struct LoginRequest {
    /// The username; without it, `email` is needed.
    pub username: Option<String>,
    /// The e-mail address; without it, `username` is needed.
    pub email: Option<String>,
    /// The password.
    #[oai(validator(max_length = 1024))]
    pub password: String,
    /// Six digits of the authenticator, or a recovery code: the second step in one with the first. Such a log-in does not have
    /// to wait because others failed under its name.
    #[oai(validator(max_length = 64))]
    pub code: Option<String>,
    /// For browsers: the refresh token is put into a cookie that scripts cannot read, and is left out of the answer.
    pub use_cookie: Option<bool>,
    /// With `use_cookie`: the cookie outlives the browser's session.
    pub remember_me: Option<bool>,
}

/// A refresh token. It works once.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(example)]
pub struct RefreshRequest {
    /// The token from the last log-in or refresh. Without it the cookie counts, and `X-CSRF-Token` is needed.
    pub refresh_token: Option<String>,
}

/// What is needed to make an API key.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(example)]
pub struct NewApiKeyRequest {
    /// A name to know it by.
    #[oai(validator(min_length = 1, max_length = 100))]
    pub name: String,
    /// `publish:<event type>`, `publish:<prefix>.*`, `publish:*`, `publish_for_others`, `read`; and, to refuse it all other
    /// routes, `route:<path>` or `route:<path>/*`.
    #[oai(validator(min_items = 1))]
    pub scopes: Vec<String>,
    /// Its life in days, 1 to 3650; without it the key does not expire.
    #[oai(validator(minimum(value = "1"), maximum(value = "3650")))]
    pub expires_in_days: Option<u32>,
    /// How many events it publishes in a second, 1 to 1000000: more are answered with 429. Without it there is no bound.
    #[oai(validator(minimum(value = "1"), maximum(value = "1000000")))]
    pub events_per_second: Option<u32>,
}

/// An account.
#[derive(Debug, Clone, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct UserView {
    /// UUID v7.
    pub id: String,
    /// The name.
    pub username: String,
    /// The e-mail address.
    pub email: Option<String>,
    /// What others call this person.
    pub nickname: Option<String>,
    /// The person's name.
    pub full_name: Option<String>,
    /// `user`, `moderator`, `operator` or `admin`.
    pub role: String,
    /// Where the picture is.
    pub avatar_url: Option<String>,
    /// False when the account is disabled.
    pub is_active: bool,
    /// True when the address was verified.
    pub is_verified: bool,
    /// The verified telephone number in E.164.
    pub phone: Option<String>,
    /// `none`, `granted` or `revoked`.
    pub consent_status: String,
    /// The version of the text that the status is about.
    pub consent_version: Option<String>,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC.
    pub updated_at: String,
    /// Grows with every change.
    pub version: i64,
    /// Experience, from gold; in answers about one account only.
    pub exp: Option<u64>,
    /// The level that follows from it, from 1.
    pub level: Option<u64>,
}

/// Tokens and the account that they are for.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct TokensView {
    /// The JWT for `Authorization: Bearer`.
    pub access_token: String,
    /// For the next refresh; works once. Absent when it is in the cookie.
    pub refresh_token: Option<String>,
    /// With the cookie: what to send as `X-CSRF-Token`.
    pub csrf_token: Option<String>,
    /// Always `bearer`.
    pub token_type: String,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    /// The account.
    pub user: UserView,
}

/// What a log-in or a registration came to: tokens, or what is still needed.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct LoginView {
    /// The JWT for `Authorization: Bearer`.
    pub access_token: Option<String>,
    /// For the next refresh; works once. Absent when it is in the cookie.
    pub refresh_token: Option<String>,
    /// With the cookie: what to send as `X-CSRF-Token`.
    pub csrf_token: Option<String>,
    /// Always `bearer`, with tokens.
    pub token_type: Option<String>,
    /// Seconds until the access token expires, or until `mfa_token` does.
    pub expires_in: Option<u64>,
    /// The account, with tokens.
    pub user: Option<UserView>,
    /// True when the second factor is asked for: send a code of it with `mfa_token` to `/auth/login/mfa`, or begin with a passkey at
    /// `/auth/mfa/passkeys/login`.
    pub mfa_required: Option<bool>,
    /// Reaches nothing but the second step.
    pub mfa_token: Option<String>,
    /// What can be given in the second step: `totp`, `passkey`, `recovery_code`.
    pub mfa_methods: Option<Vec<String>>,
    /// True when a message was sent to the address, which must be confirmed first.
    pub verification_required: Option<bool>,
}

/// An API key without its secret.
#[derive(Debug, Clone, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ApiKeyView {
    /// UUID v7.
    pub id: String,
    /// The name to know it by.
    pub name: String,
    /// The public part after `kk_`.
    pub prefix: String,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// How many events it publishes in a second; absent when there is no bound.
    pub events_per_second: Option<u32>,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC; absent when it does not expire.
    pub expires_at: Option<String>,
    /// RFC 3339 in UTC, some seconds behind.
    pub last_used_at: Option<String>,
    /// RFC 3339 in UTC; present when it was revoked.
    pub revoked_at: Option<String>,
}

/// An API key just made.
#[derive(Debug, Object)]
pub struct IssuedKeyView {
    /// The whole key. It is shown this once.
    pub key: String,
    /// As it will be listed.
    pub details: ApiKeyView,
}

/// How many sessions a log-out ended.
#[derive(Debug, Object)]
pub struct LoggedOut {
    /// Sessions ended.
    pub sessions_ended: u64,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username,
            email: user.email,
            nickname: user.nickname,
            full_name: user.full_name,
            role: user.role.name().to_owned(),
            avatar_url: user.avatar_url,
            is_active: user.is_active,
            is_verified: user.is_verified,
            phone: user.phone,
            consent_status: user.consent_status,
            consent_version: user.consent_version,
            created_at: rfc3339(user.created_at_us),
            updated_at: rfc3339(user.updated_at_us),
            version: user.version,
            exp: None,
            level: None,
        }
    }
}

impl From<TokenPair> for TokensView {
    fn from(pair: TokenPair) -> Self {
        Self {
            access_token: pair.access_token.expose_secret().to_owned(),
            refresh_token: Some(pair.refresh_token.expose_secret().to_owned()),
            csrf_token: None,
            token_type: "bearer".to_owned(),
            expires_in: pair.expires_in_s,
            user: pair.user.into(),
        }
    }
}

impl From<TokensView> for LoginView {
    fn from(tokens: TokensView) -> Self {
        Self {
            access_token: Some(tokens.access_token),
            refresh_token: tokens.refresh_token,
            csrf_token: tokens.csrf_token,
            token_type: Some(tokens.token_type),
            expires_in: Some(tokens.expires_in),
            user: Some(tokens.user),
            ..Self::default()
        }
    }
}

impl From<Registration> for LoginView {
    fn from(registration: Registration) -> Self {
        match registration {
            Registration::Tokens(pair) => TokensView::from(*pair).into(),
            Registration::VerificationSent => Self { verification_required: Some(true), ..Self::default() },
        }
    }
}

impl From<LoginOutcome> for LoginView {
    fn from(outcome: LoginOutcome) -> Self {
        match outcome {
            LoginOutcome::Tokens(pair) => TokensView::from(*pair).into(),
            LoginOutcome::MfaRequired { ticket, expires_in, factors } => Self {
                mfa_required: Some(true),
                mfa_token: Some(ticket.expose_secret().to_owned()),
                mfa_methods: Some(methods(factors)),
                expires_in: Some(expires_in.as_secs()),
                ..Self::default()
            },
        }
    }
}

fn methods(factors: Factors) -> Vec<String> {
    let methods = [("totp", factors.has_totp), ("passkey", factors.has_passkey), ("recovery_code", true)];
    methods.into_iter().filter(|(_, has)| *has).map(|(method, _)| method.to_owned()).collect()
}

impl From<ApiKey> for ApiKeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            prefix: key.prefix,
            scopes: key.scopes.to_texts(),
            events_per_second: key.events_per_second,
            created_at: rfc3339(key.created_at_us),
            expires_at: key.expires_at_us.map(rfc3339),
            last_used_at: key.last_used_at_us.map(rfc3339),
            revoked_at: key.revoked_at_us.map(rfc3339),
        }
    }
}

impl From<IssuedKey> for IssuedKeyView {
    fn from(issued: IssuedKey) -> Self {
        Self { key: issued.secret.expose_secret().to_owned(), details: issued.key.into() }
    }
}

impl Example for RegisterRequest {
    fn example() -> Self {
        Self {
            username: Some("maria_77".to_owned()),
            email: Some("maria@example.org".to_owned()),
            password: "nine-Blue-7-boats".to_owned(),
            full_name: Some("Maria Lopez".to_owned()),
        }
    }
}

impl Example for LoginRequest {
    fn example() -> Self {
        Self {
            username: Some("maria_77".to_owned()),
            email: None,
            password: "nine-Blue-7-boats".to_owned(),
            code: None,
            use_cookie: None,
            remember_me: None,
        }
    }
}

impl Example for RefreshRequest {
    fn example() -> Self {
        Self { refresh_token: Some("5d0c7e3f".repeat(8)) }
    }
}

impl Example for NewApiKeyRequest {
    fn example() -> Self {
        Self {
            name: "nightly load".to_owned(),
            scopes: vec!["publish:etl.run.*".to_owned(), "read".to_owned()],
            expires_in_days: Some(365),
            events_per_second: Some(500),
        }
    }
}

pub(super) fn rfc3339(micros: i64) -> String {
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
