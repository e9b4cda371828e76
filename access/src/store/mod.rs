//! The accounts database, behind one [`Store`].
//!
//! Each engine is its own typed pool with its own SQL; [`Store`] is the contract that all of them keep, and the one
//! place where a second engine is added. Every change writes its audit row and, where others must hear of it, its
//! `access_changes` row in the same transaction: either all of it happened or nothing.

mod rows;
mod sqlite;

use uuid::Uuid;

pub use rows::User;
pub(crate) use rows::{
    Change, ChangeKind, KeyOwner, NewKeyRow, NewSessionRow, NewUserRow, Rotation, RotationRequest, StoredKey,
    StoredLogin,
};

use crate::{AccessError, AccessSettings, ApiKey, AuditEvent, Role};

pub(crate) struct Store {
    engine: Engine,
}

enum Engine {
    Sqlite(sqlite::Sqlite),
}

impl Store {
    /// Opens the database of the settings and brings its schema up to date.
    pub(crate) async fn open(settings: &AccessSettings) -> Result<Self, AccessError> {
        Ok(Self { engine: Engine::Sqlite(sqlite::Sqlite::open(&settings.database).await?) })
    }
}

/// Declares the contract once: the method on `Store`, and with it what each engine must offer under the same name.
macro_rules! contract {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)+) => {
        impl Store {$(
            $(#[$doc])*
            pub(crate) async fn $name(&self, $($arg: $type),*) -> Result<$out, AccessError> {
                match &self.engine {
                    Engine::Sqlite(database) => database.$name($($arg),*).await,
                }
            }
        )+}
    };
}

contract! {
    /// Adds a user. [`AccessError::Taken`] when the name or the address belongs to somebody.
    fn create_user(row: &NewUserRow, audit: &AuditEvent) -> User;
    /// A user who is not deleted.
    fn find_user(id: Uuid) -> Option<User>;
    /// A user by username or address, with the password hash.
    fn find_login(name: &str) -> Option<StoredLogin>;
    /// Users in order of creation, after the given one.
    fn list_users(after: Option<Uuid>, limit: u32) -> Vec<User>;
    /// Gives a role. [`AccessError::LastAdmin`] when no active admin would be left.
    fn set_role(id: Uuid, role: Role, audit: &AuditEvent) -> User;
    /// Replaces the hash only if it is still the one that was checked.
    fn replace_password_hash(id: Uuid, old: &str, new: &str) -> ();
    /// Sets a password and revokes every session; answers the revoked ones.
    fn reset_password(id: Uuid, hash: &str, audit: &AuditEvent) -> Vec<Uuid>;

    /// Starts a session with its first refresh token.
    fn create_session(row: &NewSessionRow, audit: &AuditEvent) -> ();
    /// Uses a refresh token and puts the next one in its place, or revokes the family when it was used before.
    fn rotate(request: &RotationRequest, origin: &crate::Origin) -> Rotation;
    /// Revokes one session of a user; false when there is no such live session.
    fn revoke_session(id: Uuid, user: Uuid, audit: &AuditEvent) -> bool;
    /// Revokes every live session of a user; answers them.
    fn revoke_sessions_of(user: Uuid, audit: &AuditEvent) -> Vec<Uuid>;

    /// Adds an API key.
    fn create_key(row: &NewKeyRow, audit: &AuditEvent) -> ();
    /// A key by its public prefix, with its owner, who is not deleted.
    fn find_key(prefix: &str) -> Option<StoredKey>;
    /// Keys of a user (of everybody without one), newest first, revoked ones included.
    fn list_keys(user: Option<Uuid>) -> Vec<ApiKey>;
    /// Revokes a key (of that owner only, when one is given); false when there is no such live key.
    fn revoke_key(id: Uuid, owner: Option<Uuid>, audit: &AuditEvent) -> bool;
    /// Moves last-used times forward.
    fn touch_keys(used: &[(Uuid, i64)]) -> ();

    /// Changes after a position, oldest first.
    fn changes_after(seq: i64) -> Vec<Change>;
    /// Changes since a time, oldest first, and the newest position of all.
    fn changes_since(at: i64) -> (Vec<Change>, i64);
    /// Removes sessions that ended, and changes older than that, before a time.
    fn purge_before(at: i64) -> ();
    /// Adds a row to the audit log by itself, for things that were refused.
    fn append_audit(event: &AuditEvent) -> ();
}
