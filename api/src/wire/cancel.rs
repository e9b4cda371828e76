//! [`Sessions`]: those that are open, and how a client breaks its question off. The protocol has a connection of its own for that,
//! which names the session and a secret that the session was told.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Sessions at a time. Fewer than connections, so that there is room for those that break a question off.
const MAX_SESSIONS: usize = 64;

/// The sessions that are open.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<HashMap<i32, (i32, Arc<Notify>)>>,
    last: AtomicI32,
}

/// The place of a session among them, until it is dropped.
pub(super) struct Registered {
    sessions: Arc<Sessions>,
    pub(super) number: i32,
    pub(super) secret: i32,
    cancelled: Arc<Notify>,
}

impl Sessions {
    /// A place for one more; none when there are as many as may be.
    pub(super) fn register(self: &Arc<Self>) -> Option<Registered> {
        let mut open = self.open.lock();
        if open.len() >= MAX_SESSIONS {
            return None;
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (secret, cancelled) = (rand::random(), Arc::<Notify>::default());
        open.insert(number, (secret, Arc::clone(&cancelled)));
        Some(Registered { sessions: Arc::clone(self), number, secret, cancelled })
    }

    /// Breaks off what the session is asking at this moment, if the secret is its own. Nobody is told whether it was.
    pub(super) fn cancel(&self, number: i32, secret: i32) {
        if let Some((own, cancelled)) = self.open.lock().get(&number)
            && verify_slices_are_equal(&own.to_be_bytes(), &secret.to_be_bytes()).is_ok()
        {
            cancelled.notify_waiters();
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
        let (one, other) = (sessions.register().unwrap(), sessions.register().unwrap());
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
        let mut open: Vec<_> = (0..MAX_SESSIONS).map(|_| sessions.register().unwrap()).collect();
        assert!(sessions.register().is_none());
        open.pop();
        assert!(sessions.register().is_some());
    }
}
