//! What Apple takes in place of a password: a token that this instance signs.
//!
//! The key comes from Apple's console as a `.p8` file (PKCS#8 PEM, P-256). Apple would take a token for half a year; one is
//! made for each exchange and ends with it, so that nothing has to be renewed by hand.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::SecretString;
use serde::Serialize;

use crate::AccessError;
use crate::time::{as_s, now_us};
use crate::token::{keys_error, read_private};

/// For one exchange, and clocks that differ a little.
const LIFE_S: u64 = 5 * 60;

pub(super) struct ClientKey {
    team_id: String,
    key_id: String,
    /// The issuer, which is who reads the token.
    audience: String,
    key: EncodingKey,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

impl ClientKey {
    /// Blocks.
    ///
    /// # Errors
    /// [`AccessError::Keys`] naming the file when everybody may read it, or it holds no such key.
    pub(super) fn read(file: &Path, team_id: &str, key_id: &str, audience: &str) -> Result<Self, AccessError> {
        let pem = read_private(file)?;
        let bad = |error: &dyn std::fmt::Display| keys_error(file, &format!("not a P-256 key in PKCS#8 PEM: {error}"));
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|error| bad(&error))?;
        let client =
            Self { team_id: team_id.to_owned(), key_id: key_id.to_owned(), audience: audience.to_owned(), key };
        // Another curve is only noticed when it signs.
        client.sign("").map_err(|error| bad(&error))?;
        Ok(client)
    }

    /// The password of a client, for one exchange.
    pub(super) fn password(&self, client_id: &str) -> Result<SecretString, AccessError> {
        self.sign(client_id).map_err(|error| AccessError::Hash(format!("the password for Apple: {error}")))
    }

    fn sign(&self, client_id: &str) -> Result<SecretString, jsonwebtoken::errors::Error> {
        let now = as_s(now_us());
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let (iss, sub, aud) = (self.team_id.as_str(), client_id, self.audience.as_str());
        encode(&header, &Claims { iss, sub, aud, iat: now, exp: now + LIFE_S }, &self.key).map(SecretString::from)
    }
}
