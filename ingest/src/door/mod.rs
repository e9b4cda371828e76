//! The HTTP door: `POST /events`, `POST /lineage`, `POST /lineage/batch` and `GET /receipts/{id}`.
//!
//! [`IngestApi`] is mounted by the server under `/api/v1` and `/api`; the application carries the accounts
//! (`.data(access)`). Statuses of a publishing request:
//!
//! | status | when |
//! |---|---|
//! | 202 | all events are durable in the log |
//! | 200 | as 202, and the layer of `?wait=` has committed them |
//! | 207 | some were refused, the others are durable |
//! | 422 | all were refused: the error envelope, with the same counts and errors in `data` |
//! | 403 | all were refused because the credential may not publish their types |
//! | 403 | consent is required, and the owner of the credential has not given it, or nobody whom the events name has |
//! | 408 | the body came too slowly |
//! | 413 | the request, the number of events or of people whom they name, or the only event is over its limit, which the message names |
//! | 429 | the key publishes more events in a second than was declared for it, or its quota is used up |
//! | 400, 415 | the events of the body cannot be told apart |
//! | 503 | the log or this door is busy: publish again after `Retry-After` |

mod answer;
mod api;
mod body;
mod budget;
mod named;
mod uploads;

pub use answer::{
    Acceptance, PublishAnswer, PublishFailed, Published, PublishedError, ReceiptState, Refusal, RefusedBody,
};
pub use api::{IngestApi, WaitFor};
pub use budget::Budget;
