//! Telephone numbers: logging in by a code, and adding one to an account.

use secrecy::SecretString;
use uuid::Uuid;

use crate::codes::{NUMBER_LIFE, PHONE, number_hash, row_of_request};
use crate::mfa::LoginOutcome;
use crate::secret::random_hex;
use crate::send::Sms;
use crate::store::{CodeUse, NewUserRow, Proof, User};
use crate::throttle::{FACTOR, MESSAGE};
use crate::time::now_us;
use crate::{Access, AccessError, Action, Actor, AuditEvent, Caller, Origin, Outcome, Phone, Role, Username};

impl Access {
    /// Sends a code of six digits to a number, and answers the secret of this request for one. The code works with it
    /// alone, so what others try spends none of its tries. The answer is the same whether an account has the number.
    ///
    /// # Errors
    /// [`AccessError::Invalid`]; [`AccessError::TooManyAttempts`] after five in an hour, and beyond the caps of messages;
    /// [`AccessError::Unconfigured`].
    pub async fn request_phone_code(&self, phone: &str, origin: &Origin) -> Result<String, AccessError> {
        if !self.inner.post.has_sms() {
            return Err(AccessError::Unconfigured { what: "sending SMS" });
        }
        let phone = parse(phone)?;
        let refusal = AuditEvent::denied(Action::PhoneCodeRequest, None, origin);
        let name = format!("sms:{}", phone.as_str());
        self.begin_attempt(&name, MESSAGE, &refusal).await?;
        if let Err(error) = self.count_message(&phone, &refusal).await {
            // Nothing is sent to the number, which must not wait for longer than the cap lasts.
            self.inner.store.return_attempt(&name, MESSAGE).await?;
            return Err(error);
        }
        let code_request = random_hex::<16>()?;
        let code = self.issue_number(PHONE, phone.as_str(), &code_request).await?;
        let minutes = NUMBER_LIFE.as_secs() / 60;
        let text = format!("{code} is your Karat code. It works for {minutes} minutes. Tell it to nobody.");
        self.inner.post.sms(Sms { to: phone.as_str().to_owned(), text: text.into() });
        self.audit_refusal(AuditEvent { outcome: Outcome::Success, ..refusal }).await;
        Ok(code_request)
    }

    /// Logs in by a code and the secret of the request for it. A number that no account has gets a new one, where
    /// registration is open.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`]; [`AccessError::RegistrationClosed`].
    pub async fn login_by_phone(
        &self,
        phone: &str,
        code_request: &str,
        code: &str,
        origin: &Origin,
    ) -> Result<LoginOutcome, AccessError> {
        let phone = parse(phone)?;
        let found = self.inner.store.find_user_by_phone(phone.as_str()).await?;
        let refusal = AuditEvent::denied(Action::Login, found.as_ref().map(|user| user.id), origin);
        self.use_phone_code(&phone, code_request, code, &refusal).await?;
        let user = match found {
            Some(user) if user.is_active => user,
            Some(_) => {
                self.audit_refusal(refusal).await;
                return Err(AccessError::CodeRefused);
            }
            None => self.register_phone(&phone, origin).await?,
        };
        let proof = Proof::Phone(phone.as_str().to_owned());
        self.finish_login(user.id, Action::Login, proof, origin).await
    }

    /// Adds a number to the caller's account, by a code, the secret of the request for it, and the password, where the
    /// account has one.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`]; [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`];
    /// [`AccessError::Taken`].
    pub async fn link_phone(
        &self,
        caller: &Caller,
        phone: &str,
        code_request: &str,
        code: &str,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        let phone = parse(phone)?;
        let before = self.require_password(caller, Action::PhoneLink, "password", password, origin).await?;
        let refusal = AuditEvent::refused(caller.into(), Action::PhoneLink, Some(caller.id), origin);
        self.use_phone_code(&phone, code_request, code, &refusal).await?;
        let event = AuditEvent::success(caller.into(), Action::PhoneLink, caller.id, origin);
        let session = caller.require_session()?;
        let user = self.inner.store.set_phone(caller.id, session, phone.as_str(), &event).await?;
        self.notify(&before, "A telephone number was added to your account.");
        Ok(user)
    }

    /// Removes the number from the caller's account and ends its other sessions, after the password was given again,
    /// where the account has one.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`]; [`AccessError::LastWayIn`];
    /// [`AccessError::NotFound`] without a number.
    pub async fn unlink_phone(
        &self,
        caller: &Caller,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<User, AccessError> {
        let before = self.require_password(caller, Action::PhoneUnlink, "password", password, origin).await?;
        if before.phone.is_none() {
            return Err(AccessError::NotFound { what: "telephone number" });
        }
        let event = AuditEvent::success(caller.into(), Action::PhoneUnlink, caller.id, origin);
        let (user, revoked) =
            self.inner.store.remove_phone(caller.id, caller.session(), &self.usable_ways(), &event).await?;
        self.note_revoked(&revoked);
        self.notify(&before, "The telephone number of your account was removed.");
        Ok(user)
    }

    async fn use_phone_code(
        &self,
        phone: &Phone,
        code_request: &str,
        code: &str,
        refusal: &AuditEvent,
    ) -> Result<(), AccessError> {
        let row = row_of_request(code_request);
        // By the request too: guesses of somebody who did not ask for the code make nobody else wait.
        let name = format!("phone:{}:{row}", phone.as_str());
        self.begin_attempt(&name, FACTOR, refusal).await?;
        let hash = number_hash(PHONE, phone.as_str(), code_request, code.trim());
        match self.inner.store.use_code(PHONE, phone.as_str(), row, &hash).await? {
            CodeUse::Accepted { .. } => self.inner.store.clear_attempts(&[name.as_str()]).await,
            CodeUse::Refused => {
                // By the number: requests can be made up without end.
                // Of an account, where it is known which.
                let who = format!("{} {}", phone.as_str(), refusal.actor.columns().1.unwrap_or_default());
                self.audit_repeatable(&who, refusal.clone()).await;
                Err(AccessError::CodeRefused)
            }
        }
    }

    async fn register_phone(&self, phone: &Phone, origin: &Origin) -> Result<User, AccessError> {
        self.require_open_registration(origin).await?;
        let row = NewUserRow { phone: Some(phone.as_str().to_owned()), ..new_row()? };
        let event = AuditEvent::success(Actor::User(row.id), Action::Register, row.id, origin);
        self.inner.store.create_user(&row, &event).await
    }
}

/// A new account without a password, with a made-up name that its owner can change.
pub(crate) fn new_row() -> Result<NewUserRow, AccessError> {
    let id = Uuid::now_v7();
    // From the id's random end. Not from a number or address: a name is public.
    let username = Username::parse(&format!("user_{}", &id.simple().to_string()[20..]));
    let username = username.map_err(|line| AccessError::Invalid(vec![line]))?;
    Ok(NewUserRow {
        id,
        username,
        email: None,
        password_hash: None,
        full_name: None,
        role: Role::User,
        phone: None,
        is_verified: false,
        at: now_us(),
    })
}

fn parse(phone: &str) -> Result<Phone, AccessError> {
    Phone::parse(phone).map_err(|line| AccessError::Invalid(vec![line]))
}
