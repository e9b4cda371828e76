//! [`AccessError`]: everything that can go wrong here, by whose fault it is.
//!
//! ```text
//! caller   NotAuthenticated, InvalidCredentials, RefreshRefused, Forbidden, ConsentNeeded, Invalid, Taken, NotFound,
//!          LastAdmin, LastWayIn, TooManyKeys, TooManyPasskeys, Outdated, RegistrationClosed, TooManyRefreshes,
//!          TooManyAttempts, SettingsChanged, CodeRefused, FreshLoginNeeded, Unconfigured
//! load     Busy
//! internal Unreachable, Delivery, Store, Migrate, Corrupt, Keys, Hash, Task
//! ```

use std::path::PathBuf;
use std::time::Duration;

use crate::Permission;

/// A failure of the accounts store or of an access check.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No credential, or one that does not hold.
    #[error("not authenticated: {0}")]
    NotAuthenticated(TokenFault),
    /// Unknown name, wrong password or disabled account; which of them is not told.
    #[error("the name or the password is wrong")]
    InvalidCredentials,
    /// The refresh token is unknown, ended, revoked, or was used before (which revoked its family).
    #[error("the refresh token does not hold (reused: {reused})")]
    RefreshRefused {
        /// True when the token had been used before.
        reused: bool,
    },
    /// The session refreshed too often.
    #[error("the session refreshed too often")]
    TooManyRefreshes {
        /// When the next refresh is allowed.
        retry_after: Duration,
    },
    /// The caller lacks a permission.
    #[error("the caller lacks the permission `{permission}`")]
    Forbidden {
        /// The permission that was asked for.
        permission: Permission,
    },
    /// Events are taken with consent only, and there is none to the text that is in force.
    #[error("there is no consent to version `{version}` of the text")]
    ConsentNeeded {
        /// The version that is in force.
        version: String,
    },
    /// Input that breaks rules, one line each.
    #[error("invalid input: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// Another account has this username or e-mail address.
    #[error("the {field} is taken")]
    Taken {
        /// `username` or `email`.
        field: &'static str,
    },
    /// No such user, session or key (or not the caller's).
    #[error("there is no such {what}")]
    NotFound {
        /// `user`, `session`, `API key` or `setting`.
        what: &'static str,
    },
    /// The change would leave no active admin.
    #[error("the last admin cannot lose the role")]
    LastAdmin,
    /// The change would leave an account that nobody can log in to.
    #[error("the last way in cannot be removed")]
    LastWayIn,
    /// The owner has as many live API keys as anybody may have.
    #[error("the owner has {most} live API keys already")]
    TooManyKeys {
        /// How many.
        most: i64,
    },
    /// The account has as many passkeys as one may have.
    #[error("the account has {most} passkeys already")]
    TooManyPasskeys {
        /// How many.
        most: usize,
    },
    /// The account was changed since the caller read it.
    #[error("the account is at version {version}")]
    Outdated {
        /// The version that it is at now.
        version: i64,
    },
    /// The settings are not those that the change was made for.
    #[error("the settings are at revision {revision}")]
    SettingsChanged {
        /// The revision that they are at now.
        revision: String,
    },
    /// Too many attempts failed. Nobody is locked out: after the wait, the next one counts.
    #[error("too many attempts failed")]
    TooManyAttempts {
        /// When the next attempt is looked at.
        retry_after: Duration,
    },
    /// A code or link is wrong, used or too old; which of them is not told.
    #[error("the code does not hold")]
    CodeRefused,
    /// The account has no password that could be given again, and the log-in is too old to stand for it.
    #[error("the log-in is too old for this")]
    FreshLoginNeeded,
    /// This instance is not set up for what was asked.
    #[error("{what} is not set up here")]
    Unconfigured {
        /// What is missing.
        what: &'static str,
    },
    /// A message could not be handed over.
    #[error("sending {what}: {reason}")]
    Delivery {
        /// `e-mail` or `SMS`.
        what: &'static str,
        /// What the other side said.
        reason: String,
    },
    /// The database cannot be reached or refuses the connection.
    #[error("accounts database `{address}` cannot be reached: {reason}")]
    Unreachable {
        /// Its address, without the password.
        address: String,
        /// What the driver said.
        reason: String,
    },
    /// Registration is switched off.
    #[error("registration is closed")]
    RegistrationClosed,
    /// Too many passwords are waiting to be hashed.
    #[error("too many passwords are waiting to be hashed")]
    Busy,
    /// The database failed.
    #[error("accounts database: {0}")]
    Store(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("accounts migration: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database holds a value that this version does not understand.
    #[error("accounts database: `{column}` holds `{found}`")]
    Corrupt {
        /// Table and column.
        column: &'static str,
        /// The value.
        found: String,
    },
    /// The signing keys cannot be read, written or used.
    #[error("signing keys in `{}`: {reason}", path.display())]
    Keys {
        /// Folder or file.
        path: PathBuf,
        /// What failed and what to do.
        reason: String,
    },
    /// Password hashing failed.
    #[error("password hashing: {0}")]
    Hash(String),
    /// A blocking task was cancelled or panicked.
    #[error("blocking task: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Why a credential does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// There was none.
    #[error("no credential was presented")]
    Missing,
    /// It is not one of ours, or was changed.
    #[error("the credential is not valid")]
    Invalid,
    /// Its time is over.
    #[error("the credential has expired")]
    Expired,
    /// It was revoked, or its account was disabled.
    #[error("the credential was revoked")]
    Revoked,
}

impl TokenFault {
    /// The name in the audit log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Whose fault an error is; status and retry policy follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorDomain {
    /// The caller must change something.
    Caller,
    /// Trying again later helps.
    Load,
    /// Somebody who runs the server must look.
    Internal,
}

impl AccessError {
    /// Whose fault this error is.
    pub fn domain(&self) -> ErrorDomain {
        match self {
            Self::NotAuthenticated(_)
            | Self::InvalidCredentials
            | Self::RefreshRefused { .. }
            | Self::TooManyRefreshes { .. }
            | Self::Forbidden { .. }
            | Self::ConsentNeeded { .. }
            | Self::Invalid(_)
            | Self::Taken { .. }
            | Self::NotFound { .. }
            | Self::LastAdmin
            | Self::LastWayIn
            | Self::TooManyKeys { .. }
            | Self::TooManyPasskeys { .. }
            | Self::Outdated { .. }
            | Self::SettingsChanged { .. }
            | Self::TooManyAttempts { .. }
            | Self::CodeRefused
            | Self::FreshLoginNeeded
            | Self::Unconfigured { .. }
            | Self::RegistrationClosed => ErrorDomain::Caller,
            Self::Busy | Self::Store(sqlx::Error::PoolTimedOut) => ErrorDomain::Load,
            Self::Store(_) if self.is_deadlock() => ErrorDomain::Load,
            Self::Store(_)
            | Self::Unreachable { .. }
            | Self::Delivery { .. }
            | Self::Migrate(_)
            | Self::Corrupt { .. }
            | Self::Keys { .. }
            | Self::Hash(_)
            | Self::Task(_) => ErrorDomain::Internal,
        }
    }

    /// Whether two transactions waited for each other and this one was given up: nothing of it happened.
    pub(crate) fn is_deadlock(&self) -> bool {
        let Self::Store(error) = self else { return false };
        let code = error.as_database_error().and_then(|error| error.code());
        // PostgreSQL's deadlock, and the serialisation failure of both, which is what MySQL calls a deadlock too.
        code.is_some_and(|code| matches!(&*code, "40P01" | "40001"))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::error::Error;
    use std::fmt;

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    /// What a server says with a code.
    #[derive(Debug)]
    struct Refusal(&'static str);

    impl fmt::Display for Refusal {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Refusal {}

    impl DatabaseError for Refusal {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[test]
    fn a_transaction_that_lost_a_deadlock_is_load_and_not_a_failure() {
        let refused = |code| AccessError::Store(sqlx::Error::Database(Box::new(Refusal(code))));
        for code in ["40P01", "40001"] {
            assert!(refused(code).is_deadlock());
            assert_eq!(refused(code).domain(), ErrorDomain::Load, "{code}");
        }
        assert_eq!(refused("42601").domain(), ErrorDomain::Internal);
        assert_eq!(AccessError::Store(sqlx::Error::PoolTimedOut).domain(), ErrorDomain::Load);
        assert!(!AccessError::Store(sqlx::Error::PoolTimedOut).is_deadlock());
    }
}
