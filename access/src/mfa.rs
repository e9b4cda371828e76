//! The second factor: six digits of an authenticator (RFC 6238), and recovery codes for when it is lost. Passkeys, which are
//! one too, have a module of their own.
//!
//! A code works once: its time step is used up, also for codes of earlier steps, even in parallel. Wrong codes are
//! counted apart from wrong passwords, so that neither can block the other.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use totp_rs::{Builder, Secret, Totp};
use uuid::Uuid;

use crate::codes::{MFA, new_token};
use crate::secret::{random_bytes, random_hex, sha256_hex};
use crate::sessions::TokenPair;
use crate::store::{Factors, Proof};
use crate::throttle::FACTOR;
use crate::time::{as_s, now_us};
use crate::{Access, AccessError, Action, Actor, AuditEvent, Caller, Origin};

/// How long the second step of a log-in may take.
const TICKET_LIFE: Duration = Duration::from_secs(5 * 60);
const RECOVERY_CODES: usize = 10;

/// What a log-in came to.
#[derive(Debug)]
pub enum LoginOutcome {
    /// Logged in.
    Tokens(Box<TokenPair>),
    /// The password was right and the second factor is asked for. The ticket reaches nothing but that step.
    MfaRequired {
        /// For [`Access::login_with_factor`] and [`Access::begin_passkey_factor`].
        ticket: SecretString,
        /// Its life.
        expires_in: Duration,
        /// What can be given there, beside a recovery code.
        factors: Factors,
    },
}

/// A factor that is being set up. This is the only time that the secret is known.
#[derive(Debug)]
pub struct Enrolment {
    /// In base 32, to type in.
    pub secret: SecretString,
    /// `otpauth://` address for a QR code.
    pub uri: SecretString,
}

