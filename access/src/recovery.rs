//! Passwords that are forgotten or changed, and addresses that are confirmed.

use secrecy::{ExposeSecret, SecretString};

use crate::accounts::{check_password, context_of};
use crate::codes::{RESET, VERIFY, link_minutes};
use crate::password::{MAX_PASSWORD_BYTES, broken_rules, strength};
use crate::secret::sha256_hex;
use crate::store::{CodeUse, NewPassword};
use crate::throttle::MESSAGE;
use crate::{Access, AccessError, Action, Actor, AuditEvent, Caller, Email, Origin, Outcome, User};

const RESET_OF_CONFIRMED: &str = "Your password was reset by a link that was sent to this address.";
const RESET_OF_UNCONFIRMED: &str = "Your password was reset by a link that was sent to this address, which had not \
                                    been confirmed before. So whatever else could log in to the account was removed: \
                                    the second factor, passkeys, API keys, the telephone number and log-ins at other \
                                    providers.";

/// How hard a password is to guess, and why it may not be used.
#[derive(Debug, Clone)]
pub struct Strength {
    /// 0 for one that may not be used, up to 4.
    pub score: u8,
    /// The broken rules, one line each.
    pub broken: Vec<String>,
}

impl Access {
    /// Sends a link to set a new password, if an account with exactly this address exists. The answer and its time
    /// are the same when there is none.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] when it is no address; [`AccessError::TooManyAttempts`] after five in an hour.
    pub async fn request_password_reset(&self, email: &str, origin: &Origin) -> Result<(), AccessError> {
        let email = Email::parse(email).map_err(|line| AccessError::Invalid(vec![line]))?;
        let refusal = AuditEvent::denied(Action::PasswordResetRequest, None, origin);
        self.begin_attempt(&format!("reset:{}", sha256_hex(&email.key())), MESSAGE, &refusal).await?;
        // In the background: writing the link takes time that would tell that there is an account.
        let (access, origin) = (self.clone(), origin.clone());
        tokio::spawn(async move {
            if let Err(error) = access.send_reset(&email, &origin).await {
                tracing::error!(%error, "a link to reset a password could not be made");
            }
        });
        Ok(())
    }

    async fn send_reset(&self, email: &Email, origin: &Origin) -> Result<(), AccessError> {
        let found = self.inner.store.find_login(email.as_str()).await?;
        let Some(user) = found.map(|login| login.user).filter(|user| user.is_active) else { return Ok(()) };
        // The address as it is stored, not as it was asked for.
        let Some(address) = user.email.clone() else { return Ok(()) };
        let token = self.issue_token(RESET, user.id, &address.to_ascii_lowercase()).await?;
        let event = AuditEvent::success(Actor::Anonymous, Action::PasswordResetRequest, user.id, origin);
        self.inner.store.append_audit(&event).await?;
        let link = self.link("reset-password", &token);
        let text = format!(
            "Hello {},\n\nset a new password here:\n\n{link}\n\nThe link works once, for {} minutes. If you did not ask \
             for it, do nothing: your password stays as it is.\n",
            user.username,
            link_minutes()
        );
        self.mail(&address, "Reset your password", &text);
        Ok(())
    }

    /// Sets a new password by a link's token and ends every session. It logs nobody in, so a second factor is still
    /// asked for afterwards. Where nobody had confirmed the address before, whoever registered it may be somebody
    /// else: then the factor, passkeys, API keys, number and log-ins at other providers are removed.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`]; [`AccessError::Invalid`] with every broken rule, which leaves the link usable;
    /// [`AccessError::Busy`].
    pub async fn confirm_password_reset(
        &self,
        token: &SecretString,
        password: SecretString,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let result = self.reset_by_token(token, password, origin).await;
        self.audit_code(result, Action::PasswordReset, origin).await
    }

    async fn reset_by_token(
        &self,
        token: &SecretString,
        password: SecretString,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let hash = sha256_hex(token.expose_secret());
        let id = self.inner.store.find_token(RESET, &hash).await?.ok_or(AccessError::CodeRefused)?;
        let user = self.find_user(id).await?.filter(|user| user.is_active).ok_or(AccessError::CodeRefused)?;
        // The first proof of an address removes the second factor.
        let keeps_factor = user.is_verified && self.has_factor(id).await?;
        self.check_new_password(&password, &user, keeps_factor)?;
        let new = self.hashed(password).await?;
        let CodeUse::Accepted { user: Some(owner), address } = self.inner.store.use_token(RESET, &hash).await? else {
            return Err(AccessError::CodeRefused);
        };
        if owner != id {
            return Err(AccessError::CodeRefused);
        }
        let reset = self.inner.store.reset_by_link(id, &address, &new, origin).await?;
        for key in &reset.keys {
            self.inner.recent.key_revoked(*key);
        }
        self.note_revoked(&reset.sessions);
        self.notify(&user, if reset.is_first_proof { RESET_OF_UNCONFIRMED } else { RESET_OF_CONFIRMED });
        Ok(())
    }

