//! What a log-in or a change of the own account rests on, looked at again in the transaction that acts on it.
//!
//! Proving who one is takes a while: a password waits for its turn, another provider is asked. A new password, a log-in
//! that was removed or a log-out in between ends every session, and what came of the old proof would be one more.

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::User;
use super::engine::{Tx, args};
use super::users::lock;
use crate::codes::MFA;
use crate::time::now_us;
use crate::{AccessError, TokenFault};

/// What was proved.
pub(crate) enum Proof {
    /// Nothing had to be: the account was made just now.
    New,
    /// The password with this hash.
    Password(SecretString),
    /// The log-in at another provider.
    Identity(Uuid),
    /// The telephone number, in E.164.
    Phone(String),
    /// The passkey, by somebody whom it had checked: both factors.
    Passkey(Uuid),
    /// Both factors; the second under the ticket with this hash, which is used up.
    Ticket(String),
}

impl Proof {
    fn refusal(&self) -> AccessError {
        match self {
            Self::New | Self::Password(_) => AccessError::InvalidCredentials,
            Self::Identity(_) | Self::Phone(_) | Self::Passkey(_) | Self::Ticket(_) => AccessError::CodeRefused,
        }
    }
}

/// The account, locked, if it can be entered and is still what was proved.
///
/// [`AccessError::InvalidCredentials`] or [`AccessError::CodeRefused`], by the proof, when it is not.
pub(super) async fn admit(tx: &mut Tx, id: Uuid, proof: &Proof) -> Result<User, AccessError> {
    let user = match lock(tx, id).await {
        Err(AccessError::NotFound { .. }) => return Err(proof.refusal()),
        user => user?,
    };
    let holds = match proof {
        Proof::New => true,
        Proof::Password(hash) => {
            let sql = "SELECT id FROM users WHERE id = ? AND password_hash = ?";
            !tx.rows(sql, args![id, hash.expose_secret()]).await?.is_empty()
        }
        Proof::Identity(identity) => {
            let sql = "SELECT id FROM identities WHERE id = ? AND user_id = ?";
            !tx.rows(sql, args![*identity, id]).await?.is_empty()
        }
        Proof::Phone(number) => user.phone.as_ref() == Some(number),
        Proof::Passkey(passkey) => {
            let sql = "SELECT id FROM passkeys WHERE id = ? AND user_id = ?";
            !tx.rows(sql, args![*passkey, id]).await?.is_empty()
        }
        Proof::Ticket(hash) => use_ticket(tx, id, hash).await?,
    };
    if holds && user.is_active { Ok(user) } else { Err(proof.refusal()) }
}

async fn use_ticket(tx: &mut Tx, user: Uuid, hash: &str) -> Result<bool, AccessError> {
    let sql = "UPDATE one_time_codes SET used_at = ? WHERE code_hash = ? AND purpose = ? AND user_id = ? \
               AND used_at IS NULL AND expires_at > ?";
    let now = now_us();
    Ok(tx.execute(sql, args![now, hash, MFA, user, now]).await? > 0)
}

/// Whether a session still lives; if so, it does until the transaction ends. The user is locked by the caller.
pub(super) async fn is_live(tx: &mut Tx, user: Uuid, session: Uuid) -> Result<bool, AccessError> {
    let sql = "SELECT id FROM sessions WHERE id = ? AND user_id = ? AND revoked_at IS NULL AND expires_at > ?";
    Ok(tx.row_locked(sql, args![session, user, now_us()]).await?.is_some())
}

/// Refuses what is done in the name of a session that has ended meanwhile: who ended it may have had to throw somebody
/// out. The user is locked by the caller.
pub(super) async fn require_session(tx: &mut Tx, user: Uuid, session: Uuid) -> Result<(), AccessError> {
    if is_live(tx, user, session).await? { Ok(()) } else { Err(AccessError::NotAuthenticated(TokenFault::Revoked)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{IDENTITY, PASSKEY, USER, change, new_session, store};
    use crate::store::{NewCodeRow, Store};
    use crate::{Action, Actor, AuditEvent, Origin};

    fn event() -> AuditEvent {
        AuditEvent::success(Actor::System, Action::Login, Uuid::nil(), &Origin::default())
    }

    async fn enter(store: &Store, proof: Proof) -> Result<User, AccessError> {
        store.create_session(&new_session(proof), &event()).await
    }

    async fn ticket(store: &Store, proof: Proof) -> Result<String, AccessError> {
        let (id, at) = (Uuid::now_v7(), now_us());
        let user: Uuid = USER.parse().unwrap();
        let row = NewCodeRow {
            id,
            purpose: MFA,
            user: Some(user),
            address: id.to_string(),
            code_hash: id.to_string(),
            tries: 1,
            at,
            expires_at: at + 1_000_000_000,
        };
        store.create_ticket(&row, user, &proof).await?;
        Ok(row.code_hash)
    }

    fn proofs() -> [(Proof, &'static str); 4] {
        [
            (Proof::Password("right".to_owned().into()), "UPDATE users SET password_hash = 'another'"),
            (Proof::Identity(IDENTITY.parse().unwrap()), "DELETE FROM identities"),
            (Proof::Phone("+34600123456".to_owned()), "UPDATE users SET phone = '+34600123457'"),
            (Proof::Passkey(PASSKEY.parse().unwrap()), "DELETE FROM passkeys"),
        ]
    }

    #[tokio::test]
    async fn security_26_a_log_in_under_way_comes_to_nothing_when_what_it_rests_on_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        for (proof, _) in proofs() {
            assert_eq!(enter(&store, proof).await.unwrap().username, "maria");
        }
        let first = ticket(&store, Proof::Phone("+34600123456".to_owned())).await.unwrap();
        enter(&store, Proof::Ticket(first.clone())).await.unwrap();
        let again = enter(&store, Proof::Ticket(first)).await;
        assert!(matches!(again, Err(AccessError::CodeRefused)), "a ticket works once: {again:?}");
        let before = store.list_sessions(USER.parse().unwrap(), 10).await.unwrap().len();
        assert_eq!(before, 5);

        for (proof, end) in proofs() {
            change(&store, end).await;
            let refused = enter(&store, proof).await;
            assert!(matches!(refused, Err(AccessError::InvalidCredentials | AccessError::CodeRefused)), "{refused:?}");
        }
        // Nor does it come to a second step.
        for (proof, _) in proofs() {
            let refused = ticket(&store, proof).await;
            assert!(matches!(refused, Err(AccessError::InvalidCredentials | AccessError::CodeRefused)), "{refused:?}");
        }
        assert_eq!(store.list_sessions(USER.parse().unwrap(), 10).await.unwrap().len(), before);
    }

    #[tokio::test]
    async fn security_26_a_log_in_under_way_does_not_enter_an_account_that_was_disabled() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let issued = ticket(&store, Proof::Phone("+34600123456".to_owned())).await.unwrap();
        change(&store, "UPDATE users SET is_active = 0").await;
        for (proof, _) in proofs() {
            assert!(enter(&store, proof).await.is_err());
        }
        assert!(
            enter(&store, Proof::New).await.is_err() && enter(&store, Proof::Ticket(issued.clone())).await.is_err()
        );
        // A refusal uses nothing up.
        change(&store, "UPDATE users SET is_active = 1").await;
        enter(&store, Proof::Ticket(issued)).await.unwrap();
    }
}
