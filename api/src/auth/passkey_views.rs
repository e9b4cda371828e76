//! What passkeys are asked and answered with.
//!
//! Options are in the form that `PublicKeyCredential.parseCreationOptionsFromJSON` and `parseRequestOptionsFromJSON` of
//! browsers take; what comes back is sent in fields of our own, because browsers add to theirs.

use karat_access::{
    ALGORITHMS, AddedPasskey, Assertion, CHALLENGE_LIFE, CreationOptions, NewPasskey, Passkey, RequestOptions,
};
use poem_openapi::Object;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::views::rfc3339;

/// What browsers and authenticators show as the name of this product.
const NAME: &str = "Karat";
const KIND: &str = "public-key";

/// How to begin to add a passkey.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginPasskeyRequest {
    /// The present password. An account without one leaves it out, and its log-in must be younger than five minutes.
    #[oai(validator(max_length = 1024))]
    pub password: Option<String>,
    /// False for a security key that is a second factor alone: it need not keep the passkey nor check who its user is, which
    /// those without a PIN cannot. True when left out.
    pub is_way_in: Option<bool>,
}

/// A passkey that a browser made. Texts of bytes are in base64url, as `toJSON()` of the browser's answer has them.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPasskeyRequest {
    /// `response.clientDataJSON`.
    pub client_data_json: String,
    /// `response.attestationObject`.
    pub attestation_object: String,
    /// A name to know it by, such as that of the device.
    #[oai(validator(min_length = 1, max_length = 100))]
    pub name: Option<String>,
}

/// How to begin a log-in by a passkey.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasskeyLoginRequest {
    /// From the first step, where the passkey is the second. Left out, the passkey logs in alone.
    pub mfa_token: Option<String>,
}

/// What a passkey signed. Texts of bytes are in base64url, as `toJSON()` of the browser's answer has them.
#[derive(Object, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssertionRequest {
    /// As it was answered when the log-in by the passkey alone began.
    pub login_request: Option<String>,
    /// From the first step, where the passkey is the second.
    pub mfa_token: Option<String>,
    /// `id`.
    pub credential_id: String,
    /// `response.clientDataJSON`.
    pub client_data_json: String,
    /// `response.authenticatorData`.
    pub authenticator_data: String,
    /// `response.signature`.
    pub signature: String,
    /// `response.userHandle`: needed where the passkey logs in alone.
    pub user_handle: Option<String>,
    /// For browsers: the refresh token is put into a cookie that scripts cannot read, and is left out of the answer.
    pub use_cookie: Option<bool>,
    /// With `use_cookie`: the cookie outlives the browser's session.
    pub remember_me: Option<bool>,
}

/// What `navigator.credentials.create` needs.
#[derive(Debug, Object)]
pub struct PasskeyCreationView {
    /// For `PublicKeyCredential.parseCreationOptionsFromJSON`.
    pub options: CreationOptionsView,
}

/// What `navigator.credentials.get` needs.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct PasskeyRequestView {
    /// For `PublicKeyCredential.parseRequestOptionsFromJSON`.
    pub options: RequestOptionsView,
    /// Where the passkey logs in alone: to be sent with what it signed, which works with it alone.
    pub login_request: Option<String>,
}

/// PublicKeyCredentialCreationOptionsJSON of WebAuthn.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct CreationOptionsView {
    /// Works once, for five minutes. In base64url.
    pub challenge: String,
    /// This instance.
    pub rp: RelyingPartyView,
    /// The account.
    pub user: PasskeyUserView,
    /// Kinds of keys, the one that is liked best first.
    pub pub_key_cred_params: Vec<KeyKindView>,
    /// Milliseconds.
    pub timeout: u64,
    /// Passkeys that the account has.
    pub exclude_credentials: Vec<CredentialView>,
    /// What the authenticator should do.
    pub authenticator_selection: SelectionView,
    /// Always `none`: the make of an authenticator is not asked for.
    pub attestation: String,
}

/// PublicKeyCredentialRequestOptionsJSON of WebAuthn.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct RequestOptionsView {
    /// Works once, for five minutes. In base64url.
    pub challenge: String,
    /// The host that the passkey is for.
    pub rp_id: String,
    /// Milliseconds.
    pub timeout: u64,
    /// Passkeys that will do; none where the authenticator knows which it has.
    pub allow_credentials: Vec<CredentialView>,
    /// `required` where the passkey logs in alone, else `discouraged`.
    pub user_verification: String,
}

/// Who a passkey is for.
#[derive(Debug, Object)]
pub struct RelyingPartyView {
    /// The host of the public address.
    pub id: String,
    /// For people.
    pub name: String,
}

/// Whose a passkey is.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct PasskeyUserView {
    /// What authenticators know the account by, in base64url.
    pub id: String,
    /// The username.
    pub name: String,
    /// The person's name, else the username.
    pub display_name: String,
}

/// A kind of key.
#[derive(Debug, Object)]
pub struct KeyKindView {
    /// Always `public-key`.
    #[oai(rename = "type")]
    pub kind: String,
    /// Its number in COSE.
    pub alg: i64,
}