impl Access {
    /// Begins to set up a factor for the caller, after the password was given again, where the account has one.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`]; [`AccessError::Taken`] when there is a
    /// confirmed one.
    pub async fn enroll_totp(
        &self,
        caller: &Caller,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<Enrolment, AccessError> {
        let user = self.require_password(caller, Action::MfaEnroll, "password", password, origin).await?;
        let secret = Secret::from(random_bytes::<20>()?);
        let base32 = secret.to_base32();
        let sealed = self.inner.seal.seal(user.id, base32.as_bytes())?;
        let event = AuditEvent::success(caller.into(), Action::MfaEnroll, user.id, origin);
        if !self.inner.store.enroll_factor(user.id, caller.require_session()?, &sealed, &event).await? {
            return Err(AccessError::Taken { field: "second factor" });
        }
        let uri = format!("otpauth://totp/Karat:{}?secret={base32}&issuer=Karat", user.username);
        Ok(Enrolment { secret: base32.into(), uri: uri.into() })
    }

    /// Confirms the factor by a first code; answers the recovery codes, which are shown this once.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`]; [`AccessError::NotFound`] without one to confirm; [`AccessError::TooManyAttempts`].
    pub async fn confirm_totp(
        &self,
        caller: &Caller,
        code: &str,
        origin: &Origin,
    ) -> Result<Vec<SecretString>, AccessError> {
        let factor = self.inner.store.find_factor(caller.id).await?.filter(|factor| !factor.is_confirmed);
        let factor = factor.ok_or(AccessError::NotFound { what: "factor to confirm" })?;
        let name = attempts_of(caller.id);
        let refusal = AuditEvent::refused(caller.into(), Action::MfaConfirm, Some(caller.id), origin);
        self.begin_attempt(&name, FACTOR, &refusal).await?;
        let Some(step) = self.matching_step(caller.id, &factor.secret, code)? else {
            self.audit_refusal(refusal).await;
            return Err(AccessError::CodeRefused);
        };
        let (codes, hashes) = recovery_codes(caller.id)?;
        let event = AuditEvent::success(caller.into(), Action::MfaConfirm, caller.id, origin);
        let session = caller.require_session()?;
        if !self.inner.store.confirm_factor(caller.id, session, step, &hashes, &event).await? {
            return Err(AccessError::NotFound { what: "factor to confirm" });
        }
        self.inner.store.clear_attempts(&[name.as_str()]).await?;
        if let Some(user) = self.find_user(caller.id).await? {
            self.notify(&user, "A second factor was set up for your account.");
        }
        Ok(codes)
    }

    /// Puts new recovery codes in place of the caller's, which stop working, after the password was given again, where the
    /// account has one, and a code of the authenticator. A recovery code does not do: one that was found would become ten.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`]; [`AccessError::NotFound`] without a
    /// confirmed factor; [`AccessError::CodeRefused`]; [`AccessError::TooManyAttempts`].
    pub async fn renew_recovery_codes(
        &self,
        caller: &Caller,
        password: Option<SecretString>,
        code: &str,
        origin: &Origin,
    ) -> Result<Vec<SecretString>, AccessError> {
        let action = Action::RecoveryCodesRenew;
        let user = self.require_password(caller, action, "password", password, origin).await?;
        let factor = self.inner.store.find_factor(user.id).await?.filter(|factor| factor.is_confirmed);
        let factor = factor.ok_or(AccessError::NotFound { what: "second factor" })?;
        let name = attempts_of(user.id);
        let refusal = AuditEvent::refused(caller.into(), action, Some(user.id), origin);
        self.begin_attempt(&name, FACTOR, &refusal).await?;
        let (codes, hashes) = recovery_codes(user.id)?;
        let event = AuditEvent::success(caller.into(), action, user.id, origin);
        let session = caller.require_session()?;
        let is_renewed = match self.matching_step(user.id, &factor.secret, code)? {
            Some(step) => self.inner.store.renew_recovery_codes(user.id, session, step, &hashes, &event).await?,
            None => false,
        };
        if !is_renewed {
            self.audit_refusal(refusal).await;
            return Err(AccessError::CodeRefused);
        }
        self.inner.store.clear_attempts(&[name.as_str()]).await?;
        self.notify(&user, "The recovery codes of your account were replaced.");
        Ok(codes)
    }

    /// Removes the caller's factor, after the password was given again, where the account has one.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`]; [`AccessError::NotFound`] without a
    /// factor; [`AccessError::Invalid`] when the password is too short to be the only factor; [`AccessError::Outdated`]
    /// when the account was changed meanwhile.
    pub async fn remove_totp(
        &self,
        caller: &Caller,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let rules = self.inner.settings.password_rules;
        let is_enough = password.as_ref().is_none_or(|password| rules.let_stand_alone(password.expose_secret()));
        let user = self.require_password(caller, Action::MfaRemove, "password", password, origin).await?;
        let alone_at = is_enough.then_some(user.version);
        let event = AuditEvent::success(caller.into(), Action::MfaRemove, user.id, origin);
        if !self.inner.store.remove_factor(user.id, caller.require_session()?, alone_at, &event).await? {
            return Err(AccessError::NotFound { what: "second factor" });
        }
        self.notify(&user, "The second factor of your account was removed.");
        Ok(())
    }

    /// The second step of a log-in: a code of the authenticator or a recovery code.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`] when the ticket or the code does not hold; [`AccessError::TooManyAttempts`].
    pub async fn login_with_factor(
        &self,
        ticket: &SecretString,
        code: &str,
        origin: &Origin,
    ) -> Result<TokenPair, AccessError> {
        let step = self.begin_second_step(ticket, origin).await?;
        if !self.check_factor(step.user, code, origin).await? {
            self.audit_refusal(step.refusal).await;
            return Err(AccessError::CodeRefused);
        }
        self.finish_second_step(step, origin).await
    }

    /// Whose ticket it is, and the hash that the ticket is known by.
    pub(crate) async fn find_ticket(
        &self,
        ticket: &SecretString,
        origin: &Origin,
    ) -> Result<(Uuid, String), AccessError> {
        let hash = sha256_hex(ticket.expose_secret());
        if let Some(user) = self.inner.store.find_token(MFA, &hash).await? {
            return Ok((user, hash));
        }
        self.note_refusal(Action::LoginMfa, origin).await;
        Err(AccessError::CodeRefused)
    }

    /// Counts a second step as failed until it is finished, whatever is given.
    pub(crate) async fn begin_second_step(
        &self,
        ticket: &SecretString,
        origin: &Origin,
    ) -> Result<SecondStep, AccessError> {
        let (user, ticket) = self.find_ticket(ticket, origin).await?;
        let refusal = AuditEvent::denied(Action::LoginMfa, Some(user), origin);
        self.begin_attempt(&attempts_of(user), FACTOR, &refusal).await?;
        Ok(SecondStep { user, ticket, refusal })
    }

    /// What was given was right: uses the ticket up and logs in.
    pub(crate) async fn finish_second_step(&self, step: SecondStep, origin: &Origin) -> Result<TokenPair, AccessError> {
        let pair = self.start_session(step.user, Action::LoginMfa, Proof::Ticket(step.ticket), origin).await?;
        self.inner.store.clear_attempts(&[attempts_of(step.user).as_str()]).await?;
        Ok(pair)
    }

    /// Tokens for a user who proved one factor, or a ticket when there is a second one.
    pub(crate) async fn finish_login(
        &self,
        user: Uuid,
        action: Action,
        proof: Proof,
        origin: &Origin,
    ) -> Result<LoginOutcome, AccessError> {
        let factors = self.inner.store.find_factors(user).await?;
        if !factors.is_any() {
            return Ok(LoginOutcome::Tokens(Box::new(self.start_session(user, action, proof, origin).await?)));
        }
        // A ticket each: of two log-ins at a time neither ends the other.
        let (ticket, row) = new_token(MFA, user, &random_hex::<16>()?, TICKET_LIFE)?;
        let created = self.inner.store.create_ticket(&row, user, &proof).await;
        self.audit_lost_proof(created, action, user, origin).await?;
        Ok(LoginOutcome::MfaRequired { ticket, expires_in: TICKET_LIFE, factors })
    }

    /// Whether an account has a second factor that was confirmed.
    pub(crate) async fn has_factor(&self, user: Uuid) -> Result<bool, AccessError> {
        Ok(self.inner.store.find_factors(user).await?.is_any())
    }

    /// Whether a code is right; if so, it is used up.
    pub(crate) async fn check_factor(&self, user: Uuid, code: &str, origin: &Origin) -> Result<bool, AccessError> {
        let factors = self.inner.store.find_factors(user).await?;
        if !factors.is_any() || code.len() > 64 {
            return Ok(false);
        }
        let factor = self.inner.store.find_factor(user).await?.filter(|factor| factor.is_confirmed);
        if let Some(factor) = factor
            && let Some(step) = self.matching_step(user, &factor.secret, code)?
        {
            return Ok(step > factor.last_step && self.inner.store.use_step(user, step).await?);
        }
        let event = AuditEvent::success(Actor::User(user), Action::RecoveryCodeUse, user, origin);
        self.inner.store.use_recovery_code(user, &recovery_hash(user, &code.to_ascii_lowercase()), &event).await
    }

    /// The time step that a code is right for: the present one, the one before or the one after.
    fn matching_step(&self, user: Uuid, sealed: &str, code: &str) -> Result<Option<i64>, AccessError> {
        let base32 = self.inner.seal.open(user, sealed)?;
        let step = totp(&base32)?.check(code.trim(), as_s(now_us()));
        Ok(step.and_then(|step| i64::try_from(step).ok()))
    }
}

/// A second step that was begun and is not done yet.
pub(crate) struct SecondStep {
    pub user: Uuid,
    /// The hash of the ticket.
    pub ticket: String,
    /// The row to write when what is given does not hold.
    pub refusal: AuditEvent,
}

/// What failed second steps of a user are counted under.
fn attempts_of(user: Uuid) -> String {
    format!("mfa:{user}")
}

fn totp(base32: &[u8]) -> Result<Totp, AccessError> {
    let wrong = || AccessError::Corrupt { column: "mfa_factors.secret", found: "no secret in base 32".to_owned() };
    let text = std::str::from_utf8(base32).map_err(|_| wrong())?;
    let secret = Secret::try_from_base32(text).map_err(|_| wrong())?;
    Builder::new().with_secret(secret).build().map_err(|_| wrong())
}

/// Recovery codes for a user, and what is kept of them.
pub(crate) fn recovery_codes(user: Uuid) -> Result<(Vec<SecretString>, Vec<String>), AccessError> {
    let codes = (0..RECOVERY_CODES).map(|_| recovery_code()).collect::<Result<Vec<_>, _>>()?;
    let hashes = codes.iter().map(|code| recovery_hash(user, code)).collect();
    Ok((codes.into_iter().map(Into::into).collect(), hashes))
}

/// Eighty bits in groups of five.
fn recovery_code() -> Result<String, AccessError> {
    let hex = random_hex::<10>()?;
    Ok([&hex[..5], &hex[5..10], &hex[10..15], &hex[15..]].join("-"))
}

fn recovery_hash(user: Uuid, code: &str) -> String {
    sha256_hex(&format!("{user}:{}", code.trim().replace('-', "")))
}
