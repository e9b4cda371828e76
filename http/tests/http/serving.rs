//! The server on a real socket: requests, refusals and a stop.

use std::time::{Duration, Instant};

use karat_http::{ApiError, ServeSettings, harden, serve};
use poem::endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{DEADLINE, connect_and_send, read_to_end, start};

#[tokio::test]
async fn a_request_is_answered_and_the_server_stops_when_told() {
    let server = start(ServeSettings::default());
    let stream = connect_and_send(server.address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let answer = read_to_end(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
    server.stop.send(()).unwrap();
    tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn security_80_no_answer_names_the_server_or_its_version() {
    let server = start(ServeSettings::default());
    let bare = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    for (request, status) in [
        (format!("{bare}\r\n"), "200"),
        (bare.replace("GET /", "TRACE /") + "\r\n", "200"),
        (format!("{bare}content-length: +4\r\n\r\n"), "400"),
    ] {
        let answer = read_to_end(connect_and_send(server.address, &request).await).await.to_ascii_lowercase();
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{request}: {answer}");
        for banner in ["\r\nserver:", "\r\nx-powered-by:", "\r\nvia:", "hyper", "poem", env!("CARGO_PKG_VERSION")] {
            assert!(!answer.contains(banner), "{request}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_running_request_is_finished_before_the_server_stops() {
    let server = start(ServeSettings::default());
    let stream = connect_and_send(server.address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.entered.notified().await;
    server.stop.send(()).unwrap();
    server.release.notify_one();
    assert!(read_to_end(stream).await.ends_with("ok"));
    tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_deadline() {
    let server = start(ServeSettings { shutdown_deadline: Duration::from_millis(50), ..ServeSettings::default() });
    let _stream = connect_and_send(server.address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.entered.notified().await;
    let stopped_at = Instant::now();
    server.stop.send(()).unwrap();
    tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap().unwrap();
    assert!(stopped_at.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_a_stop() {
    let server = start(ServeSettings { shutdown_deadline: DEADLINE * 10, ..ServeSettings::default() });
    let mut idle = connect_and_send(server.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut start_of_answer = [0; 15];
    idle.read_exact(&mut start_of_answer).await.unwrap();
    server.stop.send(()).unwrap();
    tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap().unwrap();
}

/// Asked for at both ends of a connection: a body that is many times as long is not in the buffers when the answer is ready.
const BUFFER_BYTES: u32 = 256 * 1024;

/// What a server says that refuses every request without a look at its body.
async fn refused(head: &str, body_bytes: usize) -> String {
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_recv_buffer_size(BUFFER_BYTES).unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(16).unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap();
    let refusing = |_| async { Err::<&str, poem::Error>(ApiError::forbidden("not you").into()) };
    let app = harden(endpoint::make(refusing));
    let task = tokio::spawn(serve(listener, app, ServeSettings::default(), std::future::pending()));
    let client = TcpSocket::new_v4().unwrap();
    client.set_send_buffer_size(BUFFER_BYTES).unwrap();
    let mut stream = client.connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..body_bytes / chunk.len() {
        stream.write_all(&chunk).await.expect("the server must read on");
    }
    let answer = read_to_end(stream).await;
    task.abort();
    answer
}

#[tokio::test]
async fn who_sends_a_large_body_that_is_refused_sees_the_answer() {
    // The server reads on for five seconds: little enough for a slow machine to send it within them.
    let bytes = 4 << 20;
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n");
    let answer = refused(&head, bytes).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not you"), "{answer}");
}

#[tokio::test]
async fn who_asks_before_sending_is_refused_without_sending() {
    let head =
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 1000000\r\n\r\n";
    let answer = refused(head, 0).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}
