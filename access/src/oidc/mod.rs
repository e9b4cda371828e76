//! Logging in through other providers: OpenID Connect, and OAuth 2 for those that have nothing better.
//!
//! The authorization code flow with PKCE (S256), state and nonce. What belongs to one attempt (state, nonce, verifier)
//! is sealed into a cookie of the browser that began it, so that a callback in another browser comes to nothing; the
//! state is in the database too and works once. A person is known by (issuer, subject), never by an address, and an
//! account that exists is only joined by its owner, logged in.

mod apple;
mod facebook;
mod fetch;
mod id_token;
mod provider;

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use provider::Providers;
pub use provider::{ProviderKind, ProviderSettings};

use crate::fields::is_plain;
use crate::mfa::LoginOutcome;
use crate::phone::new_row;
use crate::refusals::network;
use crate::secret::{random_hex, sha256, sha256_hex};
use crate::store::{CodeUse, Identity, NewCodeRow, NewUserRow, Proof};
use crate::time::{as_us, now_us};
use crate::{Access, AccessError, Action, Actor, AuditEvent, Caller, Email, Origin};
use provider::Person;

/// How long a person may take at the provider.
pub const FLOW_LIFE: Duration = Duration::from_secs(10 * 60);
const PURPOSE: &str = "oauth";

/// Where to send the browser, and what to put into its cookie.
#[derive(Debug)]
pub struct Redirect {
    /// The provider's page.
    pub url: String,
    /// For a cookie of this browser that scripts cannot read; without it the callback is refused.
    pub cookie: SecretString,
}

/// What a callback brought.
#[derive(Debug)]
pub struct Callback {
    /// Name of the provider in the path.
    pub provider: String,
    /// `code`.
    pub code: SecretString,
    /// `state`.
    pub state: String,
    /// `iss` (RFC 9207), when the provider sends it.
    pub iss: Option<String>,
    /// The cookie of the browser.
    pub cookie: SecretString,
}

/// What a callback came to.
#[derive(Debug)]
pub enum CallbackOutcome {
    /// A log-in.
    Login(Box<LoginOutcome>),
    /// The log-in there was added to the account that asked for it.
    Linked,
}

/// One attempt, sealed into the cookie.
#[derive(Serialize, Deserialize)]
struct Flow {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    link: Option<Link>,
    ends_at: i64,
}

/// Who asked for a log-in to be added. It is not added when the session has ended meanwhile: who ended it may have
/// had to throw somebody out.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Link {
    user: Uuid,
    session: Uuid,
}

impl Access {
    /// Names of the providers that are set up.
    pub fn provider_names(&self) -> Vec<String> {
        self.inner.providers.names()
    }

    /// Begins a log-in at a provider.
    ///
    /// # Errors
    /// [`AccessError::NotFound`] for a provider that is not set up; [`AccessError::Delivery`] when it does not answer.
    pub async fn begin_oauth_login(&self, provider: &str) -> Result<Redirect, AccessError> {
        self.begin_flow(provider, None).await
    }

