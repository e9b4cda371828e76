//! [`serve`]: accepts connections and answers them until told to stop.
//!
//! The framework's own server has no deadlines, so connections are driven here. What a client may take its time for is bounded
//! on every connection: its first head (the handshake of TLS included), the silence between requests, each body
//! ([`pace`](crate::pace)) and the taking of answers ([`arrival`](crate::arrival)); so is the number of connections, of
//! which one client network has a share. A stop lets running requests finish until a deadline, and what took a connection
//! over ([`Stopping`]).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use poem::http::Version;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Body, Endpoint, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::accept::{AcceptSettings, accept};
use crate::answering::Answering;
use crate::arrival::{Arrival, Deadlines, Overdue, Running};
use crate::host::WrongHost;
use crate::pace::{Pace, Paced};
use crate::shares::Share;
use crate::streams::{self, Streams};
use crate::traffic::Traffic;
use crate::{ConnectionCounts, Stopping, Tls, TrustedProxies};

/// Streams that an HTTP/2 client may open and reset before they were looked at; then its connection ends.
const MAX_UNSEEN_RESETS: usize = 20;

/// Deadlines and bounds of [`serve`].
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Time for a request's head to arrive: the first counts from the moment of the connection, with the handshake of TLS.
    pub header_timeout: Duration,
    /// How long a connection may be silent between requests.
    pub idle_timeout: Duration,
    /// What every body may be waited for; the request is then answered 408.
    pub body_timeout: Duration,
    /// A body may be waited for a second longer for each so many bytes that came of it.
    pub body_bytes_per_second: u64,
    /// Time for a client to take a part of its answer.
    pub answer_timeout: Duration,
    /// Time that running requests have to finish after a stop.
    pub shutdown_deadline: Duration,
    /// Open connections at a time; further ones wait to be accepted.
    pub max_connections: usize,
    /// Open connections at a time of one client network (an IPv4 address, a /64 of IPv6), at most half of all; further ones are
    /// closed at once.
    pub max_connections_per_network: usize,
    /// Proxies, whose connections are those of many clients and are not counted by network.
    pub trusted_proxies: TrustedProxies,
    /// Counts them for metrics.
    pub counts: ConnectionCounts,
    /// Longest request head (line and headers) in bytes.
    pub max_head_bytes: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub max_streams: u32,
    /// What the log says beside the address when it listens.
    pub announcement: &'static str,
    /// The certificate; connections are not encrypted without one.
    pub tls: Option<Arc<Tls>>,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(15),
            body_bytes_per_second: 8 * 1024,
            answer_timeout: Duration::from_secs(15),
            shutdown_deadline: Duration::from_secs(20),
            max_connections: 10_000,
            max_connections_per_network: 1_024,
            trusted_proxies: TrustedProxies::default(),
            counts: ConnectionCounts::default(),
            max_head_bytes: 64 * 1024,
            max_streams: 200,
            announcement: "listening",
            tls: None,
        }
    }
}

/// Serves `app` on `listener` until `shutdown` resolves, then lets running requests finish until the deadline.
///
/// Returns after the last connection has closed or the deadline has passed; connections that are still open then
/// are cut, and their number is logged.
///
/// # Errors
/// Only when the listener cannot be used at all; errors of single connections end those connections.
pub async fn serve<E>(
    listener: std::net::TcpListener,
    app: E,
    settings: ServeSettings,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    E: Endpoint<Output = Response> + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let local = listener.local_addr()?;
    tracing::info!(address = %local, "{}", settings.announcement);
    let renewing = settings.tls.clone().map(|tls| tokio::spawn(tls.keep_current()));
    let room = AcceptSettings {
        max_connections: settings.max_connections,
        max_connections_per_network: settings.max_connections_per_network,
        trusted_proxies: settings.trusted_proxies.clone(),
        counts: settings.counts.clone(),
        shutdown_deadline: settings.shutdown_deadline,
    };
    let answer = |stopping| {
        let door = Arc::new(Door { app, settings, local, stopping });
        move |socket, peer, share| Arc::clone(&door).answer_connection(socket, peer, share)
    };
    accept(listener, room, shutdown, answer).await;
    if let Some(renewing) = renewing {
        renewing.abort();
    }
    Ok(())
}

struct Door<E> {
    app: E,
    settings: ServeSettings,
    local: SocketAddr,
    stopping: Stopping,
}

