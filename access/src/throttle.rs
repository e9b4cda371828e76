//! Delays after failed attempts. They slow guessing down and never lock the owner out: an address that the account
//! has logged in from before has a count of its own, and every wait ends by itself.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;

use crate::password::Verdict;
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
        let event = refusal.clone().with_details(json!({"reason": "too_many_attempts"}));
        self.audit_repeatable(name, event).await;
        AccessError::TooManyAttempts { retry_after: Duration::from_micros(u64::try_from(micros).unwrap_or(0)) }
    }

    /// Checks a password whose attempt was counted under a name. When nothing was checked, nothing failed.
    pub(crate) async fn verify_counted(
        &self,
        name: &str,
        password: SecretString,
        hash: Option<SecretString>,
    ) -> Result<Verdict, AccessError> {
        let verdict = self.inner.hasher.verify(password, hash).await;
        if matches!(verdict, Err(AccessError::Busy)) {
            self.inner.store.return_attempt(name, PASSWORD).await?;
        }
        verdict
    }

    /// What a log-in is counted under. Unknown names are counted like known ones.
    pub(crate) async fn login_attempt_name(
        &self,
        name: &str,
        user: Option<&User>,
        origin: &Origin,
    ) -> Result<String, AccessError> {
        let Some(user) = user else {
            return Ok(format!("login:{}", crate::secret::sha256_hex(&name.to_ascii_lowercase())));
        };
        match origin.ip_text() {
            Some(ip) if self.inner.store.knows_address(user.id, &ip).await? => Ok(format!("login:{}:{ip}", user.id)),
            _ => Ok(format!("login:{}", user.id)),
        }
    }
}
