//! [`Shares`]: how many connections each client network has open.
//!
//! The server as a whole has room for so many connections. One network gets a part of that, half of it at most, so that what
//! one client opens never keeps the others out. Proxies that are trusted are not counted: behind them are many clients.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{ConnectionCounts, TrustedProxies, client_ip::limit_key};

/// Room for connections, shared by the networks that they come from.
pub(crate) struct Shares {
    room: Arc<Semaphore>,
    most: usize,
    exempt: TrustedProxies,
    /// Networks with open connections only, so at most as many as there is room for.
    open: Mutex<HashMap<IpAddr, usize>>,
    counts: ConnectionCounts,
}

impl Shares {
    /// Room for `total` connections, of which one network has at most `most`; `counts` has those that are open and refused.
    pub(crate) fn new(total: usize, most: usize, exempt: TrustedProxies, counts: ConnectionCounts) -> Arc<Self> {
        let most = most.min(total / 2).max(1);
        Arc::new(Self { room: Arc::new(Semaphore::new(total.max(1))), most, exempt, open: Mutex::default(), counts })
    }

    /// Waits until there is room for a connection of anybody.
    pub(crate) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed, so there is always one.
        Arc::clone(&self.room).acquire_owned().await.ok()
    }

    /// Gives `room` to a connection from `peer`; none when its network has its share already.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr, room: Option<OwnedSemaphorePermit>) -> Option<Share> {
        let network = (!self.exempt.trusts(peer)).then(|| limit_key(peer));
        if let Some(network) = network {
            let mut open = self.open.lock();
            let count = open.entry(network).or_insert(0);
            if *count >= self.most {
                self.counts.note_refused();
                return None;
            }
            *count += 1;
        }
        self.counts.note_open();
        Some(Share { shares: Arc::clone(self), network, _room: room })
    }
}

/// The place of one connection, until it is dropped.
pub struct Share {
    shares: Arc<Shares>,
    network: Option<IpAddr>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// The client network whose share it is a part of; none of a trusted proxy.
    pub fn network(&self) -> Option<IpAddr> {
        self.network
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.counts.note_closed();
        let Some(network) = self.network else { return };
        let mut open = self.shares.open.lock();
        if let Some(count) = open.get_mut(&network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_share_and_others_have_theirs() {
        let counts = ConnectionCounts::default();
        let shares = Shares::new(10, 2, "10.0.0.0/8".parse().unwrap(), counts.clone());
        let take = |peer: &str| shares.take(peer.parse().unwrap(), None);
        let held = [take("192.0.2.1"), take("192.0.2.1"), take("2001:db8::1"), take("2001:db8::2:1")];
        assert!(held.iter().all(Option::is_some));
        assert!(
            take("192.0.2.1").is_none() && take("::ffff:192.0.2.1").is_none(),
            "one address, however it is written"
        );
        assert!(take("2001:db8::3").is_none(), "a /64 is one network");
        assert!(take("192.0.2.2").is_some() && take("2001:db8:0:1::1").is_some());
        let proxied: Vec<_> = (0..5).map(|_| take("10.1.2.3")).collect();
        assert!(proxied.iter().all(Option::is_some), "behind a trusted proxy are many clients");
        assert_eq!(counts.num_open(), 9, "those that were refused are not open");
        drop((held, proxied));
        assert_eq!(counts.num_open(), 0);
        assert!(take("192.0.2.1").is_some());
        assert!(shares.open.lock().is_empty(), "nothing is kept of networks that have no connection");
    }

    #[test]
    fn one_network_never_has_more_than_half_of_the_room() {
        let shares = Shares::new(4, 1000, TrustedProxies::default(), ConnectionCounts::default());
        let held: Vec<_> = (0..4).map(|_| shares.take("192.0.2.1".parse().unwrap(), None)).collect();
        assert_eq!(held.iter().flatten().count(), 2);
    }
}
