//! Log-in, refresh and log-out.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::accounts::too_long;
use crate::mfa::LoginOutcome;
use crate::password::MAX_PASSWORD_BYTES;
use crate::secret::{random_hex, sha256_hex};
use crate::store::{Granted, NewSessionRow, Proof, Rotation, RotationRequest, User};
use crate::throttle::waiting;
use crate::time::{as_s, as_us, now_us};
use crate::token::{Issued, Unsigned};
use crate::{Access, AccessError, Action, Actor, AuditEvent, Caller, Origin};

/// What a log-in, a registration and a refresh answer with.
#[derive(Debug)]
pub struct TokenPair {
    /// The JWT.
    pub access_token: SecretString,
    /// The opaque token for the next refresh. Works once.
    pub refresh_token: SecretString,
    /// Seconds until the access token expires.
    pub expires_in_s: u64,
    /// Seconds until the session ends, whatever is refreshed.
    pub session_ends_in_s: u64,
    /// The account.
    pub user: User,
}

impl Access {
    /// Logs in by username or address. Unknown names, wrong passwords, disabled accounts, accounts without a password
    /// and addresses that were not confirmed take the same time and give the same error.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::TooManyAttempts`]; [`AccessError::Busy`].
    pub async fn login(
        &self,
        name: &str,
        password: SecretString,
        origin: &Origin,
    ) -> Result<LoginOutcome, AccessError> {
        self.log_in(name, password, None, origin).await
    }

    /// Logs in by password and second factor in one step. It does not have to wait because of failed attempts of others.
    /// An account without a second factor needs no code.
    ///
    /// # Errors
    /// As [`Access::login`]; [`AccessError::CodeRefused`] when the password was right and the code was not.
    pub async fn login_with_code(
        &self,
        name: &str,
        password: SecretString,
        code: &str,
        origin: &Origin,
    ) -> Result<LoginOutcome, AccessError> {
        match self.log_in(name, password, Some(code), origin).await? {
            LoginOutcome::MfaRequired { ticket, .. } => {
                Ok(LoginOutcome::Tokens(Box::new(self.login_with_factor(&ticket, code, origin).await?)))
            }
            done => Ok(done),
        }
    }

    /// The first step. `code` passes a wait, and then there is no second.
    async fn log_in(
        &self,
        name: &str,
        password: SecretString,
        code: Option<&str>,
        origin: &Origin,
    ) -> Result<LoginOutcome, AccessError> {
        if password.expose_secret().len() > MAX_PASSWORD_BYTES {
            return Err(AccessError::Invalid(vec![too_long()]));
        }
        let found = self.inner.store.find_login(name).await?;
        let (user, hash) = found.map_or((None, None), |login| (Some(login.user), login.password_hash));
        let refusal = AuditEvent::denied(Action::Login, user.as_ref().map(|user| user.id), origin);
        // Counted before it is checked: parallel guesses cannot pass together.
        let attempt = self.begin_login(name, user.as_ref(), code, origin, &refusal).await?;
        let verdict = self.verify_login(&attempt, password.clone(), hash.clone()).await?;
        match (user, hash) {
            (Some(user), Some(hash)) if verdict.matches && user.is_active && self.is_admitted(&user) => {
                self.forget_attempts(&attempt).await?;
                let hash = if verdict.is_outdated { self.rehash(user.id, &hash, password).await? } else { hash };
                let proof = Proof::Password(hash);
                if attempt.is_passed {
                    let pair = self.start_session(user.id, Action::LoginMfa, proof, origin).await?;
                    return Ok(LoginOutcome::Tokens(Box::new(pair)));
                }
                self.finish_login(user.id, Action::Login, proof, origin).await
            }
            _ => {
                self.audit_refusal(if attempt.is_looked_at { refusal } else { waiting(refusal) }).await;
                Err(AccessError::InvalidCredentials)
            }
        }
    }

    fn is_admitted(&self, user: &User) -> bool {
        !self.inner.settings.email_verification || user.is_verified || user.email.is_none()
    }

