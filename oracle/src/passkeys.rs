//! A software authenticator and the browser in front of it, for tests of passkeys: it makes a key on P-256 and signs as
//! hardware does (WebAuthn level 3), and says of itself and of the page what a test wants it to say.
//!
//! It shares no code with what is tested.

#![allow(clippy::expect_used, reason = "only tests have one: what fails here is a failing test")]

use aws_lc_rs::{
    digest, rand,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ciborium::Value;
use serde_json::json;

/// One passkey.
pub struct Authenticator {
    key: EcdsaKeyPair,
    credential_id: Vec<u8>,
    user_handle: String,
    /// How often it signed, which it says with each signature. Tests turn it back.
    pub count: u32,
}

/// The page that asks, as the browser names it, and what the authenticator says of its user.
#[derive(Debug, Clone)]
pub struct Page {
    /// Scheme, host and port.
    pub origin: String,
    /// The host's name, or a part of its end.
    pub relying_party: String,
    /// The page is inside one of another origin.
    pub is_cross_origin: bool,
    /// Somebody touched the authenticator.
    pub is_present: bool,
    /// The authenticator checked who that was.
    pub is_verified: bool,
    /// The passkey may be copied to other devices of its user.
    pub is_backup_eligible: bool,
    /// It is.
    pub is_backed_up: bool,
    /// What the browser was asked for, instead of what it was.
    pub kind: Option<&'static str>,
}

/// What the browser answers when a passkey was made, in base64url.
#[derive(Debug, Clone)]
pub struct Made {
    /// `response.clientDataJSON`.
    pub client_data: String,
    /// `response.attestationObject`.
    pub attestation: String,
}

/// What the browser answers when a passkey signed, in base64url.
#[derive(Debug, Clone)]
pub struct Signed {
    /// `id`.
    pub credential_id: String,
    /// `response.clientDataJSON`.
    pub client_data: String,
    /// `response.authenticatorData`.
    pub authenticator_data: String,
    /// `response.signature`.
    pub signature: String,
    /// `response.userHandle`.
    pub user_handle: String,
}

impl Page {
    /// A page of a host that is reached over TLS, and a user who was checked.
    pub fn of(host: &str) -> Self {
        Self {
            origin: format!("https://{host}"),
            relying_party: host.to_owned(),
            is_cross_origin: false,
            is_present: true,
            is_verified: true,
            is_backup_eligible: false,
            is_backed_up: false,
            kind: None,
        }
    }

    fn client_data(&self, kind: &'static str, challenge: &str) -> Vec<u8> {
        let kind = self.kind.unwrap_or(kind);
        let origin = &self.origin;
        json!({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": self.is_cross_origin})
            .to_string()
            .into_bytes()
    }

    /// What authenticators sign of themselves; a credential follows where one was made.
    fn authenticator_data(&self, count: u32, credential: Option<&[u8]>) -> Vec<u8> {
        let flags = [
            (self.is_present, 0),
            (self.is_verified, 2),
            (self.is_backup_eligible, 3),
            (self.is_backed_up, 4),
            (credential.is_some(), 6),
        ];
        let flags: u8 = flags.into_iter().map(|(is_set, place)| u8::from(is_set) << place).sum();
        let mut data = sha256(self.relying_party.as_bytes());
        data.push(flags);
        data.extend(count.to_be_bytes());
        data.extend(credential.unwrap_or_default());
        data
    }
}

impl Authenticator {
    /// Makes a passkey for an account, which is known by its handle in base64url.
    pub fn make(page: &Page, challenge: &str, user_handle: &str) -> (Self, Made) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
        let mut credential_id = vec![0_u8; 32];
        rand::fill(&mut credential_id).expect("random bytes");
        let made = Self { key, credential_id, user_handle: user_handle.to_owned(), count: 0 };
        let answer = made.answer(page, challenge);
        (made, answer)
    }

    /// The answer to another challenge with the same passkey, as if it were new.
    pub fn answer(&self, page: &Page, challenge: &str) -> Made {
        let data = page.authenticator_data(self.count, Some(&self.credential()));
        let attestation = Value::Map(vec![
            (Value::from("fmt"), Value::from("none")),
            (Value::from("attStmt"), Value::Map(vec![])),
            (Value::from("authData"), Value::Bytes(data)),
        ]);
        let client_data = page.client_data("webauthn.create", challenge);
        Made { client_data: text(&client_data), attestation: text(&encoded(&attestation)) }
    }

    /// Signs a challenge.
    pub fn sign(&mut self, page: &Page, challenge: &str) -> Signed {
        self.count += 1;
        let data = page.authenticator_data(self.count, None);
        let client_data = page.client_data("webauthn.get", challenge);
        let message = [data.as_slice(), &sha256(&client_data)].concat();
        let signature = self.key.sign(&rand::SystemRandom::new(), &message).expect("a signature");
        Signed {
            credential_id: text(&self.credential_id),
            client_data: text(&client_data),
            authenticator_data: text(&data),
            signature: text(signature.as_ref()),
            user_handle: self.user_handle.clone(),
        }
    }

    /// Sixteen bytes for the make, the length of the id, the id, the key in COSE.
    fn credential(&self) -> Vec<u8> {
        let length = u16::try_from(self.credential_id.len()).expect("a short id");
        let mut bytes = vec![0_u8; 16];
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.credential_id);
        bytes.extend(encoded(&self.public_key()));
        bytes
    }

    /// Kind 2 with two coordinates, ES256, on curve 1.
    fn public_key(&self) -> Value {
        let point: &[u8] = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        Value::Map(vec![
            (Value::from(1), Value::from(2)),
            (Value::from(3), Value::from(-7)),
            (Value::from(-1), Value::from(1)),
            (Value::from(-2), Value::from(x)),
            (Value::from(-3), Value::from(y)),
        ])
    }
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("CBOR into memory");
    bytes
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA256, bytes);
    let hash: &[u8] = hash.as_ref();
    hash.to_vec()
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
