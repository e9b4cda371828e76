//! Sessions and their refresh tokens.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::changes::{announce, audit};
use super::{Sqlite, decode, users};
use crate::store::{ChangeKind, NewSessionRow, Rotation, RotationRequest, User};
use crate::time::now_us;
use crate::{AccessError, Action, Actor, AuditEvent, Origin};

const HOUR_US: i64 = 3_600_000_000;

impl Sqlite {
    pub(in crate::store) async fn create_session(
        &self,
        row: &NewSessionRow,
        event: &AuditEvent,
    ) -> Result<(), AccessError> {
        let mut transaction = self.write().await?;
        sqlx::query(
            "INSERT INTO sessions (id, user_id, created_at, last_used_at, expires_at, ip, user_agent) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.id.to_string())
        .bind(row.user.to_string())
        .bind(row.at)
        .bind(row.at)
        .bind(row.expires_at)
        .bind(row.origin.ip_text())
        .bind(row.origin.user_agent.as_deref())
        .execute(&mut *transaction)
        .await?;
        add_token(&mut transaction, row.id, &row.token_hash, row.at).await?;
        audit(&mut transaction, event).await?;
        Ok(transaction.commit().await?)
    }

    pub(in crate::store) async fn rotate(
        &self,
        request: &RotationRequest,
        origin: &Origin,
    ) -> Result<Rotation, AccessError> {
        let mut transaction = self.write().await?;
        let sql = "SELECT t.used_at, s.id, s.user_id, s.expires_at, s.revoked_at FROM refresh_tokens t \
                   JOIN sessions s ON s.id = t.session_id WHERE t.token_hash = ?";
        let row = sqlx::query(sql).bind(&request.old_hash).fetch_optional(&mut *transaction).await?;
        let Some(token) = row.as_ref().map(Presented::from_row).transpose()? else { return Ok(Rotation::Refused) };
        if token.revoked_at.is_some() || token.expires_at <= request.at {
            return Ok(Rotation::Refused);
        }
        if token.used_at.is_some() {
            end_family(&mut transaction, &token, origin).await?;
            transaction.commit().await?;
            return Ok(Rotation::Reused { session: token.session });
        }
        let user = users::find(&mut transaction, token.user).await?.filter(|user| user.is_active);
        let Some(user) = user else { return Ok(Rotation::Refused) };
        if let Some(retry_at) = hour_is_full(&mut transaction, &token, request).await? {
            return Ok(Rotation::TooMany { retry_at });
        }
        use_up(&mut transaction, &token, request, &user, origin).await?;
        transaction.commit().await?;
        Ok(Rotation::Rotated { session: token.session, user })
    }

    pub(in crate::store) async fn revoke_session(
        &self,
        id: Uuid,
        user: Uuid,
        event: &AuditEvent,
    ) -> Result<bool, AccessError> {
        let mut transaction = self.write().await?;
        let is_revoked = revoke_one(&mut transaction, id, user, "logout").await?;
        if is_revoked {
            audit(&mut transaction, event).await?;
        }
        transaction.commit().await?;
        Ok(is_revoked)
    }

    pub(in crate::store) async fn revoke_sessions_of(
        &self,
        user: Uuid,
        event: &AuditEvent,
    ) -> Result<Vec<Uuid>, AccessError> {
        let mut transaction = self.write().await?;
        let revoked = revoke_live(&mut transaction, user, "logout_all").await?;
        audit(&mut transaction, event).await?;
        transaction.commit().await?;
        Ok(revoked)
    }
}

/// A refresh token that was presented, with its session.
struct Presented {
    session: Uuid,
    user: Uuid,
    used_at: Option<i64>,
    expires_at: i64,
    revoked_at: Option<i64>,
}

impl Presented {
    fn from_row(row: &SqliteRow) -> Result<Self, AccessError> {
        Ok(Self {
            session: decode::id(row, "id")?,
            user: decode::id(row, "user_id")?,
            used_at: row.try_get("used_at")?,
            expires_at: row.try_get("expires_at")?,
            revoked_at: row.try_get("revoked_at")?,
        })
    }
}

/// Revokes every live session of a user and announces each; the caller commits.
pub(super) async fn revoke_live(
    connection: &mut SqliteConnection,
    user: Uuid,
    reason: &'static str,
) -> Result<Vec<Uuid>, AccessError> {
    let sql = "UPDATE sessions SET revoked_at = ?, revoked_reason = ? WHERE user_id = ? AND revoked_at IS NULL \
               RETURNING id";
    let rows = sqlx::query(sql).bind(now_us()).bind(reason).bind(user.to_string()).fetch_all(&mut *connection).await?;
    let revoked = rows.iter().map(|row| decode::id(row, "id")).collect::<Result<Vec<_>, _>>()?;
    for session in &revoked {
        announce(connection, ChangeKind::Session, *session).await?;
    }
    Ok(revoked)
}

async fn revoke_one(
    connection: &mut SqliteConnection,
    id: Uuid,
    user: Uuid,
    reason: &'static str,
) -> Result<bool, AccessError> {
    let sql = "UPDATE sessions SET revoked_at = ?, revoked_reason = ? WHERE id = ? AND user_id = ? \
               AND revoked_at IS NULL";
    let done = sqlx::query(sql)
        .bind(now_us())
        .bind(reason)
        .bind(id.to_string())
        .bind(user.to_string())
        .execute(&mut *connection)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    announce(connection, ChangeKind::Session, id).await?;
    Ok(true)
}

async fn end_family(connection: &mut SqliteConnection, token: &Presented, origin: &Origin) -> Result<(), AccessError> {
    revoke_one(connection, token.session, token.user, "refresh_reuse").await?;
    let event = AuditEvent::denied(Action::RefreshReuse, Some(token.user), origin)
        .with_details(serde_json::json!({"session": token.session}));
    audit(connection, &event).await
}

/// The write lock is held since before the token was read, so no other request can use it in between.
async fn use_up(
    connection: &mut SqliteConnection,
    token: &Presented,
    request: &RotationRequest,
    user: &User,
    origin: &Origin,
) -> Result<(), AccessError> {
    sqlx::query("UPDATE refresh_tokens SET used_at = ? WHERE token_hash = ? AND used_at IS NULL")
        .bind(request.at)
        .bind(&request.old_hash)
        .execute(&mut *connection)
        .await?;
    add_token(connection, token.session, &request.new_hash, request.at).await?;
    sqlx::query("UPDATE sessions SET last_used_at = ? WHERE id = ?")
        .bind(request.at)
        .bind(token.session.to_string())
        .execute(&mut *connection)
        .await?;
    let event = AuditEvent::success(Actor::User(user.id), Action::Refresh, token.session, origin);
    audit(connection, &event).await
}

/// When the session has used up its refreshes of the last hour: the time at which the oldest of them leaves it.
async fn hour_is_full(
    connection: &mut SqliteConnection,
    token: &Presented,
    request: &RotationRequest,
) -> Result<Option<i64>, AccessError> {
    let Some(per_hour) = request.per_hour else { return Ok(None) };
    let sql =
        "SELECT count(*) AS used, min(used_at) AS oldest FROM refresh_tokens WHERE session_id = ? AND used_at > ?";
    let row = sqlx::query(sql).bind(token.session.to_string()).bind(request.at - HOUR_US).fetch_one(connection).await?;
    let (used, oldest): (i64, Option<i64>) = (row.try_get("used")?, row.try_get("oldest")?);
    Ok((used >= i64::from(per_hour)).then(|| oldest.unwrap_or(request.at) + HOUR_US))
}

async fn add_token(connection: &mut SqliteConnection, session: Uuid, hash: &str, at: i64) -> Result<(), AccessError> {
    sqlx::query("INSERT INTO refresh_tokens (token_hash, session_id, issued_at) VALUES (?, ?, ?)")
        .bind(hash)
        .bind(session.to_string())
        .bind(at)
        .execute(connection)
        .await?;
    Ok(())
}
