//! One fresh accounts folder a test, with cheap hashing.
//!
//! The database is SQLite in that folder, or a fresh one on the server that `KARAT_TEST_POSTGRES` or
//! `KARAT_TEST_MYSQL` names: the same tests are the contract of all three.

use karat_access::{Access, AccessError, AccessSettings, Caller, Credential, HashSettings, NewAccount, Origin};
use karat_access::{
    Actor, DatabaseAddress, DatabaseSettings, LoginOutcome, NewUser, ProfileChange, Registration, Role, TokenPair, User,
};
use karat_oracle::databases;
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;

pub const PASSWORD: &str = "nine-Blue-7-boats";

pub struct Instance {
    pub folder: tempfile::TempDir,
    pub access: Access,
    seen: std::sync::atomic::AtomicUsize,
}

impl Instance {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        databases::create(folder.path()).await.unwrap();
        let access = Access::open(settings(&folder)).await.unwrap();
        Self { folder, access, seen: Default::default() }
    }

    /// What another process on the same data would be.
    pub async fn second_process(&self) -> Access {
        Access::open(settings(&self.folder)).await.unwrap()
    }

    pub async fn register(&self, username: &str) -> TokenPair {
        tokens(self.access.register(account(username), &Origin::default()).await.unwrap())
    }

    pub async fn user(&self, username: &str, role: Role) -> User {
        let (username, password) = (username.to_owned(), secret(PASSWORD));
        let new = NewUser { username, email: None, password, role };
        self.access.create_user(new, Actor::Shell, &Origin::default()).await.unwrap()
    }

    pub async fn login(&self, name: &str, password: &str) -> Result<TokenPair, AccessError> {
        match self.access.login(name, secret(password), &Origin::default()).await? {
            LoginOutcome::Tokens(pair) => Ok(*pair),
            LoginOutcome::MfaRequired { .. } => panic!("a second factor is asked for"),
        }
    }

    /// What was sent so far, whole messages with plain lines.
    pub fn mails(&self) -> Vec<String> {
        let Ok(files) = std::fs::read_dir(self.folder.path().join("outbox")) else { return Vec::new() };
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|ext| ext == "eml"));
        files.sort();
        // Quoted-printable breaks long lines and writes `=` as `=3D`.
        let plain = |text: String| text.replace("=\r\n", "").replace("=3D", "=");
        files.iter().map(|path| plain(std::fs::read_to_string(path).unwrap())).collect()
    }

    /// Waits until a message with this text was sent.
    pub async fn mail_with(&self, text: &str) -> String {
        self.mail_where(text, |mails| mails.into_iter().rfind(|mail| mail.contains(text))).await
    }

    /// The token of the newest link under a subject to an address that was not asked for before.
    pub async fn mailed_token(&self, subject: &str, address: &str) -> String {
        let is_it = |mail: &String| mail.contains(subject) && mail.contains(&format!("To: {address}"));
        let before = self.seen.load(std::sync::atomic::Ordering::Relaxed);
        let mail = self
            .mail_where(subject, |mails| {
                mails.into_iter().enumerate().rfind(|(n, mail)| *n >= before && is_it(mail)).map(|(n, mail)| {
                    self.seen.store(n + 1, std::sync::atomic::Ordering::Relaxed);
                    mail
                })
            })
            .await;
        let token = mail.split("#token=").nth(1).unwrap();
        token.chars().take_while(char::is_ascii_hexdigit).collect()
    }

    async fn mail_where(&self, what: &str, find: impl Fn(Vec<String>) -> Option<String>) -> String {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(mail) = find(self.mails()) {
                return mail;
            }
            assert!(std::time::Instant::now() < deadline, "no mail `{what}` in {:?}", self.mails());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn refresh(&self, pair: &TokenPair) -> Result<TokenPair, AccessError> {
        self.access.refresh(&pair.refresh_token, &Origin::default()).await
    }
}

pub fn settings(folder: &tempfile::TempDir) -> AccessSettings {
    let hashing = HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() };
    // Tests ask for what others changed themselves; the background task must not do it for them.
    let upkeep_interval = Duration::from_secs(3600);
    let public_url = "https://karat.example.org".to_owned();
    let mut settings =
        AccessSettings { public_url, hashing, upkeep_interval, ..AccessSettings::in_folder(folder.path()) };
    if let Some(address) = databases::address_of(folder.path()) {
        let address: DatabaseAddress = address.parse().unwrap();
        settings.database = DatabaseSettings { max_connections: 4, ..DatabaseSettings::at(address) };
        settings.database.acquire_timeout = Duration::from_secs(60);
    }
    settings
}

/// A statement on the test's own database, past the accounts: what somebody with access to the server could do.
pub async fn tamper(folder: &tempfile::TempDir, sql: &'static str) -> Result<(), sqlx::Error> {
    use sqlx::{Connection, Executor};
    match settings(folder).database.address {
        DatabaseAddress::Sqlite(file) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
            sqlx::SqliteConnection::connect_with(&options).await?.execute(sql).await.map(drop)
        }
        DatabaseAddress::Postgres(url) => {
            sqlx::PgConnection::connect(url.expose_secret()).await?.execute(sql).await.map(drop)
        }
        DatabaseAddress::MySql(url) => {
            sqlx::MySqlConnection::connect(url.expose_secret()).await?.execute(sql).await.map(drop)
        }
    }
}

pub fn account(username: &str) -> NewAccount {
    NewAccount { username: Some(username.to_owned()), email: None, password: secret(PASSWORD), full_name: None }
}

pub fn tokens(registration: Registration) -> TokenPair {
    match registration {
        Registration::Tokens(pair) => *pair,
        Registration::VerificationSent => panic!("the address must be confirmed first"),
    }
}

pub fn secret(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

pub async fn who(access: &Access, pair: &TokenPair) -> Result<Arc<Caller>, AccessError> {
    access.authenticate(Credential::Token(pair.access_token.expose_secret())).await
}

pub async fn who_by_key(access: &Access, key: &SecretString) -> Result<Arc<Caller>, AccessError> {
    access.authenticate(Credential::ApiKey(key.expose_secret())).await
}

/// Enables or disables somebody else's account, as it is now, and changes nothing else of it.
pub async fn set_active(
    access: &Access,
    caller: &Caller,
    id: uuid::Uuid,
    is_active: bool,
) -> Result<User, AccessError> {
    let version = access.find_user(id).await?.unwrap().version;
    let change = ProfileChange { version, ..ProfileChange::default() };
    access.update_user_of(caller, id, change, Some(is_active), &Origin::default()).await
}
