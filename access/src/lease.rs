//! [`Lease`]: the right of a connection that goes on when the request that opened it is answered, and the tickets by which
//! browsers open one.
//!
//! A request is judged once. A socket or a stream of events is judged again for as long as it is open: [`Access::renew`] says from
//! memory whether what opened it still holds, as soon as a request would be told.
//!
//! A browser cannot send a header when it opens one, and a token in an address ends up in logs. So it asks for a *ticket*
//! first: a secret that works once, for half a minute, and gives a lease that ends with the access token by which it was asked
//! for. Only its hash is stored.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::codes::{STREAM, new_token};
use crate::error::TokenFault;
use crate::secret::sha256_hex;
use crate::store::CodeUse;
use crate::time::now_us;
use crate::{Access, AccessError, Caller, CallerKind};

/// How long a ticket works.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);
/// 32 bytes in hex.
const TICKET_CHARS: usize = 64;

/// Who opened a connection, and until when.
#[derive(Debug, Clone)]
pub struct Lease {
    caller: Arc<Caller>,
    expires_at_us: Option<i64>,
    /// The key that signed the token; none behind an API key.
    kid: Option<String>,
}

impl Lease {
    pub(crate) fn new(caller: Arc<Caller>, expires_at_us: Option<i64>, kid: Option<String>) -> Self {
        Self { caller, expires_at_us, kid }
    }

    /// Who it is, with the role of the last [`Access::renew`].
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

/// What a ticket is bound to, as its row keeps it.
struct Bound {
    session: Uuid,
    expires_at_us: i64,
    kid: String,
}

impl Bound {
    /// The number of the ticket is in it too: of one purpose and address, one row is alive.
    fn to_address(&self, number: Uuid) -> String {
        format!("{number} {} {} {}", self.session, self.expires_at_us, self.kid)
    }

    fn from_address(address: &str) -> Option<Self> {
        let mut parts = address.splitn(4, ' ').skip(1);
        let (session, expires_at, kid) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { session: session.parse().ok()?, expires_at_us: expires_at.parse().ok()?, kid: kid.to_owned() })
    }
}

impl Access {
    /// Whether a lease still holds; its caller has the role then that its user has now. Asks no database.
    ///
    /// # Errors
    /// Why it does not: it has expired, or was revoked.
    pub fn renew(&self, lease: &mut Lease) -> Result<(), TokenFault> {
        if lease.expires_at_us.is_some_and(|end| end <= now_us()) {
            return Err(TokenFault::Expired);
        }
        let recent = &self.inner.recent;
        let is_revoked = match &lease.caller.kind {
            CallerKind::User { session } => recent.is_session_revoked(*session),
            CallerKind::ApiKey { key, .. } => recent.is_key_revoked(*key),
        };
        if is_revoked || lease.kid.as_deref().is_some_and(|kid| !self.inner.mint.knows(kid)) {
            return Err(TokenFault::Revoked);
        }
        lease.caller = self.as_of_now(&lease.caller)?;
        Ok(())
    }

    /// A ticket for whoever holds a lease by an access token.
    ///
    /// # Errors
    /// [`AccessError::NotFound`] when there is no session behind it (an API key); [`AccessError::Store`].
    pub async fn issue_ticket(&self, lease: &Lease) -> Result<SecretString, AccessError> {
        let session = lease.caller.require_session()?;
        let (Some(expires_at_us), Some(kid)) = (lease.expires_at_us, lease.kid.clone()) else {
            return Err(AccessError::NotFound { what: "session" });
        };
        let address = Bound { session, expires_at_us, kid }.to_address(Uuid::now_v7());
        let (ticket, row) = new_token(STREAM, lease.caller.id, &address, TICKET_LIFE)?;
        self.inner.store.create_code(&row).await?;
        Ok(ticket)
    }

    /// Uses a ticket up.
    ///
    /// # Errors
    /// [`AccessError::NotAuthenticated`] with the reason; [`AccessError::Store`].
    pub async fn lease_by_ticket(&self, ticket: &SecretString) -> Result<Lease, AccessError> {
        let refused = AccessError::NotAuthenticated;
        let text = ticket.expose_secret();
        if text.len() != TICKET_CHARS || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refused(TokenFault::Invalid));
        }
        let (store, hash) = (&self.inner.store, sha256_hex(text));
        // What is made up costs a look and no transaction.
        if store.find_token(STREAM, &hash).await?.is_none() {
            return Err(refused(TokenFault::Invalid));
        }
        let CodeUse::Accepted { user: Some(user), address } = store.use_token(STREAM, &hash).await? else {
            return Err(refused(TokenFault::Invalid));
        };
        let bound = Bound::from_address(&address).ok_or(refused(TokenFault::Invalid))?;
        let user = store.find_user(user).await?.filter(|user| user.is_active);
        let user = user.ok_or(refused(TokenFault::Revoked))?;
        // Another process may have ended it a moment ago.
        if store.find_session_start(bound.session, user.id).await?.is_none() {
            return Err(refused(TokenFault::Revoked));
        }
        let kind = CallerKind::User { session: bound.session };
        let caller = Caller { id: user.id, username: user.username.into(), role: user.role, kind };
        let mut lease = Lease::new(Arc::new(caller), Some(bound.expires_at_us), Some(bound.kid));
        self.renew(&mut lease).map_err(refused)?;
        Ok(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_ticket_is_bound_to_is_read_as_it_was_written() {
        let bound = Bound { session: Uuid::now_v7(), expires_at_us: 1_700_000_000_000_000, kid: "a key".to_owned() };
        let address = bound.to_address(Uuid::now_v7());
        assert!(address.len() <= 254, "the column of the address is that long: {address}");
        let read = Bound::from_address(&address).unwrap();
        assert_eq!((read.session, read.expires_at_us, read.kid), (bound.session, bound.expires_at_us, bound.kid));
        for bad in ["", "x", "x y 1 k", &format!("x {} y k", bound.session), &format!("x {} 1", bound.session)] {
            assert!(Bound::from_address(bad).is_none(), "{bad}");
        }
    }
}
