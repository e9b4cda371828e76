//! Settings of this crate, as plain values. Nothing here reads a file or the environment.

mod database;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use database::{DatabaseAddress, DatabaseSettings};

use crate::consent::ConsentRule;
use crate::oidc::ProviderSettings;
pub use crate::password::PasswordRules;
use crate::send::{MailSettings, SmsSettings};

/// Where accounts are kept and how long things last.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// The accounts database.
    pub database: DatabaseSettings,
    /// The folder of the signing keys; created, readable by its owner only, when absent.
    pub keys_dir: PathBuf,
    /// How long a new signing key is known before it signs: longer than other processes and readers of the public keys take to
    /// look again.
    pub key_activation: Duration,
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
    /// What consent decides.
    pub consent: ConsentRule,
    /// Whether an account must show that its e-mail address is its own before it can log in.
    pub email_verification: bool,
    /// Which rules passwords keep.
    pub password_rules: PasswordRules,
    /// Where people reach this instance: what links in messages begin with, whatever a request says.
    pub public_url: String,
    /// How e-mail leaves.
    pub mail: MailSettings,
    /// How text messages leave.
    pub sms: SmsSettings,
    /// How many text messages leave in an hour.
    pub sms_caps: SmsCaps,
    /// Providers to log in through.
    pub providers: Vec<ProviderSettings>,
    /// How long a deleted account can be brought back by hand before it is removed for good.
    pub keep_deleted: Duration,
    /// Cost and concurrency of password hashing.
    pub hashing: HashSettings,
    /// Verified access tokens held in memory, and people whose consent is known there.
    pub token_cache_entries: usize,
    /// API keys held in memory.
    pub key_cache_entries: usize,
    /// How long an API key, and a consent, is believed without asking the database; also the bound on learning of its
    /// revocation in another process.
    pub key_cache_ttl: Duration,
    /// How often changes by other processes are looked for, and last-used times are written.
    pub upkeep_interval: Duration,
}

impl AccessSettings {
    /// The defaults, with the database and the keys inside `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            database: DatabaseSettings::at(DatabaseAddress::Sqlite(folder.join("accounts.db"))),
            keys_dir: folder.join("keys"),
            key_activation: Duration::from_secs(10 * 60),
            issuer: "karat".to_owned(),
            audience: "karat".to_owned(),
            access_token_ttl: Duration::from_secs(60 * 60),
            session_ttl: Duration::from_secs(30 * 24 * 60 * 60),
            refreshes_per_hour: Some(20),
            registration_open: true,
            consent: ConsentRule::default(),
            email_verification: false,
            password_rules: PasswordRules::default(),
            public_url: "http://127.0.0.1:8080".to_owned(),
            mail: MailSettings::Outbox(folder.join("outbox")),
            sms: SmsSettings::Log,
            sms_caps: SmsCaps::default(),
            providers: Vec::new(),
            keep_deleted: Duration::from_secs(30 * 24 * 60 * 60),
            hashing: HashSettings::default(),
            token_cache_entries: 20_000,
            key_cache_entries: 10_000,
            key_cache_ttl: Duration::from_secs(5),
            upkeep_interval: Duration::from_secs(2),
        }
    }
}

/// How many text messages leave in an hour: each costs money, and codes may be asked for by anybody.
#[derive(Debug, Clone, Copy)]
pub struct SmsCaps {
    /// To all numbers together.
    pub per_hour: u32,
    /// To the numbers of one country, by its calling code.
    pub per_country_hour: u32,
}

impl Default for SmsCaps {
    fn default() -> Self {
        Self { per_hour: 1_000, per_country_hour: 200 }
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

/// More hashes at a time would only take memory from everything else.
const MOST_PARALLEL: usize = 8;

impl Default for HashSettings {
    /// As many at a time as there are cores, up to eight.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1, parallel: cores.min(MOST_PARALLEL), max_waiting: 128 }
    }
}
