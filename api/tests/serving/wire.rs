//! The port for PostgreSQL clients, as its messages look on the wire. `dev/check-postgres-wire.sh` asks it with clients of others.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    query::{endless, notes, runs, until},
    support::TestApp,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A message of the server: its kind and what it says.
type Message = (u8, Vec<u8>);

/// A client of the port.
struct Client(TcpStream);

impl Client {
    /// Opens a connection and begins a session, up to the answer about the password.
    async fn open(app: &TestApp, user: &str, key: &str) -> (Self, Message) {
        let mut client = Self(TcpStream::connect(app.postgres).await.unwrap());
        let mut begin = 196_608_i32.to_be_bytes().to_vec();
        begin.extend(format!("user\0{user}\0database\0karat\0application_name\0test\0\0").into_bytes());
        let length = i32::try_from(begin.len() + 4).unwrap().to_be_bytes();
        client.0.write_all(&[&length[..], &begin].concat()).await.unwrap();
        let asked = client.hear().await;
        assert_eq!(asked, (b'R', 3_i32.to_be_bytes().to_vec()), "a password is asked for");
        client.say(b'p', format!("{key}\0").as_bytes()).await;
        let answer = client.hear().await;
        (client, answer)
    }

    /// A session of the admin that is ready for questions.
    async fn of_admin(app: &TestApp) -> Self {
        let (mut client, answer) = Self::open(app, "The_Admin", &key_of(app, &app.admin).await).await;
        assert_eq!(answer, (b'R', 0_i32.to_be_bytes().to_vec()));
        client.until_ready().await;
        client
    }

    /// A session of the admin with this key, and what breaks its questions off.
    async fn of_key(app: &TestApp, key: &str) -> (Self, Vec<u8>) {
        let (mut client, answer) = Self::open(app, "the_admin", key).await;
        assert_eq!(answer.0, b'R');
        let told = client.until_ready().await;
        let (_, cancel) = told.iter().find(|(kind, _)| *kind == b'K').unwrap().clone();
        (client, cancel)
    }

    /// What comes of the question that runs when it is broken off. Asked again until it meets the question: what is cancelled
    /// before does not count.
    async fn broken_off(&mut self, app: &TestApp, cancel: &[u8]) -> Vec<Message> {
        loop {
            let mut other = TcpStream::connect(app.postgres).await.unwrap();
            let request = [&16_i32.to_be_bytes()[..], &80_877_102_i32.to_be_bytes(), cancel].concat();
            other.write_all(&request).await.unwrap();
            let mut rest = Vec::new();
            timeout(DEADLINE, other.read_to_end(&mut rest)).await.expect("the server must close").unwrap();
            if let Ok(first) = timeout(Duration::from_millis(200), self.0.peek(&mut [0])).await {
                assert_eq!(first.unwrap(), 1);
                return self.until_ready().await;
            }
        }
    }

    async fn say(&mut self, kind: u8, body: &[u8]) {
        let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.0.write_all(&[&[kind][..], &length, body].concat()).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        let heard = async {
            let kind = self.0.read_u8().await.unwrap();
            let length = self.0.read_i32().await.unwrap();
            let mut body = vec![0; usize::try_from(length - 4).unwrap()];
            self.0.read_exact(&mut body).await.unwrap();
            (kind, body)
        };
        timeout(DEADLINE, heard).await.expect("the server must answer")
    }

    /// Everything up to and with the word that the server is ready.
    async fn until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.hear().await);
            if messages.last().is_some_and(|(kind, _)| *kind == b'Z') {
                return messages;
            }
        }
    }

    /// What comes of a text by the simple protocol.
    async fn ask(&mut self, sql: &str) -> Vec<Message> {
        self.say(b'Q', format!("{sql}\0").as_bytes()).await;
        self.until_ready().await
    }
}

