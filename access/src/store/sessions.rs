//! Sessions and their refresh tokens.

use uuid::Uuid;

use super::engine::{Row, Tx, args};
use super::proof::admit;
use super::users::find_in;
use super::{ChangeKind, NewSessionRow, Rotation, RotationRequest, Session, Store, User};
use crate::codes::MFA;
use crate::time::now_us;
use crate::{AccessError, Action, Actor, AuditEvent, Origin};

const HOUR_US: i64 = 3_600_000_000;

impl Store {
    /// Starts a session with its first refresh token, if what the log-in rests on still holds; answers the account as it
    /// is now.
    ///
    /// [`AccessError::InvalidCredentials`] or [`AccessError::CodeRefused`] when it does not.
    pub(crate) async fn create_session(&self, row: &NewSessionRow, event: &AuditEvent) -> Result<User, AccessError> {
        match self.try_create_session(row, event).await {
            Err(error) if error.is_deadlock() => self.try_create_session(row, event).await,
            result => result,
        }
    }

    async fn try_create_session(&self, row: &NewSessionRow, event: &AuditEvent) -> Result<User, AccessError> {
        let mut tx = self.database.write().await?;
        let user = admit(&mut tx, row.user, &row.proof).await?;
        let sql = "INSERT INTO sessions (id, user_id, created_at, last_used_at, expires_at, ip, user_agent) \
                   VALUES (?, ?, ?, ?, ?, ?, ?)";
        let (ip, agent) = (row.origin.ip_text(), row.origin.user_agent.clone());
        tx.execute(sql, args![row.id, row.user, row.at, row.at, row.expires_at, ip, agent]).await?;
        add_token(&mut tx, row.id, &row.token_hash, row.at).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(user)
    }

    /// Uses a refresh token and puts the next one in its place, or revokes the family when it was used before.
    pub(crate) async fn rotate(&self, request: &RotationRequest, origin: &Origin) -> Result<Rotation, AccessError> {
        let mut tx = self.database.write().await?;
        let sql = "SELECT t.used_at, s.id, s.user_id, s.expires_at, s.revoked_at FROM refresh_tokens t \
                   JOIN sessions s ON s.id = t.session_id WHERE t.token_hash = ?";
        let row = tx.row_locked(sql, args![&request.old_hash]).await?;
        let Some(token) = row.as_ref().map(Presented::from_row).transpose()? else { return Ok(Rotation::Refused) };
        if token.revoked_at.is_some() || token.expires_at <= request.at {
            return Ok(Rotation::Refused);
        }
        if token.used_at.is_some() {
            end_family(&mut tx, &token, origin).await?;
            tx.commit().await?;
            return Ok(Rotation::Reused { session: token.session });
        }
        // Not locked: whoever disables the account waits for this session and then revokes it.
        let user = find_in(&mut tx, token.user).await?.filter(|user| user.is_active);
        let Some(user) = user else { return Ok(Rotation::Refused) };
        if let Some(retry_at) = hour_is_full(&mut tx, &token, request).await? {
            return Ok(Rotation::TooMany { session: token.session, retry_at });
        }
        use_up(&mut tx, &token, request, &user, origin).await?;
        tx.commit().await?;
        Ok(Rotation::Rotated { session: token.session, user: Box::new(user), ends_at: token.expires_at })
    }

    /// The live sessions of a user, newest first.
    pub(crate) async fn list_sessions(&self, user: Uuid) -> Result<Vec<Session>, AccessError> {
        let sql = "SELECT id, user_id, created_at, last_used_at, expires_at, ip, user_agent FROM sessions \
                   WHERE user_id = ? AND revoked_at IS NULL AND expires_at > ? ORDER BY id DESC";
        self.database.rows(sql, args![user, now_us()]).await?.iter().map(session).collect()
    }

    /// Revokes one session of a user; false when there is no such live session.
    pub(crate) async fn revoke_session(&self, id: Uuid, user: Uuid, event: &AuditEvent) -> Result<bool, AccessError> {
        let mut tx = self.database.write().await?;
        let is_revoked = revoke_one(&mut tx, id, user, "logout").await?;
        if is_revoked {
            tx.audit(event);
        }
        tx.commit().await?;
        Ok(is_revoked)
    }

    /// Revokes every live session of a user; answers them.
    pub(crate) async fn revoke_sessions_of(&self, user: Uuid, event: &AuditEvent) -> Result<Vec<Uuid>, AccessError> {
        let mut tx = self.database.write().await?;
        // A log-in under way holds this lock too: its session is there before, and ends, or its ticket is gone.
        tx.row_locked("SELECT id FROM users WHERE id = ?", args![user]).await?;
        let revoked = revoke_live(&mut tx, user, "logout_all", None).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(revoked)
    }

    /// When a live session of a user began.
    pub(crate) async fn find_session_start(&self, id: Uuid, user: Uuid) -> Result<Option<i64>, AccessError> {
        let sql = "SELECT created_at FROM sessions WHERE id = ? AND user_id = ? AND revoked_at IS NULL";
        self.database.row(sql, args![id, user]).await?.map(|row| row.int("created_at")).transpose()
    }

