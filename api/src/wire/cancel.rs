//! [`Sessions`]: those that are open, and how a client breaks its question off. The protocol has a connection of its own for that,
//! which names the session and a secret that the session was told. So there are fewer sessions than connections, of all clients and
//! of each client network: who has all that may be can still break off what they ask.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{MAX_CONNECTIONS_PER_NETWORK, refusal::Refusal};

/// Sessions at a time.
const MAX_SESSIONS: usize = 64;
/// Of one client network: what is left of its connections is for those that log in or break a question off.
const MAX_SESSIONS_PER_NETWORK: usize = MAX_CONNECTIONS_PER_NETWORK * 3 / 4;

/// The sessions that are open.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<HashMap<i32, Open>>,
    last: AtomicI32,
}

/// A session that is open.
struct Open {
    secret: i32,
    /// None of a trusted proxy, behind which are many clients.
    network: Option<IpAddr>,
    cancelled: Arc<Notify>,
}

/// The place of a session among them, until it is dropped.
pub(super) struct Registered {
    sessions: Arc<Sessions>,
    pub(super) number: i32,
    pub(super) secret: i32,
    cancelled: Arc<Notify>,
}

impl Sessions {
    /// A place for one more of this client network.
    ///
    /// # Errors
    /// When there are as many as may be, or as the network may have.
    pub(super) fn register(self: &Arc<Self>, network: Option<IpAddr>) -> Result<Registered, Refusal> {
        let full = |words: &str| Err(Refusal::new("53300", words));
        let mut open = self.open.lock();
        if open.len() >= MAX_SESSIONS {
            return full("there are as many sessions as may be: close one, or try again in a moment");
        }
        if network.is_some() && open.values().filter(|one| one.network == network).count() >= MAX_SESSIONS_PER_NETWORK {
            return full("your network has as many sessions as one may have: close one, or try again in a moment");
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (secret, cancelled) = (rand::random(), Arc::<Notify>::default());
        open.insert(number, Open { secret, network, cancelled: Arc::clone(&cancelled) });
        Ok(Registered { sessions: Arc::clone(self), number, secret, cancelled })
    }

    /// Breaks off what the session is asking at this moment, if the secret is its own. Nobody is told whether it was.
    pub(super) fn cancel(&self, number: i32, secret: i32) {
        if let Some(session) = self.open.lock().get(&number)
            && verify_slices_are_equal(&session.secret.to_be_bytes(), &secret.to_be_bytes()).is_ok()
        {
            session.cancelled.notify_waiters();
        }
    }
}

impl Registered {
    /// Waits until the client breaks off what is asked from here on.
    pub(super) async fn cancelled(&self) {
        self.cancelled.notified().await;
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.sessions.open.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn only_who_knows_the_secret_breaks_a_question_off_and_only_the_one_that_runs() {
        let sessions = Arc::<Sessions>::default();
        let (one, other) = (sessions.register(None).unwrap(), sessions.register(None).unwrap());
        sessions.cancel(one.number, one.secret);
        let mut waiting = Box::pin(one.cancelled());
        assert!((&mut waiting).now_or_never().is_none(), "what came before does not count");
        sessions.cancel(one.number, one.secret.wrapping_add(1));
        sessions.cancel(other.number, other.secret);
        assert!((&mut waiting).now_or_never().is_none());
        sessions.cancel(one.number, one.secret);
        assert!((&mut waiting).now_or_never().is_some());
        drop(waiting);
        drop((one, other));
        assert!(sessions.open.lock().is_empty());
    }

    #[test]
    fn there_are_so_many_sessions_and_one_that_ends_makes_room() {
        let sessions = Arc::<Sessions>::default();
        let mut open: Vec<_> = (0..MAX_SESSIONS).map(|_| sessions.register(None).unwrap()).collect();
        assert!(sessions.register(None).is_err());
        open.pop();
        assert!(sessions.register(None).is_ok());
    }

    #[test]
    fn a_network_has_its_part_of_the_sessions_and_others_have_theirs() {
        let sessions = Arc::<Sessions>::default();
        let network = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let mut open: Vec<_> = (0..MAX_SESSIONS_PER_NETWORK).map(|_| sessions.register(network(1)).unwrap()).collect();
        assert_eq!(sessions.register(network(1)).err().map(|refusal| refusal.sqlstate), Some("53300"));
        assert!(sessions.register(network(2)).is_ok() && sessions.register(None).is_ok());
        open.pop();
        assert!(sessions.register(network(1)).is_ok());
    }
}
