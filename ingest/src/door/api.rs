//! The routes.

use std::sync::Arc;

use bytes::Bytes;
use karat_access::{Access, Caller, Permission};
use karat_http::{
    Answer, ApiError, Authenticated, BodyLimits, EventRates, authenticate_anew, ok, origin, read_body, require_consent,
};
use karat_schemas::events::Contracts;
use poem::http::{HeaderMap, header};
use poem::{Body, Request};
use poem_openapi::param::{Path, Query};
use poem_openapi::{Enum, OpenApi, Tags};

use super::{
    answer::{PublishAnswer, PublishFailed, ReceiptFailed, ReceiptState, answer},
    body::{EventsBody, LineageBatchBody, LineageBody, event_mode, lineage_form},
    budget::Budget,
    named::with_consent,
};
use crate::{
    cloudevents,
    event::{BodyFault, Code, Decoded},
    limits::MAX_REQUEST_BYTES,
    lineage::{self, Form},
    outcome::Outcome,
    progress::{Layer, Progress, WAIT_AT_MOST, wait_for},
    publisher::{DoorName, PublishAs, Publisher},
};

/// Bodies above this size are decoded on a blocking thread.
const INLINE_DECODE_BYTES: usize = 64 * 1024;

/// The publishing routes, for mounting under `/api/v1` and `/api`.
#[derive(Clone)]
pub struct IngestApi {
    publisher: Publisher,
    progress: Option<Arc<dyn Progress>>,
    budget: Budget,
    rates: Arc<EventRates>,
}

/// What `?wait=` may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "lowercase")]
pub enum WaitFor {
    /// The raw events are in their bronze table.
    Bronze,
    /// They are in silver, or in quarantine.
    Silver,
    /// An epoch of every pipeline of their topic holds them.
    Gold,
}

#[derive(Tags)]
enum Tag {
    /// Events in.
    Publish,
}

impl IngestApi {
    /// Without `progress`, `?wait=` answers 202 with the layer `logged` at once.
    pub fn new(publisher: Publisher, progress: Option<Arc<dyn Progress>>) -> Self {
        Self { publisher, progress, budget: Budget::default(), rates: EventRates::new(None) }
    }

    /// Counts the events of keys with a declared rate there, instead of in this door alone.
    #[must_use]
    pub fn with_rates(mut self, rates: Arc<EventRates>) -> Self {
        self.rates = rates;
        self
    }

    /// The budget of memory for requests in flight.
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// Replaces the budget of memory for requests in flight.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Boxed by its callers: the framework moves the future of a handler several times.
    async fn publish(
        &self,
        caller: &Caller,
        request: &Request,
        body: Body,
        door: DoorName,
        wait: Option<WaitFor>,
        decode: impl FnOnce(&Bytes, &Contracts) -> Result<Decoded, BodyFault> + Send + 'static,
    ) -> Result<PublishAnswer, ApiError> {
        let headers = request.headers();
        let mut room = self.budget.room(headers);
        let limits = BodyLimits::of(MAX_REQUEST_BYTES as u64);
        let body = read_body(headers, body, limits, &mut room).await?;
        room.settle();
        if body.len() > INLINE_DECODE_BYTES {
            // Asking is cheaper than telling a large body apart.
            self.rates.check(caller).await?;
        }
        let events = self.decode(body, decode).await?;
        // As late as can be: what is still being sent when the credential is revoked or consent is taken back is refused. A body
        // may take many minutes.
        let caller = authenticate_anew(request).await?;
        caller.require(Permission::Publish)?;
        require_consent(request, &caller).await?;
        // Refused ones count too: they were read and checked.
        self.rates.admit(&caller, events.len()).await?;
        // Boxed: few keys may, and the way to the database would make the future of every request larger.
        let events = match caller.may_publish_for_others() {
            true => Box::pin(with_consent(request, &caller, &self.budget, events)).await?,
            false => events,
        };
        let outcome = self.publisher.publish(events, &PublishAs::from(&*caller), door).await?;
        drop(room);
        if outcome.errors.iter().any(|rejection| rejection.code == Code::TypeNotAllowed) {
            // Boxed: rare, and the way to the database would make the future of every request larger.
            Box::pin(note_foreign_type(request, &caller)).await;
        }
        self.answer(outcome, wait, wants_problem(headers)).await
    }

    async fn decode(
        &self,
        body: Bytes,
        decode: impl FnOnce(&Bytes, &Contracts) -> Result<Decoded, BodyFault> + Send + 'static,
    ) -> Result<Decoded, ApiError> {
        if body.len() <= INLINE_DECODE_BYTES {
            return Ok(decode(&body, self.publisher.contracts())?);
        }
        let contracts = self.publisher.contracts().clone();
        Ok(self.budget.decode(move || decode(&body, &contracts)).await??)
    }

    async fn answer(
        &self,
        outcome: Outcome,
        wait: Option<WaitFor>,
        wants_problem: bool,
    ) -> Result<PublishAnswer, ApiError> {
        let receipt = outcome.receipt.as_ref().map(|receipt| self.publisher.receipts().seal(receipt));
        let (layer, is_reached) = match (wait.map(Layer::from), &self.progress) {
            (Some(target), Some(progress)) if !outcome.positions.is_empty() => {
                let layer = wait_for(&**progress, target, &outcome.positions, WAIT_AT_MOST).await;
                (layer, layer >= target)
            }
            _ => (Layer::Logged, false),
        };
        answer(outcome, receipt, layer, is_reached, wants_problem)
    }
}

