//! What each failure of the accounts store looks like from outside. Matched exhaustively, so that a new failure asks
//! for its status when it is added.

use std::time::Duration;

use karat_access::{AccessError, ErrorDomain, TokenFault};

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
                Self::forbidden(format!("this needs the permission `{permission}`"))
            }
            AccessError::OutOfScope { event_type } => {
                Self::forbidden(format!("the credential may not publish events of type `{event_type}`"))
            }
            AccessError::Invalid(lines) => Self::validation(lines),
            AccessError::Taken { field } => {
                Self::conflict("already_taken", format!("another account has this {field}"))
                    .detail(format!("`{field}`: is taken"))
            }
            AccessError::NotFound { what } => Self::not_found(format!("there is no such {what}")),
            AccessError::LastAdmin => Self::conflict("last_admin", "the last admin cannot lose the role"),
            AccessError::RegistrationClosed => {
                Self::forbidden("registration is closed here: ask an admin for an account")
            }
            AccessError::Busy => busy(),
            overload @ AccessError::Store(_) if overload.domain() == ErrorDomain::Load => busy().caused_by(overload),
            internal @ (AccessError::Store(_)
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
