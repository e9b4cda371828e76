//! Checking an ID token (OpenID Connect Core, 3.1.3.7): signature, issuer, audience, authorised party, times, nonce.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::AccessError;
use crate::fields::is_plain;
use crate::time::{as_s, now_us};

/// For clocks that differ a little.
const LEEWAY_S: u64 = 60;
/// Older ones were not made for this log-in.
const MAX_AGE_S: u64 = 10 * 60;

#[derive(Debug, Deserialize)]
pub(super) struct IdClaims {
    pub iss: String,
    pub sub: String,
    pub aud: Audience,
    pub azp: Option<String>,
    pub nonce: Option<String>,
    pub iat: u64,
    pub email: Option<String>,
    pub email_verified: Option<Truth>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Some providers write it as a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Truth {
    Bool(bool),
    Text(String),
}

impl Truth {
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Bool(truth) => *truth,
            Self::Text(text) => text == "true",
        }
    }
}

/// What a token must say.
pub(super) struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
}

/// Whether the keys hold the one that signed a token; when not, they may be outdated.
pub(super) fn has_key(keys: &JwkSet, token: &str) -> bool {
    find_key(keys, token).is_some()
}

/// # Errors
/// [`AccessError::CodeRefused`] for whatever does not hold; the log says what.
pub(super) fn check(keys: &JwkSet, token: &str, expected: &Expected<'_>) -> Result<IdClaims, AccessError> {
    let refuse = |why: &str| {
        tracing::warn!(why, issuer = expected.issuer, "an ID token was refused");
        AccessError::CodeRefused
    };
    let key = find_key(keys, token).ok_or_else(|| refuse("unknown key"))?;
    let algorithm = algorithm_of(key).ok_or_else(|| refuse("key of another kind"))?;
    let decoding = DecodingKey::from_jwk(key).map_err(|_| refuse("unreadable key"))?;
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_S;
    validation.validate_nbf = true;
    validation.set_issuer(&[expected.issuer]);
    validation.set_audience(&[expected.client_id]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let claims = decode::<IdClaims>(token, &decoding, &validation).map_err(|error| refuse(&error.to_string()))?.claims;
    // The library is content with a list that has the issuer somewhere.
    if claims.iss != expected.issuer {
        return Err(refuse("made by another issuer"));
    }
    let is_for_others = match &claims.aud {
        Audience::One(one) => one != expected.client_id,
        Audience::Many(all) => all.len() > 1 && claims.azp.is_none(),
    };
    if is_for_others || claims.azp.as_deref().is_some_and(|azp| azp != expected.client_id) {
        return Err(refuse("made for another client"));
    }
    let now = as_s(now_us());
    if claims.iat > now + LEEWAY_S || claims.iat + MAX_AGE_S < now {
        return Err(refuse("made at another time"));
    }
    if claims.nonce.as_deref() != Some(expected.nonce) {
        return Err(refuse("made for another log-in"));
    }
    if !is_subject(&claims.sub) {
        return Err(refuse("a subject of another form"));
    }
    Ok(claims)
}

/// MySQL does not see spaces at an end: `abc ` would be the account of `abc`.
pub(super) fn is_subject(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.trim() == text && is_plain(text)
}

fn find_key<'a>(keys: &'a JwkSet, token: &str) -> Option<&'a Jwk> {
    let header = decode_header(token).ok()?;
    match header.kid {
        Some(kid) => keys.find(&kid),
        // Without a name there must be no choice.
        None => Some(&keys.keys).filter(|keys| keys.len() == 1).and_then(|keys| keys.first()),
    }
}

/// By the key, never by the token: asymmetric ones only.
fn algorithm_of(key: &Jwk) -> Option<Algorithm> {
    match &key.algorithm {
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Some(Algorithm::ES256),
        AlgorithmParameters::OctetKeyPair(_) => Some(Algorithm::EdDSA),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_45_a_subject_that_a_database_could_take_for_another_is_refused() {
        for good in ["1", "00u1-maria.lopez@example.org", &"x".repeat(255)] {
            assert!(is_subject(good), "{good}");
        }
        for bad in ["", " ", "maria ", " maria", "maria\u{a0}", "maria\n", "ma\0ria", &"x".repeat(256)] {
            assert!(!is_subject(bad), "{bad:?}");
        }
    }
}
