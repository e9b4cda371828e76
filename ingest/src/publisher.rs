//! The core of every door: from decoded events to durable records and an answer about each.

mod trace;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use karat_access::Caller;
use karat_eventlog::{EventLog, MAX_RECORD_BYTES, NewRecord, Position};
use karat_schemas::events::Contracts;
use karat_telemetry::metrics;
use uuid::Uuid;

use self::trace::PublishTrace;
use crate::{
    event::{Code, Decoded, Event, Rejection},
    outcome::{Outcome, PublishError},
    receipt::{Receipt, ReceiptKey, ReceiptSpan},
    record::{BatchHeaders, record_of},
};

/// The way in (decision 25).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorName {
    Http,
    Lineage,
    File,
}

impl DoorName {
    /// The name in the record's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Lineage => "lineage",
            Self::File => "file",
        }
    }
}

/// On whose behalf events are published.
#[derive(Debug, Clone)]
pub struct PublishAs {
    /// Owner of the credential: becomes the event's `publisher` (spec P9).
    pub publisher: Uuid,
    /// Whether a `user_id` in the payload is honoured (decision 24).
    pub publish_for_others: bool,
    pub allowed: Allowed,
}

/// Which event types may be published.
#[derive(Debug, Clone)]
pub enum Allowed {
    /// All that are declared: for doors that the operator set up.
    All,
    /// Those that the caller's credential covers.
    By(Caller),
}

impl From<&Caller> for PublishAs {
    fn from(caller: &Caller) -> Self {
        Self {
            publisher: caller.id,
            publish_for_others: caller.may_publish_for_others(),
            allowed: Allowed::By(caller.clone()),
        }
    }
}

impl PublishAs {
    fn may_publish(&self, event_type: &str) -> bool {
        match &self.allowed {
            Allowed::All => true,
            Allowed::By(caller) => caller.may_publish(event_type),
        }
    }
}

/// Appends events to the log. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    log: Arc<dyn EventLog>,
    contracts: Arc<Contracts>,
    receipts: Arc<ReceiptKey>,
}

impl Publisher {
    /// Topics must exist: the binary creates the declared ones at start.
    pub fn new(log: Arc<dyn EventLog>, contracts: Arc<Contracts>, receipts: ReceiptKey) -> Self {
        Self { log, contracts, receipts: Arc::new(receipts) }
    }

    /// The contracts that doors decode against.
    pub fn contracts(&self) -> &Arc<Contracts> {
        &self.contracts
    }

    /// Signs and opens the receipts of this publisher.
    pub fn receipts(&self) -> &ReceiptKey {
        &self.receipts
    }

    /// Appends the good events to the log of their topics and says what became of each. Returns once the log has them
    /// on disk.
    ///
    /// # Errors
    /// When the log does not take them. What it holds of the request is then unknown, and publishing it again is safe.
    pub async fn publish(&self, events: Decoded, by: &PublishAs, door: DoorName) -> Result<Outcome, PublishError> {
        let (batch, trace) = (Uuid::now_v7(), PublishTrace::begin());
        let plan = plan(events, by, door, batch, &trace);
        let mut outcome = Outcome {
            accepted: plan.records - plan.conflicts,
            duplicates: plan.repeats + plan.conflicts,
            rejected: plan.errors.len(),
            errors: plan.errors,
            ..Outcome::default()
        };
        let counts = [
            ("accepted", outcome.accepted as u64),
            ("duplicate", outcome.duplicates as u64),
            ("refused", outcome.rejected as u64),
        ];
        if plan.records == 0 {
            metrics().published(door.name(), counts);
            return Ok(outcome);
        }
        let appended = self.append(plan.by_topic).await;
        trace.end(door, plan.records, appended.is_err());
        let spans = appended?;
        metrics().published(door.name(), counts);
        let records = u32::try_from(plan.records).unwrap_or(u32::MAX);
        let receipt = Receipt { batch, publisher: by.publisher, records, spans };
        outcome.positions = receipt.positions();
        outcome.receipt = Some(receipt);
        Ok(outcome)
    }

