//! argon2id on blocking threads, few at a time.
//!
//! A flood of log-ins costs a bounded amount of memory: `parallel` hashes run, `max_waiting` more may wait, and the
//! rest are told that the server is busy. A permit is held by the hashing itself, so callers that go away do not
//! let more run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{AccessError, HashSettings};

/// What checking a password found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub matches: bool,
    /// The stored hash has other costs than today's settings; hash again while the password is at hand.
    pub is_outdated: bool,
}

/// How busy the hashing of passwords is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashLoad {
    /// Hashes that are computed now.
    pub running: usize,
    /// The most that run at a time.
    pub parallel: usize,
    /// Callers that wait for their turn.
    pub waiting: usize,
    /// Hashes computed since the start.
    pub done: u64,
    /// Callers told that the server is busy, since the start.
    pub refused: u64,
}

pub(crate) struct Hasher {
    argon2: Argon2<'static>,
    permits: Arc<Semaphore>,
    parallel: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
    done: Arc<AtomicU64>,
    refused: AtomicU64,
    /// Verified against for unknown names, so that they take as long as known ones.
    dummy: String,
}

impl Hasher {
    pub(crate) async fn new(settings: &HashSettings) -> Result<Self, AccessError> {
        let params = Params::new(settings.memory_kib, settings.passes, settings.lanes, None)
            .map_err(|e| AccessError::Hash(format!("the settings are out of range: {e}")))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let for_dummy = argon2.clone();
        let dummy = tokio::task::spawn_blocking(move || hash(&for_dummy, b"no account has this password")).await??;
        let parallel = settings.parallel.max(1);
        Ok(Self {
            argon2,
            permits: Arc::new(Semaphore::new(parallel)),
            parallel,
            waiting: AtomicUsize::new(0),
            max_waiting: settings.max_waiting,
            done: Arc::default(),
            refused: AtomicU64::new(0),
            dummy,
        })
    }

    pub(crate) fn load(&self) -> HashLoad {
        HashLoad {
            running: self.parallel.saturating_sub(self.permits.available_permits()),
            parallel: self.parallel,
            waiting: self.waiting.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Hashes a password with a fresh salt, as a PHC string.
    pub(crate) async fn hash(&self, password: SecretString) -> Result<String, AccessError> {
        let argon2 = self.argon2.clone();
        let password = normal(&password);
        self.run(move || hash(&argon2, password.expose_secret().as_bytes())).await?
    }

    /// Checks a password; without a stored hash it takes the same time and does not match.
    pub(crate) async fn verify(
        &self,
        password: SecretString,
        stored: Option<SecretString>,
    ) -> Result<Verdict, AccessError> {
        let argon2 = self.argon2.clone();
        let password = normal(&password);
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| SecretString::from(self.dummy.clone()));
        let verdict = self.run(move || verify(&argon2, &password, stored.expose_secret())).await??;
        Ok(Verdict { matches: verdict.matches && is_known, ..verdict })
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, AccessError> {
        let (permit, done) = (self.wait_for_turn().await?, Arc::clone(&self.done));
        let work = move || {
            let result = work();
            drop(permit);
            done.fetch_add(1, Ordering::Relaxed);
            result
        };
        Ok(tokio::task::spawn_blocking(work).await?)
    }

    async fn wait_for_turn(&self) -> Result<OwnedSemaphorePermit, AccessError> {
        let waiting = Waiting::enter(&self.waiting);
        if waiting.before >= self.max_waiting.saturating_add(self.permits.available_permits()) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(AccessError::Busy);
        }
        self.permits.clone().acquire_owned().await.map_err(|_| AccessError::Busy)
    }
}

/// Counts one waiting caller for as long as it lives, also when the caller goes away.
struct Waiting<'a> {
    counter: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn enter(counter: &'a AtomicUsize) -> Self {
        Self { counter, before: counter.fetch_add(1, Ordering::AcqRel) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::AcqRel);
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, AccessError> {
    let hash = argon2.hash_password(password).map_err(|e| AccessError::Hash(e.to_string()))?;
    Ok(hash.to_string())
}

/// One spelling for characters that can be written in several ways (NFC), so that a password is the same on every
/// keyboard. Fixed for ever: another choice would lock people out.
fn normal(password: &SecretString) -> SecretString {
    normal_text(password.expose_secret()).into()
}

/// The same of its text.
pub(super) fn normal_text(password: &str) -> String {
    use unicode_normalization::UnicodeNormalization;
    password.nfc().collect()
}

fn verify(argon2: &Argon2<'_>, password: &SecretString, stored: &str) -> Result<Verdict, AccessError> {
    // Imported from an older system: it logs in once and is hashed anew.
    if stored.starts_with("$2") {
        let matches = bcrypt::verify(password.expose_secret(), stored)
            .map_err(|e| AccessError::Hash(format!("stored hash: {e}")))?;
        return Ok(Verdict { matches, is_outdated: true });
    }
    let stored = PasswordHash::new(stored).map_err(|e| AccessError::Hash(format!("stored hash: {e}")))?;
    let matches = argon2.verify_password(password.expose_secret().as_bytes(), &stored).is_ok();
    let costs = |p: &Params| (p.m_cost(), p.t_cost(), p.p_cost());
    let is_outdated = Params::try_from(&stored).map_or(true, |used| costs(&used) != costs(argon2.params()));
    Ok(Verdict { matches, is_outdated })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> HashSettings {
        HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() }
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text.to_owned())
    }

