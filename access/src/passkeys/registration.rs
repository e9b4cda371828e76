//! Adding, listing and removing passkeys of the own account.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use super::authenticator_data::AuthenticatorData;
use super::{Ceremony, ClientData, Fault, decoded};
use crate::codes::{PASSKEY, SECURITY_KEY};
use crate::fields::is_plain;
use crate::mfa::recovery_codes;
use crate::secret::sha256_of;
use crate::store::{CodeUse, NewPasskeyRow, Passkey, User};
use crate::throttle::FACTOR;
use crate::time::now_us;
use crate::{Access, AccessError, Action, AuditEvent, Caller, Origin};

const LONGEST_NAME: usize = 100;
/// Of a passkey whose owner gives it none.
const NO_NAME: &str = "passkey";

/// What a browser needs to make a passkey (`navigator.credentials.create`).
#[derive(Debug)]
pub struct CreationOptions {
    /// In base64url.
    pub challenge: String,
    /// The host that the passkey is for.
    pub relying_party: String,
    /// Whose it will be.
    pub user: User,
    /// What authenticators know the account by, in base64url.
    pub user_handle: String,
    /// Ids of the credentials that the account has, in base64url: an authenticator that holds one of them makes no other.
    pub exclude: Vec<String>,
    /// Whether it is to log in without a password, for which its authenticator must keep it and check who its user is. Else it
    /// need do neither, and is a second factor alone.
    pub is_way_in: bool,
}

/// What a browser answers when a passkey was made, in base64url.
#[derive(Debug)]
pub struct NewPasskey {
    /// `response.clientDataJSON`.
    pub client_data: String,
    /// `response.attestationObject`.
    pub attestation: String,
    /// The name to know it by.
    pub name: Option<String>,
}

/// A passkey that was added.
#[derive(Debug)]
pub struct AddedPasskey {
    /// Its id.
    pub id: Uuid,
    /// Whether it logs in without a password.
    pub is_way_in: bool,
    /// With the first second factor of an account: recovery codes, which are shown this once.
    pub recovery_codes: Vec<SecretString>,
}