    /// Begins to add a log-in at a provider to the caller's account, after the password was given again, where the
    /// account has one.
    ///
    /// # Errors
    /// As [`Access::begin_oauth_login`]; [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`].
    pub async fn begin_oauth_link(
        &self,
        caller: &Caller,
        provider: &str,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<Redirect, AccessError> {
        self.require_password(caller, Action::OauthLink, "password", password, origin).await?;
        let session = caller.require_session()?;
        self.begin_flow(provider, Some(Link { user: caller.id, session })).await
    }

    /// Finishes what was begun: the browser is back from the provider.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`] when anything of it does not hold, or the session that asked for the log-in has
    /// ended; [`AccessError::Taken`] when the log-in there, or its address, belongs to another account;
    /// [`AccessError::RegistrationClosed`].
    pub async fn finish_oauth(&self, callback: Callback, origin: &Origin) -> Result<CallbackOutcome, AccessError> {
        let flow = self.open_flow(&callback);
        let link = flow.as_ref().ok().and_then(|flow| flow.link);
        let entered = match flow {
            Ok(flow) => self.finish_flow(flow, &callback, origin).await,
            Err(error) => Err(error),
        };
        let is_refused = matches!(
            entered,
            Err(AccessError::CodeRefused | AccessError::Taken { .. } | AccessError::RegistrationClosed)
        );
        if is_refused {
            self.audit_callback(&callback.provider, link, origin).await;
        }
        match entered? {
            Some(identity) => self.enter(identity, origin).await,
            None => Ok(CallbackOutcome::Linked),
        }
    }

    /// Answers the log-in to enter by; none when it was linked.
    async fn finish_flow(
        &self,
        flow: Flow,
        callback: &Callback,
        origin: &Origin,
    ) -> Result<Option<Identity>, AccessError> {
        // Used up before anything is asked of the provider: a second callback finds nothing.
        if self.inner.store.use_token(PURPOSE, &sha256_hex(&flow.state)).await? == CodeUse::Refused {
            return Err(AccessError::CodeRefused);
        }
        let provider = self.inner.providers.find(&flow.provider)?;
        let redirect = self.callback_url(&flow.provider);
        let person =
            provider.person(&callback.code, &flow.verifier, &flow.nonce, callback.iss.as_deref(), &redirect).await?;
        let known = self.inner.store.find_identity(&person.issuer, &person.subject).await?;
        match (flow.link, known) {
            (Some(link), Some(identity)) if identity.user != link.user => Err(AccessError::Taken { field: "identity" }),
            (Some(_), Some(_)) => Ok(None),
            (Some(link), None) => {
                self.link_person(link, &flow.provider, person, origin).await?;
                Ok(None)
            }
            (None, Some(identity)) => {
                self.inner.store.touch_identity(identity.id).await?;
                Ok(Some(identity))
            }
            (None, None) => self.register_person(&flow.provider, person, origin).await.map(Some),
        }
    }

    /// Removes the caller's log-ins at a provider and ends every other session of the account, after the password was
    /// given again, where the account has one.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`]; [`AccessError::LastWayIn`];
    /// [`AccessError::NotFound`].
    pub async fn unlink_oauth(
        &self,
        caller: &Caller,
        provider: &str,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        self.require_password(caller, Action::OauthUnlink, "password", password, origin).await?;
        let event = AuditEvent::success(caller.into(), Action::OauthUnlink, caller.id, origin)
            .with_details(serde_json::json!({"provider": provider}));
        let (store, usable) = (&self.inner.store, self.usable_ways());
        let revoked = store.unlink_identity(caller.id, provider, caller.session(), &usable, &event).await?;
        let revoked = revoked.ok_or(AccessError::NotFound { what: "log-in at this provider" })?;
        self.note_revoked(&revoked);
        if let Some(user) = self.find_user(caller.id).await? {
            self.notify(&user, "A log-in at another provider was removed from your account.");
        }
        Ok(())
    }

    /// The caller's log-ins at other providers, oldest first; [`Access::LIST_ROWS`] at most.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn list_identities(&self, user: Uuid) -> Result<Vec<Identity>, AccessError> {
        self.inner.store.list_identities(user, Self::LIST_ROWS).await
    }

    async fn begin_flow(&self, provider: &str, link: Option<Link>) -> Result<Redirect, AccessError> {
        let found = self.inner.providers.find(provider)?;
        let (state, nonce, verifier) = (random_hex::<32>()?, random_hex::<16>()?, random_hex::<32>()?);
        let at = now_us();
        let row = NewCodeRow {
            id: Uuid::now_v7(),
            purpose: PURPOSE,
            user: link.map(|link| link.user),
            // Bound to itself: beginning again in another tab ends nothing.
            address: sha256_hex(&state),
            code_hash: sha256_hex(&state),
            tries: 1,
            at,
            expires_at: at + as_us(FLOW_LIFE),
        };
        let challenge = URL_SAFE_NO_PAD.encode(sha256(&verifier));
        let url = found.authorize_url(&self.callback_url(provider), &state, &nonce, &challenge).await?;
        self.inner.store.create_code(&row).await?;
        let provider = provider.to_owned();
        let flow = Flow { provider, state, nonce, verifier, link, ends_at: row.expires_at };
        let text = serde_json::to_vec(&flow).map_err(|e| AccessError::Hash(e.to_string()))?;
        Ok(Redirect { url, cookie: self.inner.seal.seal(Uuid::nil(), &text)?.into() })
    }

