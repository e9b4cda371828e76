//! Users: adding, finding, listing, roles and states.

use uuid::Uuid;

use super::engine::{Row, Tx, Value, args};
use super::proof::require_session;
use super::sessions::revoke_live;
use super::{ChangeKind, NewUserRow, Store, StoredLogin, User, UserFilter};
use crate::fields::is_plain;
use crate::time::now_us;
use crate::{AccessError, AuditEvent, Role};

/// Every column of `users` that [`user`] reads. A constant part of each query, so that they stay alike.
macro_rules! user_columns {
    () => {
        "u.id, u.username, u.email, u.nickname, u.full_name, u.role, u.avatar_url, u.is_active, u.is_verified, \
         u.phone, u.consent_status, u.consent_version, u.created_at, u.updated_at, u.version"
    };
}

impl Store {
    /// The places of the statement of [`Store::find_users`].
    pub(crate) const USERS_AT_ONCE: usize = 20;

    /// Adds a user. [`AccessError::Taken`] when the name, address or number belongs to somebody.
    pub(crate) async fn create_user(&self, row: &NewUserRow, event: &AuditEvent) -> Result<User, AccessError> {
        let mut tx = self.database.write().await?;
        let user = insert(&mut tx, row).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(user)
    }

    /// A user who is not deleted.
    pub(crate) async fn find_user(&self, id: Uuid) -> Result<Option<User>, AccessError> {
        let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = ? AND u.deleted_at IS NULL");
        self.database.row(sql, args![id]).await?.as_ref().map(user).transpose()
    }

