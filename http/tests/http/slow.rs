//! Clients that take their time, and many of them.

use std::time::{Duration, Instant};

use karat_http::ServeSettings;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    frames::{self, PREFACE},
    support::{DEADLINE, LARGE_BYTES, MEDIUM_BYTES, Server, connect_and_send, read_to_end, read_until, start},
};

/// Deadlines that no test reaches, but for the one that it is about.
fn patient() -> ServeSettings {
    let long = DEADLINE * 10;
    ServeSettings {
        header_timeout: long,
        idle_timeout: long,
        body_timeout: long,
        answer_timeout: long,
        ..ServeSettings::default()
    }
}

fn short() -> Duration {
    Duration::from_millis(300)
}

/// For heads where clients that do nothing wrong are held to it too: a busy machine may not let them say anything for a while.
fn short_for_heads() -> Duration {
    Duration::from_secs(5)
}

/// Sends a byte every 20 ms until the server has enough of it.
async fn drip(mut stream: impl AsyncWrite + Unpin, bytes: usize) {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..bytes {
        every.tick().await;
        if stream.write_all(b"x").await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn security_75_a_first_head_that_is_not_whole_in_time_ends_its_connection() {
    let server = start(ServeSettings { header_timeout: short(), ..patient() });
    let half = "GET / HTTP/1.1\r\nhost: x\r\nx-half";
    for words in [vec![], half.as_bytes().to_vec(), PREFACE.to_vec(), frames::connection(&[])] {
        let begun = Instant::now();
        let stream = connect_and_send(server.address, &words).await;
        read_to_end(stream).await;
        assert!(begun.elapsed() >= short(), "{}", String::from_utf8_lossy(&words));
    }
    server.counted("connections_overdue_total{reason=\"head\"} 4").await;
    server.counted("connections_open 0").await;
}

#[tokio::test]
async fn security_75_a_head_that_drips_ends_its_connection_while_others_are_served() {
    let server = start(ServeSettings { header_timeout: short_for_heads(), ..patient() });
    let (reader, mut writer) = TcpStream::connect(server.address).await.unwrap().into_split();
    writer.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    let dripping = tokio::spawn(drip(writer, usize::MAX));
    server.others_are_served().await;
    assert_eq!(read_to_end(reader).await, "");
    tokio::time::timeout(DEADLINE, dripping).await.unwrap().unwrap();
}

#[tokio::test]
async fn security_75_between_requests_silence_and_half_a_head_end_a_connection() {
    let whole = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let silent = ServeSettings { idle_timeout: short(), ..patient() };
    let half = ServeSettings { header_timeout: short_for_heads(), ..patient() };
    for (settings, more, reason) in [(silent, "", "idle"), (half, "GET / HT", "head")] {
        let server = start(settings);
        let mut stream = connect_and_send(server.address, whole).await;
        let mut start_of_answer = [0; 15];
        stream.read_exact(&mut start_of_answer).await.unwrap();
        stream.write_all(more.as_bytes()).await.unwrap();
        assert!(read_to_end(stream).await.ends_with("\r\n\r\nok"));
        server.counted(&format!("connections_overdue_total{{reason=\"{reason}\"}} 1")).await;
    }
}

#[tokio::test]
async fn security_75_an_http2_connection_without_requests_ends() {
    let server = start(ServeSettings { idle_timeout: short(), ..patient() });
    let words = [frames::connection(&[]), frames::get(1, "/")].concat();
    let answer = read_to_end(connect_and_send(server.address, words).await).await;
    assert!(answer.contains("ok"), "{answer:?}");
    server.counted("connections_overdue_total{reason=\"idle\"} 1").await;
    server.counted("connections_open 0").await;
}

#[tokio::test]
async fn security_75_a_body_that_does_not_get_on_is_answered_408_and_its_connection_ends() {
    let settings = ServeSettings { body_timeout: short(), body_bytes_per_second: 1 << 20, ..patient() };
    let server = start(settings);
    let heads = ["content-length: 1000", "transfer-encoding: chunked"];
    for (head, drops) in heads.into_iter().zip([usize::MAX, 0]) {
        let (reader, mut writer) = TcpStream::connect(server.address).await.unwrap().into_split();
        writer.write_all(format!("POST /body HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
        let dripping = tokio::spawn(async move {
            drip(&mut writer, drops).await;
            writer
        });
        server.others_are_served().await;
        let answer = read_to_end(reader).await;
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
        assert!(
            answer.contains("connection: close\r\n") && answer.contains("\"code\":\"request_timeout\""),
            "{answer}"
        );
        tokio::time::timeout(DEADLINE, dripping).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_slow_body_that_gets_on_is_read_to_its_end() {
    // Each byte buys a second, and the first thirty come with the head: it takes longer than the first second allows, and
    // nobody has to hurry.
    let first = Duration::from_secs(1);
    let server = start(ServeSettings { body_timeout: first, body_bytes_per_second: 1, ..patient() });
    let begun = Instant::now();
    let head = "POST /body HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 110\r\n\r\n";
    let begin = format!("{head}{}", "x".repeat(30));
    let (reader, writer) = connect_and_send(server.address, begin).await.into_split();
    let dripping = tokio::spawn(async move {
        let mut writer = writer;
        drip(&mut writer, 80).await;
        writer
    });
    let answer = read_to_end(reader).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n110"), "{answer}");
    assert!(begun.elapsed() > first, "it was not slow: {:?}", begun.elapsed());
    dripping.await.unwrap();
}

#[tokio::test]
async fn security_75_who_does_not_take_the_answer_is_disconnected() {
    let server = start(ServeSettings { answer_timeout: short(), ..patient() });
    let stream = connect_and_send(server.address, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.counted("connections_overdue_total{reason=\"answer\"} 1").await;
    server.counted("connections_open 0").await;
    server.others_are_served().await;
    let got = read_to_end(stream).await.len();
    assert!(got < LARGE_BYTES, "{got} bytes were sent to nobody");
}

#[tokio::test]
async fn security_75_an_http2_client_that_gives_no_room_for_the_answer_is_disconnected() {
    let server = start(ServeSettings { answer_timeout: short(), ..patient() });
    // A window of nothing for every stream, or the usual one that is never opened again.
    for window in [&[0, 4, 0, 0, 0, 0][..], &[]] {
        let words = [frames::connection(window), frames::get(1, "/large")].concat();
        let stream = connect_and_send(server.address, words).await;
        let got = read_to_end(stream).await.len();
        assert!(got < LARGE_BYTES, "{got}");
    }
    server.counted("connections_overdue_total{reason=\"answer\"} 2").await;
}

#[tokio::test]
async fn an_answer_that_is_not_taken_ends_its_stream_alone_while_others_run_on_its_http2_connection() {
    // Long enough for what happens between the two ends of it.
    let server = start(ServeSettings { answer_timeout: Duration::from_secs(6), ..patient() });
    // The connection has room for more than the first stream takes.
    let begin = [frames::connection(&[]), frames::room(0, 1 << 20), frames::get(1, "/large"), frames::get(3, "/slow")];
    let mut stream = connect_and_send(server.address, begin.concat()).await;
    server.entered.notified().await;
    let mut seen = Vec::new();
    read_until(&mut stream, &mut seen, &frames::reset(1)).await;
    server.release.notify_one();
    // The end of a frame's head, which is the number of its stream, and what it holds.
    read_until(&mut stream, &mut seen, b"\0\0\0\x03ok").await;
    stream.write_all(&frames::get(5, "/")).await.unwrap();
    read_until(&mut stream, &mut seen, b"\0\0\0\x05ok").await;
    server.counted("connections_overdue_total{reason=\"answer\"} 1").await;
    server.counted("connections_open 1").await;
}

#[tokio::test]
async fn many_answers_on_one_slow_line_are_not_taken_for_stuck() {
    const STREAMS: u32 = 150;
    const ROOM: u32 = 64 << 10;
    // Long enough for a busy machine not to hold the line up for so long.
    let answer_timeout = Duration::from_secs(4);
    let server = start(ServeSettings { answer_timeout, ..patient() });
    // There is room for each answer, and little on the connection: a part of each takes longer than one alone may.
    let every = Duration::from_millis(75);
    assert!(every * (STREAMS * 32 * 1024 / ROOM) > answer_timeout);
    let mut words = frames::connection(&[0, 4, 1, 0, 0, 0]);
    words.extend((0..STREAMS).flat_map(|n| frames::get(2 * n + 1, "/medium")));
    let (mut reader, mut writer) = connect_and_send(server.address, words).await.into_split();
    let line = tokio::spawn(async move {
        let mut every = tokio::time::interval(every);
        while writer.write_all(&frames::room(0, ROOM)).await.is_ok() {
            every.tick().await;
        }
    });
    let reading = async {
        let (mut seen, mut buffer) = (0, vec![0; 1 << 16]);
        // Most of them have the first part by then, and wait for more.
        while seen < STREAMS as usize * MEDIUM_BYTES / 3 {
            let read = reader.read(&mut buffer).await.unwrap();
            assert!(read > 0, "the server closed the connection after {seen} bytes");
            seen += read;
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.unwrap();
    server.counted("connections_overdue_total{reason=\"answer\"} 0").await;
    line.abort();
}

#[tokio::test]
async fn a_large_answer_reaches_who_takes_it() {
    let server = start(ServeSettings::default());
    let request = "GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = read_to_end(connect_and_send(server.address, request).await).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {LARGE_BYTES}")), "{head}");
    assert!(body.len() == LARGE_BYTES && body.bytes().all(|byte| byte == b'x'), "{}", body.len());
}

#[tokio::test]
async fn security_75_idle_sockets_of_one_address_keep_nobody_else_out() {
    const SHARE: usize = 20;
    const IDLE: usize = 200;
    let server = start(ServeSettings { max_connections: 60, max_connections_per_network: SHARE, ..patient() });
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    server.counted(&format!("connections_refused_total {}", IDLE - SHARE)).await;
    server.counted(&format!("connections_open {SHARE}")).await;
    server.others_are_served().await;
    drop(idle);
    server.counted("connections_open 0").await;
    let again = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(read_to_end(connect_and_send(server.address, again).await).await.ends_with("ok"));
}

#[tokio::test]
async fn connections_of_a_trusted_proxy_are_not_counted_by_network() {
    let trusted_proxies = "127.0.0.1".parse().unwrap();
    let settings = ServeSettings { max_connections_per_network: 1, trusted_proxies, ..patient() };
    let server = start(settings);
    let open: Vec<_> = futures::future::join_all((0..5).map(|_| TcpStream::connect(server.address))).await;
    server.counted("connections_open 5").await;
    server.counted("connections_refused_total 0").await;
    drop(open);
}

/// A stop, with a connection that does not end by itself.
async fn is_cut(server: Server, stream: TcpStream) {
    let stopped_at = Instant::now();
    server.stop.send(()).unwrap();
    tokio::time::timeout(DEADLINE, server.task).await.unwrap().unwrap().unwrap();
    assert!(stopped_at.elapsed() >= short());
    read_to_end(stream).await;
}

#[tokio::test]
async fn a_stop_has_a_deadline_whatever_a_connection_is_at() {
    let settings = || ServeSettings { shutdown_deadline: short(), ..patient() };
    let server = start(settings());
    let answer = connect_and_send(server.address, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // It is under way, and waits for a client that takes nothing.
    answer.readable().await.unwrap();
    is_cut(server, answer).await;
    let server = start(settings());
    let half = "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nx";
    let body = connect_and_send(server.address, half).await;
    server.entered.notified().await;
    is_cut(server, body).await;
}