#[OpenApi(tag = "Tag::Publish")]
impl IngestApi {
    /// Publish events
    ///
    /// Takes CloudEvents 1.0 in structured, batched and binary mode, and NDJSON. An event is known by (`source`, `id`):
    /// publishing it again changes no figure. The answer comes when the log has the events on disk; each refused one
    /// has an entry in `errors` and does not hold up the others. When all are refused, the answer is 422 with the same
    /// counts in `data`.
    #[oai(path = "/events", method = "post", operation_id = "publish_events")]
    async fn publish_events(
        &self,
        caller: Authenticated,
        request: &Request,
        /// Answer 200 once this layer has committed the events; after 30 seconds, 202 with the layer reached.
        wait: Query<Option<WaitFor>>,
        body: EventsBody,
    ) -> Result<PublishAnswer, PublishFailed> {
        caller.require(Permission::Publish)?;
        let mode = event_mode(request.headers())?;
        let decode = move |body: &Bytes, contracts: &Contracts| cloudevents::decode(mode, body, contracts);
        Ok(Box::pin(self.publish(&caller, request, body.0, DoorName::Http, wait.0, decode)).await?)
    }

    /// Publish an OpenLineage event
    ///
    /// Takes a RunEvent, DatasetEvent or JobEvent as the public clients send it: setting the client's URL and API key
    /// is all that is needed. Its identity is the SHA-256 of its canonical JSON.
    #[oai(path = "/lineage", method = "post", operation_id = "publish_lineage")]
    async fn publish_lineage(
        &self,
        caller: Authenticated,
        request: &Request,
        /// Answer 200 once this layer has committed the event; after 30 seconds, 202 with the layer reached.
        wait: Query<Option<WaitFor>>,
        body: LineageBody,
    ) -> Result<PublishAnswer, PublishFailed> {
        caller.require(Permission::Publish)?;
        let form = lineage_form(request.headers(), Form::One)?;
        let decode = move |body: &Bytes, contracts: &Contracts| lineage::decode(form, body, contracts);
        Ok(Box::pin(self.publish(&caller, request, body.0, DoorName::Lineage, wait.0, decode)).await?)
    }

    /// Publish many OpenLineage events
    ///
    /// Takes an array, or one event a line as `application/x-ndjson`.
    #[oai(path = "/lineage/batch", method = "post", operation_id = "publish_lineage_batch")]
    async fn publish_lineage_batch(
        &self,
        caller: Authenticated,
        request: &Request,
        /// Answer 200 once this layer has committed the events; after 30 seconds, 202 with the layer reached.
        wait: Query<Option<WaitFor>>,
        body: LineageBatchBody,
    ) -> Result<PublishAnswer, PublishFailed> {
        caller.require(Permission::Publish)?;
        let form = lineage_form(request.headers(), Form::Array)?;
        let decode = move |body: &Bytes, contracts: &Contracts| lineage::decode(form, body, contracts);
        Ok(Box::pin(self.publish(&caller, request, body.0, DoorName::Lineage, wait.0, decode)).await?)
    }

    /// Follow an accepted batch
    ///
    /// Says how far the events of a receipt have come: `logged`, `bronze`, `silver`, `gold`, or `quarantined`. Only
    /// its publisher, and those who read all data, may ask.
    #[oai(path = "/receipts/:id", method = "get", operation_id = "get_receipt")]
    async fn get_receipt(
        &self,
        caller: Authenticated,
        /// The `receipt` of a publishing answer.
        id: Path<String>,
    ) -> Result<Answer<ReceiptState>, ReceiptFailed> {
        let receipt = self.publisher.receipts().open(&id.0);
        let receipt = receipt.filter(|r| r.publisher == caller.id || caller.has(Permission::ReadAllData));
        let receipt = receipt.ok_or_else(|| ApiError::not_found("there is no such receipt"))?;
        let (mut layer, mut quarantined) = (Layer::Logged, None);
        if let Some(progress) = &self.progress {
            let now = std::time::Duration::ZERO;
            layer = wait_for(&**progress, Layer::Gold, &receipt.positions(), now).await;
            quarantined = progress.quarantined(&receipt).await;
        }
        let records = u64::from(receipt.records);
        let state = if quarantined == Some(records) { "quarantined" } else { layer.name() };
        let message = format!("the batch is {state}");
        let state = ReceiptState { receipt: id.0, state: state.to_owned(), records, quarantined };
        Ok(ok(state, message))
    }
}

impl From<WaitFor> for Layer {
    fn from(wait: WaitFor) -> Self {
        match wait {
            WaitFor::Bronze => Self::Bronze,
            WaitFor::Silver => Self::Silver,
            WaitFor::Gold => Self::Gold,
        }
    }
}

/// Puts into the audit log that the caller sent events of types that it may not publish.
async fn note_foreign_type(request: &Request, caller: &Caller) {
    if let Some(access) = request.data::<Access>() {
        access.note_access_denied(caller, Permission::Publish, &origin(request)).await;
    }
}

fn wants_problem(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.to_ascii_lowercase().contains("application/problem+json"))
}