    /// The row of a callback that came to nothing: one a minute for who asked for the link, else for a network.
    async fn audit_callback(&self, provider: &str, link: Option<Link>, origin: &Origin) {
        let (who, event) = match link {
            Some(Link { user, .. }) => {
                (user.to_string(), AuditEvent::refused(Actor::User(user), Action::OauthLink, Some(user), origin))
            }
            None => (network(origin), AuditEvent::denied(Action::OauthLogin, None, origin)),
        };
        // The name is what the path says: anything, unless it is known.
        let is_known = self.inner.providers.find(provider).is_ok();
        let event = if is_known { event.with_details(serde_json::json!({"provider": provider})) } else { event };
        self.audit_repeatable(&who, event).await;
    }

    /// The attempt that this browser began, if the callback is about it.
    fn open_flow(&self, callback: &Callback) -> Result<Flow, AccessError> {
        let opened = self.inner.seal.open(Uuid::nil(), callback.cookie.expose_secret());
        let flow = opened.ok().and_then(|text| serde_json::from_slice::<Flow>(&text).ok());
        let is_same = |flow: &Flow| {
            verify_slices_are_equal(flow.state.as_bytes(), callback.state.as_bytes()).is_ok()
                && flow.provider == callback.provider
                && flow.ends_at > now_us()
        };
        flow.filter(is_same).ok_or(AccessError::CodeRefused)
    }

    fn callback_url(&self, provider: &str) -> String {
        format!("{}/api/v1/auth/oauth/{provider}/callback", self.inner.settings.public_url.trim_end_matches('/'))
    }

    async fn enter(&self, identity: Identity, origin: &Origin) -> Result<CallbackOutcome, AccessError> {
        let proof = Proof::Identity(identity.id);
        let outcome = self.finish_login(identity.user, Action::OauthLogin, proof, origin).await?;
        Ok(CallbackOutcome::Login(Box::new(outcome)))
    }

    async fn link_person(
        &self,
        link: Link,
        provider: &str,
        person: Person,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let Link { user, session } = link;
        let account = self.find_user(user).await?.filter(|user| user.is_active).ok_or(AccessError::CodeRefused)?;
        let event = AuditEvent::success(Actor::User(user), Action::OauthLink, user, origin)
            .with_details(serde_json::json!({"provider": provider}));
        self.inner.store.link_identity(&identity(user, provider, &person), session, &event).await?;
        self.notify(&account, "A log-in at another provider was added to your account.");
        Ok(())
    }

    /// An account for a person who has none. One with the same address is not joined, whoever confirmed what: its
    /// owner logs in and links.
    async fn register_person(&self, provider: &str, person: Person, origin: &Origin) -> Result<Identity, AccessError> {
        if !self.inner.settings.registration_open {
            return Err(AccessError::RegistrationClosed);
        }
        let email = person.email.as_deref().filter(|_| person.email_verified).and_then(|text| Email::parse(text).ok());
        let is_verified = email.is_some();
        let row = NewUserRow { email, is_verified, ..new_row()? };
        let identity = identity(row.id, provider, &person);
        let event = AuditEvent::success(Actor::User(row.id), Action::Register, row.id, origin)
            .with_details(serde_json::json!({"provider": provider}));
        self.inner.store.create_user_with_identity(&row, &identity, &event).await?;
        Ok(identity)
    }
}

fn identity(user: Uuid, provider: &str, person: &Person) -> Identity {
    Identity {
        id: Uuid::now_v7(),
        user,
        provider: provider.to_owned(),
        issuer: person.issuer.clone(),
        subject: person.subject.clone(),
        email: person.email.clone().filter(|email| email.len() <= 254 && is_plain(email)),
        created_at_us: now_us(),
    }
}
