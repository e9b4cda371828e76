//! The chat, by filler text and by another server.

use karat_api::live::ChatProvider;
use karat_oracle::plain_http::{answer, read_request};
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{DEADLINE, closed, heard, open, say};
use crate::{events::install_provider, support::TestApp};

const CHAT: &str = "/api/v1/chat";
const KEY: &str = "key-of-the-test";

/// What a server of the test does with a question.
#[derive(Clone, Copy)]
enum Conduct {
    /// Answers `Hello there` in two pieces.
    Streams,
    Redirects,
    /// Ends before it said everything.
    BreaksOff,
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn piece(text: &str) -> String {
    format!("data: {}\n\n", serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
}

async fn conduct(mut socket: TcpStream, conduct: Conduct, asked: mpsc::Sender<String>) {
    let request = read_request(&mut socket).await;
    asked.send(request).await.unwrap();
    match conduct {
        Conduct::Redirects => {
            let head = "302 Found\r\nlocation: http://127.0.0.1:1/v1/chat/completions";
            answer(&mut socket, head, "").await;
        }
        Conduct::Streams | Conduct::BreaksOff => {
            let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
            let mut text = format!("{HEAD}: a comment\n\n{role}{}", piece("Hello "));
            if matches!(conduct, Conduct::Streams) {
                text.push_str(&format!("{}data: [DONE]\n\n", piece("there")));
            }
            socket.write_all(text.as_bytes()).await.unwrap();
        }
    }
}

/// An application whose chat is answered by a server of the test, and what that is asked.
async fn start(behaviour: Conduct) -> (TestApp, mpsc::Receiver<String>) {
    install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap()).parse().unwrap();
    let (asked, questions) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(conduct(socket, behaviour, asked.clone()));
        }
    });
    let key = Some(KEY.to_owned().into());
    let chat = ChatProvider::OpenAiCompatible { url, model: "small".to_owned(), key };
    (TestApp::start_with(|settings| settings.live.chat = chat).await, questions)
}

#[tokio::test]
async fn each_message_gets_one_answer_of_filler_text() {
    let app = TestApp::start().await;
    let mut client = open(&app, CHAT, &app.user).await;
    for number in 1..=3 {
        say(&mut client, "How are you?").await;
        let answer = heard(&mut client).await;
        assert_eq!((&answer["number"], &answer["is_last"]), (&Value::from(number), &Value::from(true)), "{answer}");
        let words = answer["text"].as_str().unwrap().split_whitespace().count();
        assert!((50..=120).contains(&words), "{answer}");
    }
}

#[tokio::test]
async fn another_server_answers_piece_by_piece_and_is_told_what_was_said() {
    let (app, mut questions) = start(Conduct::Streams).await;
    let mut client = open(&app, CHAT, &app.user).await;
    for (number, question) in [(1, "first question"), (2, "second question")] {
        say(&mut client, question).await;
        let mut pieces = String::new();
        let whole = loop {
            let message = heard(&mut client).await;
            assert_eq!(message["number"], number, "{message}");
            let text = message["text"].as_str().unwrap_or_else(|| panic!("{message}"));
            if message["is_last"] == true {
                break text.to_owned();
            }
            pieces.push_str(text);
        };
        assert_eq!((pieces.as_str(), whole.as_str()), ("Hello there", "Hello there"));
        let asked = tokio::time::timeout(DEADLINE, questions.recv()).await.unwrap().unwrap();
        assert!(asked.starts_with("POST /base/v1/chat/completions HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("authorization: Bearer {KEY}")), "{asked}");
        let body: Value = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&body["model"], &body["stream"]), (&Value::from("small"), &Value::from(true)));
        let said = body["messages"].as_array().unwrap();
        assert_eq!(said.len(), 2 * number - 1, "{body}");
        assert_eq!(said.last().unwrap(), &serde_json::json!({"role": "user", "content": question}));
    }
}

#[tokio::test]
async fn an_answer_that_is_redirected_or_breaks_off_is_said_to_have_failed() {
    for behaviour in [Conduct::Redirects, Conduct::BreaksOff] {
        let (app, _questions) = start(behaviour).await;
        let mut client = open(&app, CHAT, &app.user).await;
        say(&mut client, "hello").await;
        let last = loop {
            let message = heard(&mut client).await;
            if message["is_last"] == true {
                break message;
            }
        };
        assert_eq!((&last["error"], &last["text"]), (&Value::from("no_answer"), &Value::Null), "{last}");
    }
}

#[tokio::test]
async fn who_asks_more_than_the_limit_is_disconnected() {
    let app = TestApp::start_with(|settings| settings.live.messages_per_minute = 5).await;
    let mut client = open(&app, CHAT, &app.user).await;
    for _ in 0..6 {
        say(&mut client, "hello").await;
    }
    assert_eq!(closed(&mut client).await, (4429, "too_many_messages".to_owned()));
}
