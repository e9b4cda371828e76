//! [`Refusal`]: what a client is told when something is not answered, with the code of PostgreSQL that is nearest.

use bytes::{BufMut, BytesMut};
use karat_http::{ApiError, Overdue};

use super::channel::{Broken, message, text};

/// The code of a session in which nothing was asked for too long.
pub(super) const IDLE: &str = "57P05";

/// Something that is not answered. The words are for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) sqlstate: &'static str,
    pub(super) message: String,
    pub(super) details: Vec<String>,
}

impl Refusal {
    pub(super) fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into(), details: Vec::new() }
    }

    /// Of what a route answered: its status, the code and the words.
    pub(super) fn of_answer(status: u16, code: &str, message: String, details: Vec<String>) -> Self {
        let sqlstate = match (status, code) {
            (_, "sql_unreadable") => "42601",
            (_, "sql_too_large") => "54001",
            (_, "query_too_large" | "query_memory") => "53200",
            (_, "query_failed") => "22000",
            (401, _) => "28000",
            (403, _) => "42501",
            (429, _) => "53400",
            (503, _) => "53000",
            (504, _) => "57014",
            (400..=499, _) => "42000",
            _ => "XX000",
        };
        Self { sqlstate, message, details }
    }

    /// Something here is otherwise than it must be; the cause goes to the log.
    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a question over the PostgreSQL port could not be answered");
        Self::new("XX000", "the server could not answer")
    }

    /// As an error, after which the session goes on.
    pub(super) fn write(&self, out: &mut BytesMut) {
        self.write_as(out, "ERROR");
    }

    /// As an error that ends the session.
    pub(super) fn write_last(&self, out: &mut BytesMut) {
        self.write_as(out, "FATAL");
    }

    fn write_as(&self, out: &mut BytesMut, severity: &str) {
        message(out, b'E', |out| {
            let details = self.details.join("\n");
            let (words, details) = (self.message.as_str(), details.as_str());
            let fields = [(b'S', severity), (b'V', severity), (b'C', self.sqlstate), (b'M', words), (b'D', details)];
            for (kind, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                out.put_u8(kind);
                text(out, value);
            }
            out.put_u8(0);
        });
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        if error.status().is_server_error() {
            // Its form for debugging has the cause.
            tracing::error!(?error, "a log-in over the PostgreSQL port could not be looked at");
        }
        Self::of_answer(error.status().as_u16(), error.code(), error.message().to_owned(), Vec::new())
    }
}

/// Why something came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The client is told.
    Refused(Refusal),
    /// The connection ends.
    Broken(Broken),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Trouble {
    /// What was overdue, when that is what ends the connection.
    pub(super) fn overdue(&self) -> Option<Overdue> {
        match self {
            Self::Refused(refusal) if refusal.sqlstate == IDLE => Some(Overdue::Idle),
            Self::Broken(Broken::Untaken) => Some(Overdue::Answer),
            _ => None,
        }
    }

    /// What the client is told when this ends its connection; nothing when it has left, or takes nothing.
    pub(super) fn last_words(self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Broken(Broken::Malformed(words)) => Some(Refusal::new("08P01", words)),
            Self::Broken(Broken::Gone | Broken::Untaken) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_route_answers_has_the_nearest_code_of_postgresql() {
        for (status, code, sqlstate) in [
            (400, "sql_unreadable", "42601"),
            (400, "sql_refused", "42000"),
            (401, "token_revoked", "28000"),
            (403, "forbidden", "42501"),
            (422, "query_failed", "22000"),
            (422, "query_too_large", "53200"),
            (429, "too_many_requests", "53400"),
            (503, "query_busy", "53000"),
            (504, "deadline_exceeded", "57014"),
            (500, "internal_error", "XX000"),
        ] {
            assert_eq!(Refusal::of_answer(status, code, String::new(), Vec::new()).sqlstate, sqlstate, "{code}");
        }
    }

    #[test]
    fn a_connection_that_is_overdue_says_by_what_and_others_do_not() {
        let idle = Trouble::from(Refusal::new(IDLE, "no"));
        assert_eq!(
            (idle.overdue(), Trouble::from(Broken::Untaken).overdue()),
            (Some(Overdue::Idle), Some(Overdue::Answer))
        );
        assert_eq!(
            (Trouble::from(Refusal::new("28000", "no")).overdue(), Trouble::from(Broken::Gone).overdue()),
            (None, None)
        );
    }

    #[test]
    fn a_refusal_is_written_with_the_fields_that_it_has() {
        let mut out = BytesMut::new();
        Refusal::new("42601", "no").write(&mut out);
        assert_eq!(&out[..], b"E\0\0\0\x1eSERROR\0VERROR\0C42601\0Mno\0\0");
    }
}
