//! [`Asker`]: a question of a session, asked as `POST /query`. It goes through the application as a request does, so that quotas,
//! permissions, checks of the SQL, deadline, memory, turns, figures, the log and the audit log are those of that route.

use std::{net::SocketAddr, sync::Arc};

use poem::{
    Body, Endpoint, Request, RequestParts, Response,
    endpoint::BoxEndpoint,
    http::{self, HeaderValue, Method, header, uri::Scheme},
    web::{LocalAddr, RemoteAddr},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::{
    refusal::Refusal,
    value::{Column, Kind},
};
use crate::serving::params::MAX_LIMIT;

/// The route of questions.
const ROUTE: &str = "/api/v1/query";
/// What the answers may have together that sessions keep or are sending, in KiB. Each has 8 MiB at most.
pub(super) const MAX_ANSWERS_KIB: usize = 256 * 1024;

/// Who asks, and the application that is asked.
pub(super) struct Asker {
    pub(super) app: Arc<BoxEndpoint<'static>>,
    /// Of all sessions.
    pub(super) room: Arc<Semaphore>,
    pub(super) key: SecretString,
    /// What the audit log has as the client's program.
    pub(super) agent: String,
    /// A name that the application answers to.
    pub(super) host: Option<String>,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) is_secure: bool,
}

/// The rows of a question.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) columns: Vec<Column>,
    /// Each a list of values.
    pub(super) rows: Vec<Box<RawValue>>,
    /// Held for as long as it is kept.
    _room: Option<OwnedSemaphorePermit>,
}

/// What the route answers, as far as it is needed.
#[derive(Deserialize)]
struct Envelope {
    data: Answered,
}

#[derive(Deserialize)]
struct Answered {
    columns: Vec<NamedColumn>,
    rows: Vec<Box<RawValue>>,
    is_truncated: bool,
}

#[derive(Deserialize)]
struct NamedColumn {
    name: String,
    #[serde(rename = "type")]
    column_type: String,
}

#[derive(Deserialize)]
struct Failed {
    code: String,
    message: String,
    #[serde(default)]
    details: Vec<String>,
}

impl Answer {
    /// One text.
    pub(super) fn of_text(name: &str, value: &str) -> Result<Self, Refusal> {
        let rows = vec![to_raw_value(&[value]).map_err(Refusal::internal)?];
        Ok(Self { columns: vec![Column { name: name.to_owned(), kind: Kind::Text }], rows, _room: None })
    }
}

impl Asker {
    /// Asks, and waits for all rows. Dropping the future ends the question.
    ///
    /// # Errors
    /// What the route refuses; more rows than it answers, for a client of this protocol takes what it gets for all of them; an
    /// answer that there is no room for.
    pub(super) async fn ask(&self, sql: &str) -> Result<Answer, Refusal> {
        let response = self.app.get_response(self.request(sql)?).await;
        let status = response.status();
        let body = read(response).await?;
        if !status.is_success() {
            let failed: Failed = serde_json::from_slice(&body).map_err(Refusal::internal)?;
            return Err(Refusal::of_answer(status.as_u16(), &failed.code, failed.message, failed.details));
        }
        let room = self.room_for(body.len())?;
        // A large one keeps a thread busy for a while.
        let parsed =
            spawn_blocking(move || serde_json::from_slice::<Envelope>(&body)).await.map_err(Refusal::internal)?;
        let Envelope { data } = parsed.map_err(Refusal::internal)?;
        if data.is_truncated {
            let words =
                format!("the answer has more than {MAX_LIMIT} rows or is too large: ask for fewer, as by `LIMIT`");
            return Err(Refusal::new("54000", words));
        }
        let column = |NamedColumn { name, column_type }| Column { name, kind: Kind::of(&column_type) };
        Ok(Answer { columns: data.columns.into_iter().map(column).collect(), rows: data.rows, _room: Some(room) })
    }

    fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| {
            Refusal::new("53200", "the sessions here keep too many answers at this moment: ask again soon")
        })
    }

    fn request(&self, sql: &str) -> Result<Request, Refusal> {
        let mut key = HeaderValue::from_str(self.key.expose_secret()).map_err(Refusal::internal)?;
        key.set_sensitive(true);
        let mut head = http::Request::builder()
            .method(Method::POST)
            .uri(ROUTE)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, &self.agent)
            .header("x-api-key", key);
        if let Some(host) = &self.host {
            head = head.header(header::HOST, host);
        }
        let (head, ()) = head.body(()).map_err(Refusal::internal)?.into_parts();
        let scheme = if self.is_secure { Scheme::HTTPS } else { Scheme::HTTP };
        let (local, remote) = (LocalAddr(self.local.into()), RemoteAddr(self.peer.into()));
        let body = serde_json::to_vec(&json!({"sql": sql, "limit": MAX_LIMIT})).map_err(Refusal::internal)?;
        Ok(Request::from_parts(RequestParts::from((head, local, remote, scheme)), Body::from_vec(body)))
    }
}

/// The body of an answer, which the route bounds.
async fn read(response: Response) -> Result<Vec<u8>, Refusal> {
    response.into_body().into_vec().await.map_err(Refusal::internal)
}

/// The program that a client names, as far as a header can hold it.
pub(super) fn agent(application: &str) -> String {
    let plain: String = application.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(64).collect();
    format!("postgres-wire {plain}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use poem::{EndpointExt, endpoint::make_sync};

    use super::*;

    /// Asks what answers one row of so many characters, where answers have so much room.
    fn asker(characters: usize, room_kib: usize) -> Asker {
        let data = json!({
            "columns": [{"name": "text", "type": "string"}],
            "rows": [["x".repeat(characters)]],
            "is_truncated": false,
        });
        let body = json!({ "data": data }).to_string();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Asker {
            app: Arc::new(make_sync(move |_| Response::builder().body(body.clone())).boxed()),
            room: Arc::new(Semaphore::new(room_kib)),
            key: SecretString::from("kk_00_00"),
            agent: agent(""),
            host: None,
            local: anywhere,
            peer: anywhere,
            is_secure: false,
        }
    }

    #[tokio::test]
    async fn answers_that_are_kept_have_room_together_and_one_that_goes_gives_its_room_back() {
        let asker = asker(1_000, 3);
        let kept = asker.ask("SELECT 1").await.unwrap();
        assert_eq!(kept.rows.len(), 1);
        assert_eq!(asker.ask("SELECT 1").await.unwrap_err().sqlstate, "53200");
        drop(kept);
        asker.ask("SELECT 1").await.unwrap();
    }

    #[test]
    fn a_program_is_named_without_what_a_header_cannot_hold() {
        assert_eq!(agent("psql"), "postgres-wire psql");
        assert_eq!(agent("a\r\nb\u{e9}"), "postgres-wire ab");
        assert_eq!(agent(""), "postgres-wire");
        assert!(HeaderValue::from_str(&agent("DBeaver 24.1 - Main")).is_ok());
    }
}
