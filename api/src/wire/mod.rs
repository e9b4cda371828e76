//! The PostgreSQL port: questions of `POST /query` over the protocol of PostgreSQL, for `psql`, Grafana, Metabase and drivers.
//!
//! - **Read-only, one `SELECT` at a time.** Each question is a request of `POST /query` that goes through the application
//!   (`question`), so whatever holds there holds here. What clients say beside questions (`BEGIN`, `SET`, `SHOW`) has no effect
//!   (`statement`).
//! - **Who asks** logs in with the name or address of an account and one of its API keys as the password, which travels under TLS,
//!   or to an address that only this machine reaches (`login`). The key is looked at again each second.
//! - **Bounded**: connections and sessions, also of one client network (`cancel`); messages before they are read (`channel`); prepared
//!   statements and portals (`extended`); answers that are kept (`question`); the time for a log-in, for taking an answer, and
//!   between questions (`session`).
//! - A question ends when its client leaves or breaks it off (`cancel`). A stop lets those that run finish.
//!
//! The protocol is written out here, in version 3.0 (the simple and the extended protocol, without parameters), because what is
//! read before a log-in must be bounded and no message may make it panic: docs/ARCHITECTURE.md, Choices that surprise.

mod cancel;
mod channel;
mod extended;
mod login;
mod question;
mod refusal;
mod session;
mod statement;
mod value;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use karat_access::Access;
use karat_http::{
    AcceptSettings, ApiError, ConnectionCounts, Limits, Overdue, ServeSettings, Share, Stopping, TlsAcceptor,
    TrustedProxies, accept,
};
use poem::endpoint::BoxEndpoint;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout},
};

use self::{
    cancel::Sessions,
    channel::Channel,
    login::{Begun, LOG_IN_WITHIN, LOOK_UP_WITHIN, LoggedIn},
    question::{Asker, MAX_ANSWERS_KIB, agent},
    refusal::Trouble,
    session::Session,
};
use crate::{ApiSettings, auth::AuthSettings, live::guard::Guard};

/// Connections at a time, those included that have not logged in and those that break a question off.
const MAX_CONNECTIONS: usize = 256;
/// Of one client network.
const MAX_CONNECTIONS_PER_NETWORK: usize = 32;
/// How often a session looks whether its key still holds.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The name of the protocol in TLS.
const PROTOCOL: &[u8] = b"postgresql";

/// The port, bound and ready to be served.
pub struct Port {
    listener: TcpListener,
    access: Access,
    limits: Option<Arc<Limits>>,
    tls: Option<TlsAcceptor>,
    host: Option<String>,
    trusted_proxies: TrustedProxies,
    /// Those of the server, so that its figures have these connections too.
    counts: ConnectionCounts,
    shutdown_deadline: Duration,
}

