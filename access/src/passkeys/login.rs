//! Logging in by a passkey: alone, or as the second step.

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use super::authenticator_data::AuthenticatorData;
use super::public_key::PublicKey;
use super::registration::handle_of;
use super::{Ceremony, ClientData, Fault, RelyingParty, decoded};
use crate::codes::PASSKEY_LOGIN;
use crate::refusals::network;
use crate::secret::{random_hex, sha256_hex, sha256_of};
use crate::sessions::TokenPair;
use crate::store::{CodeUse, Proof, Said, StoredPasskey};
use crate::throttle::PASSWORD;
use crate::{Access, AccessError, Action, AuditEvent, Origin};

/// What a browser needs to ask a passkey (`navigator.credentials.get`).
#[derive(Debug)]
pub struct RequestOptions {
    /// In base64url.
    pub challenge: String,
    /// The host that the passkey is for.
    pub relying_party: String,
    /// Ids of the credentials that will do, in base64url; none when the authenticator knows which it has.
    pub allow: Vec<String>,
    /// Whether the authenticator must check who its user is.
    pub needs_verification: bool,
}

/// What a browser answers when a passkey signed, in base64url.
#[derive(Debug)]
pub struct Assertion {
    /// `id`.
    pub credential_id: String,
    /// `response.clientDataJSON`.
    pub client_data: String,
    /// `response.authenticatorData`.
    pub authenticator_data: String,
    /// `response.signature`.
    pub signature: String,
    /// `response.userHandle`.
    pub user_handle: Option<String>,
}

/// An assertion whose fields are read.
struct Presented {
    client_data: Vec<u8>,
    authenticator_data: Vec<u8>,
    signature: Vec<u8>,
}

/// Who may answer, and how.
struct Asked {
    /// What the challenge must be of.
    began: CodeUse,
    /// The only user, where one factor was proved.
    user: Option<Uuid>,
    /// Whether the authenticator must have checked who its user is.
    needs_verification: bool,
}

impl Access {
    /// Begins a log-in by a passkey alone; answers the secret of this attempt too, without which it cannot be finished.
    ///
    /// # Errors
    /// [`AccessError::Unconfigured`] without a public address that passkeys can be for.
    pub async fn begin_passkey_login(&self) -> Result<(SecretString, RequestOptions), AccessError> {
        let party = self.relying_party()?;
        let attempt = random_hex::<16>()?;
        let challenge = self.issue_challenge(PASSKEY_LOGIN, None, sha256_hex(&attempt)).await?;
        let (allow, needs_verification) = (Vec::new(), true);
        let options = RequestOptions { challenge, relying_party: party.id, allow, needs_verification };
        Ok((attempt.into(), options))
    }

    /// Begins the second step of a log-in by a passkey.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`] when the ticket does not hold; [`AccessError::NotFound`] when the account has no
    /// passkey; [`AccessError::Unconfigured`].
    pub async fn begin_passkey_factor(
        &self,
        ticket: &SecretString,
        origin: &Origin,
    ) -> Result<RequestOptions, AccessError> {
        let party = self.relying_party()?;
        let (user, ticket) = self.find_ticket(ticket, origin).await?;
        let allow = self.inner.store.list_credentials(user).await?;
        if allow.is_empty() {
            return Err(AccessError::NotFound { what: "passkey" });
        }
        let challenge = self.issue_challenge(PASSKEY_LOGIN, Some(user), ticket).await?;
        Ok(RequestOptions { challenge, relying_party: party.id, allow, needs_verification: false })
    }

    /// Logs in by a passkey alone: it is what one has, and its authenticator checked the finger, the face or the PIN. So no
    /// second factor is asked for.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`] when anything of it does not hold; [`AccessError::TooManyAttempts`];
    /// [`AccessError::Unconfigured`].
    pub async fn login_by_passkey(
        &self,
        attempt: &SecretString,
        assertion: &Assertion,
        origin: &Origin,
    ) -> Result<TokenPair, AccessError> {
        let party = self.relying_party()?;
        let credential = credential_hash(assertion);
        let found = self.inner.store.find_passkey(&credential).await?;
        let refusal = AuditEvent::denied(Action::PasskeyLogin, found.as_ref().map(|passkey| passkey.user), origin);
        // By the network too: what others send for a passkey does not make its owner wait.
        let name = format!("passkey:{credential}:{}", network(origin));
        self.begin_attempt(&name, PASSWORD, &refusal).await?;
        let began = CodeUse::Accepted { user: None, address: sha256_hex(attempt.expose_secret()) };
        let asked = Asked { began, user: None, needs_verification: true };
        let passkey = match self.check_assertion(&party, &asked, found, assertion).await? {
            Ok(passkey) => passkey,
            Err(fault) => return Err(self.refuse_passkey(fault, refusal, origin).await),
        };
        let proof = Proof::Passkey(passkey.id);
        let pair = self.start_session(passkey.user, Action::PasskeyLogin, proof, origin).await?;
        self.inner.store.clear_attempts(&[name.as_str()]).await?;
        Ok(pair)
    }

