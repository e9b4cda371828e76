//! From a presented credential to a [`Caller`].
//!
//! The usual case touches no database: verified tokens and API keys are held in bounded caches under their SHA-256,
//! and every answer, cached or not, is compared with what was revoked or changed recently.

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use uuid::Uuid;

use crate::error::TokenFault;
use crate::secret::{sha256, sha256_hex};
use crate::store::StoredKey;
use crate::time::{as_s, now_us};
use crate::{Access, AccessError, Caller, CallerKind, Lease, Role};

/// What every API key begins with.
pub(crate) const KEY_MARK: &str = "kk_";
/// Longer texts are no key of ours.
const MAX_KEY_CHARS: usize = 128;

/// A credential as it was presented.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// An access token.
    Token(&'a str),
    /// An API key.
    ApiKey(&'a str),
}

impl<'a> Credential<'a> {
    /// Takes the credential from the values of `Authorization` (`Bearer` with a token or an API key) and
    /// `X-Api-Key`. The former counts when both are there.
    ///
    /// # Errors
    /// [`AccessError::NotAuthenticated`]: `Missing` without either, `Invalid` for another scheme.
    pub fn from_headers(authorization: Option<&'a str>, api_key: Option<&'a str>) -> Result<Self, AccessError> {
        let Some(value) = authorization else {
            return api_key.map(Self::ApiKey).ok_or(AccessError::NotAuthenticated(TokenFault::Missing));
        };
        let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") || credential.is_empty() {
            return Err(AccessError::NotAuthenticated(TokenFault::Invalid));
        }
        Ok(Self::of_bearer(credential))
    }

    /// What stands behind `Bearer`: a token, or an API key.
    pub fn of_bearer(text: &'a str) -> Self {
        if text.starts_with(KEY_MARK) { Self::ApiKey(text) } else { Self::Token(text) }
    }
}

pub(crate) struct CachedToken {
    pub session: Uuid,
    /// Which key signed it.
    kid: String,
    caller: Arc<Caller>,
    expires_at_s: u64,
}

pub(crate) struct CachedKey {
    pub id: Uuid,
    caller: Arc<Caller>,
    expires_at_us: Option<i64>,
    loaded: Instant,
}

impl Access {
    /// Who is behind a credential.
    ///
    /// # Errors
    /// [`AccessError::NotAuthenticated`] with the reason; [`AccessError::Store`] when an API key has to be looked up
    /// and cannot be.
    pub async fn authenticate(&self, credential: Credential<'_>) -> Result<Arc<Caller>, AccessError> {
        match credential {
            Credential::Token(token) => match self.authenticate_token(token) {
                Ok((_, caller)) => Ok(caller),
                Err(fault) => Err(AccessError::NotAuthenticated(fault)),
            },
            Credential::ApiKey(key) => Ok(self.authenticate_key(key).await?.1),
        }
    }