impl Access {
    /// Begins to add a passkey to the caller's account, after the password was given again, where the account has one.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`]; [`AccessError::Unconfigured`] without a
    /// public address that passkeys can be for.
    pub async fn begin_passkey(
        &self,
        caller: &Caller,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<CreationOptions, AccessError> {
        self.begin_registration(PASSKEY, caller, password, origin).await
    }

    /// Begins to add one that is a second factor alone, whatever its authenticator checks: for security keys without a PIN, by
    /// which browsers make no passkey that is kept.
    ///
    /// # Errors
    /// As [`Access::begin_passkey`].
    pub async fn begin_security_key(
        &self,
        caller: &Caller,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<CreationOptions, AccessError> {
        self.begin_registration(SECURITY_KEY, caller, password, origin).await
    }

    async fn begin_registration(
        &self,
        purpose: &'static str,
        caller: &Caller,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<CreationOptions, AccessError> {
        let party = self.relying_party()?;
        let user = self.require_password(caller, Action::PasskeyAdd, "password", password, origin).await?;
        let session = caller.require_session()?;
        let challenge = self.issue_challenge(purpose, Some(user.id), session.to_string()).await?;
        let exclude = self.inner.store.list_credentials(user.id).await?;
        let (user_handle, is_way_in) = (handle_of(user.id), purpose == PASSKEY);
        Ok(CreationOptions { challenge, relying_party: party.id, user, user_handle, exclude, is_way_in })
    }

    /// Adds the passkey that the browser made, in the session that began. Where it is the first second factor, recovery
    /// codes come with it, and from then on every other log-in asks for the second factor.
    ///
    /// # Errors
    /// [`AccessError::CodeRefused`] when anything of it does not hold; [`AccessError::Taken`] when the passkey belongs to
    /// an account already; [`AccessError::TooManyPasskeys`]; [`AccessError::Invalid`] for the name;
    /// [`AccessError::TooManyAttempts`]; [`AccessError::Unconfigured`].
    pub async fn confirm_passkey(
        &self,
        caller: &Caller,
        new: &NewPasskey,
        origin: &Origin,
    ) -> Result<AddedPasskey, AccessError> {
        let party = self.relying_party()?;
        let session = caller.require_session()?;
        let name = name_of(new)?;
        let attempts = format!("passkey:{}", caller.id);
        let refusal = AuditEvent::refused(caller.into(), Action::PasskeyAdd, Some(caller.id), origin);
        self.begin_attempt(&attempts, FACTOR, &refusal).await?;
        let began = CodeUse::Accepted { user: Some(caller.id), address: session.to_string() };
        let (client_data, attestation) = (decoded(&new.client_data), decoded(&new.attestation));
        let made = match client_data {
            Ok(bytes) => self.take_registration(&bytes, &began).await?,
            Err(fault) => Err(fault),
        };
        let checked = made.and_then(|(client, is_way_in)| {
            party.check(&client, Ceremony::Create)?;
            let data = AuthenticatorData::read_attestation(&attestation?)?;
            data.check(&party, false)?;
            let credential = data.credential.ok_or(Fault::Malformed)?;
            Ok((credential, data.said, is_way_in && data.is_verified))
        });
        let (credential, said, is_verifying) = match checked {
            Ok(checked) => checked,
            Err(fault) => {
                self.audit_refusal(refusal.with_details(json!({"reason": fault.name()}))).await;
                return Err(AccessError::CodeRefused);
            }
        };
        let row = NewPasskeyRow {
            id: Uuid::now_v7(),
            user: caller.id,
            name,
            credential_hash: hex::encode(sha256_of(&credential.id)),
            credential_id: URL_SAFE_NO_PAD.encode(&credential.id),
            public_key: hex::encode(&credential.public_key),
            said,
            is_verifying,
            at: now_us(),
        };
        let (codes, hashes) = recovery_codes(caller.id)?;
        let event = AuditEvent::success(caller.into(), Action::PasskeyAdd, caller.id, origin)
            .with_details(json!({"passkey": row.id}));
        let is_first = self.inner.store.add_passkey(&row, session, &hashes, &event).await?;
        self.inner.store.clear_attempts(&[attempts.as_str()]).await?;
        if let Some(user) = self.find_user(caller.id).await? {
            self.notify(&user, "A passkey was added to your account.");
        }
        Ok(AddedPasskey {
            id: row.id,
            is_way_in: is_verifying,
            recovery_codes: if is_first { codes } else { Vec::new() },
        })
    }

    /// Uses up the challenge of a registration, and answers with what the browser says whether that began for a way in.
    async fn take_registration(
        &self,
        client_data: &[u8],
        began: &CodeUse,
    ) -> Result<Result<(ClientData, bool), Fault>, AccessError> {
        for (purpose, is_way_in) in [(PASSKEY, true), (SECURITY_KEY, false)] {
            match self.take_challenge(purpose, client_data, began).await? {
                Ok(client) => return Ok(Ok((client, is_way_in))),
                Err(Fault::Challenge) => {}
                Err(fault) => return Ok(Err(fault)),
            }
        }
        Ok(Err(Fault::Challenge))
    }

    /// The passkeys of a user, oldest first.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub async fn list_passkeys(&self, user: Uuid) -> Result<Vec<Passkey>, AccessError> {
        self.inner.store.list_passkeys(user).await
    }

    /// Removes one of the caller's passkeys and ends the other sessions of the account, after the password was given again,
    /// where the account has one.
    ///
    /// # Errors
    /// [`AccessError::InvalidCredentials`]; [`AccessError::FreshLoginNeeded`]; [`AccessError::LastWayIn`];
    /// [`AccessError::NotFound`]; [`AccessError::Invalid`] when the password is too short to be the only factor;
    /// [`AccessError::Outdated`] when the account was changed meanwhile.
    pub async fn remove_passkey(
        &self,
        caller: &Caller,
        id: Uuid,
        password: Option<SecretString>,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let rules = self.inner.settings.password_rules;
        let is_enough = password.as_ref().is_none_or(|password| rules.let_stand_alone(password.expose_secret()));
        let user = self.require_password(caller, Action::PasskeyRemove, "password", password, origin).await?;
        let session = caller.require_session()?;
        let alone_at = is_enough.then_some(user.version);
        let event = AuditEvent::success(caller.into(), Action::PasskeyRemove, user.id, origin)
            .with_details(json!({"passkey": id}));
        let (store, usable) = (&self.inner.store, self.usable_ways());
        let revoked = store.remove_passkey(id, user.id, session, alone_at, &usable, &event).await?;
        let revoked = revoked.ok_or(AccessError::NotFound { what: "passkey" })?;
        self.note_revoked(&revoked);
        self.notify(&user, "A passkey was removed from your account.");
        Ok(())
    }
}

/// What authenticators know an account by: nothing that says who it is.
pub(super) fn handle_of(user: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(user.as_bytes())
}

fn name_of(new: &NewPasskey) -> Result<String, AccessError> {
    let name = new.name.as_deref().unwrap_or(NO_NAME);
    if name.is_empty() || name.chars().count() > LONGEST_NAME || !is_plain(name) {
        let line = format!("`name`: must be 1 to {LONGEST_NAME} characters, none of them a control character");
        return Err(AccessError::Invalid(vec![line]));
    }
    Ok(name.to_owned())
}
