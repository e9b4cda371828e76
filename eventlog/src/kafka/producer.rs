//! Appending. Each append has one shared ticket; the delivery reports of its records fill it, and the last one answers.
//!
//! librdkafka's queue is bounded by messages and bytes; a full one is [`Error::Busy`] at once. After a fatal error of
//! the idempotent producer (the broker lost its memory of us) the producer is replaced by a new one: the records in
//! flight are reported as failed, and publishing them again is safe because silver keeps one of each identity.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock, atomic::AtomicUsize, atomic::Ordering},
};

use parking_lot::{Mutex, RwLock};
use rdkafka::{
    ClientContext, Message,
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;

use super::{KafkaSettings, MAX_MESSAGE_BYTES, failure};
use crate::{Error, NewRecord, Position, Result};

const ACTION: &str = "append";
/// Records handed over between two chances for other tasks to run.
const YIELD_EVERY: usize = 512;
/// Bounds of librdkafka's queue: about a second of a fast broker.
const QUEUE_MESSAGES: usize = 200_000;

type Client = ThreadedProducer<Reports>;
type Outcome<T> = std::result::Result<T, KafkaError>;

pub(super) struct Producer {
    settings: KafkaSettings,
    client: RwLock<Arc<Client>>,
    /// Topics that exist as far as we know.
    known: Mutex<HashSet<String>>,
}

impl Producer {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self> {
        let client = RwLock::new(Arc::new(open(settings)?));
        Ok(Self { settings: settings.clone(), client, known: Mutex::default() })
    }

    pub(super) fn knows(&self, topic: &str) -> bool {
        self.known.lock().contains(topic)
    }

    pub(super) fn remember(&self, topic: &str) {
        self.known.lock().insert(topic.to_owned());
    }

    pub(super) fn forget(&self, topic: &str) {
        self.known.lock().remove(topic);
    }

    /// Records that the broker has not acknowledged yet.
    pub(super) fn in_flight(&self) -> u64 {
        u64::try_from(self.client.read().in_flight_count()).unwrap_or(0)
    }

    pub(super) async fn append(&self, topic: &str, records: &[NewRecord]) -> Result<Vec<Position>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let client = self.client.read().clone();
        if usize::try_from(client.in_flight_count()).unwrap_or(0) + records.len() > QUEUE_MESSAGES {
            return Err(Error::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let ticket = Arc::new(Ticket::new(records.len(), reply));
        for (index, record) in records.iter().enumerate() {
            if index % YIELD_EVERY == YIELD_EVERY - 1 {
                tokio::task::yield_now().await;
            }
            let stub = Box::new(Stub { ticket: ticket.clone(), index });
            if let Err(error) = send(&client, topic, record, stub) {
                return Err(self.judge(&client, topic, error));
            }
        }
        let outcome = answer.await.unwrap_or(Err(KafkaError::Canceled));
        outcome.map_err(|error| self.judge(&client, topic, error))
    }

    fn judge(&self, client: &Arc<Client>, topic: &str, error: KafkaError) -> Error {
        if is_fatal(&error) || client.client().fatal_error().is_some() {
            self.replace(client);
            return Error::Unavailable { reason: format!("the producer had to start anew: {error}") };
        }
        let error = failure::from_client(ACTION, topic, error);
        if matches!(error, Error::UnknownTopic { .. }) {
            self.forget(topic);
        }
        error
    }

    /// Puts a new producer in the place of a failed one, once.
    fn replace(&self, failed: &Arc<Client>) {
        let mut current = self.client.write();
        if Arc::ptr_eq(&current, failed) {
            match open(&self.settings) {
                Ok(client) => *current = Arc::new(client),
                Err(error) => tracing::error!(%error, "could not replace the failed producer"),
            }
        }
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Fatal, InvalidProducerEpoch, PurgeInflight, PurgeQueue, UnknownProducerId};
    matches!(error, KafkaError::Canceled)
        || error.rdkafka_error_code().is_some_and(|code| {
            matches!(code, Fatal | InvalidProducerEpoch | UnknownProducerId | PurgeInflight | PurgeQueue)
        })
}

fn open(settings: &KafkaSettings) -> Result<Client> {
    let (messages, max_bytes) = (QUEUE_MESSAGES.to_string(), MAX_MESSAGE_BYTES.to_string());
    let config = settings.client(
        &[
            // Long enough to fill batches under load, short beside the disk of a broker.
            ("linger.ms", "3"),
            ("compression.type", "lz4"),
            // A door's deadline is longer: it answers 503 with a reason, not a hang-up.
            ("message.timeout.ms", "20000"),
            ("queue.buffering.max.kbytes", "131072"),
        ],
        &[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
            ("allow.auto.create.topics", "false"),
            ("queue.buffering.max.messages", &messages),
            ("message.max.bytes", &max_bytes),
        ],
    );
    Client::from_config_and_context(&config, Reports).map_err(|e| failure::from_client("connect", "", e))
}

fn send(client: &Client, topic: &str, record: &NewRecord, stub: Box<Stub>) -> Outcome<()> {
    let mut message = BaseRecord::<[u8], [u8], Box<Stub>>::with_opaque_to(topic, stub);
    if let Some(key) = &record.key {
        message = message.key(key);
    }
    // An empty payload is a tombstone, which Kafka writes as none.
    if !record.payload.is_empty() {
        message = message.payload(&record.payload);
    }
    if !record.headers.as_bytes().is_empty() {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        message = message.headers(headers);
    }
    client.send(message).map_err(|(error, _)| error)
}

/// Collects what became of the records of one append.
struct Ticket {
    positions: Vec<OnceLock<Position>>,
    num_open: AtomicUsize,
    first_error: OnceLock<KafkaError>,
    reply: Mutex<Option<oneshot::Sender<Outcome<Vec<Position>>>>>,
}

impl Ticket {
    fn new(count: usize, reply: oneshot::Sender<Outcome<Vec<Position>>>) -> Self {
        Self {
            positions: (0..count).map(|_| OnceLock::new()).collect(),
            num_open: count.into(),
            first_error: OnceLock::new(),
            reply: Mutex::new(Some(reply)),
        }
    }

    /// Takes one report; the last answers, with the first error if there was one.
    fn report(&self, index: usize, outcome: Outcome<Position>) {
        match (outcome, self.positions.get(index)) {
            (Ok(position), Some(slot)) => drop(slot.set(position)),
            (Err(error), _) => drop(self.first_error.set(error)),
            (Ok(_), None) => {}
        }
        if self.num_open.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(reply) = self.reply.lock().take()
        {
            // A caller that went away needs no answer.
            drop(reply.send(self.outcome()));
        }
    }

    fn outcome(&self) -> Outcome<Vec<Position>> {
        match self.first_error.get() {
            Some(error) => Err(error.clone()),
            None => Ok(self.positions.iter().filter_map(|slot| slot.get().copied()).collect()),
        }
    }
}

/// What travels with one record and comes back in its report.
struct Stub {
    ticket: Arc<Ticket>,
    index: usize,
}

struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Stub>;

    fn delivery(&self, report: &DeliveryResult<'_>, stub: Box<Stub>) {
        let outcome = match report {
            Err((error, _)) => Err(error.clone()),
            // A repeat that the broker recognised is safe there, but it does not say where.
            Ok(message) if message.offset() < 0 => {
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::DuplicateSequenceNumber))
            }
            Ok(message) => Ok(Position { partition: message.partition().cast_unsigned(), offset: message.offset() }),
        };
        stub.ticket.report(stub.index, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Position {
        Position { partition: 0, offset }
    }

    #[test]
    fn the_last_report_answers_in_the_order_of_the_records() {
        let (reply, mut answer) = oneshot::channel();
        let ticket = Ticket::new(2, reply);
        ticket.report(1, Ok(at(7)));
        assert!(answer.try_recv().is_err());
        ticket.report(0, Ok(at(6)));
        assert_eq!(answer.try_recv().unwrap().unwrap(), [at(6), at(7)]);
    }

    #[test]
    fn one_failed_record_fails_the_append() {
        let (reply, mut answer) = oneshot::channel();
        let ticket = Ticket::new(2, reply);
        ticket.report(0, Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)));
        ticket.report(1, Ok(at(1)));
        assert!(answer.try_recv().unwrap().is_err());
    }
}