/// A passkey as authenticators know it.
#[derive(Debug, Object)]
pub struct CredentialView {
    /// Always `public-key`.
    #[oai(rename = "type")]
    pub kind: String,
    /// In base64url.
    pub id: String,
}

/// What an authenticator should do when it makes a passkey.
#[derive(Debug, Object)]
#[oai(rename_all = "camelCase")]
pub struct SelectionView {
    /// `required` for a way in: the authenticator keeps the passkey, so that nobody has to type a name. Else `discouraged`.
    pub resident_key: String,
    /// The same, for older browsers.
    pub require_resident_key: bool,
    /// `preferred` for a way in: who the user is is checked where the authenticator can. Else `discouraged`.
    pub user_verification: String,
}

/// A passkey that was added.
#[derive(Debug, Object)]
pub struct AddedPasskeyView {
    /// UUID v7.
    pub id: String,
    /// Whether it logs in without a password: its authenticator checks who its user is.
    pub is_way_in: bool,
    /// With the first second factor: ten codes, which are shown this once; each works once. Else none.
    pub recovery_codes: Vec<String>,
}

/// A passkey of the caller.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct PasskeyView {
    /// UUID v7.
    pub id: String,
    /// The name to know it by.
    pub name: String,
    /// Whether it logs in without a password: its authenticator checks who its user is.
    pub is_way_in: bool,
    /// Whether there are copies of it on other devices of its owner, as its last log-in said; absent when that was never told.
    pub is_backed_up: Option<bool>,
    /// RFC 3339 in UTC.
    pub created_at: String,
    /// RFC 3339 in UTC; absent when it was not used yet.
    pub last_used_at: Option<String>,
}

impl From<NewPasskeyRequest> for NewPasskey {
    fn from(request: NewPasskeyRequest) -> Self {
        Self { client_data: request.client_data_json, attestation: request.attestation_object, name: request.name }
    }
}

impl AssertionRequest {
    /// What was signed, without what it is sent with.
    pub(super) fn assertion(self) -> Assertion {
        Assertion {
            credential_id: self.credential_id,
            client_data: self.client_data_json,
            authenticator_data: self.authenticator_data,
            signature: self.signature,
            user_handle: self.user_handle,
        }
    }
}

impl From<CreationOptions> for PasskeyCreationView {
    fn from(options: CreationOptions) -> Self {
        let CreationOptions { challenge, relying_party, user, user_handle, exclude, is_way_in } = options;
        let (resident_key, user_verification) =
            if is_way_in { ("required", "preferred") } else { ("discouraged", "discouraged") };
        let display_name = user.full_name.unwrap_or_else(|| user.username.clone());
        let options = CreationOptionsView {
            challenge,
            rp: RelyingPartyView { id: relying_party, name: NAME.to_owned() },
            user: PasskeyUserView { id: user_handle, name: user.username, display_name },
            pub_key_cred_params: ALGORITHMS.map(|alg| KeyKindView { kind: KIND.to_owned(), alg }).into(),
            timeout: timeout_ms(),
            exclude_credentials: credentials(exclude),
            authenticator_selection: SelectionView {
                resident_key: resident_key.to_owned(),
                require_resident_key: is_way_in,
                user_verification: user_verification.to_owned(),
            },
            attestation: "none".to_owned(),
        };
        Self { options }
    }
}

impl PasskeyRequestView {
    pub(super) fn new(options: RequestOptions, attempt: Option<&SecretString>) -> Self {
        let user_verification = if options.needs_verification { "required" } else { "discouraged" };
        let view = RequestOptionsView {
            challenge: options.challenge,
            rp_id: options.relying_party,
            timeout: timeout_ms(),
            allow_credentials: credentials(options.allow),
            user_verification: user_verification.to_owned(),
        };
        Self { options: view, login_request: attempt.map(|secret| secret.expose_secret().to_owned()) }
    }
}

impl From<AddedPasskey> for AddedPasskeyView {
    fn from(added: AddedPasskey) -> Self {
        let codes = added.recovery_codes.iter().map(|code| code.expose_secret().to_owned());
        Self { id: added.id.to_string(), is_way_in: added.is_way_in, recovery_codes: codes.collect() }
    }
}

impl From<Passkey> for PasskeyView {
    fn from(passkey: Passkey) -> Self {
        Self {
            id: passkey.id.to_string(),
            name: passkey.name,
            is_way_in: passkey.is_way_in,
            is_backed_up: passkey.is_backed_up,
            created_at: rfc3339(passkey.created_at_us),
            last_used_at: passkey.last_used_at_us.map(rfc3339),
        }
    }
}

fn credentials(ids: Vec<String>) -> Vec<CredentialView> {
    ids.into_iter().map(|id| CredentialView { kind: KIND.to_owned(), id }).collect()
}

fn timeout_ms() -> u64 {
    CHALLENGE_LIFE.as_secs() * 1000
}