    async fn append(
        &self,
        by_topic: BTreeMap<String, Vec<NewRecord>>,
    ) -> Result<BTreeMap<String, BTreeMap<u32, ReceiptSpan>>, PublishError> {
        let appends = by_topic.into_iter().map(|(topic, records)| async move {
            let positions = self.log.append(&topic, records).await?;
            Ok::<_, PublishError>((topic, spans(&positions)))
        });
        Ok(futures::future::try_join_all(appends).await?.into_iter().collect())
    }
}

/// What is to be appended, decided without I/O.
#[derive(Default)]
struct Plan {
    by_topic: BTreeMap<String, Vec<NewRecord>>,
    records: usize,
    /// Left out: the same event was there before.
    repeats: usize,
    /// Appended, though the same identity with another payload was there before.
    conflicts: usize,
    errors: Vec<Rejection>,
}

fn plan(events: Decoded, by: &PublishAs, door: DoorName, batch: Uuid, trace: &PublishTrace) -> Plan {
    let (publisher, batch) = (by.publisher.to_string(), batch.to_string());
    let traceparent = trace.onward.map(|context| context.to_string());
    let headers = BatchHeaders {
        publisher: &publisher,
        publish_for_others: by.publish_for_others,
        door: door.name(),
        batch: &batch,
        traceparent: traceparent.as_deref(),
        tracestate: trace.state.as_deref().filter(|_| traceparent.is_some()),
    };
    let mut plan = Plan::default();
    let mut good = Vec::with_capacity(events.len());
    for event in events {
        match event.and_then(|event| permitted(event, by)) {
            Ok(event) => good.push(event),
            Err(rejection) => plan.errors.push(rejection),
        }
    }
    let kinds = compare(&good);
    for (event, kind) in good.iter().zip(kinds) {
        if kind == Seen::Same {
            plan.repeats += 1;
            continue;
        }
        let record = record_of(event, &headers);
        if record.size_bytes() > MAX_RECORD_BYTES {
            plan.errors.push(too_large(event.index));
            continue;
        }
        plan.conflicts += usize::from(kind == Seen::Other);
        plan.records += 1;
        match plan.by_topic.get_mut(&event.topic) {
            Some(records) => records.push(record),
            None => {
                plan.by_topic.insert(event.topic.clone(), vec![record]);
            }
        }
    }
    plan.errors.sort_by_key(|rejection| rejection.index);
    plan
}

fn permitted(event: Event, by: &PublishAs) -> Result<Event, Rejection> {
    if by.may_publish(&event.event_type) {
        return Ok(event);
    }
    let message = format!("this credential may not publish `{}`", event.event_type.escape_debug());
    Err(Rejection::new(event.index, Code::TypeNotAllowed, "/type", message))
}

fn too_large(index: usize) -> Rejection {
    let message =
        format!("the event with its attributes is larger than the {MAX_RECORD_BYTES} bytes that the log takes");
    Rejection::new(index, Code::EventTooLarge, "", message)
}

/// Whether an identity was there before in this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    New,
    /// With the same type and payload.
    Same,
    /// With another type or payload.
    Other,
}

fn compare(events: &[Event]) -> Vec<Seen> {
    if events.len() < 2 {
        return vec![Seen::New; events.len()];
    }
    let mut first: HashMap<(&str, &str), &Event> = HashMap::with_capacity(events.len());
    let mut kinds = Vec::with_capacity(events.len());
    for event in events {
        let known = *first.entry((&event.source, &event.id)).or_insert(event);
        kinds.push(if std::ptr::eq(known, event) {
            Seen::New
        } else if known.payload == event.payload && known.event_type == event.event_type {
            Seen::Same
        } else {
            Seen::Other
        });
    }
    kinds
}

fn spans(positions: &[Position]) -> BTreeMap<u32, ReceiptSpan> {
    let mut spans: BTreeMap<u32, ReceiptSpan> = BTreeMap::new();
    for position in positions {
        let next = position.offset + 1;
        let span = spans.entry(position.partition).or_insert(ReceiptSpan { first: position.offset, next });
        span.first = span.first.min(position.offset);
        span.next = span.next.max(next);
    }
    spans
}