impl Port {
    /// Listens on `address`, with the certificate of the server.
    ///
    /// # Errors
    /// When the address cannot be listened on, or others reach it and there is no certificate.
    pub fn bind(address: SocketAddr, access: Access, api: &ApiSettings, serving: &ServeSettings) -> io::Result<Self> {
        if serving.tls.is_none() && !address.ip().is_loopback() {
            let words = "API keys would travel openly: name a certificate with `server.tls_certificate`, or listen on an \
                         address that only this machine reaches, such as `127.0.0.1:5432`";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, words));
        }
        // What bounds made-up keys is counted in this process.
        let auth = AuthSettings { redis: None, ..api.auth.clone() };
        Ok(Self {
            listener: TcpListener::bind(address)?,
            access,
            limits: auth.limits().map_err(|error: ApiError| io::Error::other(error.to_string()))?,
            tls: serving.tls.as_ref().map(|tls| tls.acceptor_of(PROTOCOL)),
            host: api.harden.allowed_hosts.first().cloned(),
            trusted_proxies: api.harden.trusted_proxies.clone(),
            counts: serving.counts.clone(),
            shutdown_deadline: serving.shutdown_deadline,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers questions by `app` until `shutdown` resolves, then lets those that run finish until the deadline of the server.
    ///
    /// # Errors
    /// Only when the listener cannot be used at all; errors of single connections end those connections.
    pub async fn serve(self, app: BoxEndpoint<'static>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let local = listener.local_addr()?;
        tracing::info!(address = %local, "PostgreSQL clients are answered");
        let settings = AcceptSettings {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_network: MAX_CONNECTIONS_PER_NETWORK,
            trusted_proxies: self.trusted_proxies,
            counts: self.counts.clone(),
            shutdown_deadline: self.shutdown_deadline,
        };
        let door = Arc::new(Door {
            app: Arc::new(app),
            access: self.access,
            limits: self.limits,
            needs_tls: !local.ip().is_loopback(),
            tls: self.tls,
            host: self.host,
            local,
            sessions: Arc::default(),
            counts: self.counts,
            room: Arc::new(Semaphore::new(MAX_ANSWERS_KIB)),
        });
        let answer = |stopping: Stopping| {
            move |socket, peer, share| Arc::clone(&door).answer(socket, peer, share, stopping.clone())
        };
        accept(listener, settings, shutdown, answer).await;
        Ok(())
    }
}

/// What every connection works with.
struct Door {
    app: Arc<BoxEndpoint<'static>>,
    access: Access,
    limits: Option<Arc<Limits>>,
    tls: Option<TlsAcceptor>,
    /// Whether others are on the way from a client to here.
    needs_tls: bool,
    host: Option<String>,
    local: SocketAddr,
    sessions: Arc<Sessions>,
    counts: ConnectionCounts,
    /// For the answers that sessions keep, in KiB.
    room: Arc<Semaphore>,
}

impl Door {
    async fn answer(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, share: Share, mut stopping: Stopping) {
        // The share is held for as long as the connection is open.
        let network = share.network();
        // Answers are written whole; waiting to fill packets only adds delay.
        let _ = socket.set_nodelay(true);
        let guarded = stopping.clone();
        let opened = tokio::select! {
            opened = timeout(LOG_IN_WITHIN, self.open(socket, peer, network, guarded)) => opened,
            () = stopping.stopped() => return,
        };
        match opened {
            Ok(Some(session)) => {
                if let Some(overdue) = session.run().await {
                    self.counts.note_overdue(overdue);
                }
            }
            Ok(None) => {}
            Err(_) => {
                self.counts.note_overdue(Overdue::Head);
                tracing::debug!(%peer, "connection ended: its log-in was overdue");
            }
        }
        drop(share);
    }

    /// The session that a connection becomes, if it becomes one.
    async fn open(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        network: Option<IpAddr>,
        stopping: Stopping,
    ) -> Option<Session> {
        let looked_up = Instant::now() + LOOK_UP_WITHIN;
        let (mut channel, parameters, is_secure) = match login::begin(Channel::new(socket), self.tls.as_ref()).await {
            Ok(Begun::Session { channel, parameters, is_secure }) => (channel, parameters, is_secure),
            Ok(Begun::Cancel { number, secret }) => {
                self.sessions.cancel(number, secret);
                return None;
            }
            Err((channel, broken)) => {
                if let Some(channel) = channel {
                    end(channel, broken.into()).await;
                }
                return None;
            }
        };
        let logged_in = login::log_in(&mut channel, &parameters, self, peer.ip(), is_secure, looked_up).await;
        let LoggedIn { lease, key, facts } = match logged_in {
            Ok(logged_in) => logged_in,
            Err(trouble) => {
                end(channel, trouble).await;
                return None;
            }
        };
        let registered = match self.sessions.register(network) {
            Ok(registered) => registered,
            Err(refusal) => {
                end(channel, refusal.into()).await;
                return None;
            }
        };
        login::welcome(&mut channel, &facts, &registered);
        let asker = Asker {
            app: Arc::clone(&self.app),
            room: Arc::clone(&self.room),
            key,
            agent: agent(&facts.application),
            host: self.host.clone(),
            local: self.local,
            peer,
            is_secure,
        };
        let guard = Guard::new(self.access.clone(), lease, stopping, LOOK_EVERY);
        Some(Session::new(channel, guard, asker, facts, registered))
    }
}

/// Says why a connection ends, and ends it.
async fn end(mut channel: Channel, trouble: Trouble) {
    let Some(last_words) = trouble.last_words() else { return };
    last_words.write_last(channel.out());
    if channel.send().await.is_ok() {
        channel.close().await;
    }
}
