//! One keep-alive HTTP/1.1 connection.
//!
//! A load program shares the machine with the server that it loads, so it must cost little: requests are sent as one
//! ready buffer, answers are scanned for their status and `Content-Length` and not parsed further. It understands what
//! this project's servers send: a status line, headers, and a body of declared length. Plain `http://` only.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{Error, Result};

/// A request that is not answered within this has failed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Larger answers are refused: no answer that is measured comes near.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Where requests go: the parts of `http://HOST:PORT/PATH`.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// Path and query, with the leading slash.
    pub path: String,
}

/// An open connection.
pub struct Connection {
    address: String,
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer; its body is borrowed from the connection.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'c> {
    pub status: u16,
    /// The status line and the headers.
    pub head: &'c [u8],
    pub body: &'c [u8],
}

impl Target {
    /// Reads a URL. Only `http://` is spoken.
    pub fn parse(url: &str) -> Result<Self> {
        let wrong = || Error::Usage(format!("`{url}` is not a URL for this program: expected http://HOST:PORT[/PATH]"));
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() || authority.contains('@') {
            return Err(wrong());
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Ok(Self { address, path: format!("/{path}") })
    }

    /// The same server, another path.
    pub fn at(&self, path: impl Into<String>) -> Self {
        Self { address: self.address.clone(), path: path.into() }
    }

    /// Head of a request; `credential` is an API key or an access token.
    pub fn head(&self, method: &str, credential: Option<&str>, more: &[(&str, &str)]) -> String {
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", self.path, self.address);
        if let Some(credential) = credential {
            head.push_str(&format!("Authorization: Bearer {credential}\r\n"));
        }
        for (name, value) in more {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head
    }
}

impl Connection {
    pub async fn open(target: &Target) -> Result<Self> {
        let server =
            |error: std::io::Error| Error::Server { address: target.address.clone(), reason: error.to_string() };
        let stream = TcpStream::connect(&target.address).await.map_err(server)?;
        stream.set_nodelay(true).map_err(server)?;
        Ok(Self { address: target.address.clone(), stream, received: Vec::with_capacity(4096) })
    }

    /// Sends one whole request and reads its answer. After an error the connection must be thrown away.
    pub async fn ask(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        match timeout(ANSWER_DEADLINE, self.exchange(request)).await {
            Ok(Ok((head, end))) => {
                let answer = Answer {
                    status: status_of(&self.received).unwrap_or(0),
                    head: &self.received[..head],
                    body: &self.received[head..end],
                };
                Ok(answer)
            }
            Ok(Err(reason)) => Err(Error::Server { address: self.address.clone(), reason }),
            Err(_) => {
                let reason = format!("no answer within {} s", ANSWER_DEADLINE.as_secs());
                Err(Error::Server { address: self.address.clone(), reason })
            }
        }
    }

    /// Lengths of the head and of the whole answer.
    async fn exchange(&mut self, request: &[u8]) -> Result<(usize, usize), String> {
        self.stream.write_all(request).await.map_err(|error| error.to_string())?;
        self.received.clear();
        let mut ends = None;
        loop {
            if let Some((head, end)) = ends
                && self.received.len() >= end
            {
                return Ok((head, end));
            }
            if self.received.len() > MAX_ANSWER_BYTES {
                return Err(format!("the answer is larger than {MAX_ANSWER_BYTES} bytes"));
            }
            let read = self.stream.read_buf(&mut self.received).await.map_err(|error| error.to_string())?;
            if read == 0 {
                return Err("the connection was closed before the answer was complete".to_owned());
            }
            if ends.is_none() {
                ends = ends_of(&self.received)?;
            }
        }
    }
}

/// Lengths of the head and of the whole answer, once the head is complete.
fn ends_of(received: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4) else {
        return Ok(None);
    };
    let status = status_of(received).ok_or_else(|| "the answer is not HTTP/1.1".to_owned())?;
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(Some((head, head)));
    }
    let length = header(&received[..head], "content-length").and_then(|text| text.parse::<usize>().ok());
    let length = length.ok_or_else(|| "the answer has no Content-Length, which this client needs".to_owned())?;
    Ok(Some((head, head.saturating_add(length))))
}

fn status_of(received: &[u8]) -> Option<u16> {
    std::str::from_utf8(received.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()
}

/// The value of a header in the head of an answer.
pub fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h str> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    let mut values = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (key, value) = line.split_at(colon);
        key.eq_ignore_ascii_case(name.as_bytes()).then(|| std::str::from_utf8(&value[1..]).ok().map(str::trim))?
    });
    values.next()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn urls_are_taken_apart_and_others_refused() {
        let target = Target::parse("http://127.0.0.1:8080/api/v1/events?x=1").unwrap();
        assert_eq!((target.address.as_str(), target.path.as_str()), ("127.0.0.1:8080", "/api/v1/events?x=1"));
        assert_eq!(Target::parse("http://localhost").unwrap().address, "localhost:80");
        for wrong in ["https://a/", "a:80", "http://", "http://u@h/"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_end_of_an_answer_is_known_when_its_head_is_complete() {
        assert_eq!(ends_of(b"HTTP/1.1 202 Accepted\r\ncontent-le"), Ok(None));
        assert_eq!(ends_of(b"HTTP/1.1 202 A\r\nContent-Length: 5\r\n\r\nab"), Ok(Some((37, 42))));
        assert_eq!(ends_of(b"HTTP/1.1 304 N\r\netag: x\r\n\r\n"), Ok(Some((27, 27))));
        assert!(ends_of(b"HTTP/1.1 200 O\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(ends_of(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn answers_come_in_pieces_and_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4];
            for body in ["first", "second"] {
                stream.read_exact(&mut request).await.unwrap();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                for piece in answer.as_bytes().chunks(7) {
                    stream.write_all(piece).await.unwrap();
                    stream.flush().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut connection = Connection::open(&target).await.unwrap();
        for expected in ["first", "second"] {
            let answer = connection.ask(b"ping").await.unwrap();
            assert_eq!((answer.status, answer.body), (200, expected.as_bytes()));
        }
        server.await.unwrap();
        assert!(connection.ask(b"ping").await.is_err());
    }
}
