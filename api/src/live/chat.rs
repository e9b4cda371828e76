//! `GET /chat`: each message of a client gets one answer.
//!
//! Answers come one after the other. An answer of another server is passed on piece by piece, and its last message has the whole
//! of it; what was said lately goes along with the next question, and is forgotten with the connection.

use std::{collections::VecDeque, sync::Arc};

use karat_http::{ApiError, error_answers, timestamp};
use poem::Request;
use poem_openapi::{OpenApi, param::Query};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    Live,
    ending::Ending,
    handshake::Switched,
    line::{Line, Talk},
    lorem,
    opened::Opened,
    provider::{ChatProvider, ChatServer, Piece, Said},
};
use crate::{
    routes::DataTag,
    serving::{
        Serving,
        params::Params,
        raw::{Raw, TicketText},
    },
};

error_answers! {
    /// Errors of `GET /chat`.
    pub ChatError: 400, 401, 403, 422, 426, 429, 503;
}

/// Messages that wait for their answer.
const MOST_WAITING: usize = 4;
/// Pieces of an answer that wait for the client.
const MOST_PIECES: usize = 8;
/// What goes along with a question of what was said before.
const MAX_SAID_BYTES: usize = 32 * 1024;

/// Operations on the chat.
pub struct ChatApi {
    live: Arc<Live>,
    serving: Arc<Serving>,
    answers: Answers,
}

/// Where answers come from.
#[derive(Clone)]
pub(super) enum Answers {
    LoremIpsum,
    Of(ChatServer),
}

impl Answers {
    /// # Errors
    /// When no client can be made.
    pub(super) fn of(provider: &ChatProvider) -> Result<Self, ApiError> {
        match provider {
            ChatProvider::LoremIpsum => Ok(Self::LoremIpsum),
            ChatProvider::OpenAiCompatible { url, model, key } => {
                Ok(Self::Of(ChatServer::new(url.clone(), model.clone(), key.clone())?))
            }
        }
    }
}

impl ChatApi {
    pub(super) fn new(live: Arc<Live>, serving: Arc<Serving>, answers: Answers) -> Self {
        Self { live, serving, answers }
    }
}

#[OpenApi(tag = "DataTag::Live")]
impl ChatApi {
    /// Chat (WebSocket)
    ///
    /// Each message is a text and gets one answer, in order: `{number, timestamp, text, is_last}`. Messages before the last
    /// one of an answer hold the next piece of it, the last one all of it; a failed answer has `error` in place of `text`. Without a
    /// server that answers, it is 50 to 120 words of filler text. Token, ticket and close codes are those of the charts.
    #[oai(path = "/chat", method = "get", operation_id = "chat")]
    async fn chat(
        &self,
        request: &Request,
        opened: Opened,
        /// A one-use ticket of `POST /auth/ws-ticket`, in place of a token.
        #[oai(name = "ticket")]
        _ticket: Query<Option<Raw<TicketText>>>,
    ) -> Result<Switched, ChatError> {
        self.serving.scope_of(opened.lease.caller())?;
        Params::of(request, &["ticket"]).finish()?;
        let talk = Chat { answers: self.answers.clone(), said: VecDeque::new(), said_bytes: 0, number: 0 };
        Ok(self.live.open(request, opened.lease, talk)?)
    }
}

/// One client that chats.
struct Chat {
    answers: Answers,
    said: VecDeque<Said>,
    /// Bytes in `said`.
    said_bytes: usize,
    /// Of the message that is answered.
    number: u64,
}

/// A message to the client.
#[derive(Serialize)]
struct Told<'a> {
    number: u64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    is_last: bool,
}

