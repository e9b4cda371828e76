//! Log-ins at other providers, and the rule that no account is left without a way in.

use uuid::Uuid;

use super::engine::{Row, Tx, args};
use super::proof::{is_live, require_session};
use super::sessions::revoke_live;
use super::users::{insert, lock};
use super::{Identity, NewUserRow, Store};
use crate::fields::is_plain;
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

/// Which ways in beside a password lead anywhere, as this instance is set up. One that does not is no way in, whatever an
/// account has of it.
#[derive(Debug, Clone)]
pub(crate) struct UsableWays {
    /// Text messages are sent.
    pub by_phone: bool,
    /// The public address is one that passkeys work at.
    pub by_passkey: bool,
    /// The issuers of the providers that are configured.
    pub by_issuers: Vec<String>,
}

/// A way in that is about to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayIn<'a> {
    Phone,
    /// Every log-in at the provider of this name.
    Provider(&'a str),
    Passkey(Uuid),
}

impl Store {
    /// The log-in that an issuer names so.
    pub(crate) async fn find_identity(&self, issuer: &str, subject: &str) -> Result<Option<Identity>, AccessError> {
        let sql = "SELECT id, user_id, provider, issuer, subject, email, created_at FROM identities \
                   WHERE issuer = ? AND subject = ?";
        self.database.row(sql, args![issuer, subject]).await?.as_ref().map(identity).transpose()
    }

    /// The log-ins of a user, oldest first.
    pub(crate) async fn list_identities(&self, user: Uuid, limit: u32) -> Result<Vec<Identity>, AccessError> {
        let sql = "SELECT id, user_id, provider, issuer, subject, email, created_at FROM identities \
                   WHERE user_id = ? ORDER BY id LIMIT ?";
        self.database.rows(sql, args![user, limit]).await?.iter().map(identity).collect()
    }

    /// Adds a log-in to an account, in the name of a session of its owner. [`AccessError::Taken`] when it belongs to
    /// one already, [`AccessError::CodeRefused`] when the session has ended.
    pub(crate) async fn link_identity(
        &self,
        new: &Identity,
        session: Uuid,
        event: &AuditEvent,
    ) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        // Whoever ends all sessions of the user holds this lock too, so it happens either before or after.
        lock(&mut tx, new.user).await?;
        if !is_live(&mut tx, new.user, session).await? {
            return Err(AccessError::CodeRefused);
        }
        insert_identity(&mut tx, new).await?;
        tx.audit(event);
        tx.commit().await
    }

    /// Adds an account together with the log-in that it came by.
    pub(crate) async fn create_user_with_identity(
        &self,
        row: &NewUserRow,
        new: &Identity,
        event: &AuditEvent,
    ) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        insert(&mut tx, row).await?;
        insert_identity(&mut tx, new).await?;
        tx.audit(event);
        tx.commit().await
    }

    /// Removes the log-ins of one provider and revokes every session but one; none when there was no log-in, else what
    /// was revoked. [`AccessError::LastWayIn`] when nothing else that is usable would be left.
    pub(crate) async fn unlink_identity(
        &self,
        user: Uuid,
        provider: &str,
        keep: Option<Uuid>,
        usable: &UsableWays,
        event: &AuditEvent,
    ) -> Result<Option<Vec<Uuid>>, AccessError> {
        if !is_plain(provider) {
            return Ok(None);
        }
        let mut tx = self.database.write().await?;
        lock(&mut tx, user).await?;
        if let Some(session) = keep {
            require_session(&mut tx, user, session).await?;
        }
        let sql = "SELECT id FROM identities WHERE user_id = ? AND provider = ?";
        if tx.rows(sql, args![user, provider]).await?.is_empty() {
            return Ok(None);
        }
        keep_a_way_in(&mut tx, user, WayIn::Provider(provider), usable).await?;
        tx.execute("DELETE FROM identities WHERE user_id = ? AND provider = ?", args![user, provider]).await?;
        let revoked = revoke_live(&mut tx, user, "unlinked", keep).await?;
        tx.audit(event);
        tx.commit().await?;
        Ok(Some(revoked))
    }

    /// Notes that an identity was used.
    pub(crate) async fn touch_identity(&self, id: Uuid) -> Result<(), AccessError> {
        let mut tx = self.database.write().await?;
        tx.execute("UPDATE identities SET last_used_at = ? WHERE id = ?", args![now_us(), id]).await?;
        tx.commit().await
    }
}

