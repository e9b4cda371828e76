//! Users.

use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::Sqlite;
use super::changes::{announce, audit};
use super::decode::{self, user_columns};
use super::sessions::revoke_live;
use crate::store::{ChangeKind, NewUserRow, StoredLogin, User};
use crate::time::now_us;
use crate::{AccessError, AuditEvent, Role};

impl Sqlite {
    pub(in crate::store) async fn create_user(
        &self,
        row: &NewUserRow,
        event: &AuditEvent,
    ) -> Result<User, AccessError> {
        let mut transaction = self.write().await?;
        let inserted = sqlx::query(
            "INSERT INTO users (id, username, username_key, email, email_key, password_hash, full_name, role, \
             created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.id.to_string())
        .bind(row.username.as_str())
        .bind(row.username.key())
        .bind(row.email.as_ref().map(|email| email.as_str()))
        .bind(row.email.as_ref().map(|email| email.key()))
        .bind(row.password_hash.as_deref())
        .bind(row.full_name.as_deref())
        .bind(row.role.name())
        .bind(row.at)
        .bind(row.at)
        .execute(&mut *transaction)
        .await;
        inserted.map_err(taken_or_store)?;
        audit(&mut transaction, event).await?;
        let user = require_user(&mut transaction, row.id).await?;
        transaction.commit().await?;
        Ok(user)
    }

    pub(in crate::store) async fn find_user(&self, id: Uuid) -> Result<Option<User>, AccessError> {
        find(&mut *self.readers.acquire().await?, id).await
    }

    pub(in crate::store) async fn find_login(&self, name: &str) -> Result<Option<StoredLogin>, AccessError> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            ", u.password_hash FROM users u \
             WHERE (u.username_key = ?1 OR u.email_key = ?1) AND u.deleted_at IS NULL"
        );
        let row = sqlx::query(sql).bind(name.to_ascii_lowercase()).fetch_optional(&self.readers).await?;
        row.map(|row| {
            let password_hash: Option<String> = row.try_get("password_hash")?;
            Ok(StoredLogin { user: decode::user(&row)?, password_hash: password_hash.map(Into::into) })
        })
        .transpose()
    }

    pub(in crate::store) async fn list_users(&self, after: Option<Uuid>, limit: u32) -> Result<Vec<User>, AccessError> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            " FROM users u WHERE u.deleted_at IS NULL AND u.id > ? ORDER BY u.id LIMIT ?"
        );
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = sqlx::query(sql).bind(after).bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(decode::user).collect()
    }

    pub(in crate::store) async fn set_role(
        &self,
        id: Uuid,
        role: Role,
        event: &AuditEvent,
    ) -> Result<User, AccessError> {
        let mut transaction = self.write().await?;
        let before = require_user(&mut transaction, id).await?;
        if before.role == Role::Admin && role != Role::Admin && !another_admin(&mut transaction, id).await? {
            return Err(AccessError::LastAdmin);
        }
        sqlx::query("UPDATE users SET role = ?, updated_at = ?, version = version + 1 WHERE id = ?")
            .bind(role.name())
            .bind(now_us())
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        announce(&mut transaction, ChangeKind::User, id).await?;
        audit(&mut transaction, event).await?;
        let user = require_user(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(user)
    }

    pub(in crate::store) async fn replace_password_hash(
        &self,
        id: Uuid,
        old: &str,
        new: &str,
    ) -> Result<(), AccessError> {
        sqlx::query("UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?")
            .bind(new)
            .bind(id.to_string())
            .bind(old)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    pub(in crate::store) async fn reset_password(
        &self,
        id: Uuid,
        hash: &str,
        event: &AuditEvent,
    ) -> Result<Vec<Uuid>, AccessError> {
        let mut transaction = self.write().await?;
        require_user(&mut transaction, id).await?;
        sqlx::query("UPDATE users SET password_hash = ?, updated_at = ?, version = version + 1 WHERE id = ?")
            .bind(hash)
            .bind(now_us())
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let revoked = revoke_live(&mut transaction, id, "password_reset").await?;
        audit(&mut transaction, event).await?;
        transaction.commit().await?;
        Ok(revoked)
    }
}

pub(super) async fn find(connection: &mut SqliteConnection, id: Uuid) -> Result<Option<User>, AccessError> {
    let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = ? AND u.deleted_at IS NULL");
    let row = sqlx::query(sql).bind(id.to_string()).fetch_optional(connection).await?;
    row.as_ref().map(decode::user).transpose()
}

async fn require_user(connection: &mut SqliteConnection, id: Uuid) -> Result<User, AccessError> {
    find(connection, id).await?.ok_or(AccessError::NotFound { what: "user" })
}

async fn another_admin(connection: &mut SqliteConnection, but: Uuid) -> Result<bool, AccessError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin' AND is_active = 1 AND deleted_at IS NULL \
               AND id <> ?)";
    Ok(sqlx::query_scalar(sql).bind(but.to_string()).fetch_one(connection).await?)
}

fn taken_or_store(error: sqlx::Error) -> AccessError {
    let violated = error.as_database_error().filter(|e| e.is_unique_violation());
    match violated.map(|e| e.message()) {
        Some(message) if message.contains("username_key") => AccessError::Taken { field: "username" },
        Some(message) if message.contains("email_key") => AccessError::Taken { field: "email" },
        _ => AccessError::Store(error),
    }
}
