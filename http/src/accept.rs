//! [`accept`]: takes connections until told to stop, whatever is spoken on them.
//!
//! There is room for so many, of which each client network has a share. A stop closes the listener at once and gives those that
//! are open until a deadline; then they are cut, and their number is logged.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    ConnectionCounts, Stopping, TrustedProxies,
    shares::{Share, Shares},
};

/// Bounds of [`accept`].
#[derive(Debug, Clone)]
pub struct AcceptSettings {
    /// Open connections at a time; further ones wait to be accepted.
    pub max_connections: usize,
    /// Of one client network (an IPv4 address, a /64 of IPv6), at most half of all; further ones are closed at once.
    pub max_connections_per_network: usize,
    /// Proxies, whose connections are those of many clients and are not counted by network.
    pub trusted_proxies: TrustedProxies,
    /// Counts those that are open, and those that are closed at once.
    pub counts: ConnectionCounts,
    /// Time that open connections have to end after a stop.
    pub shutdown_deadline: Duration,
}

/// Gives each connection of `listener` to what `answer` makes, until `shutdown` resolves; returns when the last one has ended, or
/// at the deadline. Whoever answers holds the share for as long as the connection is open, and the stop for as long as it is to be
/// waited for.
pub async fn accept<A, F>(
    listener: TcpListener,
    settings: AcceptSettings,
    shutdown: impl Future<Output = ()>,
    answer: impl FnOnce(Stopping) -> A,
) where
    A: Fn(TcpStream, SocketAddr, Share) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (stop, stopping) = watch::channel(false);
    let answer = answer(Stopping::new(stopping));
    let (most, most_of_network) = (settings.max_connections, settings.max_connections_per_network);
    let shares = Shares::new(most, most_of_network, settings.trusted_proxies, settings.counts);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepting = async {
            let room = shares.room().await;
            (room, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (room, accepted) = accepting => match accepted {
                Ok((socket, peer)) => {
                    if let Some(share) = shares.take(peer.ip(), room) {
                        connections.spawn(answer(socket, peer, share));
                    }
                }
                Err(error) => pause_after_accept_error(&error).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    let _ = stop.send(true);
    // It holds the stop too.
    drop(answer);
    drain(connections, &stop, settings.shutdown_deadline).await;
}

/// Out of file descriptors and the like: trying again at once would spin.
async fn pause_after_accept_error(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn drain(mut connections: JoinSet<()>, stop: &watch::Sender<bool>, deadline: Duration) {
    let all_closed = async {
        while connections.join_next().await.is_some() {}
        // Whoever took a connection over holds a receiver.
        stop.closed().await;
    };
    if tokio::time::timeout(deadline, all_closed).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            taken_over = stop.receiver_count(),
            deadline_s = deadline.as_secs(),
            "closing connections at the deadline"
        );
        connections.shutdown().await;
    }
}
