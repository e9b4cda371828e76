//! Passkeys.

use uuid::Uuid;

use super::Store;
use super::engine::{Row, args};
use super::factors::{factors_in, part_with, put_recovery_codes};
use super::identities::{WayIn, keep_a_way_in};
use super::proof::require_session;
use super::sessions::revoke_live;
use super::users::lock;
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

/// Passkeys of one account at most.
const MOST_PASSKEYS: usize = 20;

/// A passkey as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passkey {
    /// UUID v7.
    pub id: Uuid,
    /// The name to know it by.
    pub name: String,
    /// Whether it logs in without a password. One that does not check who its user is does not.
    pub is_way_in: bool,
    /// Microseconds since 1970, UTC.
    pub created_at_us: i64,
    /// Microseconds since 1970, UTC.
    pub last_used_at_us: Option<i64>,
}

pub(crate) struct NewPasskeyRow {
    pub id: Uuid,
    pub user: Uuid,
    pub name: String,
    /// SHA-256 of the id, by which it is found.
    pub credential_hash: String,
    /// In base64url.
    pub credential_id: String,
    /// In COSE, in hex.
    pub public_key: String,
    pub count: u32,
    /// Whether the authenticator checked who its user is.
    pub is_verifying: bool,
    pub at: i64,
}

/// What a log-in is checked against.
pub(crate) struct StoredPasskey {
    pub id: Uuid,
    pub user: Uuid,
    /// In COSE, in hex.
    pub public_key: String,
    /// Whether the authenticator checked who its user is when the passkey was made.
    pub is_verifying: bool,
}

impl Store {
    /// Adds a passkey in the name of a session of its owner, and recovery codes where it is the first second factor;
    /// answers whether it is.
    ///
    /// [`AccessError::Taken`] when it belongs to an account already, [`AccessError::TooManyPasskeys`],
    /// [`AccessError::NotAuthenticated`] when the session has ended.
    pub(crate) async fn add_passkey(
        &self,
        row: &NewPasskeyRow,
        session: Uuid,
        codes: &[String],
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, row.user).await?;
        require_session(&mut tx, row.user, session).await?;
        let have = tx.rows("SELECT id FROM passkeys WHERE user_id = ?", args![row.user]).await?.len();
        if have >= MOST_PASSKEYS {
            return Err(AccessError::TooManyPasskeys { most: MOST_PASSKEYS });
        }
        let is_first = !factors_in(&mut tx, row.user).await?.is_any();
        let sql = "INSERT INTO passkeys (id, user_id, name, credential_hash, credential_id, public_key, sign_count, \
                   is_verifying, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let values = args![
            row.id,
            row.user,
            &row.name,
            &row.credential_hash,
            &row.credential_id,
            &row.public_key,
            row.count,
            row.is_verifying,
            row.at,
        ];
        tx.try_execute(sql, values).await.map_err(|error| match error.as_database_error() {
            Some(cause) if cause.is_unique_violation() => AccessError::Taken { field: "passkey" },
            _ => AccessError::Store(error),
        })?;
        if is_first {
            put_recovery_codes(&mut tx, row.user, codes).await?;
        }
        tx.audit(event);
        tx.commit().await?;
        Ok(is_first)
    }

    /// The passkey whose credential has this hash.
    pub(crate) async fn find_passkey(&self, credential_hash: &str) -> Result<Option<StoredPasskey>, AccessError> {
        let sql = "SELECT id, user_id, public_key, is_verifying FROM passkeys WHERE credential_hash = ?";
        self.database.row(sql, args![credential_hash]).await?.as_ref().map(stored).transpose()
    }

    /// The passkeys of a user, oldest first.
    pub(crate) async fn list_passkeys(&self, user: Uuid) -> Result<Vec<Passkey>, AccessError> {
        let sql = "SELECT id, name, is_verifying, created_at, last_used_at FROM passkeys WHERE user_id = ? ORDER BY id";
        self.database.rows(sql, args![user]).await?.iter().map(passkey).collect()
    }

    /// The ids of a user's credentials, as authenticators know them.
    pub(crate) async fn list_credentials(&self, user: Uuid) -> Result<Vec<String>, AccessError> {
        let sql = "SELECT credential_id FROM passkeys WHERE user_id = ? ORDER BY id";
        self.database.rows(sql, args![user]).await?.iter().map(|row| row.text("credential_id")).collect()
    }

    /// Notes a use with the count of the authenticator; false when it does not count on. One that never counts stays at
    /// zero.
    pub(crate) async fn use_passkey(&self, id: Uuid, count: u32) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "UPDATE passkeys SET sign_count = ?, last_used_at = ? WHERE id = ? \
                   AND (sign_count < ? OR (sign_count = 0 AND ? = 0))";
        let counts_on = tx.execute(sql, args![count, now_us(), id, count, count]).await? > 0;
        tx.commit().await?;
        Ok(counts_on)
    }

    /// Removes a passkey of a user and revokes every session but the one in whose name it is done, and with the last
    /// second factor the recovery codes; none when there is no such passkey, else what was revoked. `alone_at` is as in
    /// [`part_with`].
    ///
    /// [`AccessError::LastWayIn`] when nothing else would be left, [`AccessError::NotAuthenticated`] when the session
    /// has ended.
    pub(crate) async fn remove_passkey(
        &self,
        id: Uuid,
        user: Uuid,
        session: Uuid,
        alone_at: Option<i64>,
        event: &AuditEvent,
    ) -> Result<Option<Vec<Uuid>>, AccessError> {
        let mut tx = self.database.write().await?;
        let owner = lock(&mut tx, user).await?;
        require_session(&mut tx, user, session).await?;
        let sql = "SELECT id FROM passkeys WHERE id = ? AND user_id = ?";
        if tx.rows(sql, args![id, user]).await?.is_empty() {
            return Ok(None);
        }
        keep_a_way_in(&mut tx, user, WayIn::Passkey(id)).await?;
        tx.execute("DELETE FROM passkeys WHERE id = ? AND user_id = ?", args![id, user]).await?;
        part_with(&mut tx, &owner, alone_at).await?;
        let revoked = revoke_live(&mut tx, user, "unlinked", Some(session)).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(Some(revoked))
    }
}

fn stored(row: &Row) -> Result<StoredPasskey, AccessError> {
    Ok(StoredPasskey {
        id: row.id("id")?,
        user: row.id("user_id")?,
        public_key: row.text("public_key")?,
        is_verifying: row.truth("is_verifying")?,
    })
}

fn passkey(row: &Row) -> Result<Passkey, AccessError> {
    Ok(Passkey {
        id: row.id("id")?,
        name: row.text("name")?,
        is_way_in: row.truth("is_verifying")?,
        created_at_us: row.int("created_at")?,
        last_used_at_us: row.int_or_null("last_used_at")?,
    })
}