    /// Changes the caller's password, or gives an account its first one. The session of the call stays, every other
    /// one ends.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`] when the present password is wrong; [`AccessError::FreshLoginNeeded`] when
    /// there is none and the log-in is older than five minutes; [`AccessError::TooManyAttempts`];
    /// [`AccessError::Invalid`]; [`AccessError::Busy`].
    pub async fn change_password(
        &self,
        caller: &Caller,
        current: Option<SecretString>,
        new: SecretString,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let user = self.require_password(caller, Action::PasswordChange, "current_password", current, origin).await?;
        self.check_new_password(&new, &user, self.has_factor(user.id).await?)?;
        let new = self.hashed(new).await?;
        let event = AuditEvent::success(caller.into(), Action::PasswordChange, user.id, origin);
        let revoked = self.inner.store.set_password(user.id, &new, caller.session(), &event).await?;
        self.note_revoked(&revoked);
        self.notify(&user, "Your password was changed.");
        Ok(())
    }

    /// Sends the caller a new link to confirm the address.
    ///
    /// # Errors
    /// [`AccessError::NotFound`] without an address; [`AccessError::TooManyAttempts`] after five in an hour.
    pub async fn request_verification(&self, caller: &Caller, origin: &Origin) -> Result<(), AccessError> {
        let user = self.find_user(caller.id).await?.ok_or(AccessError::NotFound { what: "user" })?;
        if user.email.is_none() {
            return Err(AccessError::NotFound { what: "e-mail address" });
        }
        if !user.is_verified {
            let event = AuditEvent::success(caller.into(), Action::EmailVerifyRequest, user.id, origin);
            let refusal = AuditEvent { outcome: Outcome::Denied, ..event.clone() };
            self.begin_attempt(&format!("verify:{}", user.id), MESSAGE, &refusal).await?;
            self.inner.store.append_audit(&event).await?;
            self.send_verification(&user).await?;
        }
        Ok(())
    }

    /// Confirms an address by a link's token.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`], also when the account has another address by now.
    pub async fn verify_email(&self, token: &SecretString, origin: &Origin) -> Result<(), AccessError> {
        let result = self.verify_by_token(token, origin).await;
        self.audit_code(result, Action::EmailVerify, origin).await
    }

    async fn verify_by_token(&self, token: &SecretString, origin: &Origin) -> Result<(), AccessError> {
        let hash = sha256_hex(token.expose_secret());
        let CodeUse::Accepted { user: Some(id), address } = self.inner.store.use_token(VERIFY, &hash).await? else {
            return Err(AccessError::CodeRefused);
        };
        let event = AuditEvent::success(Actor::User(id), Action::EmailVerify, id, origin);
        let is_done = self.inner.store.verify_email(id, &address, &event).await?;
        if is_done { Ok(()) } else { Err(AccessError::CodeRefused) }
    }

    /// Judges a password without keeping it, as the only factor of an account. `context` holds the names and addresses that
    /// it should not contain; the local part of an address counts too, as where a password is set.
    pub fn password_strength(&self, password: &SecretString, context: &[&str]) -> Strength {
        let text = password.expose_secret();
        if text.len() > MAX_PASSWORD_BYTES {
            return Strength { score: 0, broken: vec![crate::accounts::too_long()] };
        }
        let locals = context.iter().filter_map(|word| Some(word.split_once('@')?.0));
        let words: Vec<&str> = context.iter().copied().chain(locals).collect();
        let broken = broken_rules(self.inner.settings.password_rules, false, text, &words);
        Strength { score: strength(text, !broken.is_empty()), broken }
    }

    /// The hash of a password that keeps the rules, and whether it does so without a second factor too: until it is set
    /// there may be none any more.
    pub(crate) async fn hashed(&self, password: SecretString) -> Result<NewPassword, AccessError> {
        let may_stand_alone = self.inner.settings.password_rules.let_stand_alone(password.expose_secret());
        Ok(NewPassword { hash: self.inner.hasher.hash(password).await?, may_stand_alone })
    }

    pub(crate) fn check_new_password(
        &self,
        password: &SecretString,
        user: &User,
        has_factor: bool,
    ) -> Result<(), AccessError> {
        let context = context_of(&user.username, user.email.as_deref());
        check_password(self.inner.settings.password_rules, has_factor, password, &context)
    }
}
