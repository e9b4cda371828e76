//! Proving again who one is, before what must not be done with a stolen token.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::password::MAX_PASSWORD_BYTES;
use crate::store::User;
use crate::throttle::PASSWORD;
use crate::time::{as_us, now_us};
use crate::{Access, AccessError, Action, AuditEvent, Caller, Origin};

/// How old a log-in may be that stands for the password of an account without one.
const FRESH: Duration = Duration::from_secs(5 * 60);

impl Access {
    /// The caller's account, after the present password was given again for an action; `field` is its name in the
    /// request. Attempts are counted as log-ins are. An account without a password (by telephone or another provider)
    /// has nothing to give but its log-in, which must be younger than five minutes then.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] when the account has a password and none was given;
    /// [`AccessError::InvalidCredentials`] for a wrong one; [`AccessError::FreshLoginNeeded`];
    /// [`AccessError::TooManyAttempts`]; [`AccessError::Busy`].
    pub(crate) async fn require_password(
        &self,
        caller: &Caller,
        action: Action,
        field: &'static str,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        let login = self.inner.store.find_login_of(caller.id).await?.ok_or(AccessError::NotFound { what: "user" })?;
        let refusal = AuditEvent::refused(caller.into(), action, Some(caller.id), origin);
        let who = caller.id.to_string();
        let Some(hash) = login.password_hash else {
            let fresh = self.require_fresh_login(caller).await;
            if matches!(fresh, Err(AccessError::FreshLoginNeeded)) {
                self.audit_repeatable(&who, refusal).await;
            }
            return fresh.map(|()| login.user);
        };
        let Some(password) = password else {
            let line = format!("`{field}`: is needed, because the account has a password");
            return Err(AccessError::Invalid(vec![line]));
        };
        if password.expose_secret().len() > MAX_PASSWORD_BYTES {
            // Not counted, because nothing is checked.
            self.audit_repeatable(&who, refusal).await;
            return Err(AccessError::InvalidCredentials);
        }
        let name = format!("password:{}", caller.id);
        self.begin_attempt(&name, PASSWORD, &refusal).await?;
        if !self.verify_counted(&[name.as_str()], password, Some(hash)).await?.matches {
            self.audit_refusal(refusal).await;
            return Err(AccessError::InvalidCredentials);
        }
        self.inner.store.clear_attempts(&[name.as_str()]).await?;
        Ok(login.user)
    }

    async fn require_fresh_login(&self, caller: &Caller) -> Result<(), AccessError> {
        let session = caller.session().ok_or(AccessError::FreshLoginNeeded)?;
        let began = self.inner.store.find_session_start(session, caller.id).await?;
        let oldest = now_us() - as_us(FRESH);
        if began.is_some_and(|at| at >= oldest) { Ok(()) } else { Err(AccessError::FreshLoginNeeded) }
    }
}