impl<E: Endpoint<Output = Response> + 'static> Door<E> {
    async fn answer_connection(self: Arc<Self>, socket: TcpStream, peer: SocketAddr, share: Share) {
        let settings = &self.settings;
        let arrival = Arrival::new(Deadlines {
            head: settings.header_timeout,
            idle: settings.idle_timeout,
            answer: settings.answer_timeout,
        });
        let counts = settings.counts.clone();
        let traffic = Traffic::new(socket, Arc::clone(&arrival), settings.answer_timeout, counts, share);
        let Some(tls) = settings.tls.clone() else {
            return self.answer_stream(traffic, arrival, peer, Scheme::HTTP).await;
        };
        let mut stopping = self.stopping.clone();
        let handshake = tokio::select! {
            handshake = tls.acceptor().accept(traffic) => handshake,
            overdue = arrival.overdue(Duration::ZERO) => return self.note(overdue, peer),
            () = stopping.stopped() => return,
        };
        match handshake {
            Ok(stream) => self.answer_stream(stream, arrival, peer, Scheme::HTTPS).await,
            Err(error) => tracing::debug!(%peer, %error, "no TLS connection came about"),
        }
    }

    async fn answer_stream(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        arrival: Arc<Arrival>,
        peer: SocketAddr,
        scheme: Scheme,
    ) {
        let mut stopping = self.stopping.clone();
        let builder = self.builder();
        let (door, clock) = (Arc::clone(&self), Arc::clone(&arrival));
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let running = clock.begin(request.version() == Version::HTTP_2);
            Arc::clone(&door).answer(request, running, peer, scheme.clone())
        });
        let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut overdue = std::pin::pin!(arrival.overdue(Duration::ZERO));
        let mut stopped = std::pin::pin!(stopping.stopped());
        let (mut is_leaving, mut is_stopping) = (false, false);
        let ended = loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => break ended,
                late = overdue.as_mut() => {
                    if is_leaving {
                        return;
                    }
                    self.note(late, peer);
                    if late == Overdue::Answer && arrival.end_stuck() {
                        overdue.set(arrival.overdue(Duration::ZERO));
                        continue;
                    }
                    let Some(grace) = late.grace() else { return };
                    // A request that is on its way at this moment is still answered.
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                    overdue.set(arrival.overdue(grace));
                }
                () = stopped.as_mut(), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: hyper::Request<Incoming>,
        running: Running,
        peer: SocketAddr,
        scheme: Scheme,
    ) -> Result<hyper::Response<Answering>, Infallible> {
        let running = running.ended_by(streams::end_of_this());
        let wrong_host = WrongHost::of(request.version(), request.uri(), request.headers());
        let (local, remote) = (LocalAddr(self.local.into()), RemoteAddr(peer.into()));
        let mut request = Request::from((request, local, remote, scheme));
        if let Some(wrong) = wrong_host {
            request.set_data(wrong);
        }
        request.set_data(self.stopping.clone());
        let body = request.take_body();
        request.set_body(if body.is_empty() { body } else { self.paced(body) });
        let response: hyper::Response<BoxBody<Bytes, io::Error>> = self.app.get_response(request).await.into();
        Ok(response.map(|body| Answering::new(body, running)))
    }

    fn paced(&self, body: Body) -> Body {
        let pace = Pace { first: self.settings.body_timeout, bytes_per_second: self.settings.body_bytes_per_second };
        Body::from(BoxBody::new(Paced::new(body.into(), pace)))
    }

    fn note(&self, overdue: Overdue, peer: SocketAddr) {
        self.settings.counts.note_overdue(overdue);
        tracing::debug!(%peer, what = overdue.name(), "something was overdue: the connection ended, or one stream of it");
    }

    fn builder(&self) -> auto::Builder<Streams> {
        let mut builder = auto::Builder::new(Streams);
        // Heads have their deadline by `Arrival`, which also knows of connections that say nothing.
        builder.http1().header_read_timeout(None::<Duration>).max_buf_size(self.settings.max_head_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.settings.header_timeout)
            .keep_alive_timeout(self.settings.header_timeout)
            .max_concurrent_streams(self.settings.max_streams)
            .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
            .max_header_list_size(u32::try_from(self.settings.max_head_bytes).unwrap_or(u32::MAX));
        builder
    }
}
