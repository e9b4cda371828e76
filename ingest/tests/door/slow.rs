//! Slow uploads on a real socket, and somebody beside them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use karat_http::{ServeSettings, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::app::App;

const DEADLINE: Duration = Duration::from_secs(60);

/// Sends the head of a publishing request, and what is given of its body.
async fn begin(address: SocketAddr, key: &str, length: usize, body: &[u8]) -> TcpStream {
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

#[tokio::test]
async fn security_75_slow_uploads_hold_no_room_that_others_need() {
    const SLOW: usize = 25;
    const LARGEST: usize = 10 << 20;
    // All of the accounts, the log and their folder stay until the end.
    let app = App::start().await;
    let App { endpoint, budget, key, .. } = app;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, endpoint, ServeSettings::default(), std::future::pending()));

    // Together they declare what leaves less than the other one sends.
    let slow = futures::future::join_all((0..SLOW).map(|_| begin(address, &key, LARGEST, b"\n"))).await;
    let end = Instant::now() + DEADLINE;
    while budget.reserved_bytes() < SLOW as u64 * 16 * 1024 {
        assert!(Instant::now() < end, "{} bytes are reserved", budget.reserved_bytes());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(budget.reserved_bytes(), SLOW as u64 * 16 * 1024);

    let text = "x".repeat(512 << 10);
    let event =
        |id: usize| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"any","data":"{text}"}}"#);
    let body = (0..14).map(event).collect::<Vec<String>>().join("\n");
    assert!(body.len() as u64 > budget.size_bytes() - (SLOW * LARGEST) as u64);
    let publishing = async {
        let mut stream = begin(address, &key, body.len(), body.as_bytes()).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(DEADLINE, publishing).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n"), "{answer}");
    drop(slow);
    server.abort();
}
