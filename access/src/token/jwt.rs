//! Issuing and checking access tokens.
//!
//! The algorithm is a property of the key, never of the token: only RS256 is accepted, under a key id that we know,
//! and headers that try to bring a key of their own are refused.
//!
//! Signing is calculation and nothing else: it runs on blocking threads, as many at a time as there are cores. What waits for
//! its turn is bounded by the requests that a process takes at a time; nobody holds a connection to the database meanwhile.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::error::TokenFault;
use crate::time::{as_s, now_us};
use crate::token::claims::ACCESS;
use crate::token::{Claims, SigningKeys};
use crate::{AccessError, AccessSettings, Role};

/// Longer texts are refused before any work is done on them; ours have under 1,000 characters.
const MAX_TOKEN_CHARS: usize = 4096;
/// For clocks of several machines that differ a little.
const LEEWAY_S: u64 = 5;

pub(crate) struct TokenMint {
    /// Replaced as a whole when keys are added or removed.
    keys: RwLock<Arc<SigningKeys>>,
    issuer: String,
    audience: String,
    ttl: Duration,
    validation: Validation,
    turns: Arc<Semaphore>,
}

/// An access token before it is signed.
pub(crate) struct Unsigned {
    claims: Claims,
    expires_in_s: u64,
    keys: Arc<SigningKeys>,
}

/// A new access token.
pub(crate) struct Issued {
    pub token: String,
    pub expires_in_s: u64,
}

impl TokenMint {
    pub(crate) fn new(keys: SigningKeys, settings: &AccessSettings) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let (issuer, audience) = (settings.issuer.clone(), settings.audience.clone());
        let keys = RwLock::new(Arc::new(keys));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = Arc::new(Semaphore::new(cores));
        Self { keys, issuer, audience, ttl: settings.access_token_ttl, validation, turns }
    }

    /// A token for a session, which it does not outlive.
    pub(crate) fn prepare(
        &self,
        user: Uuid,
        username: &str,
        role: Role,
        session: Uuid,
        session_ends_at_us: i64,
    ) -> Unsigned {
        let now = as_s(now_us());
        let expires_in_s = self.ttl.as_secs().min(as_s(session_ends_at_us).saturating_sub(now));
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: user,
            sid: session,
            role: role.name().to_owned(),
            iat: now,
            exp: now + expires_in_s,
            jti: Uuid::now_v7(),
            typ: ACCESS.to_owned(),
            preferred_username: username.to_owned(),
        };
        Unsigned { claims, expires_in_s, keys: self.keys() }
    }

    /// Signs a token on a blocking thread. It counts for nothing until somebody gets it, so that it may be signed while what
    /// it stands for is still being written.
    ///
    /// # Errors
    /// [`AccessError::Keys`] naming the key; [`AccessError::Task`].
    pub(crate) async fn issue(&self, unsigned: Unsigned) -> Result<Issued, AccessError> {
        // Held by the work itself: a caller that goes away does not let more run. It is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| AccessError::Busy)?;
        let work = move || {
            let issued = unsigned.sign();
            drop(turn);
            issued
        };
        tokio::task::spawn_blocking(work).await?
    }

    /// Checks a token's form, signature, times and claims; not whether its session was revoked. Answers the claims and
    /// the id of the key that signed them.
    pub(crate) fn verify(&self, token: &str) -> Result<(Claims, String), TokenFault> {
        if token.len() > MAX_TOKEN_CHARS {
            return Err(TokenFault::Invalid);
        }
        let header = decode_header(token).map_err(|_| TokenFault::Invalid)?;
        let brings_a_key = header.jku.is_some() || header.jwk.is_some() || header.x5u.is_some() || header.x5c.is_some();
        let kid = header.kid.filter(|_| !brings_a_key).ok_or(TokenFault::Invalid)?;
        let keys = self.keys();
        let key = keys.verifying.get(&kid).ok_or(TokenFault::Invalid)?;
        let data = decode::<Claims>(token, key, &self.validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenFault::Expired,
            _ => TokenFault::Invalid,
        })?;
        let is_ours = data.claims.typ == ACCESS && data.claims.iat <= as_s(now_us()) + LEEWAY_S;
        if !is_ours {
            return Err(TokenFault::Invalid);
        }
        // From before the life of tokens was made shorter: what was revoked is remembered for the life of today.
        if data.claims.exp.saturating_sub(data.claims.iat) > self.ttl.as_secs() {
            return Err(TokenFault::Expired);
        }
        Ok((data.claims, kid))
    }

    /// Whether a key still is one of ours.
    pub(crate) fn knows(&self, kid: &str) -> bool {
        self.keys.read().verifying.contains_key(kid)
    }

    pub(crate) fn keys(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.keys.read())
    }

    pub(crate) fn replace_keys(&self, keys: SigningKeys) {
        *self.keys.write() = Arc::new(keys);
    }
}

