//! What each failure of the accounts store looks like from outside. Matched exhaustively, so that a new failure asks
//! for its status when it is added.

use std::time::Duration;

use karat_access::{AccessError, ErrorDomain, TokenFault};
use poem::http::StatusCode;

use crate::ApiError;

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::NotAuthenticated(fault) => not_authenticated(fault),
            AccessError::InvalidCredentials => {
                Self::unauthorized("invalid_credentials", "the name or the password is wrong")
            }
            AccessError::RefreshRefused { reused: false } => {
                Self::unauthorized("invalid_refresh_token", "the refresh token does not hold: log in again")
            }
            AccessError::RefreshRefused { reused: true } => Self::unauthorized(
                "refresh_token_reused",
                "the refresh token was used before, so its session has been ended: log in again",
            ),
            AccessError::TooManyRefreshes { retry_after } => Self::too_many_requests(retry_after),
            AccessError::Forbidden { permission } => {
                Self::forbidden(format!("this needs the permission `{permission}`")).lacking(permission)
            }
            AccessError::ConsentNeeded { version } => Self::new(
                StatusCode::FORBIDDEN,
                "consent_needed",
                format!(
                    "events are taken with consent to version `{version}` of the text only: the owner of this \
                     credential gives it by `POST /api/v1/consent`"
                ),
            ),
            AccessError::Invalid(lines) => Self::validation(lines),
            AccessError::Taken { field } => {
                Self::conflict("already_taken", format!("another account has this {field}"))
                    .detail(format!("`{field}`: is taken"))
            }
            AccessError::NotFound { what } => Self::not_found(format!("there is no such {what}")),
            AccessError::LastAdmin => Self::conflict("last_admin", "the last admin cannot lose the role"),
            AccessError::LastWayIn => Self::conflict(
                "last_way_in",
                "nobody could log in to the account any more: set a password or link another way first",
            ),
            AccessError::TooManyKeys { most } => {
                Self::conflict("too_many_keys", format!("there are {most} live API keys already: revoke one first"))
            }
            AccessError::TooManyPasskeys { most } => Self::conflict(
                "too_many_passkeys",
                format!("there are {most} passkeys already: remove one of them first"),
            ),
            AccessError::Outdated { version } => {
                Self::conflict("outdated_version", "the account was changed since it was read: read it again")
                    .detail(format!("`version`: is {version} now"))
            }
            AccessError::SettingsChanged { revision } => {
                let message = "the settings were changed since they were read: read them again";
                Self::new(StatusCode::PRECONDITION_FAILED, "settings_changed", message)
                    .detail(format!("`If-Match`: the settings are at `\"{revision}\"` now"))
            }
            AccessError::TooManyAttempts { retry_after } => Self::too_many_requests(retry_after),
            AccessError::CodeRefused => {
                Self::unauthorized("invalid_code", "the code or link is wrong, used or too old: ask for a new one")
            }
            AccessError::FreshLoginNeeded => Self::unauthorized(
                "fresh_login_needed",
                "the account has no password to give again: log in anew, and repeat this within five minutes",
            ),
            AccessError::Unconfigured { what } => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "not_configured", format!("{what} is not set up here"))
            }
            failed @ AccessError::Delivery { what, .. } => {
                Self::unavailable("delivery_failed", format!("the {what} could not be sent: try again later"))
                    .retry_after(Duration::from_secs(60))
                    .caused_by(failed)
            }
            AccessError::RegistrationClosed => {
                Self::forbidden("registration is closed here: ask an admin for an account")
            }
            AccessError::Busy => busy(),
            overload @ AccessError::Store(_) if overload.domain() == ErrorDomain::Load => busy().caused_by(overload),
            internal @ (AccessError::Store(_)
            | AccessError::Unreachable { .. }
            | AccessError::Migrate(_)
            | AccessError::Corrupt { .. }
            | AccessError::Keys { .. }
            | AccessError::Hash(_)
            | AccessError::Task(_)) => Self::internal(internal),
        }
    }
}

fn not_authenticated(fault: TokenFault) -> ApiError {
    match fault {
        TokenFault::Missing => {
            ApiError::unauthorized("unauthenticated", "this route needs a bearer token or an API key")
        }
        TokenFault::Invalid => ApiError::unauthorized("invalid_token", "the credential is not valid"),
        TokenFault::Expired => {
            ApiError::unauthorized("token_expired", "the credential has expired: refresh it or log in again")
        }
        TokenFault::Revoked => ApiError::unauthorized("token_revoked", "the credential was revoked: log in again"),
    }
}

fn busy() -> ApiError {
    ApiError::unavailable("busy", "too much is asked of the accounts at the moment: try again soon")
        .retry_after(Duration::from_secs(1))
}