    /// Whether the user has logged in from this address before.
    pub(crate) async fn knows_address(&self, user: Uuid, ip: &str) -> Result<bool, AccessError> {
        let sql = "SELECT id FROM sessions WHERE user_id = ? AND ip = ? LIMIT 1";
        Ok(self.database.row(sql, args![user, ip]).await?.is_some())
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
    fn from_row(row: &Row) -> Result<Self, AccessError> {
        Ok(Self {
            session: row.id("id")?,
            user: row.id("user_id")?,
            used_at: row.int_or_null("used_at")?,
            expires_at: row.int("expires_at")?,
            revoked_at: row.int_or_null("revoked_at")?,
        })
    }
}

pub(super) fn session(row: &Row) -> Result<Session, AccessError> {
    Ok(Session {
        id: row.id("id")?,
        user: row.id("user_id")?,
        created_at_us: row.int("created_at")?,
        last_used_at_us: row.int("last_used_at")?,
        expires_at_us: row.int("expires_at")?,
        ip: row.text_or_null("ip")?,
        user_agent: row.text_or_null("user_agent")?,
    })
}

/// Revokes every live session of a user but one, and announces each; the caller commits. Log-ins that wait for their second
/// step end too: what they had proved was proved to the old state.
pub(super) async fn revoke_live(
    tx: &mut Tx,
    user: Uuid,
    reason: &'static str,
    keep: Option<Uuid>,
) -> Result<Vec<Uuid>, AccessError> {
    let sql = "SELECT id FROM sessions WHERE user_id = ? AND revoked_at IS NULL AND id <> ? ORDER BY id";
    let kept = keep.map(|id| id.to_string()).unwrap_or_default();
    let live = tx.rows_locked(sql, args![user, kept]).await?;
    let live = live.iter().map(|row| row.id("id")).collect::<Result<Vec<_>, _>>()?;
    for session in &live {
        revoke_one(tx, *session, user, reason).await?;
    }
    let sql = "UPDATE one_time_codes SET used_at = ? WHERE user_id = ? AND purpose = ? AND used_at IS NULL";
    tx.execute(sql, args![now_us(), user, MFA]).await?;
    Ok(live)
}

async fn revoke_one(tx: &mut Tx, id: Uuid, user: Uuid, reason: &'static str) -> Result<bool, AccessError> {
    let sql = "UPDATE sessions SET revoked_at = ?, revoked_reason = ? WHERE id = ? AND user_id = ? \
               AND revoked_at IS NULL";
    if tx.execute(sql, args![now_us(), reason, id, user]).await? == 0 {
        return Ok(false);
    }
    tx.announce(ChangeKind::Session, id);
    Ok(true)
}

async fn end_family(tx: &mut Tx, token: &Presented, origin: &Origin) -> Result<(), AccessError> {
    revoke_one(tx, token.session, token.user, "refresh_reuse").await?;
    let event = AuditEvent::denied(Action::RefreshReuse, Some(token.user), origin)
        .with_details(serde_json::json!({"session": token.session}));
    tx.audit(&event);
    Ok(())
}

/// The token's row is locked since it was read, so no other request can use it in between.
async fn use_up(
    tx: &mut Tx,
    token: &Presented,
    request: &RotationRequest,
    user: &User,
    origin: &Origin,
) -> Result<(), AccessError> {
    let sql = "UPDATE refresh_tokens SET used_at = ? WHERE token_hash = ? AND used_at IS NULL";
    tx.execute(sql, args![request.at, &request.old_hash]).await?;
    add_token(tx, token.session, &request.new_hash, request.at).await?;
    tx.execute("UPDATE sessions SET last_used_at = ? WHERE id = ?", args![request.at, token.session]).await?;
    tx.audit(&AuditEvent::success(Actor::User(user.id), Action::Refresh, token.session, origin));
    Ok(())
}

/// When the session has used up its refreshes of the last hour: the time at which the oldest of them leaves it.
async fn hour_is_full(tx: &mut Tx, token: &Presented, request: &RotationRequest) -> Result<Option<i64>, AccessError> {
    let Some(per_hour) = request.per_hour else { return Ok(None) };
    let sql =
        "SELECT count(*) AS used, min(used_at) AS oldest FROM refresh_tokens WHERE session_id = ? AND used_at > ?";
    let rows = tx.rows(sql, args![token.session, request.at - HOUR_US]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (used, oldest) = (row.int("used")?, row.int_or_null("oldest")?);
    Ok((used >= i64::from(per_hour)).then(|| oldest.unwrap_or(request.at) + HOUR_US))
}

async fn add_token(tx: &mut Tx, session: Uuid, hash: &str, at: i64) -> Result<(), AccessError> {
    let sql = "INSERT INTO refresh_tokens (token_hash, session_id, issued_at) VALUES (?, ?, ?)";
    tx.execute(sql, args![hash, session, at]).await?;
    Ok(())
}
