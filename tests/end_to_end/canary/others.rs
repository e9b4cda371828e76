//! Whom Karat talks to, on loopback: a service for text messages, a provider of log-ins, a mail server.

use std::sync::Arc;

use karat_oracle::plain_http::{self, read_request};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::wait::until;

/// What the provider gives for every code; it names nobody.
pub const PROVIDERS_TOKEN: &str = "canary-token-of-the-provider";

/// Answers over HTTP as a service for text messages and as a provider.
pub struct Web {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = Self { url: format!("http://{}", listener.local_addr().unwrap()), requests: Arc::default() };
        let (url, requests) = (web.url.clone(), Arc::clone(&web.requests));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let request = read_request(&mut socket).await;
                let body = answer(&url, request.split_whitespace().nth(1).unwrap_or_default());
                requests.lock().push(request);
                plain_http::answer(&mut socket, "200 OK", &body).await;
            }
        });
        web
    }

    /// The first request of a path that begins so, with its head and form.
    pub async fn request(&self, path: &str) -> String {
        until(&format!("a request of {path}"), async || {
            let asks =
                |request: &&String| request.split_whitespace().nth(1).is_some_and(|asked| asked.starts_with(path));
            self.requests.lock().iter().find(asks).cloned()
        })
        .await
    }

    /// Name and password of the first request of a path that begins so, as they were sent.
    pub async fn credentials(&self, path: &str) -> String {
        let request = self.request(path).await;
        let mut words = request.split_whitespace();
        words.find(|word| word.eq_ignore_ascii_case("basic")).unwrap();
        words.next().unwrap().to_owned()
    }
}

fn answer(url: &str, path: &str) -> String {
    match path {
        "/.well-known/openid-configuration" => json!({
            "issuer": url, "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
            "jwks_uri": format!("{url}/jwks"),
        }),
        "/jwks" => json!({"keys": []}),
        "/token" => json!({"access_token": PROVIDERS_TOKEN, "token_type": "Bearer", "id_token": "e30.e30.e30"}),
        _ => json!({}),
    }
    .to_string()
}

/// Takes every log-in and every message.
pub struct MailServer {
    pub port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), lines: Arc::default() };
        let lines = Arc::clone(&server.lines);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(take(socket, Arc::clone(&lines)));
            }
        });
        server
    }

    /// The rest of the first line that begins so.
    pub async fn line(&self, start: &str) -> String {
        until(&format!("the mail server is told `{start}`"), async || {
            self.lines.lock().iter().find_map(|line| Some(line.strip_prefix(start)?.to_owned()))
        })
        .await
    }
}

async fn take(socket: TcpStream, lines: Arc<Mutex<Vec<String>>>) {
    let (read, mut write) = socket.into_split();
    let mut told = BufReader::new(read).lines();
    let mut is_message = false;
    let mut reply = "220 mail";
    loop {
        if !reply.is_empty() && write.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
            return;
        }
        let Ok(Some(line)) = told.next_line().await else { return };
        reply = match line.split(' ').next().unwrap_or_default() {
            "." if is_message => "250 taken",
            _ if is_message => "",
            "EHLO" => "250-mail\r\n250 AUTH PLAIN LOGIN",
            "AUTH" => "235 welcome",
            "DATA" => "354 go on",
            _ => "250 fine",
        };
        is_message = reply.is_empty() || reply.starts_with("354");
        lines.lock().push(line);
    }
}