    /// The second step of a log-in by a passkey.
    ///
    /// # Errors
    /// As [`Access::login_by_passkey`].
    pub async fn login_with_passkey_factor(
        &self,
        ticket: &SecretString,
        assertion: &Assertion,
        origin: &Origin,
    ) -> Result<TokenPair, AccessError> {
        let party = self.relying_party()?;
        let step = self.begin_second_step(ticket, origin).await?;
        let found = self.inner.store.find_passkey(&credential_hash(assertion)).await?;
        let began = CodeUse::Accepted { user: Some(step.user), address: step.ticket.clone() };
        let asked = Asked { began, user: Some(step.user), needs_verification: false };
        match self.check_assertion(&party, &asked, found, assertion).await? {
            Ok(_) => self.finish_second_step(step, origin).await,
            Err(fault) => Err(self.refuse_passkey(fault, step.refusal, origin).await),
        }
    }

    /// The passkey, if it signed what was asked. The challenge is used up in any case.
    async fn check_assertion(
        &self,
        party: &RelyingParty,
        asked: &Asked,
        found: Option<StoredPasskey>,
        assertion: &Assertion,
    ) -> Result<Result<StoredPasskey, Fault>, AccessError> {
        let presented = match Presented::read(assertion) {
            Ok(presented) => presented,
            Err(fault) => return Ok(Err(fault)),
        };
        let client = match self.take_challenge(PASSKEY_LOGIN, &presented.client_data, &asked.began).await? {
            Ok(client) => client,
            Err(fault) => return Ok(Err(fault)),
        };
        let Some(passkey) = found else { return Ok(Err(Fault::Unknown)) };
        if !is_owner(&passkey, asked, assertion) {
            return Ok(Err(Fault::Owner));
        }
        // One that checked nobody when it was made is one factor for good: whoever holds a key without a PIN can give it one.
        if asked.needs_verification && !passkey.is_verifying {
            return Ok(Err(Fault::Verification));
        }
        let key = stored_key(&passkey)?;
        let said = match presented.check(party, &client, &key, asked.needs_verification) {
            Ok(said) => said,
            Err(fault) => return Ok(Err(fault)),
        };
        if passkey.is_backup_eligible.is_some_and(|was| was != said.is_backup_eligible) {
            return Ok(Err(Fault::Backup));
        }
        // Last: a count that others made up moves nothing.
        let counts_on = self.inner.store.use_passkey(passkey.id, said).await?;
        Ok(if counts_on { Ok(passkey) } else { Err(Fault::Counter) })
    }

    /// Leaves the row of a refusal. A passkey that nobody has costs its sender nothing: one row a minute for a network.
    async fn refuse_passkey(&self, fault: Fault, refusal: AuditEvent, origin: &Origin) -> AccessError {
        let (user, refusal) = (refusal.target, refusal.with_details(json!({"reason": fault.name()})));
        match user {
            Some(_) => self.audit_refusal(refusal).await,
            None => self.audit_repeatable(&network(origin), refusal).await,
        }
        if let Some(what) = warning(fault)
            && let Some(user) = user
            && let Ok(Some(user)) = self.find_user(user).await
        {
            self.notify(&user, what);
        }
        AccessError::CodeRefused
    }
}

impl Presented {
    fn read(assertion: &Assertion) -> Result<Self, Fault> {
        Ok(Self {
            client_data: decoded(&assertion.client_data)?,
            authenticator_data: decoded(&assertion.authenticator_data)?,
            signature: decoded(&assertion.signature)?,
        })
    }

    /// What the authenticator says of the passkey, when the key signed this for this instance.
    fn check(
        &self,
        party: &RelyingParty,
        client: &ClientData,
        key: &PublicKey,
        needs_verification: bool,
    ) -> Result<Said, Fault> {
        party.check(client, Ceremony::Get)?;
        let data = AuthenticatorData::read(&self.authenticator_data)?;
        data.check(party, needs_verification)?;
        let signed = [self.authenticator_data.as_slice(), &sha256_of(&self.client_data)].concat();
        key.check(&signed, &self.signature)?;
        Ok(data.said)
    }
}

/// What the owner of a passkey is told, where the right key signed and something else does not hold.
fn warning(fault: Fault) -> Option<&'static str> {
    match fault {
        Fault::Counter => Some(
            "A log-in by one of your passkeys was refused, because it counts its uses and came with a count that is over: \
             there may be a copy of it. Remove it, and add it anew.",
        ),
        Fault::Backup => Some(
            "A log-in by one of your passkeys was refused, because it says otherwise than before whether it can be copied \
             to other devices: it may have been moved to another authenticator. Remove it, and add it anew.",
        ),
        _ => None,
    }
}

/// Whether it is a passkey of who was asked. Without a first step the authenticator says whose it is; else it may leave that
/// out.
fn is_owner(passkey: &StoredPasskey, asked: &Asked, assertion: &Assertion) -> bool {
    let handle = handle_of(passkey.user);
    match (asked.user, assertion.user_handle.as_deref()) {
        (None, said) => said == Some(handle.as_str()),
        (Some(user), said) => user == passkey.user && said.is_none_or(|said| said == handle),
    }
}

/// What the passkey of an assertion is found by. An id that is none has a hash too, which no passkey has.
fn credential_hash(assertion: &Assertion) -> String {
    let id = decoded(&assertion.credential_id).unwrap_or_default();
    hex::encode(sha256_of(&id))
}

fn stored_key(passkey: &StoredPasskey) -> Result<PublicKey, AccessError> {
    let read = hex::decode(&passkey.public_key).ok().and_then(|bytes| PublicKey::read(&mut bytes.as_slice()).ok());
    read.ok_or_else(|| AccessError::Corrupt { column: "passkeys.public_key", found: passkey.public_key.clone() })
}
