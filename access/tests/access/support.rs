//! One fresh accounts folder a test, with cheap hashing.

use karat_access::{Access, AccessError, AccessSettings, Caller, Credential, HashSettings, NewAccount, Origin};
use karat_access::{Actor, NewUser, Role, TokenPair, User};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use std::time::Duration;

pub const PASSWORD: &str = "nine-Blue-7-boats";

pub struct Instance {
    pub folder: tempfile::TempDir,
    pub access: Access,
}

impl Instance {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let access = Access::open(settings(&folder)).await.unwrap();
        Self { folder, access }
    }

    /// What another process on the same data would be.
    pub async fn second_process(&self) -> Access {
        Access::open(settings(&self.folder)).await.unwrap()
    }

    pub async fn register(&self, username: &str) -> TokenPair {
        self.access.register(account(username), &Origin::default()).await.unwrap()
    }

    pub async fn user(&self, username: &str, role: Role) -> User {
        let (username, password) = (username.to_owned(), secret(PASSWORD));
        let new = NewUser { username, email: None, password, role };
        self.access.create_user(new, Actor::Shell, &Origin::default()).await.unwrap()
    }

    pub async fn login(&self, name: &str, password: &str) -> Result<TokenPair, AccessError> {
        self.access.login(name, secret(password), &Origin::default()).await
    }

    pub async fn refresh(&self, pair: &TokenPair) -> Result<TokenPair, AccessError> {
        self.access.refresh(&pair.refresh_token, &Origin::default()).await
    }
}

pub fn settings(folder: &tempfile::TempDir) -> AccessSettings {
    let hashing = HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() };
    // Tests ask for what others changed themselves; the background task must not do it for them.
    let upkeep_interval = Duration::from_secs(3600);
    AccessSettings { hashing, upkeep_interval, ..AccessSettings::in_folder(folder.path()) }
}

pub fn account(username: &str) -> NewAccount {
    NewAccount { username: Some(username.to_owned()), email: None, password: secret(PASSWORD), full_name: None }
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
