//! HTTP for stand-ins on loopback: a request is a text, and each connection has one.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Head and body of what a client sent, or as much of it as came.
pub async fn read_request(socket: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (String::new(), [0_u8; 4096]);
    while !is_whole(&text) {
        let read = socket.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

/// Answers and ends the connection. Who asked may be gone by then.
pub async fn answer(socket: &mut TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    // Without a length there is no body.
    length.is_none_or(|length| length.trim().parse::<usize>().is_ok_and(|length| body.len() >= length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_its_body_and_without_a_length_with_its_head() {
        for whole in ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"] {
            assert!(is_whole(whole), "{whole}");
        }
        for part in ["", "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n{}"] {
            assert!(!is_whole(part), "{part}");
        }
    }
}
