//! Sessions and their refresh tokens.

use uuid::Uuid;

use super::engine::{Row, Tx, args};
use super::proof::admit;
use super::users::find_in;
use super::{ChangeKind, Granted, NewSessionRow, Rotation, RotationRequest, Session, Store, User};
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
        tx.later(sql, args![row.id, row.user, row.at, row.at, row.expires_at, ip, agent]);
        add_token(&mut tx, row.id, &row.token_hash, row.at);
        tx.audit(event);
        tx.commit().await?;
        Ok(user)
    }

    /// Uses a refresh token and puts the next one in its place, or revokes the family when it was used before.
    ///
    /// `make` begins what the new session gets, as soon as it is known whose it is; that goes on beside the rest of the
    /// transaction, which does not wait for it. What was made is answered after the commit, and never without it.
    pub(crate) async fn rotate<F: Future>(
        &self,
        request: &RotationRequest,
        origin: &Origin,
        make: impl FnOnce(Granted) -> F,
    ) -> Result<Rotation<F::Output>, AccessError> {
        let mut tx = self.database.write().await?;
        let since = request.at - HOUR_US;
        let row = tx.row_locked(PRESENTED, args![since, since, &request.old_hash]).await?;
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
        if let Some(retry_at) = token.hour_is_full(request) {
            return Ok(Rotation::TooMany { session: token.session, retry_at });
        }
        let granted = Granted { session: token.session, user: Box::new(user), ends_at: token.expires_at };
        // The first is begun, and the second is not kept waiting by it.
        let (made, written) = tokio::join!(make(granted.clone()), use_up(tx, &token, request, origin));
        written?;
        Ok(Rotation::Rotated { granted, made })
    }

    /// The live sessions of a user, newest first.
    pub(crate) async fn list_sessions(&self, user: Uuid, limit: u32) -> Result<Vec<Session>, AccessError> {
        let sql = "SELECT id, user_id, created_at, last_used_at, expires_at, ip, user_agent FROM sessions \
                   WHERE user_id = ? AND revoked_at IS NULL AND expires_at > ? ORDER BY id DESC LIMIT ?";
        self.database.rows(sql, args![user, now_us(), limit]).await?.iter().map(session).collect()
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

/// A token with its session, and how often that was refreshed since a time. A server may count before it gets the lock, which
/// is as good: who refreshed the session meanwhile used this token.
const PRESENTED: &str = "SELECT t.used_at, s.id, s.user_id, s.expires_at, s.revoked_at, \
     (SELECT count(*) FROM refresh_tokens h WHERE h.session_id = s.id AND h.used_at > ?) AS used, \
     (SELECT min(h.used_at) FROM refresh_tokens h WHERE h.session_id = s.id AND h.used_at > ?) AS oldest \
     FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id WHERE t.token_hash = ?";

/// A refresh token that was presented, with its session.
struct Presented {
    session: Uuid,
    user: Uuid,
    used_at: Option<i64>,
    expires_at: i64,
    revoked_at: Option<i64>,
    /// Refreshes of the last hour, and when the first of them was.
    used: i64,
    oldest: Option<i64>,
}

impl Presented {
    fn from_row(row: &Row) -> Result<Self, AccessError> {
        Ok(Self {
            session: row.id("id")?,
            user: row.id("user_id")?,
            used_at: row.int_or_null("used_at")?,
            expires_at: row.int("expires_at")?,
            revoked_at: row.int_or_null("revoked_at")?,
            used: row.int("used")?,
            oldest: row.int_or_null("oldest")?,
        })
    }

    /// When the session has used up its refreshes of the last hour: the time at which the oldest of them leaves it.
    fn hour_is_full(&self, request: &RotationRequest) -> Option<i64> {
        let is_full = request.per_hour.is_some_and(|per_hour| self.used >= i64::from(per_hour));
        is_full.then(|| self.oldest.unwrap_or(request.at) + HOUR_US)
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
async fn use_up(mut tx: Tx, token: &Presented, request: &RotationRequest, origin: &Origin) -> Result<(), AccessError> {
    let sql = "UPDATE refresh_tokens SET used_at = ? WHERE token_hash = ? AND used_at IS NULL";
    tx.later(sql, args![request.at, &request.old_hash]);
    add_token(&mut tx, token.session, &request.new_hash, request.at);
    tx.later("UPDATE sessions SET last_used_at = ? WHERE id = ?", args![request.at, token.session]);
    tx.audit(&AuditEvent::success(Actor::User(token.user), Action::Refresh, token.session, origin));
    tx.commit().await
}

fn add_token(tx: &mut Tx, session: Uuid, hash: &str, at: i64) {
    let sql = "INSERT INTO refresh_tokens (token_hash, session_id, issued_at) VALUES (?, ?, ?)";
    tx.later(sql, args![hash, session, at]);
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::sync::{Notify, oneshot};
    use tokio::time::timeout;

    use super::*;
    use crate::store::Proof;
    use crate::store::testing::{USER, change, store};

    const DEADLINE: Duration = Duration::from_secs(30);

    /// A log-in whose first refresh token has this hash.
    async fn log_in(store: &Store, token: &str) -> Uuid {
        let (id, at) = (Uuid::now_v7(), now_us());
        let user: Uuid = USER.parse().unwrap();
        let (token_hash, expires_at) = (token.to_owned(), at + HOUR_US);
        let row = NewSessionRow { id, user, token_hash, at, expires_at, origin: Origin::default(), proof: Proof::New };
        let event = AuditEvent::success(Actor::User(user), Action::Login, user, &Origin::default());
        store.create_session(&row, &event).await.unwrap();
        id
    }

    fn request(old: &str, new: &str) -> RotationRequest {
        RotationRequest { old_hash: old.to_owned(), new_hash: new.to_owned(), at: now_us(), per_hour: Some(20) }
    }

    /// A rotation for which nothing is made.
    async fn rotate(store: &Store, old: &str, new: &str) -> Rotation<()> {
        store.rotate(&request(old, new), &Origin::default(), |_| ready(())).await.unwrap()
    }

    /// Two rotations. The second begins when something is being made for the first, which is ready when the second came back.
    async fn rotate_beside(store: &Store, slow: [&str; 2], other: [&str; 2]) -> (Rotation<bool>, Rotation<()>) {
        let (begun, (release, released)) = (Notify::new(), oneshot::channel::<()>());
        let (asked, origin) = (request(slow[0], slow[1]), Origin::default());
        let slow = store.rotate(&asked, &origin, |_| {
            begun.notify_one();
            async move { released.await.is_ok() }
        });
        let other = async {
            begun.notified().await;
            let other = rotate(store, other[0], other[1]).await;
            release.send(()).unwrap();
            other
        };
        let (slow, other) = timeout(DEADLINE, async { tokio::join!(slow, other) }).await.unwrap();
        (slow.unwrap(), other)
    }

    #[tokio::test]
    async fn what_is_made_for_a_session_holds_no_other_one_up_however_long_it_takes() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        log_in(&store, "first").await;
        log_in(&store, "second").await;
        let (slow, other) = rotate_beside(&store, ["first", "first's child"], ["second", "second's child"]).await;
        assert!(matches!(slow, Rotation::Rotated { made: true, .. }));
        assert!(matches!(other, Rotation::Rotated { .. }));
    }

    #[tokio::test]
    async fn security_24_a_second_refresh_gets_no_child_while_the_first_still_waits_for_its_token() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let session = log_in(&store, "first").await;
        let (slow, second) = rotate_beside(&store, ["first", "child"], ["first", "another child"]).await;
        assert!(matches!(slow, Rotation::Rotated { granted, made: true } if granted.session == session));
        assert!(matches!(second, Rotation::Reused { session: ended } if ended == session));
        // Used again, the token ended its session, and the child that there was with it.
        for token in ["child", "another child"] {
            assert!(matches!(rotate(&store, token, "grandchild").await, Rotation::Refused), "{token}");
        }
    }

    #[tokio::test]
    async fn security_23_a_refresh_that_is_not_committed_gives_nothing_away_and_uses_nothing_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let session = log_in(&store, "first").await;
        // The audit row cannot be written: what was made by then must not get out.
        change(&store, "UPDATE audit_head SET id = 2 WHERE id = 1").await;
        let mut made = 0;
        let make = |_: Granted| {
            made += 1;
            ready(())
        };
        let failed = store.rotate(&request("first", "lost"), &Origin::default(), make).await;
        assert!(matches!(failed, Err(AccessError::Corrupt { column: "audit_head", .. })));
        assert_eq!(made, 1, "it was begun before the commit");
        change(&store, "UPDATE audit_head SET id = 1 WHERE id = 2").await;
        assert!(matches!(rotate(&store, "lost", "nothing").await, Rotation::Refused));
        let again = rotate(&store, "first", "child").await;
        assert!(matches!(again, Rotation::Rotated { granted, .. } if granted.session == session));
        assert_eq!(store.verify_chain().await.unwrap().broken, None);
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_while_the_token_is_made_leaves_the_refresh_done() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let session = log_in(&store, "first").await;
        // Given up as soon as the rest is written: what is made never ends.
        let (old, origin) = (request("first", "child"), Origin::default());
        let given_up = store.rotate(&old, &origin, |_| pending::<()>());
        let is_written = async {
            while store.audit_rows(&Default::default(), 1).await.unwrap()[0].action != Action::Refresh.name() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = given_up => panic!("it waits for what never ends"),
            written = timeout(DEADLINE, is_written) => written.unwrap(),
        }
        assert!(matches!(rotate(&store, "child", "grandchild").await, Rotation::Rotated { .. }));
        assert!(matches!(rotate(&store, "first", "x").await, Rotation::Reused { session: ended } if ended == session));
    }

    #[tokio::test]
    async fn of_more_sessions_than_are_asked_for_the_newest_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let mut sessions = Vec::new();
        for token in ["first", "second", "third"] {
            sessions.insert(0, log_in(&store, token).await);
        }
        let listed = async |limit| {
            let listed = store.list_sessions(USER.parse().unwrap(), limit).await.unwrap();
            listed.into_iter().map(|session| session.id).collect::<Vec<_>>()
        };
        assert_eq!((listed(2).await, listed(3).await), (sessions[..2].to_vec(), sessions.clone()));
    }

    #[tokio::test]
    async fn refreshes_of_the_last_hour_count_and_older_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        log_in(&store, "0").await;
        let start = now_us();
        let at = |old: &str, new: &str, at: i64| RotationRequest { at, per_hour: Some(2), ..request(old, new) };
        let refresh = async |old: &str, new: &str, time: i64| {
            store.rotate(&at(old, new, time), &Origin::default(), |_| ready(())).await.unwrap()
        };
        assert!(matches!(refresh("0", "1", start - 2).await, Rotation::Rotated { .. }));
        assert!(matches!(refresh("1", "2", start - 1).await, Rotation::Rotated { .. }));
        let full = refresh("2", "3", start).await;
        assert!(matches!(full, Rotation::TooMany { retry_at, .. } if retry_at == start - 2 + HOUR_US));
        change(&store, "UPDATE refresh_tokens SET used_at = used_at - 3600000000 WHERE token_hash = '0'").await;
        assert!(matches!(refresh("2", "3", start).await, Rotation::Rotated { .. }));
    }
}
