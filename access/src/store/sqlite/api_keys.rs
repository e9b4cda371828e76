//! API keys.

use std::sync::Arc;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::changes::{announce, audit};
use super::{Sqlite, decode};
use crate::store::{ChangeKind, KeyOwner, NewKeyRow, StoredKey};
use crate::time::now_us;
use crate::{AccessError, ApiKey, AuditEvent};

impl Sqlite {
    pub(in crate::store) async fn create_key(&self, row: &NewKeyRow, event: &AuditEvent) -> Result<(), AccessError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO api_keys (id, user_id, name, prefix, key_hash, scopes, created_at, expires_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.id.to_string())
        .bind(row.user.to_string())
        .bind(&row.name)
        .bind(&row.prefix)
        .bind(&row.key_hash)
        .bind(row.scopes.to_texts().join(" "))
        .bind(row.at)
        .bind(row.expires_at)
        .execute(&mut *transaction)
        .await?;
        audit(&mut transaction, event).await?;
        Ok(transaction.commit().await?)
    }

    pub(in crate::store) async fn find_key(&self, prefix: &str) -> Result<Option<StoredKey>, AccessError> {
        let sql = "SELECT k.id, k.user_id, k.key_hash, k.scopes, k.expires_at, k.revoked_at, u.username, u.role, u.is_active \
                   FROM api_keys k JOIN users u ON u.id = k.user_id \
                   WHERE k.prefix = ? AND u.deleted_at IS NULL";
        let row = sqlx::query(sql).bind(prefix).fetch_optional(&self.readers).await?;
        row.as_ref().map(stored_key).transpose()
    }

    pub(in crate::store) async fn list_keys(&self, user: Option<Uuid>) -> Result<Vec<ApiKey>, AccessError> {
        let sql = "SELECT id, user_id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at \
                   FROM api_keys WHERE ?1 IS NULL OR user_id = ?1 ORDER BY id DESC";
        let rows = sqlx::query(sql).bind(user.map(|id| id.to_string())).fetch_all(&self.readers).await?;
        rows.iter().map(api_key).collect()
    }

    pub(in crate::store) async fn revoke_key(
        &self,
        id: Uuid,
        owner: Option<Uuid>,
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut transaction = self.write().await?;
        let sql = "UPDATE api_keys SET revoked_at = ?1 WHERE id = ?2 AND revoked_at IS NULL \
                   AND (?3 IS NULL OR user_id = ?3)";
        let done = sqlx::query(sql)
            .bind(now_us())
            .bind(id.to_string())
            .bind(owner.map(|id| id.to_string()))
            .execute(&mut *transaction)
            .await?;
        let is_revoked = done.rows_affected() > 0;
        if is_revoked {
            announce(&mut transaction, ChangeKind::ApiKey, id).await?;
            audit(&mut transaction, event).await?;
        }
        transaction.commit().await?;
        Ok(is_revoked)
    }

    pub(in crate::store) async fn touch_keys(&self, used: &[(Uuid, i64)]) -> Result<(), AccessError> {
        let mut transaction = self.write().await?;
        for (id, at) in used {
            sqlx::query("UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?")
                .bind(at)
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }
}

fn stored_key(row: &SqliteRow) -> Result<StoredKey, AccessError> {
    let username: String = row.try_get("username")?;
    Ok(StoredKey {
        id: decode::id(row, "id")?,
        key_hash: row.try_get("key_hash")?,
        scopes: Arc::new(decode::scopes(row)?),
        expires_at: row.try_get("expires_at")?,
        is_revoked: row.try_get::<Option<i64>, _>("revoked_at")?.is_some(),
        owner: KeyOwner {
            id: decode::id(row, "user_id")?,
            username: username.into(),
            role: decode::role(row)?,
            is_active: row.try_get("is_active")?,
        },
    })
}

fn api_key(row: &SqliteRow) -> Result<ApiKey, AccessError> {
    Ok(ApiKey {
        id: decode::id(row, "id")?,
        owner: decode::id(row, "user_id")?,
        name: row.try_get("name")?,
        prefix: row.try_get("prefix")?,
        scopes: decode::scopes(row)?,
        created_at_us: row.try_get("created_at")?,
        expires_at_us: row.try_get("expires_at")?,
        last_used_at_us: row.try_get("last_used_at")?,
        revoked_at_us: row.try_get("revoked_at")?,
    })
}