    /// Those of at most [`Store::USERS_AT_ONCE`] ids that are users, each with whether it is deleted and only waits for the
    /// purge.
    pub(crate) async fn find_users(&self, ids: &[Uuid]) -> Result<Vec<(User, bool)>, AccessError> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            ", u.deleted_at FROM users u WHERE u.id IN (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        );
        let Some(last) = ids.last() else { return Ok(Vec::new()) };
        // One statement for any number of ids: what is left of the places has the last one again.
        let values = (0..Self::USERS_AT_ONCE).map(|place| Value::from(*ids.get(place).unwrap_or(last)));
        let rows = self.database.rows(sql, values.collect()).await?;
        rows.iter().map(|row| Ok((user(row)?, row.int_or_null("deleted_at")?.is_some()))).collect()
    }

    /// A user by username or address, with the password hash.
    pub(crate) async fn find_login(&self, name: &str) -> Result<Option<StoredLogin>, AccessError> {
        // MySQL does not see spaces at an end.
        if name.contains(char::is_whitespace) || !is_plain(name) {
            return Ok(None);
        }
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            ", u.password_hash FROM users u WHERE (u.username_key = ? OR u.email_key = ?) AND u.deleted_at IS NULL"
        );
        let key = name.to_ascii_lowercase();
        self.database.row(sql, args![&key, &key]).await?.as_ref().map(login).transpose()
    }

    /// A user by id, with the password hash.
    pub(crate) async fn find_login_of(&self, id: Uuid) -> Result<Option<StoredLogin>, AccessError> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            ", u.password_hash FROM users u WHERE u.id = ? AND u.deleted_at IS NULL"
        );
        self.database.row(sql, args![id]).await?.as_ref().map(login).transpose()
    }

    /// A user by verified telephone number.
    pub(crate) async fn find_user_by_phone(&self, phone: &str) -> Result<Option<User>, AccessError> {
        let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.phone = ? AND u.deleted_at IS NULL");
        self.database.row(sql, args![phone]).await?.as_ref().map(user).transpose()
    }

    /// Users in order of creation, after the given one.
    pub(crate) async fn list_users(&self, filter: &UserFilter, limit: u32) -> Result<Vec<User>, AccessError> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            " FROM users u WHERE u.deleted_at IS NULL AND u.id > ? \
             AND (? = '' OR u.username_key LIKE ? ESCAPE '!' OR u.email_key LIKE ? ESCAPE '!') \
             AND (? = '' OR u.role = ?) AND (? = -1 OR u.is_active = ?) ORDER BY u.id LIMIT ?"
        );
        if !filter.search.as_deref().is_none_or(is_plain) {
            return Ok(Vec::new());
        }
        let after = filter.after.map(|id| id.to_string()).unwrap_or_default();
        let search = filter.search.as_deref().unwrap_or_default().to_ascii_lowercase();
        let pattern = like_pattern(&search);
        let role = filter.role.map(Role::name).unwrap_or_default();
        let active = filter.is_active.map_or(-1, i64::from);
        let values = args![after, &search, &pattern, &pattern, role, role, active, active, limit];
        self.database.rows(sql, values).await?.iter().map(user).collect()
    }

    /// Gives a role. [`AccessError::LastAdmin`] when no active admin would be left.
    pub(crate) async fn set_role(&self, id: Uuid, role: Role, event: &AuditEvent) -> Result<User, AccessError> {
        let mut tx = self.database.write().await?;
        keep_an_admin(&mut tx, id, |_| role != Role::Admin).await?;
        let sql = "UPDATE users SET role = ?, updated_at = ?, version = version + 1 WHERE id = ?";
        tx.execute(sql, args![role.name(), now_us(), id]).await?;
        finish(tx, id, event).await
    }

    /// Marks an account as deleted, revokes its sessions and keys; a purge removes it later. Answers the account as it
    /// was, with its picture, and the sessions. An owner does it in the name of a session;
    /// [`AccessError::NotAuthenticated`] when that has ended.
    pub(crate) async fn delete_user(
        &self,
        id: Uuid,
        session: Option<Uuid>,
        event: &AuditEvent,
    ) -> Result<(User, Vec<Uuid>), AccessError> {
        match self.try_delete_user(id, session, event).await {
            Err(error) if error.is_deadlock() => self.try_delete_user(id, session, event).await,
            result => result,
        }
    }

    async fn try_delete_user(
        &self,
        id: Uuid,
        session: Option<Uuid>,
        event: &AuditEvent,
    ) -> Result<(User, Vec<Uuid>), AccessError> {
        let mut tx = self.database.write().await?;
        let user = keep_an_admin(&mut tx, id, |_| true).await?;
        if let Some(session) = session {
            require_session(&mut tx, id, session).await?;
        }
        let now = now_us();
        let sql = "UPDATE users SET deleted_at = ?, is_active = 0, avatar_url = NULL, updated_at = ?, \
                   version = version + 1 WHERE id = ?";
        tx.execute(sql, args![now, now, id]).await?;
        let revoked = revoke_live(&mut tx, id, "deleted", None).await?;
        tx.execute("UPDATE api_keys SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL", args![now, id])
            .await?;
        tx.announce(ChangeKind::User, id);
        tx.audit(event);
        tx.commit().await?;
        Ok((user, revoked))
    }

    /// Removes accounts that were deleted before a time, with everything that hangs on them, a hundred in a transaction;
    /// answers their ids.
    pub(crate) async fn purge_users(&self, before: i64) -> Result<Vec<Uuid>, AccessError> {
        let sql = "SELECT id FROM users WHERE deleted_at IS NOT NULL AND deleted_at < ? ORDER BY id LIMIT 100";
        let due = self.database.rows(sql, args![before]).await?;
        let ids = due.iter().map(|row| row.id("id")).collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Ok(ids);
        }
        let mut tx = self.database.write().await?;
        for id in &ids {
            // Another process may have removed it meanwhile, and written its row.
            if tx.execute("DELETE FROM users WHERE id = ? AND deleted_at IS NOT NULL", args![*id]).await? > 0 {
                tx.audit(&AuditEvent::success(
                    crate::Actor::System,
                    crate::Action::UserPurge,
                    *id,
                    &Default::default(),
                ));
            }
        }
        tx.commit().await?;
        Ok(ids)
    }
}

pub(super) async fn insert(tx: &mut Tx, row: &NewUserRow) -> Result<User, AccessError> {
    let sql = "INSERT INTO users (id, username, username_key, email, email_key, phone, password_hash, full_name, role, \
               is_verified, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let values = args![
        row.id,
        row.username.as_str(),
        row.username.key(),
        row.email.as_ref().map(|email| email.as_str()),
        row.email.as_ref().map(|email| email.key()),
        row.phone.as_deref(),
        row.password_hash.as_deref(),
        row.full_name.as_deref(),
        row.role.name(),
        row.is_verified,
        row.at,
        row.at,
    ];
    tx.try_execute(sql, values).await.map_err(taken_or_store)?;
    lock(tx, row.id).await
}

