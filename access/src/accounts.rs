//! Accounts: registering, creating, listing, giving roles, resetting passwords.

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use crate::password::{MAX_PASSWORD_BYTES, broken_rules};
use crate::store::{NewUserRow, Proof, User, UserFilter};
use crate::time::now_us;
use crate::{Access, AccessError, Action, Actor, AuditEvent, Email, Origin, PasswordRules, Role, TokenPair, Username};

/// What a person gives to register.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Optional when there is an address; one is made then.
    pub username: Option<String>,
    /// Optional when there is a username.
    pub email: Option<String>,
    /// Checked against the password rules.
    pub password: SecretString,
    /// The person's name.
    pub full_name: Option<String>,
}

/// What somebody with the right to do so gives to create an account for another.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The name.
    pub username: String,
    /// The address.
    pub email: Option<String>,
    /// Checked against the password rules.
    pub password: SecretString,
    /// The role.
    pub role: Role,
}

/// What a registration came to.
#[derive(Debug)]
pub enum Registration {
    /// The account is there and logged in.
    Tokens(Box<TokenPair>),
    /// A message was sent to the address; whether there is a new account, only its owner learns.
    VerificationSent,
}

impl Access {
    /// Registers an account with the role `user`. It is logged in, unless its address must be confirmed first: then
    /// the answer, and its time, are the same whether the address is known.
    ///
    /// # Errors
    /// [`AccessError::RegistrationClosed`]; [`AccessError::Invalid`] with every broken rule; [`AccessError::Taken`];
    /// [`AccessError::Busy`].
    pub async fn register(&self, account: NewAccount, origin: &Origin) -> Result<Registration, AccessError> {
        self.require_open_registration(origin).await?;
        let id = Uuid::now_v7();
        let (username, email) = parse_names(id, account.username.as_deref(), account.email.as_deref());
        let full_name = account.full_name.as_deref().map(|text| parse_full_name("full_name", text)).transpose();
        let full_name = full_name.map_err(|line| vec![line]);
        let rules = self.inner.settings.password_rules;
        let (username, email, full_name) = collect(rules, username, email, full_name, &account.password)?;
        let must_verify = self.inner.settings.email_verification;
        if must_verify && email.is_none() {
            return Err(AccessError::Invalid(vec!["`email`: is needed, because it is confirmed first".to_owned()]));
        }
        let row = NewUserRow {
            id,
            username,
            email,
            password_hash: None,
            full_name,
            role: Role::User,
            phone: None,
            is_verified: false,
            at: now_us(),
        };
        let event = AuditEvent::success(Actor::User(id), Action::Register, id, origin);
        if must_verify {
            return self.register_unverified(row, account.password, event).await;
        }
        let user = self.add_user(row, account.password, event).await?;
        self.send_verification(&user).await?;
        Ok(Registration::Tokens(Box::new(self.start_session(user.id, Action::Login, Proof::New, origin).await?)))
    }

    /// Hashes and writes once in any case, and tells only the owner of the address what became of it.
    async fn register_unverified(
        &self,
        row: NewUserRow,
        password: SecretString,
        event: AuditEvent,
    ) -> Result<Registration, AccessError> {
        let password_hash = Some(self.inner.hasher.hash(password).await?);
        let email = row.email.clone();
        match self.inner.store.create_user(&NewUserRow { password_hash, ..row }, &event).await {
            Ok(user) => {
                // In the background: writing the link takes time that would tell that the address was free.
                let access = self.clone();
                tokio::spawn(async move {
                    if let Err(error) = access.send_verification(&user).await {
                        tracing::error!(%error, "a link to confirm an address could not be made");
                    }
                });
            }
            Err(AccessError::Taken { field: "email" }) => {
                self.audit_refusal(AuditEvent::denied(Action::Register, None, &event.origin)).await;
                if let Some(email) = email {
                    let text = "Hello,\n\nsomebody tried to register with this address, which has an account already. \
                                If it was you, log in, or reset your password: that confirms the address too.\n";
                    self.mail(email.as_str(), "You have an account already", text);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(Registration::VerificationSent)
    }

    /// Creates an account on behalf of `actor`. It is not logged in. Its address counts as confirmed when somebody gives it at
    /// the command line, who owns the data; else a link is sent to it where addresses are confirmed.
    ///
    /// # Errors
    /// As [`Access::register`], but for closed registration.
    pub async fn create_user(&self, new: NewUser, actor: Actor, origin: &Origin) -> Result<User, AccessError> {
        let id = Uuid::now_v7();
        let (username, email) = parse_names(id, Some(&new.username), new.email.as_deref());
        let rules = self.inner.settings.password_rules;
        let (username, email, full_name) = collect(rules, username, email, Ok(None), &new.password)?;
        let row = NewUserRow {
            id,
            username,
            email,
            password_hash: None,
            full_name,
            role: new.role,
            phone: None,
            is_verified: actor == Actor::Shell && new.email.is_some(),
            at: now_us(),
        };
        let event =
            AuditEvent::success(actor, Action::UserCreate, id, origin).with_details(json!({"role": new.role.name()}));
        let user = self.add_user(row, new.password, event).await?;
        if self.inner.settings.email_verification && user.email.is_some() && !user.is_verified {
            self.send_verification(&user).await?;
        }
        Ok(user)
    }

    /// Gives a user a role. It holds at once here, within five seconds in other processes, without a new log-in.
    ///
    /// # Errors
    /// [`AccessError::NotFound`]; [`AccessError::LastAdmin`].
    pub async fn set_role(&self, id: Uuid, role: Role, actor: Actor, origin: &Origin) -> Result<User, AccessError> {
        let event = AuditEvent::success(actor, Action::RoleSet, id, origin).with_details(json!({"role": role.name()}));
        let user = self.inner.store.set_role(id, role, &event).await?;
        self.inner.recent.user_changed(&user);
        Ok(user)
    }

    /// Sets a user's password and ends all sessions.
    ///
    /// # Errors
    /// [`AccessError::NotFound`]; [`AccessError::Invalid`] with every broken rule; [`AccessError::Busy`].
    pub async fn reset_password(
        &self,
        id: Uuid,
        password: SecretString,
        actor: Actor,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let user = self.find_user(id).await?.ok_or(AccessError::NotFound { what: "user" })?;
        self.check_new_password(&password, &user, self.has_factor(id).await?)?;
        let new = self.hashed(password).await?;
        let event = AuditEvent::success(actor, Action::PasswordReset, id, origin);
        let revoked = self.inner.store.set_password(id, &new, None, &event).await?;
        self.note_revoked(&revoked);
        Ok(())
    }

    /// The user with this id.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn find_user(&self, id: Uuid) -> Result<Option<User>, AccessError> {
        self.inner.store.find_user(id).await
    }

    /// The user with this username or address, without case.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn find_user_by_name(&self, name: &str) -> Result<Option<User>, AccessError> {
        Ok(self.inner.store.find_login(name).await?.map(|login| login.user))
    }

    /// At most `limit` users in order of creation, after the given one.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn list_users(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<User>, AccessError> {
        self.inner.store.list_users(&UserFilter { after, ..UserFilter::default() }, limit).await
    }

