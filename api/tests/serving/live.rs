//! WebSockets as their clients see them.

mod chat;
mod profits;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use karat_access::AccessSettings;
use karat_api::ApiSettings;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        handshake::client::Response,
        http::{HeaderValue, header},
    },
};

use crate::support::{Run, TestApp, run};

const DEADLINE: Duration = Duration::from_secs(120);
const PIE: &str = "/api/v1/charts/pie";

type Client = WebSocketStream<TcpStream>;

async fn try_open(app: &TestApp, path: &str, headers: &[(&'static str, &str)]) -> Result<(Client, Response), Error> {
    let mut request = format!("ws://{}{path}", app.address).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let socket = TcpStream::connect(app.address).await.unwrap();
    timeout(DEADLINE, client_async(request, socket)).await.unwrap()
}

/// A socket by a token.
pub async fn open(app: &TestApp, path: &str, token: &str) -> Client {
    try_open(app, path, &[("authorization", &format!("Bearer {token}"))]).await.unwrap().0
}

/// The status of a refusal.
async fn refusal(app: &TestApp, path: &str, headers: &[(&'static str, &str)]) -> u16 {
    match try_open(app, path, headers).await {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{path}: {error}"),
        Ok(_) => panic!("{path}: it was opened"),
    }
}

/// The next message that is no control frame.
pub async fn heard(client: &mut Client) -> Value {
    loop {
        let message = timeout(DEADLINE, client.next()).await.expect("a message must come").unwrap().unwrap();
        match message {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(frame) => panic!("it was closed: {frame:?}"),
            _ => {}
        }
    }
}

/// Waits for a message of which this holds.
async fn heard_where(client: &mut Client, holds: impl Fn(&Value) -> bool) -> Value {
    loop {
        let message = heard(client).await;
        if holds(&message) {
            return message;
        }
    }
}

/// The code and the reason with which a socket is closed, whatever comes before.
pub async fn closed(client: &mut Client) -> (u16, String) {
    let close = async {
        loop {
            match client.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return (u16::from(frame.code), frame.reason.to_string()),
                Some(Ok(_)) => {}
                other => panic!("it ended without a reason: {other:?}"),
            }
        }
    };
    timeout(DEADLINE, close).await.expect("it must be closed")
}

async fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).await.unwrap();
}

/// A run that began just now.
fn recent(id: &str, source: &str, user: &str) -> Run {
    let now = chrono::Utc::now().to_rfc3339();
    Run { user: Some(user.to_owned()), ..run(id, source, "load", &now) }
}

fn quick(settings: &mut ApiSettings) {
    settings.live.look_every = Duration::from_millis(20);
}

#[tokio::test]
async fn a_chart_is_pushed_at_once_at_its_interval_and_on_a_new_epoch() {
    let app = TestApp::start().await;
    app.publish(&[recent("a", "crm", "x")], 1).await;
    let mut pie = open(&app, PIE, &app.admin).await;
    let first = heard(&mut pie).await;
    assert_eq!((&first["chart_type"], &first["epoch"]), (&json!("pie"), &json!(1)), "{first}");
    assert_eq!(first["slices"][0], json!({"name": "completed", "value": 1}), "{first}");
    assert!(first["timestamp"].as_str().unwrap().ends_with('Z'));
    say(&mut pie, "{\"interval_ms\": 1}").await;
    heard_where(&mut pie, |message| message["error"] == "validation_error").await;
    // So long that only the epoch can be what makes it come.
    say(&mut pie, "{\"interval_ms\": 60000}").await;
    app.publish(&[recent("a", "crm", "x"), recent("b", "crm", "x")], 2).await;
    let second = heard_where(&mut pie, |message| message["epoch"] == 2).await;
    assert_eq!(second["slices"][0]["value"], 2);
    say(&mut pie, "{\"interval_ms\": 250}").await;
    let mut stamps = Vec::new();
    while stamps.len() < 3 {
        stamps.push(heard(&mut pie).await["timestamp"].as_str().unwrap().to_owned());
    }
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
}

#[tokio::test]
async fn each_chart_has_its_form_and_a_user_sees_own_runs_only() {
    let app = TestApp::start().await;
    app.publish(&[recent("a", "crm", &app.user_id), recent("b", "billing", "x"), recent("c", "crm", "x")], 3).await;
    for (path, total) in [("/api/v1/charts/bar?source=runs", 3), ("/api/v1/charts/line", 3)] {
        for (token, expected) in [(&app.admin, total), (&app.user, 1)] {
            let mut client = open(&app, path, token).await;
            let chart = heard(&mut client).await;
            let series = chart["series"].as_array().unwrap();
            let completed = series.iter().find(|one| one["name"] == "completed").unwrap();
            let points = completed["points"].as_array().unwrap();
            assert_eq!(points.iter().map(|point| point["y"].as_i64().unwrap()).sum::<i64>(), expected, "{chart}");
        }
    }
    let mut line = open(&app, "/api/charts/line", &app.user).await;
    assert_eq!(heard(&mut line).await["series"][0]["points"].as_array().unwrap().len(), 30);
}

#[tokio::test]
async fn what_opens_no_socket_is_refused_with_its_reason() {
    let app = TestApp::start_with(|settings| {
        settings.auth.origins = "https://app.example.org".parse().unwrap();
    })
    .await;
    let token = format!("Bearer {}", app.user);
    let by_token = ("authorization", token.as_str());
    assert_eq!(refusal(&app, PIE, &[]).await, 401);
    assert_eq!(refusal(&app, &format!("{PIE}?token={}", app.user), &[]).await, 401);
    assert_eq!(refusal(&app, &format!("{PIE}?ticket={}", "0".repeat(64)), &[by_token]).await, 401);
    assert_eq!(refusal(&app, "/api/v1/charts/cake", &[by_token]).await, 404);
    assert_eq!(refusal(&app, &format!("{PIE}?source=losses"), &[by_token]).await, 422);
    for foreign in ["https://evil.example.org", "null"] {
        assert_eq!(refusal(&app, PIE, &[by_token, ("origin", foreign)]).await, 403, "{foreign}");
    }
    let own = format!("http://{}", app.address);
    for admitted in ["https://app.example.org", &own] {
        try_open(&app, PIE, &[by_token, ("origin", admitted)]).await.unwrap();
    }
    for path in [PIE, "/api/v1/chat"] {
        let plain = app.get(path).await;
        assert_eq!((plain.status, plain.text_at("/code")), (426, "upgrade_required"), "{}", plain.text);
    }
}

#[tokio::test]
async fn a_page_opens_a_socket_by_its_protocol_and_the_token_is_not_sent_back() {
    let app = TestApp::start().await;
    let protocols = format!("bearer, {}", app.user);
    let (mut client, answer) = try_open(&app, PIE, &[("sec-websocket-protocol", &protocols)]).await.unwrap();
    assert_eq!(answer.headers()[header::SEC_WEBSOCKET_PROTOCOL], "bearer");
    heard(&mut client).await;
    assert_eq!(refusal(&app, PIE, &[("sec-websocket-protocol", "bearer, wrong")]).await, 401);
}

#[tokio::test]
async fn a_ticket_opens_one_socket_and_ends_with_the_session_that_asked_for_it() {
    let app = TestApp::start_with(quick).await;
    let token = format!("Bearer {}", app.user);
    let by_token = [("authorization", token.as_str())];
    let asked = app.send("POST", "/api/v1/auth/ws-ticket", &by_token, "").await;
    assert_eq!((asked.status, asked.at("/data/expires_in")), (200, &json!(30)), "{}", asked.text);
    let path = format!("{PIE}?ticket={}", asked.text_at("/data/ticket"));
    let (mut client, _) = try_open(&app, &path, &[]).await.unwrap();
    heard(&mut client).await;
    assert_eq!(refusal(&app, &path, &[]).await, 401, "it was used");

    let unused = app.send("POST", "/api/v1/auth/ws-ticket", &by_token, "").await;
    assert_eq!(app.send("POST", "/api/v1/auth/logout", &by_token, "").await.status, 200);
    assert_eq!(closed(&mut client).await, (4401, "token_revoked".to_owned()));
    let path = format!("{PIE}?ticket={}", unused.text_at("/data/ticket"));
    assert_eq!(refusal(&app, &path, &[]).await, 401, "its session has ended");
}

#[tokio::test]
async fn security_26_a_socket_ends_with_its_session_and_when_its_token_expires() {
    let short = |accounts| AccessSettings { access_token_ttl: Duration::from_secs(20), ..accounts };
    let app = TestApp::start_on(short, quick).await;
    let mut ended = open(&app, PIE, &app.user).await;
    let mut expired = open(&app, PIE, &app.admin).await;
    let token = format!("Bearer {}", app.user);
    assert_eq!(app.send("POST", "/api/v1/auth/logout", &[("authorization", &token)], "").await.status, 200);
    assert_eq!(closed(&mut ended).await, (4401, "token_revoked".to_owned()));
    assert_eq!(closed(&mut expired).await, (4401, "token_expired".to_owned()));
}

#[tokio::test]
async fn limits_of_a_user_close_with_their_codes() {
    let app = TestApp::start_with(|settings| {
        settings.live.connections_per_user = 1;
        settings.live.messages_per_minute = 3;
    })
    .await;
    let mut first = open(&app, PIE, &app.user).await;
    heard(&mut first).await;
    let mut second = open(&app, PIE, &app.user).await;
    assert_eq!(closed(&mut second).await, (4429, "too_many_connections".to_owned()));
    for _ in 0..4 {
        say(&mut first, "{\"interval_ms\": 3000}").await;
    }
    assert_eq!(closed(&mut first).await, (4429, "too_many_messages".to_owned()));
    let mut large = open(&app, PIE, &app.admin).await;
    say(&mut large, &"x".repeat(8 * 1024 + 1)).await;
    assert_eq!(closed(&mut large).await, (1009, "message_too_large".to_owned()));
}

#[tokio::test]
async fn a_socket_takes_text_only() {
    let app = TestApp::start().await;
    let mut client = open(&app, PIE, &app.user).await;
    client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(closed(&mut client).await, (1003, "text_only".to_owned()));
}

#[tokio::test]
async fn all_users_together_have_a_bound() {
    let app = TestApp::start_with(|settings| settings.live.connections = 1).await;
    let mut first = open(&app, PIE, &app.user).await;
    heard(&mut first).await;
    let token = format!("Bearer {}", app.admin);
    assert_eq!(refusal(&app, PIE, &[("authorization", &token)]).await, 503);
}

#[tokio::test]
async fn a_client_that_does_not_say_that_it_is_there_is_disconnected() {
    let app = TestApp::start_with(|settings| {
        settings.live.ping_every = Duration::from_millis(50);
        settings.live.pong_within = Duration::from_millis(300);
    })
    .await;
    // A client that reads and never answers.
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let head = format!(
        "GET {PIE} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        app.address, app.user
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(DEADLINE, socket.read_to_end(&mut bytes)).await.expect("it must be closed").unwrap();
    assert!(String::from_utf8_lossy(&bytes).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the key of RFC 6455, 1.3");
    let close = [&[0x88, 15][..], &4408_u16.to_be_bytes(), b"slow_consumer"].concat();
    assert!(bytes.ends_with(&close), "{}", String::from_utf8_lossy(&bytes));
}

#[tokio::test]
async fn a_stop_of_the_server_says_goodbye_and_waits_for_it() {
    let app = TestApp::start().await;
    let mut client = open(&app, PIE, &app.user).await;
    heard(&mut client).await;
    let served = app.stop();
    assert_eq!(closed(&mut client).await, (1001, "server_stops".to_owned()));
    drop(client);
    timeout(DEADLINE, served).await.expect("the server must stop").unwrap().unwrap();
}