/// The user, locked until the transaction ends.
pub(super) async fn lock(tx: &mut Tx, id: Uuid) -> Result<User, AccessError> {
    let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = ? AND u.deleted_at IS NULL");
    let row = tx.row_locked(sql, args![id]).await?;
    row.as_ref().map(user).transpose()?.ok_or(AccessError::NotFound { what: "user" })
}

/// The user as the transaction sees it, not locked.
pub(super) async fn find_in(tx: &mut Tx, id: Uuid) -> Result<Option<User>, AccessError> {
    let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = ? AND u.deleted_at IS NULL");
    tx.rows(sql, args![id]).await?.first().map(user).transpose()
}

/// Announces and audits a change of a user, commits, and answers the user as it is now.
pub(super) async fn finish(mut tx: Tx, id: Uuid, event: &AuditEvent) -> Result<User, AccessError> {
    let user = lock(&mut tx, id).await?;
    tx.announce(ChangeKind::User, id);
    tx.audit(event);
    tx.commit().await?;
    Ok(user)
}

/// Refuses a change after which no active admin would be left; answers the user, locked. The admins are locked in one
/// order before anybody is changed, so that two of them cannot demote each other at the same time.
pub(super) async fn keep_an_admin(
    tx: &mut Tx,
    id: Uuid,
    takes_it: impl Fn(&User) -> bool,
) -> Result<User, AccessError> {
    let sql = "SELECT id FROM users WHERE role = 'admin' AND is_active = 1 AND deleted_at IS NULL ORDER BY id";
    let admins = tx.rows_locked(sql, args![]).await?;
    let admins = admins.iter().map(|row| row.id("id")).collect::<Result<Vec<_>, _>>()?;
    let user = lock(tx, id).await?;
    if admins == [id] && takes_it(&user) {
        return Err(AccessError::LastAdmin);
    }
    Ok(user)
}

/// Enables or disables a locked user; answers the sessions that were revoked.
pub(super) async fn put_state(tx: &mut Tx, id: Uuid, is_active: bool) -> Result<Vec<Uuid>, AccessError> {
    let sql = "UPDATE users SET is_active = ?, updated_at = ?, version = version + 1 WHERE id = ?";
    tx.execute(sql, args![is_active, now_us(), id]).await?;
    if is_active { Ok(Vec::new()) } else { revoke_live(tx, id, "deactivated", None).await }
}

pub(super) fn taken_or_store(error: sqlx::Error) -> AccessError {
    let violated = error.as_database_error().filter(|e| e.is_unique_violation());
    // SQLite names the column, PostgreSQL the constraint, MySQL the index; each has the column's name in it.
    match violated.map(|e| format!("{} {}", e.message(), e.constraint().unwrap_or_default())) {
        Some(text) if text.contains("username_key") => AccessError::Taken { field: "username" },
        Some(text) if text.contains("email_key") => AccessError::Taken { field: "email" },
        Some(text) if text.contains("phone") => AccessError::Taken { field: "phone" },
        _ => AccessError::Store(error),
    }
}

pub(super) fn user(row: &Row) -> Result<User, AccessError> {
    Ok(User {
        id: row.id("id")?,
        username: row.text("username")?,
        email: row.text_or_null("email")?,
        nickname: row.text_or_null("nickname")?,
        full_name: row.text_or_null("full_name")?,
        role: role(row)?,
        avatar_url: row.text_or_null("avatar_url")?,
        is_active: row.truth("is_active")?,
        is_verified: row.truth("is_verified")?,
        phone: row.text_or_null("phone")?,
        consent_status: row.text("consent_status")?,
        consent_version: row.text_or_null("consent_version")?,
        created_at_us: row.int("created_at")?,
        updated_at_us: row.int("updated_at")?,
        version: row.int("version")?,
    })
}

pub(super) fn role(row: &Row) -> Result<Role, AccessError> {
    let text = row.text("role")?;
    text.parse().map_err(|_| AccessError::Corrupt { column: "users.role", found: text })
}

fn login(row: &Row) -> Result<StoredLogin, AccessError> {
    let password_hash = row.text_or_null("password_hash")?;
    Ok(StoredLogin { user: user(row)?, password_hash: password_hash.map(Into::into) })
}

/// What a person types is looked for as it is.
fn like_pattern(search: &str) -> String {
    let escaped = search.replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{escaped}%")
}
