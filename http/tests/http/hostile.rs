//! Requests that are meant to be read in two ways, or to keep the server busy.

use std::time::Duration;

use karat_http::ServeSettings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    frames,
    support::{DEADLINE, Server, connect_and_send, read_to_end, start},
};

/// A server whose connections end within the deadline of tests by what is sent, and not by waiting.
fn server() -> Server {
    let long = DEADLINE * 10;
    start(ServeSettings { header_timeout: long, idle_timeout: long, body_timeout: long, ..ServeSettings::default() })
}

async fn answer(server: &Server, words: &str) -> String {
    read_to_end(connect_and_send(server.address, words).await).await
}

#[tokio::test]
async fn security_76_a_request_with_no_or_two_hosts_is_refused_and_its_connection_ends() {
    let server = server();
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a\r\nhost: a\r\n", "host:\r\n", "host: a b\r\n", "host: a@b\r\n"]
    {
        // What follows on the connection is not answered.
        let words = format!("GET / HTTP/1.1\r\n{hosts}\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = answer(&server, &words).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{hosts:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{hosts:?}: {answer}");
        for part in
            ["\"code\":\"bad_host\"", "connection: close\r\n", "x-request-id: ", "x-content-type-options: nosniff\r\n"]
        {
            assert!(answer.contains(part), "{hosts:?}: no `{part}` in {answer}");
        }
    }
    let other = "GET http://example.org/ HTTP/1.1\r\nhost: other.example.org\r\n\r\n";
    assert!(answer(&server, other).await.contains("bad_host"));
    let older = "GET / HTTP/1.0\r\n\r\n";
    assert!(answer(&server, older).await.contains(" 200 OK\r\n"));
}

#[tokio::test]
async fn security_76_bodies_whose_length_is_said_in_two_ways_are_refused_or_end_the_connection() {
    let server = server();
    let next = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    for lines in [
        "content-length: 3\r\ncontent-length: 4",
        "content-length: +4",
        "content-length: 0x4",
        "content-length: -1",
        "content-length: 4, 4x",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
    ] {
        let answer = answer(&server, &format!("POST /body HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\nabcd{next}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{lines}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{lines}: {answer}");
    }
    // Both: the chunks count, and nothing that follows is taken for a request (RFC 9112, 6.3).
    let both = "content-length: 4\r\ntransfer-encoding: chunked";
    let chunks = format!("3\r\nabc\r\n0\r\n\r\n{next}");
    let answer = answer(&server, &format!("POST /body HTTP/1.1\r\nhost: x\r\n{both}\r\n\r\n{chunks}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn security_76_heads_that_are_too_long_or_malformed_are_refused() {
    let server = server();
    let many = "x-a: b\r\n".repeat(101);
    let long = format!("x-long: {}\r\n", "a".repeat(1 << 20));
    for (lines, status) in [
        (many.as_str(), "431 Request Header Fields Too Large"),
        (long.as_str(), "431 Request Header Fields Too Large"),
        ("x-a : b\r\n", "400 Bad Request"),
        ("x-a: b\0c\r\n", "400 Bad Request"),
        ("x a: b\r\n", "400 Bad Request"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // Who still sends when the server closes may be reset, and read nothing.
        let is_sent = stream.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{lines}\r\n").as_bytes()).await.is_ok();
        let answer = read_to_end(stream).await;
        let is_refused = answer.starts_with(&format!("HTTP/1.1 {status}\r\n"));
        let is_reset = answer.is_empty() && (!is_sent || lines.len() > 1 << 16);
        assert!(is_refused || is_reset, "{status}: {answer:?}");
    }
    server.others_are_served().await;
}

/// RFC 9112 (2.2) lets a server take a line feed alone for the end of a line, which hyper does. It is no second way to read a
/// request as long as every proxy in front passes on what it read; this test says when that changes.
#[tokio::test]
async fn security_76_lines_that_end_with_a_line_feed_alone_are_read_as_lines() {
    let server = server();
    let answer = answer(&server, "GET / HTTP/1.1\nhost: x\nconnection: close\n\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// Sends `next` again and again while others are served, until the server ends the connection. More than so many are enough.
async fn flood(server: &Server, first: Vec<u8>, most: u32, next: impl Fn(u32) -> Vec<u8> + Send + 'static) -> String {
    let (reader, mut writer) = connect_and_send(server.address, first).await.into_split();
    let sending = tokio::spawn(async move {
        for turn in 0..most {
            if writer.write_all(&next(turn)).await.is_err() {
                return None;
            }
        }
        // Open, so that it is the server who ends the connection.
        Some(writer)
    });
    server.others_are_served().await;
    let answer = read_to_end(reader).await;
    tokio::time::timeout(DEADLINE, sending).await.unwrap().unwrap();
    server.others_are_served().await;
    answer
}

#[tokio::test]
async fn security_77_a_flood_of_continuations_ends_its_connection() {
    let server = server();
    let first = [frames::connection(&[]), frames::get_unfinished(1, "/")].concat();
    flood(&server, first, 2_000, |_| frames::continuation(1)).await;
    server.counted("connections_open 0").await;
}

#[tokio::test]
async fn security_77_rapid_resets_end_their_connection() {
    let server = server();
    let resets = |turn: u32| -> Vec<u8> {
        let streams = (0..200).map(|number| (turn * 200 + number) * 2 + 1);
        streams.flat_map(|stream| [frames::get(stream, "/slow"), frames::reset(stream)].concat()).collect()
    };
    flood(&server, frames::connection(&[]), 500, resets).await;
    server.counted("connections_open 0").await;
}

#[tokio::test]
async fn security_77_a_flood_of_empty_data_is_no_progress_of_a_body() {
    let body_timeout = Duration::from_millis(300);
    let server = start(ServeSettings { body_timeout, ..ServeSettings::default() });
    let first = [frames::connection(&[]), frames::post(1, "/body")].concat();
    let (mut reader, mut writer) = connect_and_send(server.address, first).await.into_split();
    let sending = tokio::spawn(async move {
        let some = frames::data(1, b"").repeat(100);
        while writer.write_all(&some).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    server.others_are_served().await;
    // Which of the two comes first is a matter of how fast the frames are.
    let is_given_up =
        |seen: &str| seen.contains("\"code\":\"request_timeout\"") || seen.contains("too_many_data_frames");
    let refused = async {
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        while !is_given_up(&String::from_utf8_lossy(&seen)) {
            let count = reader.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the connection ended without a reason: {:?}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.expect("the body must be given up");
    server.others_are_served().await;
    sending.abort();
}
