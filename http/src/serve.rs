//! [`serve`]: accepts connections and answers them until told to stop.
//!
//! The framework's own server has no deadline for request headers, so connections are driven here: headers must
//! arrive in time (an idle kept-alive connection counts as waiting for headers), the number of connections is
//! bounded, and a stop lets running requests finish until a deadline. With a certificate, connections are TLS 1.3, whose
//! handshake has the deadline of headers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Endpoint, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::Tls;

/// Deadlines and bounds of [`serve`].
#[derive(Debug, Clone)]
pub struct ServeSettings {
    /// Time for a request's headers to arrive; also how long a kept-alive connection may stay idle.
    pub header_timeout: Duration,
    /// Time that running requests have to finish after a stop.
    pub shutdown_deadline: Duration,
    /// Open connections at a time; further ones wait to be accepted.
    pub max_connections: usize,
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
            shutdown_deadline: Duration::from_secs(20),
            max_connections: 10_000,
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
    let (stop, stopping) = watch::channel(false);
    let renewing = settings.tls.clone().map(|tls| tokio::spawn(tls.keep_current()));
    let door = Arc::new(Door { app, settings, local, stopping });
    let room = Arc::new(Semaphore::new(door.settings.max_connections));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accept = async {
            // The semaphore is never closed, so this only waits for room.
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            (permit, accepted) = accept => match accepted {
                Ok((socket, peer)) => {
                    let door = door.clone();
                    connections.spawn(async move {
                        door.answer_connection(socket, peer).await;
                        drop(permit);
                    });
                }
                Err(error) => pause_after_accept_error(&error).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    let _ = stop.send(true);
    drain(connections, door.settings.shutdown_deadline).await;
    if let Some(renewing) = renewing {
        renewing.abort();
    }
    Ok(())
}

struct Door<E> {
    app: E,
    settings: ServeSettings,
    local: SocketAddr,
    stopping: watch::Receiver<bool>,
}

impl<E: Endpoint<Output = Response> + 'static> Door<E> {
    async fn answer_connection(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        // Answers are written whole; waiting to fill packets only adds delay.
        let _ = socket.set_nodelay(true);
        let Some(tls) = self.settings.tls.clone() else { return self.answer_stream(socket, peer, Scheme::HTTP).await };
        let mut stopping = self.stopping.clone();
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(self.settings.header_timeout, tls.acceptor().accept(socket)) => handshake,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.answer_stream(stream, peer, Scheme::HTTPS).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS connection came about"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        }
    }

    async fn answer_stream(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        scheme: Scheme,
    ) {
        let mut stopping = self.stopping.clone();
        let builder = self.builder();
        let door = self.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (door, scheme) = (door.clone(), scheme.clone());
            async move {
                let (local, remote) = (LocalAddr(door.local.into()), RemoteAddr(peer.into()));
                let request = Request::from((request, local, remote, scheme));
                Ok::<hyper::Response<_>, Infallible>(door.app.get_response(request).await.into())
            }
        });
        let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let stopped = async {
            // An error means that the sender is gone, which is also a stop.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = stopped => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.header_timeout)
            .max_buf_size(self.settings.max_head_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.settings.header_timeout)
            .keep_alive_timeout(self.settings.header_timeout)
            .max_concurrent_streams(self.settings.max_streams)
            .max_header_list_size(u32::try_from(self.settings.max_head_bytes).unwrap_or(u32::MAX));
        builder
    }
}

/// Out of file descriptors and the like: trying again at once would spin.
async fn pause_after_accept_error(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn drain(mut connections: JoinSet<()>, deadline: Duration) {
    let all_closed = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(deadline, all_closed).await.is_err() {
        tracing::warn!(
            open = connections.len(),
            deadline_s = deadline.as_secs(),
            "closing connections at the deadline"
        );
        connections.shutdown().await;
    }
}