    /// Exchanges a refresh token for a new pair. A token that was used before revokes its whole session. The access token is
    /// signed while the change is written, and leaves after it is on disk.
    ///
    /// # Errors
    /// [`AccessError::RefreshRefused`]; [`AccessError::TooManyRefreshes`].
    pub async fn refresh(&self, token: &SecretString, origin: &Origin) -> Result<TokenPair, AccessError> {
        let next = random_hex::<32>()?;
        let request = RotationRequest {
            old_hash: sha256_hex(token.expose_secret()),
            new_hash: sha256_hex(&next),
            at: now_us(),
            per_hour: self.inner.settings.refreshes_per_hour,
        };
        let sign = |granted: Granted| self.inner.mint.issue(self.unsigned(&granted));
        match self.inner.store.rotate(&request, origin, sign).await? {
            Rotation::Rotated { granted, made } => Ok(pair(granted, made?, next)),
            Rotation::Reused { session } => {
                self.note_revoked(&[session]);
                tracing::warn!(%session, "a used refresh token was presented; its session is revoked");
                Err(AccessError::RefreshRefused { reused: true })
            }
            Rotation::Refused => {
                self.note_refusal(Action::Refresh, origin).await;
                Err(AccessError::RefreshRefused { reused: false })
            }
            Rotation::TooMany { session, retry_at } => {
                let event = AuditEvent::denied(Action::Refresh, Some(session), origin);
                self.audit_repeatable(&session.to_string(), event).await;
                let wait = u64::try_from(retry_at - request.at).unwrap_or(0);
                Err(AccessError::TooManyRefreshes { retry_after: Duration::from_micros(wait) })
            }
        }
    }

    /// Ends the caller's session. Its access tokens stop working at once.
    ///
    /// # Errors
    /// [`AccessError::NotFound`] when the caller has no session (an API key).
    pub async fn logout(&self, caller: &Caller, origin: &Origin) -> Result<(), AccessError> {
        let session = caller.session().ok_or(AccessError::NotFound { what: "session" })?;
        let event = AuditEvent::success(caller.into(), Action::Logout, session, origin);
        self.inner.store.revoke_session(session, caller.id, &event).await?;
        self.note_revoked(&[session]);
        Ok(())
    }

    /// Ends every session of the caller; answers how many there were.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn logout_all(&self, caller: &Caller, origin: &Origin) -> Result<usize, AccessError> {
        let event = AuditEvent::success(caller.into(), Action::LogoutAll, caller.id, origin);
        let revoked = self.inner.store.revoke_sessions_of(caller.id, &event).await?;
        self.note_revoked(&revoked);
        Ok(revoked.len())
    }

    pub(crate) async fn start_session(
        &self,
        user: Uuid,
        action: Action,
        proof: Proof,
        origin: &Origin,
    ) -> Result<TokenPair, AccessError> {
        let (id, token, at) = (Uuid::now_v7(), random_hex::<32>()?, now_us());
        let row = NewSessionRow {
            id,
            user,
            token_hash: sha256_hex(&token),
            at,
            expires_at: at + as_us(self.inner.settings.session_ttl),
            origin: origin.clone(),
            proof,
        };
        let event = AuditEvent::success(Actor::User(user), action, user, origin);
        let created = self.inner.store.create_session(&row, &event).await;
        let user = self.audit_lost_proof(created, action, user, origin).await?;
        let granted = Granted { session: id, user: Box::new(user), ends_at: row.expires_at };
        let issued = self.inner.mint.issue(self.unsigned(&granted)).await?;
        Ok(pair(granted, issued, token))
    }

    /// Passes a result on. What a log-in rests on was gone when it was to be made: that leaves a row.
    pub(crate) async fn audit_lost_proof<T>(
        &self,
        result: Result<T, AccessError>,
        action: Action,
        user: Uuid,
        origin: &Origin,
    ) -> Result<T, AccessError> {
        if matches!(result, Err(AccessError::InvalidCredentials | AccessError::CodeRefused)) {
            self.audit_refusal(AuditEvent::denied(action, Some(user), origin)).await;
        }
        result
    }

    /// Their tokens are refused from here on. What the caches hold of them is freed at the next look at the feed: to go
    /// through thousands of others now would keep everybody waiting.
    pub(crate) fn note_revoked(&self, sessions: &[Uuid]) {
        for session in sessions {
            self.inner.recent.session_revoked(*session);
        }
    }

    fn unsigned(&self, granted: &Granted) -> Unsigned {
        let Granted { session, user, ends_at } = granted;
        self.inner.mint.prepare(user.id, &user.username, user.role, *session, *ends_at)
    }

    /// Answers the hash that the account has then.
    async fn rehash(&self, id: Uuid, old: &SecretString, password: SecretString) -> Result<SecretString, AccessError> {
        let new = self.inner.hasher.hash(password.clone()).await?;
        if self.inner.store.replace_password_hash(id, old.expose_secret(), &new).await? {
            return Ok(new.into());
        }
        // Another log-in was here first, or the password is another one now.
        let now = self.inner.store.find_login_of(id).await?.and_then(|login| login.password_hash);
        let verdict = self.inner.hasher.verify(password, now.clone()).await?;
        now.filter(|_| verdict.matches).ok_or(AccessError::InvalidCredentials)
    }
}

fn pair(granted: Granted, issued: Issued, refresh_token: String) -> TokenPair {
    TokenPair {
        access_token: issued.token.into(),
        refresh_token: refresh_token.into(),
        expires_in_s: issued.expires_in_s,
        session_ends_in_s: as_s((granted.ends_at - now_us()).max(0)),
        user: *granted.user,
    }
}
