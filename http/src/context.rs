//! The request's own facts that rendering needs, held in a task-local for the time of one request.
//!
//! A task-local, because errors are turned into answers in places that never see the request (the framework's
//! `as_response`). Work spawned on another task does not inherit it; pass the id along there.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use karat_access::{Access, Caller};
use poem::http::{HeaderMap, header};
use tracing::Span;
use uuid::Uuid;

use crate::trace::RequestTrace;

/// The longest request id that is taken over from a client.
const MAX_REQUEST_ID_CHARS: usize = 64;

tokio::task_local! {
    static CONTEXT: Scope;
}

struct Scope {
    context: RequestContext,
    caller: RefCell<Option<Known>>,
    user: Cell<Option<Uuid>>,
    /// Stands on every line of the log that is written for the request.
    span: Span,
}

/// Who is calling, once that is known, and the accounts that know it.
pub(crate) struct Known {
    pub access: Access,
    pub caller: Arc<Caller>,
}

#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    pub request_id: Arc<str>,
    pub wants_problem: bool,
    pub trace: RequestTrace,
}

impl RequestContext {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let given = headers.get("x-request-id").and_then(|v| v.to_str().ok()).filter(|id| is_valid_id(id));
        let request_id = given.map_or_else(new_id, Arc::from);
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
        let trace = RequestTrace::from_headers(headers);
        Self { request_id, wants_problem: accept.is_some_and(asks_for_problem), trace }
    }
}

/// The id of the request that the current task is answering, when it is answering one under `harden`.
pub fn request_id() -> Option<Arc<str>> {
    CONTEXT.try_with(|scope| scope.context.request_id.clone()).ok()
}

/// The trace of the request that the current task is answering, when it is answering one under `harden`.
pub fn request_trace() -> Option<RequestTrace> {
    CONTEXT.try_with(|scope| scope.context.trace.clone()).ok()
}

pub(crate) async fn within<F: Future>(context: RequestContext, span: Span, work: F) -> F::Output {
    CONTEXT.scope(Scope { context, caller: RefCell::default(), user: Cell::default(), span }, work).await
}

/// Who the request is of, if that was known.
pub(crate) fn user() -> Option<Uuid> {
    CONTEXT.try_with(|scope| scope.user.get()).ok().flatten()
}

/// Notes who is calling, for what is written about the request when it is answered.
pub(crate) fn remember(access: &Access, caller: &Arc<Caller>) {
    let known = Known { access: access.clone(), caller: caller.clone() };
    // Without `harden` around it nothing is written.
    let _ = CONTEXT.try_with(|scope| {
        if scope.user.replace(Some(caller.id)).is_none() {
            scope.span.record("user_id", tracing::field::display(caller.id));
        }
        scope.caller.replace(Some(known));
    });
}

/// Who called, if that was known.
pub(crate) fn take_caller() -> Option<Known> {
    CONTEXT.try_with(|scope| scope.caller.take()).ok().flatten()
}

pub(crate) fn current() -> RequestContext {
    CONTEXT.try_with(|scope| scope.context.clone()).unwrap_or_else(|_| RequestContext {
        request_id: new_id(),
        wants_problem: false,
        trace: RequestTrace::begun(),
    })
}

fn new_id() -> Arc<str> {
    let mut buffer = uuid::Uuid::encode_buffer();
    Arc::from(&*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut buffer))
}

/// Letters, digits and `.`, `_`, `-` only: an id is written to logs and headers as it is.
fn is_valid_id(id: &str) -> bool {
    (1..=MAX_REQUEST_ID_CHARS).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// True when problem+json is named with a weight above 0 that plain JSON, if named, does not exceed.
fn asks_for_problem(accept: &str) -> bool {
    let weight_of = |wanted: &str| {
        accept.split(',').find_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let matches = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(wanted));
            let weight = parts.find_map(|p| p.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
            if matches { weight } else { None }
        })
    };
    let problem = weight_of("application/problem+json").unwrap_or(0.0);
    problem > 0.0 && problem >= weight_of("application/json").unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_json_is_chosen_only_when_it_is_asked_for() {
        assert!(asks_for_problem("application/problem+json"));
        assert!(asks_for_problem("application/json, application/problem+json"));
        assert!(asks_for_problem("text/html, Application/Problem+JSON;q=0.5"));
        assert!(!asks_for_problem("application/json, application/problem+json;q=0.5"));
        assert!(!asks_for_problem("application/problem+json;q=0"));
        assert!(!asks_for_problem("*/*"));
    }

    #[test]
    fn request_ids_that_could_forge_a_log_line_are_replaced() {
        assert!(is_valid_id("0199-abc.DEF_1"));
        for bad in ["", "a b", "a\nb", "a\u{1b}[31m", "é", &"x".repeat(65)] {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }
}
