//! A server on a real socket, and raw words to it.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use karat_http::{ConnectionCounts, ServeSettings, harden, serve};
use poem::{IntoResponse, Request, Response, endpoint};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{Notify, oneshot},
    task::JoinHandle,
};

/// Enough on a busy machine; nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// More than the buffers of both sides of a connection hold.
pub const LARGE_BYTES: usize = 32 << 20;

/// Some parts of an answer.
pub const MEDIUM_BYTES: usize = 128 << 10;

pub struct Server {
    pub address: SocketAddr,
    pub stop: oneshot::Sender<()>,
    pub task: JoinHandle<io::Result<()>>,
    pub entered: Arc<Notify>,
    pub release: Arc<Notify>,
    pub counts: ConnectionCounts,
}

/// Answers `ok`; on `/slow` it says that it was entered and waits to be released, on `/large` and `/medium` it answers with
/// much and less, on `/body` with the length of what it was sent, once it said that it was entered.
pub fn start(settings: ServeSettings) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (in_handler, until) = (entered.clone(), release.clone());
    let app = harden(endpoint::make(move |mut request: Request| {
        let (entered, release) = (in_handler.clone(), until.clone());
        async move {
            let response: Response = match request.uri().path() {
                "/slow" => {
                    entered.notify_one();
                    release.notified().await;
                    "ok".into_response()
                }
                "/large" => vec![b'x'; LARGE_BYTES].into_response(),
                "/medium" => vec![b'x'; MEDIUM_BYTES].into_response(),
                "/body" => {
                    entered.notify_one();
                    request.take_body().into_vec().await?.len().to_string().into_response()
                }
                _ => "ok".into_response(),
            };
            Ok::<_, poem::Error>(response)
        }
    }));
    let counts = settings.counts.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, app, settings, async {
        let _ = stopped.await;
    }));
    Server { address, stop, task, entered, release, counts }
}

impl Server {
    /// What `/metrics` says of the connections.
    pub fn metrics(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.counts.clone()));
        let mut metrics = String::new();
        text::encode(&mut metrics, &registry).unwrap();
        metrics
    }

    /// Waits until the metrics have this line.
    pub async fn counted(&self, line: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.metrics().lines().any(|found| found == line) {
            assert!(Instant::now() < end, "no `{line}` in {}", self.metrics());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// That a client at another address is served.
    pub async fn others_are_served(&self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let served = async {
            let mut stream = socket.connect(self.address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            read_to_end(stream).await
        };
        let answer = tokio::time::timeout(DEADLINE, served).await.expect("others must be served");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}

pub async fn connect_and_send(address: SocketAddr, words: impl AsRef<[u8]>) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(words.as_ref()).await.unwrap();
    stream
}

/// What comes until the server closes the connection, or resets it.
pub async fn read_to_end(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    // An error is a reset; what came before it counts.
    let _ = read.expect("the server must close the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads on until these bytes have come.
pub async fn read_until(stream: &mut TcpStream, seen: &mut Vec<u8>, wanted: &[u8]) {
    let reading = async {
        while !seen.windows(wanted.len()).any(|found| found == wanted) {
            assert!(stream.read_buf(seen).await.unwrap() > 0, "the server closed the connection");
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("what is waited for must come");
}
