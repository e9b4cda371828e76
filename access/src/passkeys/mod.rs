//! Passkeys (WebAuthn level 3): a second factor, and a way in without a password where it was made as one and the authenticator
//! checks who its user is, which is two factors then.
//!
//! # Guarantees
//! * A challenge is random, lives five minutes, works once whatever comes of it, and only for who began: the session, the
//!   ticket of the first step, or the secret of the attempt. It is in the database, so any process may finish.
//! * What is signed is for this host and a page of this origin: both are those of the configured public address.
//! * A signature whose count does not go on is refused, and the owner told: the passkey may have been copied.
//! * Whether a passkey can be copied to other devices is kept from its registration, and a log-in that says otherwise is
//!   refused; whether it is copied is kept from its last log-in.
//! * The make of an authenticator is neither asked for nor judged.

mod authenticator_data;
mod fault;
mod login;
mod public_key;
mod registration;
mod relying_party;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use self::fault::Fault;
pub use self::login::{Assertion, RequestOptions};
pub use self::public_key::ALGORITHMS;
pub use self::registration::{AddedPasskey, CreationOptions, NewPasskey};
use self::relying_party::{Ceremony, ClientData, RelyingParty};
use crate::secret::{random_bytes, sha256_hex};
use crate::store::{CodeUse, NewCodeRow};
use crate::time::{as_us, now_us};
use crate::{Access, AccessError};

/// How long a person may take.
pub const CHALLENGE_LIFE: Duration = Duration::from_secs(5 * 60);

impl Access {
    /// Whether the public address is one that passkeys work at.
    pub(crate) fn has_passkeys(&self) -> bool {
        self.relying_party().is_ok()
    }

    fn relying_party(&self) -> Result<RelyingParty, AccessError> {
        RelyingParty::at(&self.inner.settings.public_url)
    }

    /// A challenge that works once and for who began; what that is proved by is `bound_to`.
    async fn issue_challenge(
        &self,
        purpose: &'static str,
        user: Option<Uuid>,
        bound_to: String,
    ) -> Result<String, AccessError> {
        let challenge = URL_SAFE_NO_PAD.encode(random_bytes::<32>()?);
        let at = now_us();
        let row = NewCodeRow {
            id: Uuid::now_v7(),
            purpose,
            user,
            address: bound_to,
            code_hash: sha256_hex(&challenge),
            tries: 1,
            at,
            expires_at: at + as_us(CHALLENGE_LIFE),
        };
        self.inner.store.create_code(&row).await?;
        Ok(challenge)
    }

    /// Uses up the challenge that was signed, and answers what the browser says of the page; `began` is what the challenge
    /// must be of.
    async fn take_challenge(
        &self,
        purpose: &'static str,
        client_data: &[u8],
        began: &CodeUse,
    ) -> Result<Result<ClientData, Fault>, AccessError> {
        let client = match ClientData::read(client_data) {
            Ok(client) => client,
            Err(fault) => return Ok(Err(fault)),
        };
        let used = self.inner.store.use_token(purpose, &sha256_hex(&client.challenge)).await?;
        Ok(if used == *began { Ok(client) } else { Err(Fault::Challenge) })
    }
}

/// The bytes of a field in base64url without padding, as browsers write it.
fn decoded(field: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(field).map_err(|_| Fault::Malformed)
}