    async fn add_user(&self, row: NewUserRow, password: SecretString, event: AuditEvent) -> Result<User, AccessError> {
        self.refuse_taken(&row).await?;
        let password_hash = Some(self.inner.hasher.hash(password).await?);
        self.inner.store.create_user(&NewUserRow { password_hash, ..row }, &event).await
    }

    /// Saves a hash for names that are plainly taken. What decides is the unique index.
    async fn refuse_taken(&self, row: &NewUserRow) -> Result<(), AccessError> {
        if self.inner.store.find_login(row.username.as_str()).await?.is_some() {
            return Err(AccessError::Taken { field: "username" });
        }
        if let Some(email) = &row.email
            && self.inner.store.find_login(email.as_str()).await?.is_some()
        {
            return Err(AccessError::Taken { field: "email" });
        }
        Ok(())
    }
}

type Parsed<T> = Result<T, Vec<String>>;

fn parse_names(id: Uuid, username: Option<&str>, email: Option<&str>) -> (Parsed<Username>, Parsed<Option<Email>>) {
    let email = email.map(Email::parse).transpose().map_err(|line| vec![line]);
    let username = match username {
        Some(text) => Username::parse(text),
        None if matches!(email, Ok(None)) => Err("`username`: give a `username`, an `email` or both".to_owned()),
        // From the id's random end. Not from the address: a name is public.
        None => Username::parse(&format!("user_{}", &id.simple().to_string()[20..])),
    };
    (username.map_err(|line| vec![line]), email)
}

/// All broken rules of all fields together, or the fields.
fn collect(
    rules: PasswordRules,
    username: Parsed<Username>,
    email: Parsed<Option<Email>>,
    full_name: Parsed<Option<String>>,
    password: &SecretString,
) -> Result<(Username, Option<Email>, Option<String>), AccessError> {
    let name = username.as_ref().map(Username::as_str).unwrap_or_default();
    let address = email.as_ref().ok().and_then(Option::as_ref).map(Email::as_str);
    let password = check_password(rules, false, password, &context_of(name, address));
    match (username, email, full_name, password) {
        (Ok(username), Ok(email), Ok(full_name), Ok(())) => Ok((username, email, full_name)),
        (username, email, full_name, password) => {
            let mut lines = username.err().unwrap_or_default();
            lines.extend(email.err().unwrap_or_default());
            lines.extend(full_name.err().unwrap_or_default());
            if let Err(AccessError::Invalid(broken)) = password {
                lines.extend(broken);
            }
            Err(AccessError::Invalid(lines))
        }
    }
}

pub(crate) fn parse_full_name(field: &str, text: &str) -> Result<String, String> {
    let text = text.trim();
    if (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!("`{field}`: must be 1 to 100 characters without control characters"))
}

pub(crate) fn context_of(username: &str, email: Option<&str>) -> Vec<String> {
    let local = email.and_then(|email| email.split('@').next());
    [Some(username), email, local].into_iter().flatten().map(str::to_owned).collect()
}

/// Refuses oversized passwords before anything reads them, then applies the rules. `has_factor` says whether the account has
/// a second factor beside it.
pub(crate) fn check_password(
    rules: PasswordRules,
    has_factor: bool,
    password: &SecretString,
    context: &[String],
) -> Result<(), AccessError> {
    let text = password.expose_secret();
    if text.len() > MAX_PASSWORD_BYTES {
        return Err(AccessError::Invalid(vec![too_long()]));
    }
    let context: Vec<&str> = context.iter().map(String::as_str).collect();
    let broken = broken_rules(rules, has_factor, text, &context);
    if broken.is_empty() { Ok(()) } else { Err(AccessError::Invalid(broken)) }
}

pub(crate) fn too_long() -> String {
    format!("`password`: must be at most {MAX_PASSWORD_BYTES} bytes")
}
