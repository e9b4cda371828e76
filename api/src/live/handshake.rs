//! [`Handshake`]: from a request to a WebSocket (RFC 6455, 4.2).

use std::time::Duration;

use karat_http::{ApiError, SOCKET_PROTOCOL};
use poem::{
    IntoResponse, OnUpgrade, Request, Response, Upgraded,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
};
use poem_openapi::{
    ApiResponse,
    registry::{MetaResponse, MetaResponses, Registry},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::LiveSettings;
use crate::serving::text_header;

/// The connection is taken over when the answer has left, which is at once.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);
/// Clients say little.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// More than any message of ours, of which one is on its way at a time, and a close frame.
const MAX_WRITE_BUFFER_BYTES: usize = 1024 * 1024;

/// A socket that was opened.
pub(super) type Socket = WebSocketStream<Upgraded>;

/// A request that asks for a WebSocket.
pub(super) struct Handshake {
    key: HeaderValue,
    upgrade: OnUpgrade,
    offers_protocol: bool,
}

impl Handshake {
    /// # Errors
    /// 426 for a request that asks for something else, 400 without a key.
    pub(super) fn of(request: &Request) -> Result<Self, ApiError> {
        let headers = request.headers();
        let is_version = headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let asks = has_word(headers, header::UPGRADE, "websocket") && has_word(headers, header::CONNECTION, "upgrade");
        if request.method() != Method::GET || !asks || !is_version {
            return Err(upgrade_required());
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24).cloned();
        let key =
            key.ok_or_else(|| ApiError::bad_request("bad_handshake", "`Sec-WebSocket-Key` is missing or none"))?;
        let offers_protocol = has_word(headers, header::SEC_WEBSOCKET_PROTOCOL, SOCKET_PROTOCOL);
        let upgrade = request.take_upgrade().map_err(|_| upgrade_required())?;
        Ok(Self { key, upgrade, offers_protocol })
    }

    /// The answer; `work` gets the socket when that has left. The task belongs to `work`, which ends when the server stops.
    pub(super) fn accept<W, F>(self, settings: &LiveSettings, work: W) -> Switched
    where
        W: FnOnce(Socket) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut answer = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(self.key.as_bytes()));
        if self.offers_protocol {
            // The token stands beside it in the request, and is not sent back.
            answer = answer.header(header::SEC_WEBSOCKET_PROTOCOL, SOCKET_PROTOCOL);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
            .max_message_size(Some(settings.max_message_bytes))
            .max_frame_size(Some(settings.max_message_bytes));
        let upgrade = self.upgrade;
        tokio::spawn(async move {
            let Ok(Ok(upgraded)) = tokio::time::timeout(TAKEN_OVER_WITHIN, upgrade).await else { return };
            work(WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await).await;
        });
        Switched(answer.finish())
    }
}

/// Whether a header that is a list has a word, in any case.
fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

fn upgrade_required() -> ApiError {
    let message = "this path answers requests that open a WebSocket (version 13, over HTTP/1.1) only";
    ApiError::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
}

/// 101: the connection is a WebSocket now.
pub struct Switched(Response);

impl IntoResponse for Switched {
    fn into_response(self) -> Response {
        self.0
    }
}

impl ApiResponse for Switched {
    fn meta() -> MetaResponses {
        let headers = vec![
            text_header("Sec-WebSocket-Accept", "By RFC 6455."),
            text_header("Sec-WebSocket-Protocol", "`bearer`, where the client offered it."),
        ];
        let description = "The connection is a WebSocket now.";
        let answer = MetaResponse { description, status: Some(101), status_range: None, content: vec![], headers };
        MetaResponses { responses: vec![answer] }
    }

    fn register(_: &mut Registry) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_list_are_found_in_any_case_and_as_a_whole() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(has_word(&headers, header::CONNECTION, "upgrade"));
        assert!(!has_word(&headers, header::CONNECTION, "up"));
        assert!(!has_word(&headers, header::UPGRADE, "websocket"));
    }

    #[test]
    fn a_request_that_opens_no_socket_is_told_what_would() {
        let request = Request::builder().header("upgrade", "websocket").header("connection", "upgrade");
        let error = Handshake::of(&request.finish()).err().unwrap();
        assert_eq!((error.status().as_u16(), error.code()), (426, "upgrade_required"));
        let complete = Request::builder()
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-version", "13");
        let error = Handshake::of(&complete.finish()).err().unwrap();
        assert_eq!((error.status().as_u16(), error.code()), (400, "bad_handshake"));
    }
}
