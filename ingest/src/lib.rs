//! Doors: how events come in, checked and made durable before anyone is told so.
//!
//! An event passes three steps, each on its own:
//! 1. [`cloudevents`] and [`lineage`] turn bytes into [`Event`]s, one by one: a broken event is a [`Rejection`] of its
//!    own and its neighbours pass. No I/O.
//! 2. [`Publisher`] appends them to the log and answers with an [`Outcome`] once the log has them on disk.
//! 3. [`door`] is the HTTP form of it: routes, limits, statuses.
//!
//! Guarantees: nothing is answered as accepted before the log has it on disk; every event of a request is exactly one
//! of accepted, duplicate or rejected; memory for requests in flight is bounded.
//!
//! Words: an event's *identity* is (source, id); its *key* decides the partition and so the order; a *receipt* names
//! an accepted batch and says later how far it has come.

pub mod canonical;
pub mod cloudevents;
mod contract;
pub mod door;
mod event;
pub mod limits;
pub mod lineage;
mod outcome;
mod progress;
mod publisher;
mod receipt;
mod record;

pub use event::{BodyFault, Code, Decoded, Event, Rejection};
pub use outcome::{Outcome, Positions, PublishError};
pub use progress::{Layer, Progress, WAIT_AT_MOST, wait_for};
pub use publisher::{Allowed, DoorName, PublishAs, Publisher};
pub use receipt::{Receipt, ReceiptKey, ReceiptSpan};
