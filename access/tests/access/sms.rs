//! A text message service on loopback, in the form that Twilio made common.

use karat_access::SmsSettings;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What was posted: request head and form, one text a request.
pub struct Service {
    port: u16,
    requests: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Service {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<parking_lot::Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let request = read_request(&mut socket).await;
                seen.lock().push(request);
                let _ =
                    socket.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
            }
        });
        Self { port, requests }
    }

    pub fn settings(&self) -> SmsSettings {
        SmsSettings::Http {
            base_url: format!("http://127.0.0.1:{}", self.port),
            account: "AC1".to_owned(),
            token: "canary".to_owned().into(),
            from: "+15005550006".to_owned(),
        }
    }

    /// The code in the message to a number that came so many-th.
    pub async fn code_for(&self, number: &str, count: usize) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.requests.lock().get(count - 1).cloned();
            if let Some(request) = found {
                assert!(request.starts_with("POST /2010-04-01/Accounts/AC1/Messages.json"), "{request}");
                // `AC1:canary` in base 64.
                assert!(request.to_lowercase().contains("authorization: basic qumxomnhbmfyeq=="), "{request}");
                assert!(
                    request.contains(&format!("To={}&From=%2B15005550006&Body=", number.replace('+', "%2B"))),
                    "{request}"
                );
                let body = request.split("Body=").nth(1).unwrap();
                return body[..6].to_owned();
            }
            assert!(Instant::now() < deadline, "no message came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Head and form of what a client sent, or as much of it as came.
pub async fn read_request(socket: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0_u8; 4096];
    while !is_whole(&text) {
        let read = socket.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    text
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    // Without a length there is no body.
    length.is_none_or(|length| length.trim().parse::<usize>().is_ok_and(|length| body.len() >= length))
}
