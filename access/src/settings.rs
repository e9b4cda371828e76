//! Settings of this crate, as plain values. Nothing here reads a file or the environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where accounts are kept and how long things last.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// The SQLite database file; created when absent.
    pub database: PathBuf,
    /// The folder of the signing keys; created, readable by its owner only, when absent.
    pub keys_dir: PathBuf,
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens.
    pub audience: String,
    /// Life of an access token.
    pub access_token_ttl: Duration,
    /// Life of a session from its log-in. Rotation does not extend it.
    pub session_ttl: Duration,
    /// Refreshes allowed to one session in an hour; `None` lifts the limit.
    pub refreshes_per_hour: Option<u32>,
    /// Whether anybody may register an account.
    pub registration_open: bool,
    /// Cost and concurrency of password hashing.
    pub hashing: HashSettings,
    /// Verified access tokens held in memory.
    pub token_cache_entries: usize,
    /// API keys held in memory.
    pub key_cache_entries: usize,
    /// How long an API key is believed without asking the database; also the bound on learning of its revocation
    /// in another process.
    pub key_cache_ttl: Duration,
    /// How often changes by other processes are looked for, and last-used times are written.
    pub upkeep_interval: Duration,
}

impl AccessSettings {
    /// The defaults, with the database and the keys inside `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            database: folder.join("accounts.db"),
            keys_dir: folder.join("keys"),
            issuer: "karat".to_owned(),
            audience: "karat".to_owned(),
            access_token_ttl: Duration::from_secs(60 * 60),
            session_ttl: Duration::from_secs(30 * 24 * 60 * 60),
            refreshes_per_hour: Some(20),
            registration_open: true,
            hashing: HashSettings::default(),
            token_cache_entries: 20_000,
            key_cache_entries: 10_000,
            key_cache_ttl: Duration::from_secs(5),
            upkeep_interval: Duration::from_secs(2),
        }
    }
}

/// Cost of argon2id (the defaults are OWASP's first choice) and how much of it may run at a time.
#[derive(Debug, Clone)]
pub struct HashSettings {
    /// Memory of one hash in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Hashes at a time; memory in use is at most this many times `memory_kib`.
    pub parallel: usize,
    /// Hashes that may wait for their turn; beyond that the answer is "busy".
    pub max_waiting: usize,
}

impl Default for HashSettings {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1, parallel: 2, max_waiting: 128 }
    }
}
