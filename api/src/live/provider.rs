//! [`ChatServer`]: another server that answers the chat, by the interface of OpenAI's `/v1/chat/completions`, piece by piece.
//!
//! It is asked over one client that follows no redirects: the key is for the configured address. An answer has a deadline,
//! silence has one too, and its length a bound. What goes wrong is in the log; the client is told only that it did.

use std::{collections::VecDeque, fmt, time::Duration};

use karat_http::ApiError;
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use url::Url;

/// Of one answer, from the question to the last piece.
const DEADLINE: Duration = Duration::from_secs(120);
/// Between two pieces, and to the first one.
const SILENCE: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// A line of the stream holds one piece.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Who answers the chat.
#[derive(Debug, Clone, Default)]
pub enum ChatProvider {
    /// Filler text.
    #[default]
    LoremIpsum,
    /// A server with the interface of OpenAI.
    OpenAiCompatible {
        /// What stands before `/v1/chat/completions`.
        url: Url,
        model: String,
        key: Option<SecretString>,
    },
}

/// What a chat has said so far, as the server is told.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Said {
    pub(super) role: &'static str,
    pub(super) content: String,
}

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// More of it.
    Part(String),
    /// All of it: the last piece.
    Whole(String),
    /// There is none: the last piece.
    Failed,
}

/// The way to a server that answers.
#[derive(Clone)]
pub(super) struct ChatServer {
    client: reqwest::Client,
    url: Url,
    model: String,
    key: Option<SecretString>,
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    messages: &'a VecDeque<Said>,
    stream: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Delta,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

/// Why there is no answer, for the log.
#[derive(Debug)]
enum Fault {
    Http(reqwest::Error),
    Status(u16),
    Chunk(serde_json::Error),
    TooLong,
    /// The stream ended before it said so.
    CutOff,
    TooSlow,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => write!(f, "it cannot be asked: {error}"),
            Self::Status(status) => write!(f, "it answered with status {status}"),
            Self::Chunk(error) => write!(f, "a line of its stream is not a piece of an answer: {error}"),
            Self::TooLong => write!(f, "its answer is longer than {MAX_ANSWER_BYTES} bytes"),
            Self::CutOff => write!(f, "its answer ended without `[DONE]`"),
            Self::TooSlow => write!(f, "its answer took longer than {} s", DEADLINE.as_secs()),
        }
    }
}

impl ChatServer {
    /// # Errors
    /// When no client can be made.
    pub(super) fn new(url: Url, model: String, key: Option<SecretString>) -> Result<Self, ApiError> {
        let builder = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(SILENCE)
            .read_timeout(SILENCE)
            .no_proxy()
            .user_agent("karat");
        Ok(Self { client: builder.build().map_err(ApiError::internal)?, url, model, key })
    }

    /// Asks for an answer to the last of `said`. It goes on for as long as somebody waits for pieces.
    pub(super) fn ask(&self, said: VecDeque<Said>, pieces: mpsc::Sender<Piece>) {
        let server = self.clone();
        tokio::spawn(async move {
            let answered = async {
                let answer = tokio::time::timeout(DEADLINE, server.answer(&said, &pieces));
                match answer.await.unwrap_or(Err(Fault::TooSlow)) {
                    Ok(whole) => Piece::Whole(whole),
                    Err(fault) => {
                        tracing::warn!(host = server.url.host_str(), %fault, "the chat's server gave no answer");
                        Piece::Failed
                    }
                }
            };
            tokio::select! {
                () = pieces.closed() => {}
                last = answered => drop(pieces.send(last).await),
            }
        });
    }

    async fn answer(&self, said: &VecDeque<Said>, pieces: &mpsc::Sender<Piece>) -> Result<String, Fault> {
        let without_url = |error: reqwest::Error| Fault::Http(error.without_url());
        let url = format!("{}/v1/chat/completions", self.url.as_str().trim_end_matches('/'));
        let question = Question { model: &self.model, messages: said, stream: true };
        let mut request = self.client.post(url).header("accept", "text/event-stream").json(&question);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose_secret());
        }
        let mut response = request.send().await.map_err(without_url)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(Fault::Status(response.status().as_u16()));
        }
        let (mut whole, mut lines) = (String::new(), Lines::default());
        while let Some(bytes) = response.chunk().await.map_err(without_url)? {
            lines.add(&bytes)?;
            while let Some(line) = lines.next() {
                let Some(data) = data_of(&line) else { continue };
                if data == b"[DONE]" {
                    return Ok(whole);
                }
                let chunk: Chunk = serde_json::from_slice(data).map_err(Fault::Chunk)?;
                let content = chunk.choices.into_iter().next().and_then(|choice| choice.delta.content);
                let Some(content) = content.filter(|content| !content.is_empty()) else { continue };
                if whole.len() + content.len() > MAX_ANSWER_BYTES {
                    return Err(Fault::TooLong);
                }
                whole.push_str(&content);
                // Who no longer waits ends this task.
                let _ = pieces.send(Piece::Part(content)).await;
            }
        }
        Err(Fault::CutOff)
    }
}

/// The lines of a stream that comes in parts.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        // A part may hold many lines; what is left of one may not grow for ever.
        if self.rest.len() > MAX_LINE_BYTES {
            return Err(Fault::TooLong);
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.rest.drain(..=end).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }
}

/// The data of a line of server-sent events; none of comments, empty lines and other fields.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"data:").map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_the_stream_is_cut() {
        let stream = b"data: {\"a\":1}\r\n\r\n: comment\ndata:[DONE]\n";
        for size in 1..=stream.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for part in stream.chunks(size) {
                lines.add(part).unwrap();
                while let Some(line) = lines.next() {
                    found.extend(data_of(&line).map(<[u8]>::to_vec));
                }
            }
            assert_eq!(found, [b"{\"a\":1}".to_vec(), b"[DONE]".to_vec()], "in parts of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_for_ever() {
        let mut lines = Lines::default();
        let part = [b'x'; 16 * 1024];
        let added = (0..10).map(|_| lines.add(&part)).collect::<Result<Vec<()>, _>>();
        assert!(matches!(added, Err(Fault::TooLong)));
    }
}
