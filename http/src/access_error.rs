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

#[cfg(test)]
mod tests {
    use karat_access::Permission;
    use sqlx::migrate::MigrateError;

    use super::*;

    /// Stands where a driver, a file system or another service would say something.
    const INNER: &str = "canary";

    async fn panics() {
        std::panic::panic_any(INNER)
    }

    fn check(error: AccessError, status: u16, code: &str) -> ApiError {
        let text = format!("{error:?}");
        let answer = ApiError::from(error);
        assert_eq!((answer.status().as_u16(), answer.code()), (status, code), "{text}");
        answer
    }

    #[test]
    fn what_a_caller_can_change_is_told_with_its_own_code() {
        let after = Duration::from_secs(7);
        for (error, status, code) in [
            (AccessError::NotAuthenticated(TokenFault::Missing), 401, "unauthenticated"),
            (AccessError::NotAuthenticated(TokenFault::Invalid), 401, "invalid_token"),
            (AccessError::NotAuthenticated(TokenFault::Expired), 401, "token_expired"),
            (AccessError::NotAuthenticated(TokenFault::Revoked), 401, "token_revoked"),
            (AccessError::InvalidCredentials, 401, "invalid_credentials"),
            (AccessError::RefreshRefused { reused: false }, 401, "invalid_refresh_token"),
            (AccessError::RefreshRefused { reused: true }, 401, "refresh_token_reused"),
            (AccessError::CodeRefused, 401, "invalid_code"),
            (AccessError::FreshLoginNeeded, 401, "fresh_login_needed"),
            (AccessError::Forbidden { permission: Permission::SetRoles }, 403, "forbidden"),
            (AccessError::ConsentNeeded { version: "2026-11".to_owned() }, 403, "consent_needed"),
            (AccessError::RegistrationClosed, 403, "forbidden"),
            (AccessError::NotFound { what: "session" }, 404, "not_found"),
            (AccessError::Taken { field: "username" }, 409, "already_taken"),
            (AccessError::LastAdmin, 409, "last_admin"),
            (AccessError::LastWayIn, 409, "last_way_in"),
            (AccessError::TooManyKeys { most: 100 }, 409, "too_many_keys"),
            (AccessError::TooManyPasskeys { most: 20 }, 409, "too_many_passkeys"),
            (AccessError::Outdated { version: 3 }, 409, "outdated_version"),
            (AccessError::SettingsChanged { revision: "r7".to_owned() }, 412, "settings_changed"),
            (AccessError::Invalid(vec!["`name`: is empty".to_owned()]), 422, "validation_error"),
            (AccessError::TooManyAttempts { retry_after: after }, 429, "too_many_requests"),
            (AccessError::TooManyRefreshes { retry_after: after }, 429, "too_many_requests"),
            (AccessError::Unconfigured { what: "sending SMS" }, 501, "not_configured"),
        ] {
            let domain = error.domain();
            let answer = check(error, status, code);
            assert_eq!(domain, ErrorDomain::Caller, "{answer}");
            assert_eq!(answer.parts().internal, None, "{answer}");
            assert_eq!(answer.parts().retry_after, (status == 429).then_some(after), "{answer}");
        }
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let said = |error, status, code, words: &str| {
            let answer = check(error, status, code);
            let text = format!("{} {}", answer.message(), answer.parts().details.join(" "));
            assert!(text.contains(words), "{words}: {text}");
        };
        said(AccessError::Forbidden { permission: Permission::SetRoles }, 403, "forbidden", "`set_roles`");
        said(AccessError::ConsentNeeded { version: "2026-11".to_owned() }, 403, "consent_needed", "`2026-11`");
        said(AccessError::NotFound { what: "session" }, 404, "not_found", "session");
        said(AccessError::Taken { field: "email" }, 409, "already_taken", "`email`: is taken");
        said(AccessError::TooManyKeys { most: 100 }, 409, "too_many_keys", "100");
        said(AccessError::TooManyPasskeys { most: 20 }, 409, "too_many_passkeys", "20");
        said(AccessError::Outdated { version: 3 }, 409, "outdated_version", "is 3 now");
        said(AccessError::SettingsChanged { revision: "r7".to_owned() }, 412, "settings_changed", "`\"r7\"`");
        said(AccessError::Invalid(vec!["`name`: is empty".to_owned()]), 422, "validation_error", "`name`: is empty");
        said(AccessError::Unconfigured { what: "sending SMS" }, 501, "not_configured", "sending SMS");
    }

    #[tokio::test]
    async fn text_from_inside_goes_to_the_log_and_never_to_the_client() {
        let inner = || INNER.to_owned();
        let panicked = tokio::spawn(panics()).await.unwrap_err();
        for (error, status, code) in [
            (AccessError::Delivery { what: "e-mail", reason: inner() }, 503, "delivery_failed"),
            (AccessError::Unreachable { address: inner(), reason: inner() }, 500, "internal_error"),
            (AccessError::Store(sqlx::Error::Protocol(inner())), 500, "internal_error"),
            (AccessError::Migrate(MigrateError::CreateSchemasNotSupported(inner())), 500, "internal_error"),
            (AccessError::Corrupt { column: "users.role", found: inner() }, 500, "internal_error"),
            (AccessError::Keys { path: INNER.into(), reason: inner() }, 500, "internal_error"),
            (AccessError::Hash(inner()), 500, "internal_error"),
            (AccessError::Task(panicked), 500, "internal_error"),
        ] {
            let (domain, cause) = (error.domain(), error.to_string());
            assert!(cause.contains(INNER), "{cause}");
            let answer = check(error, status, code);
            assert_eq!(domain, ErrorDomain::Internal, "{answer}");
            assert!(!answer.to_string().contains(INNER) && answer.parts().details.is_empty(), "{answer:?}");
            assert_eq!(answer.parts().internal, Some(cause), "{answer:?}");
        }
    }

    #[test]
    fn too_much_work_is_a_reason_to_come_back() {
        for (error, is_logged) in [(AccessError::Busy, false), (AccessError::Store(sqlx::Error::PoolTimedOut), true)] {
            assert_eq!(error.domain(), ErrorDomain::Load);
            let answer = check(error, 503, "busy");
            assert_eq!(answer.parts().retry_after, Some(Duration::from_secs(1)), "{answer}");
            assert_eq!(answer.parts().internal.is_some(), is_logged, "{answer:?}");
        }
    }
}