impl Unsigned {
    /// Blocks for the better part of a millisecond.
    fn sign(&self) -> Result<Issued, AccessError> {
        let token = self.keys.signer.sign(&self.claims)?;
        Ok(Issued { token, expires_in_s: self.expires_in_s })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::LazyLock;

    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rsa::KeyPair;
    use aws_lc_rs::signature::KeyPair as _;
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    // Making a key takes a noticeable moment; the tests share one.
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

    fn mint() -> TokenMint {
        let keys = SigningKeys::load_or_create(FOLDER.path(), Duration::ZERO).unwrap();
        TokenMint::new(keys, &AccessSettings::in_folder(FOLDER.path()))
    }

    fn good(mint: &TokenMint) -> String {
        mint.prepare(Uuid::now_v7(), "maria", Role::User, Uuid::now_v7(), i64::MAX).sign().unwrap().token
    }

    /// The private key in a folder, for headers that nobody of ours would sign.
    fn private_key(folder: &Path, kid: &str) -> EncodingKey {
        let pem = std::fs::read(folder.join(format!("{kid}.pem"))).unwrap();
        EncodingKey::from_rsa_pem(&pem).unwrap()
    }

    fn ours(mint: &TokenMint) -> EncodingKey {
        private_key(FOLDER.path(), &mint.keys().kid)
    }

    fn claims_with(change: impl FnOnce(&mut Value)) -> Value {
        let now = as_s(now_us());
        let mut claims = json!({"iss": "karat", "aud": "karat", "sub": Uuid::now_v7(), "sid": Uuid::now_v7(),
            "role": "user", "iat": now, "exp": now + 600, "jti": Uuid::now_v7(), "typ": "access",
            "preferred_username": "maria"});
        change(&mut claims);
        claims
    }

    fn signed(mint: &TokenMint, claims: &Value) -> String {
        let header = Header { kid: Some(mint.keys().kid.clone()), ..Header::new(Algorithm::RS256) };
        encode(&header, claims, &ours(mint)).unwrap()
    }

    #[tokio::test]
    async fn a_token_reads_back_as_it_was_issued() {
        let (mint, user, session) = (mint(), Uuid::now_v7(), Uuid::now_v7());
        let issued = mint.issue(mint.prepare(user, "maria", Role::Operator, session, i64::MAX)).await.unwrap();
        let (claims, kid) = mint.verify(&issued.token).unwrap();
        assert!(mint.knows(&kid) && !mint.knows("another"));
        assert_eq!((claims.sub, claims.sid, claims.role.as_str()), (user, session, "operator"));
        assert_eq!(claims.exp - claims.iat, 3600);
    }

    #[test]
    fn security_26_a_token_that_lives_longer_than_tokens_do_now_has_expired() {
        let long = mint();
        let keys = SigningKeys::load_or_create(FOLDER.path(), Duration::ZERO).unwrap();
        let access_token_ttl = Duration::from_secs(60);
        let short =
            TokenMint::new(keys, &AccessSettings { access_token_ttl, ..AccessSettings::in_folder(FOLDER.path()) });
        // What was revoked is forgotten after the shorter life, and this one would be good again.
        assert_eq!(short.verify(&good(&long)).err(), Some(TokenFault::Expired));
        assert!(short.verify(&good(&short)).is_ok() && long.verify(&good(&short)).is_ok());
    }

    #[test]
    fn security_19_algorithm_confusion_is_refused() {
        let mint = mint();
        let claims = claims_with(|_| {});
        let body = URL_SAFE_NO_PAD.encode(claims.to_string());
        let kid = &mint.keys().kid.clone();
        for alg in ["none", "None", "HS256", "RS384", "PS256", "EdDSA"] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": kid}).to_string());
            for signature in ["", "AAAA"] {
                assert_eq!(
                    mint.verify(&format!("{header}.{body}.{signature}")).err(),
                    Some(TokenFault::Invalid),
                    "{alg}"
                );
            }
        }
        // What everybody may read as an HMAC secret: the public key in each form that it has.
        let published = mint.keys().jwks();
        let n = published["keys"][0]["n"].as_str().unwrap();
        let modulus = URL_SAFE_NO_PAD.decode(n).unwrap();
        let (der, pem) = public_key(&mint);
        let (set, jwk) = (published.to_string(), published["keys"][0].to_string());
        let texts: [&str; 5] = [n, &pem, &set, &jwk, kid];
        let texts = texts.map(str::as_bytes);
        for secret in texts.into_iter().chain([modulus.as_slice(), der.as_slice()]) {
            let header = Header { kid: Some(kid.clone()), ..Header::new(Algorithm::HS256) };
            let forged = encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
            assert_eq!(mint.verify(&forged).err(), Some(TokenFault::Invalid), "{}", String::from_utf8_lossy(secret));
        }
    }

