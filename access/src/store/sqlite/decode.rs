//! Columns to types. A value that does not fit is [`AccessError::Corrupt`], never a panic.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::store::User;
use crate::{AccessError, Role, Scopes};

/// Every column of `users` that [`user`] reads. A constant part of each query, so that they stay alike.
macro_rules! user_columns {
    () => {
        "u.id, u.username, u.email, u.nickname, u.full_name, u.role, u.avatar_url, u.is_active, u.is_verified, \
         u.created_at, u.updated_at, u.version"
    };
}
pub(super) use user_columns;

pub(super) fn user(row: &SqliteRow) -> Result<User, AccessError> {
    Ok(User {
        id: id(row, "id")?,
        username: row.try_get("username")?,
        email: row.try_get("email")?,
        nickname: row.try_get("nickname")?,
        full_name: row.try_get("full_name")?,
        role: role(row)?,
        avatar_url: row.try_get("avatar_url")?,
        is_active: row.try_get("is_active")?,
        is_verified: row.try_get("is_verified")?,
        created_at_us: row.try_get("created_at")?,
        updated_at_us: row.try_get("updated_at")?,
        version: row.try_get("version")?,
    })
}

pub(super) fn id(row: &SqliteRow, column: &'static str) -> Result<Uuid, AccessError> {
    let text: String = row.try_get(column)?;
    Uuid::parse_str(&text).map_err(|_| AccessError::Corrupt { column, found: text })
}

pub(super) fn role(row: &SqliteRow) -> Result<Role, AccessError> {
    let text: String = row.try_get("role")?;
    text.parse().map_err(|_| AccessError::Corrupt { column: "users.role", found: text })
}

/// Scopes are kept as their texts with spaces between.
pub(super) fn scopes(row: &SqliteRow) -> Result<Scopes, AccessError> {
    let text: String = row.try_get("scopes")?;
    Scopes::parse(text.split_whitespace()).map_err(|_| AccessError::Corrupt { column: "api_keys.scopes", found: text })
}
