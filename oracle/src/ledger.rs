//! What was sent, and what the sender was told.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::{LogCopy, Verdict, tables::Bronze};

/// What a sender was told of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    Refused,
    /// No answer, or one that says the record may be there already.
    Unknown,
}

/// An event: identity and hash of its payload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Event {
    pub(crate) source: String,
    pub(crate) id: String,
    pub(crate) hash: String,
}

impl Event {
    pub(crate) fn new(source: &str, id: &str, payload: &[u8]) -> Self {
        Self { source: source.to_owned(), id: id.to_owned(), hash: hex::encode(&Sha256::digest(payload)[..16]) }
    }

    pub(crate) fn name(&self) -> String {
        format!("({}, {}) {}", self.source, self.id, &self.hash[..8])
    }
}

struct Sent {
    producer: String,
    sequence: u64,
    outcome: Outcome,
}

/// Every sending, in order.
#[derive(Default)]
pub struct Ledger {
    events: BTreeMap<Event, Vec<Sent>>,
    sequences: BTreeMap<String, u64>,
    acknowledged: u64,
}

impl Ledger {
    /// Notes that `producer` sent an event, and what it was told.
    pub fn note(&mut self, producer: &str, source: &str, id: &str, payload: &[u8], outcome: Outcome) {
        let next = self.sequences.entry(producer.to_owned()).or_default();
        let sequence = *next;
        *next += 1;
        self.acknowledged += u64::from(outcome == Outcome::Acknowledged);
        let sent = Sent { producer: producer.to_owned(), sequence, outcome };
        self.events.entry(Event::new(source, id, payload)).or_default().push(sent);
    }

    /// Sendings that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Events that were sent, however often.
    pub fn events(&self) -> u64 {
        self.events.len() as u64
    }

    pub(crate) fn compare(&self, bronze: &Bronze, log: Option<&LogCopy>, verdict: &mut Verdict) {
        verdict.acknowledged = self.acknowledged;
        for (event, sendings) in &self.events {
            let count = |outcome| sendings.iter().filter(|sent| sent.outcome == outcome).count();
            let least = count(Outcome::Acknowledged);
            let most = least + count(Outcome::Unknown);
            let found = bronze.places_of(event).len();
            verdict.found += found as u64;
            if found < least {
                let log = log.map(|log| format!(", {}", log.says_of(event))).unwrap_or_default();
                verdict.lost.push(format!("{} {}: {found} of {least} in bronze{log}", event.name(), first(sendings)));
            } else if found > most {
                let of = format!("{} {}: {found} in bronze, at most {most} sent", event.name(), first(sendings));
                verdict.duplicated.push(of);
            }
        }
        let strangers = bronze.events().filter(|event| !self.events.contains_key(*event));
        verdict.wrong.extend(strangers.map(|event| format!("{}: in bronze, and nobody sent it", event.name())));
    }
}

fn first(sendings: &[Sent]) -> String {
    sendings.first().map(|sent| format!("of `{}` number {}", sent.producer, sent.sequence)).unwrap_or_default()
}