/// An API key that reads, of whoever has this token.
async fn key_of(app: &TestApp, token: &str) -> String {
    let token = format!("Bearer {token}");
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    let body = json!({"name": "psql", "scopes": ["read"]}).to_string();
    let reply = app.send("POST", "/api/v1/api-keys", &headers, &body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.text_at("/data/key").to_owned()
}

fn kinds(messages: &[Message]) -> String {
    messages.iter().map(|(kind, _)| char::from(*kind)).collect()
}

/// The values of each row; none for null.
fn rows(messages: &[Message]) -> Vec<Vec<Option<Vec<u8>>>> {
    let of_row = |body: &[u8]| {
        let (count, mut rest) = body.split_first_chunk::<2>().unwrap();
        let mut values = Vec::new();
        for _ in 0..i16::from_be_bytes(*count) {
            let (length, after) = rest.split_first_chunk::<4>().unwrap();
            let length = usize::try_from(i32::from_be_bytes(*length)).ok();
            let (value, after) = after.split_at(length.unwrap_or_default());
            values.push(length.map(|_| value.to_vec()));
            rest = after;
        }
        values
    };
    messages.iter().filter(|(kind, _)| *kind == b'D').map(|(_, body)| of_row(body)).collect()
}

fn texts(values: &[&str]) -> Vec<Option<Vec<u8>>> {
    values.iter().map(|value| Some(value.as_bytes().to_vec())).collect()
}

/// The code of the one error among messages, and its words.
fn error(messages: &[Message]) -> (String, String) {
    let (_, body) = messages.iter().find(|(kind, _)| *kind == b'E').unwrap_or_else(|| panic!("{}", kinds(messages)));
    let text = String::from_utf8(body.clone()).unwrap();
    let field = |kind: char| text.split('\0').find_map(|field| field.strip_prefix(kind)).unwrap().to_owned();
    (field('C'), field('M'))
}

#[tokio::test]
async fn a_question_over_the_port_is_answered_as_over_http_and_leaves_a_row() {
    let app = TestApp::start().await;
    app.publish(&runs(10), 1).await;
    let mut client = Client::of_admin(&app).await;
    let sql = "SELECT job, count(*) AS runs, CAST(NULL AS TEXT) AS n FROM silver.runs GROUP BY job ORDER BY job;";
    let answer = client.ask(sql).await;
    assert_eq!(kinds(&answer), "TDDDCZ");
    let first: Vec<_> = texts(&["job 0", "4"]).into_iter().chain([None]).collect();
    assert_eq!(rows(&answer)[0], first);
    assert_eq!(answer[4].1, b"SELECT 3\0");
    let (details, outcome) = notes(&app).await.remove(0);
    assert_eq!(
        (details, outcome.as_str()),
        (json!({"sql": sql, "is_cut": false, "ended": "answered", "rows": 3}), "success")
    );

    let too_many = client
        .ask("SELECT a.run_id FROM silver.runs a, silver.runs b, silver.runs c, silver.runs d, silver.runs e")
        .await;
    assert_eq!(error(&too_many).0, "54000", "what is cut is never taken for all");
    client.say(b'X', b"").await;
    let mut rest = Vec::new();
    timeout(DEADLINE, client.0.read_to_end(&mut rest)).await.expect("the server must close").unwrap();
}

#[tokio::test]
async fn only_the_name_and_a_key_of_an_account_that_may_ask_begin_a_session() {
    let app = TestApp::start().await;
    let (admin, user) = (key_of(&app, &app.admin).await, key_of(&app, &app.user).await);
    let (rest, last) = admin.split_at(admin.len() - 1);
    let wrong = format!("{rest}{}", if last == "0" { "1" } else { "0" });
    for (name, key, code) in [
        ("the_admin", wrong.as_str(), "28P01"),
        ("the_admin", "nine-Blue-7-boats", "28P01"),
        ("the_admin", app.admin.get(..100).unwrap(), "28P01"),
        ("nobody", admin.as_str(), "28P01"),
        ("maria_77", admin.as_str(), "28P01"),
        ("maria_77", user.as_str(), "42501"),
    ] {
        let (mut client, answer) = Client::open(&app, name, key).await;
        assert_eq!(error(&[answer]).0, code, "{name}");
        let mut rest = Vec::new();
        timeout(DEADLINE, client.0.read_to_end(&mut rest)).await.expect("the server must close").unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
    let refused = app.get("/api/v1/admin/audit?action=credential_refused&limit=10").await;
    assert!(!refused.at("/data/rows").as_array().unwrap().is_empty(), "{}", refused.text);
}

#[tokio::test]
async fn security_62_nothing_but_one_select_is_answered_over_the_postgresql_port_and_the_session_goes_on() {
    let app = TestApp::start().await;
    app.publish(&runs(3), 1).await;
    let mut client = Client::of_admin(&app).await;
    for (sql, code) in [
        ("DELETE FROM silver.runs", "42000"),
        ("SELECT 1; SELECT 2", "42000"),
        ("BEGIN; DROP TABLE silver.runs", "42601"),
        ("SELECT (1 2)", "42601"),
        ("SELECT 1 / 0", "22000"),
        ("SHOW nothing", "42704"),
    ] {
        let answer = client.ask(sql).await;
        assert_eq!((kinds(&answer).as_str(), error(&answer).0.as_str()), ("EZ", code), "{sql}");
    }
    assert_eq!(rows(&client.ask("SELECT count(*) FROM silver.runs").await), [texts(&["3"])]);
}

#[tokio::test]
async fn what_clients_say_beside_questions_is_answered_without_effect() {
    let app = TestApp::start().await;
    let mut client = Client::of_admin(&app).await;
    let state = |answer: &[Message]| answer.last().unwrap().1[0];
    for (sql, expected, ready) in [
        ("", "IZ", b'I'),
        ("SET extra_float_digits = 3", "CZ", b'I'),
        ("SHOW server_version", "TDCZ", b'I'),
        ("SELECT version()", "TDCZ", b'I'),
        ("BEGIN", "CZ", b'T'),
        ("DROP TABLE gold.t", "EZ", b'E'),
        ("SELECT 1", "EZ", b'E'),
        ("ROLLBACK", "CZ", b'I'),
    ] {
        let answer = client.ask(sql).await;
        assert_eq!((kinds(&answer).as_str(), state(&answer)), (expected, ready), "{sql}");
    }
}

#[tokio::test]
async fn a_prepared_question_is_asked_once_and_its_rows_are_sent_in_the_form_that_is_wanted() {
    let app = TestApp::start().await;
    app.publish(&runs(3), 1).await;
    let mut client = Client::of_admin(&app).await;
    client.say(b'P', b"s\0SELECT count(*) AS n, true AS yes FROM silver.runs\0\0\0").await;
    client.say(b'D', b"Ss\0").await;
    client.say(b'S', b"").await;
    assert_eq!(kinds(&client.until_ready().await), "1tTZ");
    client.say(b'B', b"\0s\0\0\0\0\0\0\x01\0\x01").await;
    client.say(b'D', b"P\0").await;
    client.say(b'E', b"\0\0\0\0\0").await;
    client.say(b'S', b"").await;
    let answer = client.until_ready().await;
    assert_eq!(kinds(&answer), "2TDCZ");
    assert_eq!(rows(&answer), [[Some(3_i64.to_be_bytes().to_vec()), Some(vec![1])]]);
    assert_eq!(notes(&app).await.len(), 1, "describing it and executing it are one question");

    // A portal is read in parts.
    client.say(b'P', b"\0SELECT run_id FROM silver.runs ORDER BY 1\0\0\0").await;
    client.say(b'B', b"\0\0\0\0\0\0\0\0").await;
    client.say(b'E', b"\0\0\0\0\x02").await;
    client.say(b'E', b"\0\0\0\0\x02").await;
    client.say(b'S', b"").await;
    assert_eq!(kinds(&client.until_ready().await), "12DDsDCZ");

    // After a refusal nothing counts before the client knows of it.
    client.say(b'P', b"\0SELECT $1\0\0\0").await;
    client.say(b'B', b"\0s\0\0\0\0\0\0\0").await;
    client.say(b'S', b"").await;
    let refused = client.until_ready().await;
    assert_eq!((kinds(&refused).as_str(), error(&refused).0.as_str()), ("EZ", "0A000"));
}

#[tokio::test]
async fn a_question_ends_when_its_client_leaves_or_breaks_it_off() {
    let app = TestApp::start_with(|settings| settings.serving.sql.deadline = Duration::from_secs(120)).await;
    app.publish(&runs(100), 1).await;
    let (mut client, cancel) = Client::of_key(&app, &key_of(&app, &app.admin).await).await;
    let cancelled = async |count: usize| {
        let is_it = |(details, _): &&(serde_json::Value, String)| details["ended"] == "cancelled";
        (notes(&app).await.iter().filter(is_it).count() == count).then_some(())
    };
    client.say(b'Q', format!("{}\0", endless()).as_bytes()).await;
    assert_eq!(error(&client.broken_off(&app, &cancel).await).0, "57014");
    until("a row tells of it", async || cancelled(1).await).await;
    client.say(b'Q', format!("{}\0", endless()).as_bytes()).await;
    drop(client);
    until("another row tells of who left", async || cancelled(2).await).await;
}

#[tokio::test]
async fn a_network_with_all_its_sessions_still_breaks_its_questions_off() {
    let app = TestApp::start_with(|settings| settings.serving.sql.deadline = Duration::from_secs(120)).await;
    app.publish(&runs(100), 1).await;
    let key = key_of(&app, &app.admin).await;
    let (mut asks, cancel) = Client::of_key(&app, &key).await;
    let mut others = Vec::new();
    let refused = loop {
        let (mut client, answer) = Client::open(&app, "the_admin", &key).await;
        if answer.0 == b'E' {
            break answer;
        }
        client.until_ready().await;
        others.push(client);
        assert!(others.len() < 32, "as many sessions as connections");
    };
    let (code, words) = error(&[refused]);
    assert_eq!((code.as_str(), others.len()), ("53300", 23), "{words}");
    asks.say(b'Q', format!("{}\0", endless()).as_bytes()).await;
    assert_eq!(error(&asks.broken_off(&app, &cancel).await).0, "57014");
}

#[tokio::test]
async fn connections_of_the_port_are_counted_with_those_of_the_server() {
    let app = TestApp::start().await;
    let key = key_of(&app, &app.admin).await;
    let open = async |count: i64| (app.counts.num_open() == count).then_some(());
    until("every request over HTTP has ended", async || open(0).await).await;
    let (client, _) = Client::of_key(&app, &key).await;
    assert_eq!(app.counts.num_open(), 1);
    drop(client);
    until("the session has ended", async || open(0).await).await;
}

#[tokio::test]
async fn security_26_a_session_of_the_postgresql_port_ends_with_its_key_and_with_the_server() {
    let app = TestApp::start().await;
    let (token, key) = (format!("Bearer {}", app.admin), key_of(&app, &app.admin).await);
    let (mut client, _) = Client::open(&app, "the_admin", &key).await;
    client.until_ready().await;
    let keys = app.get("/api/v1/api-keys").await;
    let id = keys.text_at("/data/0/id");
    let revoked = app.send("DELETE", &format!("/api/v1/api-keys/{id}"), &[("authorization", token.as_str())], "").await;
    assert!(revoked.status < 300, "{}", revoked.text);
    assert_eq!(error(&[client.hear().await]).0, "28000");

    let mut client = Client::of_admin(&app).await;
    let served = app.stop();
    assert_eq!(error(&[client.hear().await]).0, "57P01");
    drop(client);
    timeout(DEADLINE, served).await.expect("the server must stop").unwrap().unwrap();
}

#[tokio::test]
async fn what_is_no_message_ends_the_connection_and_nothing_else() {
    let app = TestApp::start().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
        b"\0\0\0\x03",
        b"\0\0\0\x08\0\x02\0\0",
        b"\0\0\0\x0a\0\x03\0\0us",
        b"\x7f\xff\xff\xff",
    ] {
        let mut client = TcpStream::connect(app.postgres).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        timeout(DEADLINE, client.read_to_end(&mut rest)).await.expect("the server must close").unwrap();
        assert!(String::from_utf8_lossy(&rest).contains("08P01"), "{bytes:?}: {rest:?}");
    }
    let mut client = Client::of_admin(&app).await;
    // A bind that says that it has more than it has.
    client.say(b'B', b"\0s\0\x7f\xff").await;
    assert_eq!(error(&[client.hear().await]).0, "08P01");
    Client::of_admin(&app).await;
}
