//! What every HTTP door of Karat shares: one envelope, one error, one hardened way to serve.
//!
//! * [`harden`] wraps an application so that *every* answer conforms: errors made by the framework, panics and
//!   oversized bodies come out in the same envelope (or as `application/problem+json` when `Accept` asks for it),
//!   with a request id and the security headers.
//! * [`ApiError`] carries two messages: a calm one with a stable code for the client, and an internal one that only
//!   the log sees, under the request id.
//! * [`Envelope`] is the success form; [`error_answers!`] documents the error answers of an operation.
//! * [`JsonBody`], [`FormBody`] and [`read_body`] read request bodies under a limit, also after decompression, and with a
//!   share of a memory ([`Room`]); [`unread_body!`] declares one that a handler reads itself.
//! * [`Authenticated`] turns a bearer token or an API key into a `Caller`; [`lease`] does for what stays open.
//! * [`Limits`] counts requests by client, user or key, here or in Redis; [`EventRates`] the events of keys that declared
//!   how many they publish.
//! * [`RequestTrace`] is the place of a request in a trace of its client (W3C trace context).
//! * [`metrics`] answers what a process counts, in the text form of Prometheus.
//! * [`serve`] runs the application, in the open or with a certificate ([`Tls`]): with deadlines for heads, bodies, answers,
//!   silence and a stop ([`Stopping`]), and with room for connections that client networks share ([`ConnectionCounts`]). [`accept`]
//!   is the part of it that knows nothing of HTTP.

mod accept;
mod access_error;
mod answering;
mod answers;
mod arrival;
mod body;
mod caller;
mod client_ip;
mod context;
mod cors;
mod counts;
mod envelope;
mod error;
mod form_body;
mod harden;
mod headers;
mod host;
mod json_body;
mod limit;
mod linger;
mod metrics;
mod origins;
mod pace;
mod render;
mod serve;
mod shares;
mod stopping;
mod streams;
mod tls;
mod trace;
mod traffic;
mod translate;
mod unread_body;
mod untaken;

pub use accept::{AcceptSettings, accept};
pub use answers::{documented_errors, register_errors};
pub use arrival::Overdue;
pub use body::{BodyLimits, Room, decode_body, limit_body, limited_body, read_body, unpacked_bytes};
pub use caller::{
    Authenticated, SOCKET_PROTOCOL, authenticate, authenticate_anew, lease, lease_of, origin, require_consent,
};
pub use client_ip::{TrustedProxies, client_ip};
pub use context::{request_id, request_trace};
pub use counts::ConnectionCounts;
pub use envelope::{Answer, Created, Envelope, created, ok, timestamp};
pub use error::ApiError;
pub use form_body::FormBody;
pub use harden::{AllowedMethods, HardenSettings, harden, harden_with};
pub use json_body::{JsonBody, closed};
pub use limit::{EventRates, LimitSettings, Limits, Quota, RouteRule, SharedCounts, Taken};
pub use metrics::metrics;
pub use origins::Origins;
pub use render::{ErrorBody, ProblemBody};
pub use serve::{ServeSettings, serve};
pub use shares::Share;
pub use stopping::Stopping;
pub use tls::{Tls, TlsAcceptor};
pub use trace::RequestTrace;

/// Re-exported for the expansion of [`error_answers!`] and [`unread_body!`].
#[doc(hidden)]
pub mod __private {
    pub use poem;
    pub use poem_openapi;
}
