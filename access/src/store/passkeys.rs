//! Passkeys.

use uuid::Uuid;

use super::Store;
use super::engine::{Row, args};
use super::factors::{factors_in, part_with, put_recovery_codes};
use super::identities::{UsableWays, WayIn, keep_a_way_in};
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
    /// Whether there are copies of it on other devices of its user, as of the last log-in; none when that was never told.
    pub is_backed_up: Option<bool>,
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
    pub said: Said,
    /// Whether the authenticator checked who its user is.
    pub is_verifying: bool,
    pub at: i64,
}

/// What an authenticator says of a passkey each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said {
    /// How often it was used.
    pub count: u32,
    /// Whether it may be copied to other devices of its user. That never changes.
    pub is_backup_eligible: bool,
    /// Whether it is.
    pub is_backed_up: bool,
}

/// What a log-in is checked against.
pub(crate) struct StoredPasskey {
    pub id: Uuid,
    pub user: Uuid,
    /// In COSE, in hex.
    pub public_key: String,
    /// Whether the authenticator checked who its user is when the passkey was made.
    pub is_verifying: bool,
    /// Whether it may be copied; none when it was made before that was kept, and not used since.
    pub is_backup_eligible: Option<bool>,
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
                   is_verifying, created_at, is_backup_eligible, is_backed_up) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let values = args![
            row.id,
            row.user,
            &row.name,
            &row.credential_hash,
            &row.credential_id,
            &row.public_key,
            row.said.count,
            row.is_verifying,
            row.at,
            row.said.is_backup_eligible,
            row.said.is_backed_up,
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
        let sql = "SELECT id, user_id, public_key, is_verifying, is_backup_eligible FROM passkeys \
                   WHERE credential_hash = ?";
        self.database.row(sql, args![credential_hash]).await?.as_ref().map(stored).transpose()
    }

    /// The passkeys of a user, oldest first.
    pub(crate) async fn list_passkeys(&self, user: Uuid) -> Result<Vec<Passkey>, AccessError> {
        let sql = "SELECT id, name, is_verifying, is_backed_up, created_at, last_used_at FROM passkeys \
                   WHERE user_id = ? ORDER BY id";
        self.database.rows(sql, args![user]).await?.iter().map(passkey).collect()
    }

    /// The ids of a user's credentials, as authenticators know them.
    pub(crate) async fn list_credentials(&self, user: Uuid) -> Result<Vec<String>, AccessError> {
        let sql = "SELECT credential_id FROM passkeys WHERE user_id = ? ORDER BY id";
        self.database.rows(sql, args![user]).await?.iter().map(|row| row.text("credential_id")).collect()
    }

    /// Notes a use with what the authenticator says; false when it does not count on. One that never counts stays at
    /// zero.
    pub(crate) async fn use_passkey(&self, id: Uuid, said: Said) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "UPDATE passkeys SET sign_count = ?, last_used_at = ?, is_backed_up = ?, \
                   is_backup_eligible = COALESCE(is_backup_eligible, ?) WHERE id = ? \
                   AND (sign_count < ? OR (sign_count = 0 AND ? = 0))";
        let Said { count, is_backup_eligible, is_backed_up } = said;
        let values = args![count, now_us(), is_backed_up, is_backup_eligible, id, count, count];
        let counts_on = tx.execute(sql, values).await? > 0;
        tx.commit().await?;
        Ok(counts_on)
    }

    /// Removes a passkey of a user and revokes every session but the one in whose name it is done, and with the last
    /// second factor the recovery codes; none when there is no such passkey, else what was revoked. `alone_at` is as in
    /// [`part_with`].
    ///
    /// [`AccessError::LastWayIn`] when nothing else that is usable would be left, [`AccessError::NotAuthenticated`] when the session
    /// has ended.
    pub(crate) async fn remove_passkey(
        &self,
        id: Uuid,
        user: Uuid,
        session: Uuid,
        alone_at: Option<i64>,
        usable: &UsableWays,
        event: &AuditEvent,
    ) -> Result<Option<Vec<Uuid>>, AccessError> {
        let mut tx = self.database.write().await?;
        let owner = lock(&mut tx, user).await?;
        require_session(&mut tx, user, session).await?;
        let sql = "SELECT id FROM passkeys WHERE id = ? AND user_id = ?";
        if tx.rows(sql, args![id, user]).await?.is_empty() {
            return Ok(None);
        }
        keep_a_way_in(&mut tx, user, WayIn::Passkey(id), usable).await?;
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
        is_backup_eligible: row.truth_or_null("is_backup_eligible")?,
    })
}

fn passkey(row: &Row) -> Result<Passkey, AccessError> {
    Ok(Passkey {
        id: row.id("id")?,
        name: row.text("name")?,
        is_way_in: row.truth("is_verifying")?,
        is_backed_up: row.truth_or_null("is_backed_up")?,
        created_at_us: row.int("created_at")?,
        last_used_at_us: row.int_or_null("last_used_at")?,
    })
}
