//! A store for the tests of this folder, past the accounts.

use uuid::Uuid;

use super::engine::args;
use super::{NewSessionRow, Proof, Store, UsableWays};
use crate::time::now_us;
use crate::{AccessSettings, DatabaseSettings, Origin};

/// The account.
pub(super) const USER: &str = "01900000-0000-7000-8000-000000000001";
/// Its log-in at another provider.
pub(super) const IDENTITY: &str = "01900000-0000-7000-8000-000000000002";
/// Its passkey.
pub(super) const PASSKEY: &str = "01900000-0000-7000-8000-000000000003";

/// One account with every way in; the database is where the tests of the accounts have theirs.
pub(super) async fn store(folder: &tempfile::TempDir) -> Store {
    karat_oracle::databases::create(folder.path()).await.unwrap();
    let mut settings = AccessSettings::in_folder(folder.path());
    if let Some(address) = karat_oracle::databases::address_of(folder.path()) {
        settings.database = DatabaseSettings { max_connections: 2, ..DatabaseSettings::at(address.parse().unwrap()) };
    }
    let store = Store::open(&settings).await.unwrap();
    let account = "INSERT INTO users (id, username, username_key, email, email_key, phone, password_hash, role, \
                   created_at, updated_at) VALUES ('01900000-0000-7000-8000-000000000001', 'maria', 'maria', \
                   'maria@example.org', 'maria@example.org', '+34600123456', 'right', 'user', 1, 1)";
    change(&store, account).await;
    let identity = "INSERT INTO identities (id, user_id, provider, issuer, subject, created_at, last_used_at) VALUES \
                    ('01900000-0000-7000-8000-000000000002', '01900000-0000-7000-8000-000000000001', 'test', \
                    'https://id.example.org', 'maria', 1, 1)";
    change(&store, identity).await;
    let passkey = "INSERT INTO passkeys (id, user_id, name, credential_hash, credential_id, public_key, sign_count, \
                   is_verifying, created_at) VALUES ('01900000-0000-7000-8000-000000000003', \
                   '01900000-0000-7000-8000-000000000001', 'laptop', 'hash', 'id', '00', 0, 1, 1)";
    change(&store, passkey).await;
    store
}

/// An instance where every way in of the account leads somewhere.
pub(super) fn every_way() -> UsableWays {
    UsableWays { by_phone: true, by_passkey: true, by_issuers: vec!["https://id.example.org".to_owned()] }
}

/// What another process does.
pub(super) async fn change(store: &Store, sql: &'static str) {
    let mut tx = store.database.write().await.unwrap();
    tx.execute(sql, args![]).await.unwrap();
    tx.commit().await.unwrap();
}

/// A session of the account that is to begin by `proof`.
pub(super) fn new_session(proof: Proof) -> NewSessionRow {
    let (id, at) = (Uuid::now_v7(), now_us());
    NewSessionRow {
        id,
        user: USER.parse().unwrap(),
        token_hash: id.to_string(),
        at,
        expires_at: at + 1_000_000_000,
        origin: Origin::default(),
        proof,
    }
}
