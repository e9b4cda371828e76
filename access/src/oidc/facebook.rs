//! Facebook, which speaks OAuth 2 and tells who somebody is by an interface of its own.

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::fetch::{Fetch, refused};
use super::id_token::is_subject;
use super::provider::Person;
use crate::AccessError;

/// Facebook keeps a version for two years, and then answers as the oldest that is left.
pub(super) const VERSION: &str = "v23.0";

/// The id is one of this client: the same person has another at another.
#[derive(Deserialize)]
struct Profile {
    id: String,
    email: Option<String>,
}

/// Who an access token is about. Facebook does not say whether an address was confirmed, so it counts as not.
pub(super) async fn person(
    fetch: &Fetch,
    site: &str,
    api: &str,
    token: &str,
    secret: &SecretString,
) -> Result<Person, AccessError> {
    let url = format!("{api}/{VERSION}/me?fields=id,email&appsecret_proof={}", proof(token, secret));
    let profile: Profile = fetch.get(&url, Some(token)).await?;
    if !is_subject(&profile.id) {
        return Err(refused("a subject of another form"));
    }
    Ok(Person { issuer: site.to_owned(), subject: profile.id, email: profile.email, email_verified: false })
}

/// That whoever asks has the client's secret too, and not only a token: a client may be set up there to demand it.
fn proof(token: &str, secret: &SecretString) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    hex::encode(hmac::sign(&key, token.as_bytes()))
}
