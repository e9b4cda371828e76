//! Delays after failed attempts. They slow guessing down and never lock the owner out: an address that the account
//! has logged in from before has a count of its own, a code of the second factor passes, and every wait ends by itself.
//!
//! A log-in is counted under the name that was typed and under the account. Only the first is ever told to wait: a
//! name that nobody has waits after the same guesses, and that an account waits because of guesses at its other name
//! would tell that the two are one account's.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::password::Verdict;
use crate::refusals::network;
use crate::secret::sha256_hex;
use crate::store::Attempt;
use crate::store::AttemptPolicy;
use crate::{Access, AccessError, AuditEvent, Origin, User};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;

/// Passwords: five are free, then 2 s, doubling to five minutes. Under 100 in a row take more than seven hours.
pub(crate) const PASSWORD: AttemptPolicy = AttemptPolicy {
    free: 5,
    first_wait_us: 2 * SECOND_US,
    longest_wait_us: 5 * MINUTE_US,
    forget_after_us: 30 * MINUTE_US,
};

/// Second factors: six digits are few, so after five the wait is a quarter of an hour.
pub(crate) const FACTOR: AttemptPolicy = AttemptPolicy {
    free: 5,
    first_wait_us: 15 * MINUTE_US,
    longest_wait_us: 15 * MINUTE_US,
    forget_after_us: 15 * MINUTE_US,
};

/// Messages to one address or number: five an hour.
pub(crate) const MESSAGE: AttemptPolicy = AttemptPolicy {
    free: 5,
    first_wait_us: 60 * MINUTE_US,
    longest_wait_us: 60 * MINUTE_US,
    forget_after_us: 60 * MINUTE_US,
};

/// What a log-in is counted under.
pub(crate) struct LoginAttempt {
    typed: String,
    account: String,
    /// False when the account waits and the name that was typed does not: the password is not looked at then, and the
    /// answer is that of a wrong one.
    pub is_looked_at: bool,
    /// A code of the second factor passed the wait, and is used up.
    pub is_passed: bool,
}

impl LoginAttempt {
    /// Under what it was counted. One that passed a wait was not, or not under both.
    fn counted(&self) -> Vec<&str> {
        let (typed, account) = (self.typed.as_str(), self.account.as_str());
        match self {
            Self { is_passed: true, .. } => vec![],
            Self { is_looked_at: true, .. } => vec![typed, account],
            Self { .. } => vec![typed],
        }
    }
}

impl Access {
    /// Counts an attempt under a name as failed until it is taken back. One that may not be made now leaves the row of
    /// its refusal.
    ///
    /// # Errors
    /// [`AccessError::TooManyAttempts`]: the attempt may not be made now.
    pub(crate) async fn begin_attempt(
        &self,
        name: &str,
        policy: AttemptPolicy,
        refusal: &AuditEvent,
    ) -> Result<(), AccessError> {
        match self.inner.store.begin_attempt(name, policy).await? {
            Attempt::Allowed => Ok(()),
            Attempt::Wait { micros } => Err(self.must_wait(name, micros, refusal).await),
        }
    }

    async fn must_wait(&self, name: &str, micros: i64, refusal: &AuditEvent) -> AccessError {
        self.audit_repeatable(name, waiting(refusal.clone())).await;
        AccessError::TooManyAttempts { retry_after: Duration::from_micros(u64::try_from(micros).unwrap_or(0)) }
    }

    /// Counts a log-in as failed until it is taken back. A code of the second factor passes a wait.
    ///
    /// # Errors
    /// [`AccessError::TooManyAttempts`]: under this name none may be made now, whoever has it.
    pub(crate) async fn begin_login(
        &self,
        name: &str,
        user: Option<&User>,
        code: Option<&str>,
        origin: &Origin,
        refusal: &AuditEvent,
    ) -> Result<LoginAttempt, AccessError> {
        let (typed, account) = self.login_names(name, user, origin).await?;
        let attempts = self.inner.store.begin_attempts([typed.as_str(), account.as_str()], PASSWORD).await?;
        // Only where there is a wait: a code that was looked at is used up.
        let is_passed = attempts != [Attempt::Allowed; 2] && self.passes_wait(&account, user, code, origin).await?;
        let is_looked_at = match attempts {
            _ if is_passed => true,
            [Attempt::Wait { micros }, _] => return Err(self.must_wait(&typed, micros, refusal).await),
            [Attempt::Allowed, of_account] => of_account == Attempt::Allowed,
        };
        Ok(LoginAttempt { typed, account, is_looked_at, is_passed })
    }

    /// Whether a code is one of the account's second factor. Guesses are counted by network: those of others must not
    /// make its owner wait here, too. It takes as long for a name that nobody has.
    async fn passes_wait(
        &self,
        account: &str,
        user: Option<&User>,
        code: Option<&str>,
        origin: &Origin,
    ) -> Result<bool, AccessError> {
        let Some(code) = code else { return Ok(false) };
        let name = format!("pass:{account}:{}", network(origin));
        if self.inner.store.begin_attempt(&name, FACTOR).await? != Attempt::Allowed {
            return Ok(false);
        }
        let is_right = self.check_factor(user.map_or(Uuid::nil(), |user| user.id), code, origin).await?;
        if is_right {
            self.inner.store.clear_attempts(&[name.as_str()]).await?;
        }
        Ok(is_right)
    }

    /// Checks the password of a log-in. It costs one hash, whatever is looked at.
    pub(crate) async fn verify_login(
        &self,
        attempt: &LoginAttempt,
        password: SecretString,
        hash: Option<SecretString>,
    ) -> Result<Verdict, AccessError> {
        self.verify_counted(&attempt.counted(), password, hash.filter(|_| attempt.is_looked_at)).await
    }

    /// Forgets what was counted before a log-in that succeeded.
    pub(crate) async fn forget_attempts(&self, attempt: &LoginAttempt) -> Result<(), AccessError> {
        self.inner.store.clear_attempts(&[attempt.typed.as_str(), attempt.account.as_str()]).await
    }

    /// Checks a password whose attempt was counted under some names. When nothing was checked, nothing failed.
    pub(crate) async fn verify_counted(
        &self,
        names: &[&str],
        password: SecretString,
        hash: Option<SecretString>,
    ) -> Result<Verdict, AccessError> {
        let verdict = self.inner.hasher.verify(password, hash).await;
        if matches!(verdict, Err(AccessError::Busy)) {
            for name in names {
                self.inner.store.return_attempt(name, PASSWORD).await?;
            }
        }
        verdict
    }

    /// The name that was typed and the account. Unknown names are counted twice as well, as if each had an account.
    async fn login_names(
        &self,
        name: &str,
        user: Option<&User>,
        origin: &Origin,
    ) -> Result<(String, String), AccessError> {
        let typed = sha256_hex(&name.to_ascii_lowercase());
        let Some(user) = user else { return Ok((format!("name:{typed}"), format!("login:{typed}"))) };
        match origin.ip_text() {
            Some(ip) if self.inner.store.knows_address(user.id, &ip).await? => {
                Ok((format!("name:{typed}:{ip}"), format!("login:{}:{ip}", user.id)))
            }
            _ => Ok((format!("name:{typed}"), format!("login:{}", user.id))),
        }
    }
}

/// The row of a refusal whose reason is not what was presented.
pub(crate) fn waiting(refusal: AuditEvent) -> AuditEvent {
    refusal.with_details(json!({"reason": "too_many_attempts"}))
}
