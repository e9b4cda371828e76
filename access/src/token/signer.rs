//! The key that signs, read once.
//!
//! Reading a private key checks its parts against each other and makes the numbers that calculating with it needs, which
//! takes about as long as a signature. A key that is kept has them ready, and keeps its blinding too.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};

use super::Claims;
use super::keys::keys_error;
use crate::AccessError;

pub(crate) struct Signer {
    kid: String,
    pair: KeyPair,
    /// Of every token that this key signs, as it stands there.
    header: String,
}

impl Signer {
    /// # Errors
    /// [`AccessError::Keys`] when the header of its tokens cannot be written.
    pub(super) fn new(kid: &str, pair: KeyPair) -> Result<Self, AccessError> {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
        let header = serde_json::to_vec(&header).map_err(|error| keys_error(Path::new(kid), &error.to_string()))?;
        Ok(Self { kid: kid.to_owned(), pair, header: URL_SAFE_NO_PAD.encode(header) })
    }

    /// Signs a token with RS256, in the compact form of RFC 7515. Takes the better part of a millisecond of processor
    /// time.
    ///
    /// # Errors
    /// [`AccessError::Keys`] naming the key.
    pub(super) fn sign(&self, claims: &Claims) -> Result<String, AccessError> {
        let failed = |reason: &str| keys_error(Path::new(&self.kid), reason);
        let claims = serde_json::to_vec(claims).map_err(|error| failed(&error.to_string()))?;
        let mut token = format!("{}.{}", self.header, URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| failed("the key cannot sign"))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::KeySize;
    use jsonwebtoken::{EncodingKey, encode};
    use uuid::Uuid;

    use super::*;
    use crate::token::keys::pem_of;

    #[test]
    fn a_token_is_byte_for_byte_what_the_library_signs_with_the_same_key() {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let library = EncodingKey::from_rsa_pem(pem_of(&pair).unwrap().as_bytes()).unwrap();
        let signer = Signer::new("the-key", pair).unwrap();
        let header = Header { kid: Some("the-key".to_owned()), ..Header::new(Algorithm::RS256) };
        let claims = Claims {
            iss: "karat".to_owned(),
            aud: "karat".to_owned(),
            sub: Uuid::now_v7(),
            sid: Uuid::now_v7(),
            role: "user".to_owned(),
            iat: 1,
            exp: 2,
            jti: Uuid::now_v7(),
            typ: "access".to_owned(),
            preferred_username: "maría \"77\"".to_owned(),
        };
        let expected = encode(&header, &claims, &library).unwrap();
        // The second one finds the blinding of the first.
        for _ in 0..2 {
            assert_eq!(signer.sign(&claims).unwrap(), expected);
        }
    }
}