    #[tokio::test]
    async fn security_06_only_the_same_password_matches_and_the_hash_is_argon2id() {
        let hasher = Hasher::new(&HashSettings::default()).await.unwrap();
        let stored = hasher.hash(secret("Tr0ub4dor&3")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let verdict = hasher.verify(secret("Tr0ub4dor&3"), Some(secret(&stored))).await.unwrap();
        assert_eq!(verdict, Verdict { matches: true, is_outdated: false });
        assert!(!hasher.verify(secret("Tr0ub4dor&3 "), Some(secret(&stored))).await.unwrap().matches);
    }

    #[tokio::test]
    async fn security_03_and_04_every_byte_counts_and_spellings_of_one_character_are_one() {
        let hasher = Hasher::new(&cheap()).await.unwrap();
        let long = format!("{}é{}", "x".repeat(72), "y".repeat(300));
        let stored = hasher.hash(secret(&long)).await.unwrap();
        let matches = async |text: &str| hasher.verify(secret(text), Some(secret(&stored))).await.unwrap().matches;
        assert!(matches(&long).await);
        assert!(matches(&long.replace('é', "e\u{301}")).await);
        for changed in
            [long.replace('é', "e"), format!("{}z", &long[..long.len() - 1]), format!("{long} "), long.to_uppercase()]
        {
            assert!(!matches(&changed).await);
        }
    }

    #[tokio::test]
    async fn an_imported_bcrypt_hash_matches_and_is_outdated() {
        let hasher = Hasher::new(&cheap()).await.unwrap();
        let stored = bcrypt::hash_with_salt("nine-Blue-7-boats", 4, *b"sixteen bytes ok").unwrap().to_string();
        let verdict = hasher.verify(secret("nine-Blue-7-boats"), Some(secret(&stored))).await.unwrap();
        assert_eq!(verdict, Verdict { matches: true, is_outdated: true });
        assert!(!hasher.verify(secret("other"), Some(secret(&stored))).await.unwrap().matches);
    }

    #[tokio::test]
    async fn an_unknown_account_never_matches() {
        let hasher = Hasher::new(&cheap()).await.unwrap();
        assert!(!hasher.verify(secret("no account has this password"), None).await.unwrap().matches);
    }

    #[tokio::test]
    async fn a_hash_with_other_costs_is_outdated() {
        let old = Hasher::new(&cheap()).await.unwrap().hash(secret("x")).await.unwrap();
        let hasher = Hasher::new(&HashSettings { passes: 2, ..cheap() }).await.unwrap();
        let verdict = hasher.verify(secret("x"), Some(secret(&old))).await.unwrap();
        assert_eq!(verdict, Verdict { matches: true, is_outdated: true });
    }

    #[tokio::test]
    async fn security_07_beyond_the_waiting_line_the_answer_is_busy() {
        let settings = HashSettings { parallel: 1, max_waiting: 2, ..cheap() };
        let hasher = Arc::new(Hasher::new(&settings).await.unwrap());
        let running = hasher.permits.clone().acquire_owned().await.unwrap();
        let queued: Vec<_> = (0..2)
            .map(|_| {
                tokio::spawn({
                    let hasher = hasher.clone();
                    async move { hasher.hash(secret("x")).await }
                })
            })
            .collect();
        while hasher.waiting.load(Ordering::Acquire) < 2 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(hasher.hash(secret("x")).await, Err(AccessError::Busy)));
        drop(running);
        for task in queued {
            assert!(task.await.unwrap().is_ok());
        }
    }
}