impl Talk for Chat {
    async fn talk(mut self, line: &mut Line) -> Ending {
        let mut waiting = VecDeque::new();
        let mut answering: Option<mpsc::Receiver<Piece>> = None;
        loop {
            if answering.is_none()
                && let Some(text) = waiting.pop_front()
            {
                answering = Some(self.begin(text));
            }
            tokio::select! {
                heard = line.hear() => match heard {
                    Err(ending) => return ending,
                    Ok(_) if waiting.len() == MOST_WAITING => return Ending::TooManyMessages,
                    Ok(text) => waiting.push_back(text.as_str().to_owned()),
                },
                piece = next(&mut answering) => {
                    let (message, is_last) = self.tell(piece);
                    if let Err(ending) = line.say(message).await {
                        return ending;
                    }
                    if is_last {
                        answering = None;
                    }
                }
            }
        }
    }
}

impl Chat {
    fn begin(&mut self, text: String) -> mpsc::Receiver<Piece> {
        self.number += 1;
        let (pieces, answer) = mpsc::channel(MOST_PIECES);
        match &self.answers {
            // The channel has room for one piece.
            Answers::LoremIpsum => drop(pieces.try_send(Piece::Whole(lorem::text()))),
            Answers::Of(server) => {
                let server = server.clone();
                self.remember("user", text);
                server.ask(self.said.clone(), pieces);
            }
        }
        answer
    }

    /// What the client is told, and whether it is the last of the answer.
    fn tell(&mut self, piece: Piece) -> (Utf8Bytes, bool) {
        let (text, is_last) = match &piece {
            Piece::Part(text) => (Some(text.as_str()), false),
            Piece::Whole(text) => (Some(text.as_str()), true),
            Piece::Failed => (None, true),
        };
        let error = text.is_none().then_some("no_answer");
        let told = Told { number: self.number, timestamp: timestamp(), text, error, is_last };
        // Numbers and texts are always written.
        let message = serde_json::to_string(&told).unwrap_or_default().into();
        match piece {
            Piece::Whole(text) if matches!(self.answers, Answers::Of(_)) => self.remember("assistant", text),
            // A question without an answer would be asked again with the next one.
            Piece::Failed => self.forget_newest(),
            _ => {}
        }
        (message, is_last)
    }

    fn remember(&mut self, role: &'static str, content: String) {
        self.said_bytes += content.len();
        self.said.push_back(Said { role, content });
        // The newest stays, however long it is.
        while self.said_bytes > MAX_SAID_BYTES && self.said.len() > 1 {
            self.said_bytes -= self.said.pop_front().map_or(0, |oldest| oldest.content.len());
        }
    }

    fn forget_newest(&mut self) {
        self.said_bytes -= self.said.pop_back().map_or(0, |newest| newest.content.len());
    }
}

/// The next piece of the answer that is under way; waits for ever while there is none.
async fn next(answering: &mut Option<mpsc::Receiver<Piece>>) -> Piece {
    match answering {
        // Whoever makes an answer ends with its last piece.
        Some(pieces) => pieces.recv().await.unwrap_or(Piece::Failed),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(answers: Answers) -> Chat {
        Chat { answers, said: VecDeque::new(), said_bytes: 0, number: 0 }
    }

    #[tokio::test]
    async fn filler_text_is_one_message_with_the_number_of_its_question() {
        let mut chat = chat(Answers::LoremIpsum);
        for number in 1..=2 {
            let mut answer = Some(chat.begin("hello".to_owned()));
            let (message, is_last) = chat.tell(next(&mut answer).await);
            let message: serde_json::Value = serde_json::from_str(&message).unwrap();
            assert!(is_last && message["is_last"] == true && message["number"] == number, "{message}");
            assert!(message["text"].as_str().unwrap().starts_with("Lorem ipsum"));
        }
        assert!(chat.said.is_empty(), "nothing has to be remembered");
    }

    #[test]
    fn what_was_said_is_remembered_within_its_bound() {
        let mut chat = chat(Answers::LoremIpsum);
        for number in 0..100 {
            chat.remember("user", format!("{number:01000}"));
        }
        assert_eq!(chat.said_bytes, chat.said.iter().map(|said| said.content.len()).sum::<usize>());
        assert!(chat.said_bytes <= MAX_SAID_BYTES && chat.said.back().unwrap().content.ends_with("99"));
        chat.forget_newest();
        assert!(chat.said.back().unwrap().content.ends_with("98"));
    }
}