/// The user is locked by the caller, so that two ways cannot be removed at the same time.
pub(super) async fn keep_a_way_in(
    tx: &mut Tx,
    user: Uuid,
    without: WayIn<'_>,
    usable: &UsableWays,
) -> Result<(), AccessError> {
    let sql = "SELECT password_hash, phone FROM users WHERE id = ?";
    let rows = tx.rows(sql, args![user]).await?;
    let row = rows.first().ok_or(AccessError::NotFound { what: "user" })?;
    let has_password = row.text_or_null("password_hash")?.is_some();
    let has_phone = usable.by_phone && row.text_or_null("phone")?.is_some() && without != WayIn::Phone;
    let sql = "SELECT DISTINCT provider, issuer FROM identities WHERE user_id = ?";
    let mut has_identity = false;
    for row in tx.rows(sql, args![user]).await? {
        let (provider, issuer) = (row.text("provider")?, row.text("issuer")?);
        // A person is known by the issuer, whatever the provider was called when the log-in was added.
        has_identity |= without != WayIn::Provider(&provider) && usable.by_issuers.contains(&issuer);
    }
    // One that does not check who its user is needs another factor.
    let sql = "SELECT id FROM passkeys WHERE user_id = ? AND is_verifying = 1";
    let passkeys = tx.rows(sql, args![user]).await?;
    let passkeys = passkeys.iter().map(|row| row.id("id")).collect::<Result<Vec<_>, _>>()?;
    let has_passkey = usable.by_passkey && passkeys.into_iter().any(|passkey| without != WayIn::Passkey(passkey));
    if has_password || has_phone || has_identity || has_passkey { Ok(()) } else { Err(AccessError::LastWayIn) }
}

async fn insert_identity(tx: &mut Tx, new: &Identity) -> Result<(), AccessError> {
    let sql = "INSERT INTO identities (id, user_id, provider, issuer, subject, email, created_at, last_used_at) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let email = new.email.as_deref();
    let values =
        args![new.id, new.user, &new.provider, &new.issuer, &new.subject, email, new.created_at_us, new.created_at_us];
    tx.try_execute(sql, values).await.map(drop).map_err(|error| match error.as_database_error() {
        Some(cause) if cause.is_unique_violation() => AccessError::Taken { field: "identity" },
        _ => AccessError::Store(error),
    })
}

fn identity(row: &Row) -> Result<Identity, AccessError> {
    Ok(Identity {
        id: row.id("id")?,
        user: row.id("user_id")?,
        provider: row.text("provider")?,
        issuer: row.text("issuer")?,
        subject: row.text("subject")?,
        email: row.text_or_null("email")?,
        created_at_us: row.int("created_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Proof;
    use crate::store::testing::{PASSKEY, USER, change, every_way, new_session, store};
    use crate::{Action, Actor, Origin};

    fn event() -> AuditEvent {
        AuditEvent::success(Actor::System, Action::OauthUnlink, Uuid::nil(), &Origin::default())
    }

    fn usable(by_phone: bool, by_passkey: bool, issuer: Option<&str>) -> UsableWays {
        UsableWays { by_phone, by_passkey, by_issuers: issuer.map(str::to_owned).into_iter().collect() }
    }

    #[tokio::test]
    async fn security_51_a_way_in_that_leads_nowhere_here_does_not_count() {
        const ISSUER: Option<&str> = Some("https://id.example.org");
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let (user, passkey): (Uuid, Uuid) = (USER.parse().unwrap(), PASSKEY.parse().unwrap());
        let session = new_session(Proof::New);
        store.create_session(&session, &event()).await.unwrap();
        change(&store, "UPDATE users SET password_hash = NULL").await;
        let without_phone = async |usable: &UsableWays| {
            let removed = store.remove_phone(user, Some(session.id), usable, &event()).await;
            removed.map(drop)
        };
        let without_provider = async |usable: &UsableWays| {
            let removed = store.unlink_identity(user, "test", Some(session.id), usable, &event()).await;
            removed.map(|revoked| assert!(revoked.is_some()))
        };
        let without_passkey = async |usable: &UsableWays| {
            let removed = store.remove_passkey(passkey, user, session.id, None, usable, &event()).await;
            removed.map(|revoked| assert!(revoked.is_some()))
        };

        // The account has a number, a log-in at a provider and a passkey: each is the last that is usable somewhere.
        for (what, refused) in [
            ("number", without_phone(&usable(true, false, None)).await),
            ("number, another issuer", without_phone(&usable(true, false, Some("https://new.example.org"))).await),
            ("provider", without_provider(&usable(false, false, ISSUER)).await),
            ("passkey", without_passkey(&usable(false, true, None)).await),
            ("number, nothing is usable", without_phone(&usable(false, false, None)).await),
        ] {
            assert!(matches!(refused, Err(AccessError::LastWayIn)), "{what}: {refused:?}");
        }
        without_phone(&usable(false, false, ISSUER)).await.unwrap();
        without_provider(&usable(false, true, ISSUER)).await.unwrap();
        let refused = without_passkey(&every_way()).await;
        assert!(matches!(refused, Err(AccessError::LastWayIn)), "{refused:?}");
    }
}