    /// The public key as X.509 has it.
    fn public_key(mint: &TokenMint) -> (Vec<u8>, String) {
        let pair = KeyPair::from_der(ours(mint).as_bytes()).unwrap();
        let der = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).unwrap();
        let der: &[u8] = der.as_ref();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        (der.to_vec(), pem)
    }

    #[test]
    fn security_19_tokens_of_another_key_or_with_a_key_of_their_own_are_refused() {
        let mint = mint();
        let claims = claims_with(|_| {});
        let refuse = |change: fn(&mut Header)| {
            let mut header = Header { kid: Some(mint.keys().kid.clone()), ..Header::new(Algorithm::RS256) };
            change(&mut header);
            let token = encode(&header, &claims, &ours(&mint)).unwrap();
            assert_eq!(mint.verify(&token).err(), Some(TokenFault::Invalid));
        };
        refuse(|h| h.kid = None);
        refuse(|h| h.kid = Some("unknown".to_owned()));
        refuse(|h| h.jku = Some("https://example.org/jwks.json".to_owned()));
        refuse(|h| h.x5u = Some("https://example.org/cert".to_owned()));
        refuse(|h| h.x5c = Some(vec!["AAAA".to_owned()]));

        // A key of their own under our key's name, beside the signature that it made.
        let folder = tempfile::tempdir().unwrap();
        let kid = SigningKeys::load_or_create(folder.path(), Duration::ZERO).unwrap().kid;
        let theirs = private_key(folder.path(), &kid);
        let jwk = Jwk::from_encoding_key(&theirs, Algorithm::RS256).unwrap();
        for jwk in [Some(jwk), None] {
            let header = Header { kid: Some(mint.keys().kid.clone()), jwk, ..Header::new(Algorithm::RS256) };
            let token = encode(&header, &claims, &theirs).unwrap();
            assert_eq!(mint.verify(&token).err(), Some(TokenFault::Invalid));
        }
        let own = Jwk::from_encoding_key(&ours(&mint), Algorithm::RS256).unwrap();
        let header = Header { kid: Some(mint.keys().kid.clone()), jwk: Some(own), ..Header::new(Algorithm::RS256) };
        let token = encode(&header, &claims, &ours(&mint)).unwrap();
        assert_eq!(mint.verify(&token).err(), Some(TokenFault::Invalid), "even ours");
    }

    #[test]
    fn security_22_changed_cut_or_padded_tokens_are_refused() {
        let mint = mint();
        let token = good(&mint);
        for cut in 1..token.len() {
            assert!(mint.verify(&token[..cut]).is_err(), "cut at {cut}");
        }
        for changed in
            [format!("{token}="), format!("{token}."), format!(".{token}"), format!("{token}.x"), format!(" {token}")]
        {
            assert!(mint.verify(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn security_22_other_spellings_of_the_same_bytes_are_refused() {
        let mint = mint();
        // Signatures are random enough that one of a few has a character that the alphabets write differently.
        let token = std::iter::repeat_with(|| good(&mint))
            .find(|token| token.rsplit('.').next().is_some_and(|signature| signature.contains(['-', '_'])))
            .unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, body) = signed.split_once('.').unwrap();
        let standard = |part: &str| part.replace('-', "+").replace('_', "/");
        for changed in [
            format!("{signed}.{}", standard(signature)),
            format!("{signed}.{signature}=="),
            format!("{signed}.{signature}\n"),
            format!("{header}=.{body}.{signature}"),
            format!("{header}.{body}=.{signature}"),
            format!("{header}%2E{body}.{signature}"),
        ] {
            assert!(mint.verify(&changed).is_err(), "{changed}");
        }
        // 256 bytes leave four bits of the last character unused: they must be zero, or there would be sixteen spellings.
        const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (start, last) = token.split_at(token.len() - 1);
        for other in ALPHABET.chars().filter(|other| !last.starts_with(*other)) {
            assert!(mint.verify(&format!("{start}{other}")).is_err(), "{last} as {other}");
        }
        assert!(mint.verify(&token).is_ok());
    }

    #[test]
    fn security_20_and_21_claims_of_another_type_time_or_service_are_refused() {
        let mint = mint();
        assert!(mint.verify(&signed(&mint, &claims_with(|_| {}))).is_ok());
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 24] = [
            ("exp missing", |c| drop(c.as_object_mut().unwrap().remove("exp"))),
            ("exp a string", |c| c["exp"] = json!("9999999999")),
            ("exp negative", |c| c["exp"] = json!(-1)),
            ("exp huge", |c| c["exp"] = json!(1e30)),
            ("exp over", |c| c["exp"] = json!(1_000_000)),
            ("exp a fraction", |c| c["exp"] = json!(99_999_999_999.5)),
            ("exp null", |c| c["exp"] = Value::Null),
            ("iat missing", |c| drop(c.as_object_mut().unwrap().remove("iat"))),
            ("iat a string", |c| c["iat"] = json!("1")),
            ("iat negative", |c| c["iat"] = json!(-1)),
            ("iat a fraction", |c| c["iat"] = json!(1.5)),
            ("iat in the future", |c| c["iat"] = json!(99_999_999_999_u64)),
            ("nbf a string", |c| c["nbf"] = json!("1")),
            ("nbf negative", |c| c["nbf"] = json!(-1)),
            ("nbf huge", |c| c["nbf"] = json!(1e30)),
            ("nbf in the future", |c| c["nbf"] = json!(99_999_999_999_u64)),
            ("iss of another", |c| c["iss"] = json!("other")),
            ("iss missing", |c| drop(c.as_object_mut().unwrap().remove("iss"))),
            ("aud of another", |c| c["aud"] = json!("other")),
            ("aud missing", |c| drop(c.as_object_mut().unwrap().remove("aud"))),
            ("typ of another", |c| c["typ"] = json!("refresh")),
            ("typ missing", |c| drop(c.as_object_mut().unwrap().remove("typ"))),
            ("sub not an id", |c| c["sub"] = json!("1")),
            ("sid missing", |c| drop(c.as_object_mut().unwrap().remove("sid"))),
        ];
        for (name, change) in cases {
            assert!(mint.verify(&signed(&mint, &claims_with(change))).is_err(), "{name}");
        }
    }
}