    /// Who is behind a credential, and for how long: for what goes on when the request is answered.
    ///
    /// # Errors
    /// As [`Access::authenticate`].
    pub async fn lease(&self, credential: Credential<'_>) -> Result<Lease, AccessError> {
        Ok(match credential {
            Credential::Token(token) => {
                let (cached, caller) = self.authenticate_token(token).map_err(AccessError::NotAuthenticated)?;
                let expires_at_us = i64::try_from(cached.expires_at_s.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
                Lease::new(caller, Some(expires_at_us), Some(cached.kid.clone()))
            }
            Credential::ApiKey(key) => {
                let (cached, caller) = self.authenticate_key(key).await?;
                Lease::new(caller, cached.expires_at_us, None)
            }
        })
    }

    /// Whether a credential is judged without the database, or was good when it was last looked up: what is made up is
    /// neither. Says nothing about whether it still holds.
    pub fn is_known(&self, credential: Credential<'_>) -> bool {
        match credential {
            Credential::Token(_) => true,
            Credential::ApiKey(key) => public_prefix(key).is_none() || self.inner.keys.get(&sha256(key)).is_some(),
        }
    }

    fn authenticate_token(&self, token: &str) -> Result<(Arc<CachedToken>, Arc<Caller>), TokenFault> {
        let inner = &self.inner;
        let digest = sha256(token);
        let cached = match inner.tokens.get(&digest) {
            Some(cached) => cached,
            None => {
                let cached = Arc::new(self.verify_token(token)?);
                inner.tokens.insert(digest, cached.clone());
                cached
            }
        };
        // It may have been put here just after the cache was cleared of a key that was removed.
        if !inner.mint.knows(&cached.kid) {
            return Err(TokenFault::Invalid);
        }
        if cached.expires_at_s <= as_s(now_us()) {
            return Err(TokenFault::Expired);
        }
        if inner.recent.is_session_revoked(cached.session) {
            return Err(TokenFault::Revoked);
        }
        let caller = self.as_of_now(&cached.caller)?;
        Ok((cached, caller))
    }

    fn verify_token(&self, token: &str) -> Result<CachedToken, TokenFault> {
        let (claims, kid) = self.inner.mint.verify(token)?;
        let role: Role = claims.role.parse().map_err(|_| TokenFault::Invalid)?;
        let kind = CallerKind::User { session: claims.sid };
        let caller = Caller { id: claims.sub, username: claims.preferred_username.into(), role, kind };
        Ok(CachedToken { session: claims.sid, kid, caller: Arc::new(caller), expires_at_s: claims.exp })
    }

    async fn authenticate_key(&self, key: &str) -> Result<(Arc<CachedKey>, Arc<Caller>), AccessError> {
        let inner = &self.inner;
        let refused = |fault| Err(AccessError::NotAuthenticated(fault));
        let Some(prefix) = public_prefix(key) else { return refused(TokenFault::Invalid) };
        let digest = sha256(key);
        let fresh = inner.keys.get(&digest).filter(|cached| cached.loaded.elapsed() < inner.settings.key_cache_ttl);
        let cached = match fresh {
            Some(cached) => cached,
            None => {
                // Boxed: the rare way to the database would make the future of every request larger.
                let found = Box::pin(self.look_up_key(prefix, key)).await;
                if matches!(found, Err(AccessError::NotAuthenticated(_))) {
                    inner.keys.remove(&digest);
                }
                let cached = Arc::new(found?);
                inner.keys.insert(digest, cached.clone());
                cached
            }
        };
        let now = now_us();
        if cached.expires_at_us.is_some_and(|end| end <= now) {
            return refused(TokenFault::Expired);
        }
        if inner.recent.is_key_revoked(cached.id) {
            return refused(TokenFault::Revoked);
        }
        inner.used_keys.lock().insert(cached.id, now);
        let caller = self.as_of_now(&cached.caller).map_err(AccessError::NotAuthenticated)?;
        Ok((cached, caller))
    }

    async fn look_up_key(&self, prefix: &str, key: &str) -> Result<CachedKey, AccessError> {
        let loaded = Instant::now();
        let hash = sha256_hex(key);
        let is_same = |stored: &StoredKey| verify_slices_are_equal(stored.key_hash.as_bytes(), hash.as_bytes()).is_ok();
        match self.inner.store.find_key(prefix).await?.filter(is_same) {
            None => Err(AccessError::NotAuthenticated(TokenFault::Invalid)),
            Some(stored) if stored.is_revoked || !stored.owner.is_active => {
                Err(AccessError::NotAuthenticated(TokenFault::Revoked))
            }
            Some(stored) => Ok(cached_key(stored, loaded)),
        }
    }

    /// The caller with the role that its user has now.
    pub(crate) fn as_of_now(&self, caller: &Arc<Caller>) -> Result<Arc<Caller>, TokenFault> {
        match self.inner.recent.standing(caller.id) {
            Some(standing) if !standing.is_active => Err(TokenFault::Revoked),
            Some(standing) if standing.role != caller.role => {
                Ok(Arc::new(Caller { role: standing.role, ..Caller::clone(caller) }))
            }
            _ => Ok(caller.clone()),
        }
    }
}

fn cached_key(stored: StoredKey, loaded: Instant) -> CachedKey {
    let (scopes, events_per_second) = (stored.scopes, stored.events_per_second);
    let kind = CallerKind::ApiKey { key: stored.id, scopes, events_per_second };
    let owner = stored.owner;
    let caller = Caller { id: owner.id, username: owner.username, role: owner.role, kind };
    CachedKey { id: stored.id, caller: Arc::new(caller), expires_at_us: stored.expires_at, loaded }
}

/// The part of a well-formed key by which it is found: `kk_<prefix>_<secret>`, both in hex.
fn public_prefix(key: &str) -> Option<&str> {
    let (prefix, secret) = key.strip_prefix(KEY_MARK).filter(|_| key.len() <= MAX_KEY_CHARS)?.split_once('_')?;
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hex(prefix) && is_hex(secret)).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::token::SigningKeys;
    use crate::{AccessSettings, HashSettings, NewAccount, Origin, Registration};

    #[test]
    fn the_credential_is_found_in_either_header() {
        let read = Credential::from_headers;
        assert!(matches!(read(Some("Bearer abc"), None), Ok(Credential::Token("abc"))));
        assert!(matches!(read(Some("bearer kk_a_b"), None), Ok(Credential::ApiKey("kk_a_b"))));
        assert!(matches!(read(None, Some("kk_a_b")), Ok(Credential::ApiKey("kk_a_b"))));
        assert!(matches!(read(Some("Bearer abc"), Some("kk_a_b")), Ok(Credential::Token("abc"))));
        for bad in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            let result = read(Some(bad), Some("kk_a_b"));
            assert!(matches!(result, Err(AccessError::NotAuthenticated(TokenFault::Invalid))), "{bad}");
        }
    }

    #[tokio::test]
    async fn security_31_a_token_that_was_verified_before_its_key_was_removed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let hashing = HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() };
        let settings = AccessSettings { hashing, ..AccessSettings::in_folder(folder.path()) };
        let access = Access::open(settings).await.unwrap();
        let (username, password) = (Some("maria_77".to_owned()), "nine-Blue-7-boats".to_owned().into());
        let account = NewAccount { username, email: None, password, full_name: None };
        let Registration::Tokens(pair) = access.register(account, &Origin::default()).await.unwrap() else {
            panic!("no address is to be confirmed");
        };
        let token = Credential::Token(pair.access_token.expose_secret());
        access.authenticate(token).await.unwrap();
        // The keys are others, and the cache was not cleared of what they had signed.
        let others = SigningKeys::load_or_create(&folder.path().join("others"), Duration::ZERO).unwrap();
        access.inner.mint.replace_keys(others);
        let refused = access.authenticate(token).await;
        assert!(matches!(refused, Err(AccessError::NotAuthenticated(TokenFault::Invalid))), "{refused:?}");
    }

    #[test]
    fn only_well_formed_keys_reach_the_database() {
        assert_eq!(public_prefix("kk_00ff_00aa"), Some("00ff"));
        for bad in ["kk_", "kk_00ff", "kk__00", "kk_00_", "kk_0g_00", "xx_00_00", "kk_00_00_00", "kk_0%_00"] {
            assert_eq!(public_prefix(bad), None, "{bad}");
        }
        assert_eq!(public_prefix(&format!("kk_00_{}", "0".repeat(200))), None);
    }
}
