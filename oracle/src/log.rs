//! What the log itself holds: tells an event that the log lost from one that was lost after it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use karat_eventlog::{ConsumerSettings, Error, EventLog, PollLimits, Record, Result, StartPositions};

use crate::{
    Verdict,
    ledger::Event,
    tables::{Bronze, Place},
};

/// Everything is read within this, or the log does not answer.
const DEADLINE: Duration = Duration::from_secs(240);

/// Every record of a topic, as it is now.
pub struct LogCopy {
    events: BTreeMap<Place, Event>,
    /// What each partition holds: the first offset, and the one behind the last.
    ranges: BTreeMap<i32, (i64, i64)>,
}

impl LogCopy {
    /// Reads the topic from its beginning to the end that it has now, in a group of its own.
    ///
    /// # Errors
    /// A log that does not answer in time, or lacks the topic.
    pub async fn read(log: &dyn EventLog, topic: &str, group: &str) -> Result<Self> {
        let ranges: BTreeMap<i32, (i64, i64)> =
            (0..).zip(log.topic(topic).await?.partitions.iter().map(|range| (range.begin, range.end))).collect();
        let settings =
            ConsumerSettings { group: group.to_owned(), topic: topic.to_owned(), start: Arc::new(FromTheBeginning) };
        let mut consumer = log.consumer(settings).await?;
        let mut copy = Self { events: BTreeMap::new(), ranges };
        let mut next: BTreeMap<i32, i64> =
            copy.ranges.iter().map(|(partition, (begin, _))| (*partition, *begin)).collect();
        let began = Instant::now();
        while copy.ranges.iter().any(|(partition, (_, end))| next[partition] < *end) {
            if began.elapsed() > DEADLINE {
                return Err(Error::Unavailable {
                    reason: format!("`{topic}` was read up to {next:?} in {DEADLINE:?}"),
                });
            }
            let limits = PollLimits { max_records: 10_000, max_bytes: 16 << 20, max_wait: Duration::from_millis(500) };
            for record in consumer.poll(limits).await?.records {
                let place = (record.partition.cast_signed(), record.offset);
                next.insert(place.0, place.1 + 1);
                copy.events.insert(place, event_of(&record));
            }
        }
        consumer.close().await;
        Ok(copy)
    }

    /// Where an event is, in words.
    pub(crate) fn says_of(&self, event: &Event) -> String {
        let places = self.events.iter().filter(|(_, found)| *found == event);
        let places: Vec<String> = places.map(|((partition, offset), _)| format!("{partition}/{offset}")).collect();
        if places.is_empty() { "not in the log".to_owned() } else { format!("in the log at {}", places.join(", ")) }
    }

    /// Each place has one event, in the log as in bronze; what retention took from the log only bronze has.
    pub(crate) fn compare(&self, bronze: &Bronze, verdict: &mut Verdict) {
        let mut missing: BTreeMap<i32, (i64, i64, u64)> = BTreeMap::new();
        for (partition, offset) in self.events.keys().filter(|place| !bronze.has(**place)) {
            let range = missing.entry(*partition).or_insert((*offset, *offset, 0));
            *range = (range.0, *offset, range.2 + 1);
        }
        for (partition, (first, last, count)) in missing {
            let (begin, end) = self.ranges[&partition];
            verdict.lost.push(format!(
                "partition {partition}: {count} records from {first} to {last} are in the log, which holds {begin} to {end}, \
                 and not in bronze"
            ));
        }
        for (event, place) in bronze.all() {
            let is_kept = self.ranges.get(&place.0).is_some_and(|(begin, _)| place.1 >= *begin);
            let name = event.name();
            match self.events.get(&place) {
                Some(found) if found != event => verdict.wrong.push(format!(
                    "partition {} offset {}: bronze has {name}, the log {}",
                    place.0,
                    place.1,
                    found.name()
                )),
                None if is_kept => verdict
                    .wrong
                    .push(format!("partition {} offset {}: bronze has {name}, the log nothing", place.0, place.1)),
                _ => {}
            }
        }
    }
}

fn event_of(record: &Record) -> Event {
    let text = |name: &str| record.headers.get(name).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    Event::new(&text("ce_source"), &text("ce_id"), &record.payload)
}

struct FromTheBeginning;

#[async_trait]
impl StartPositions for FromTheBeginning {
    async fn next_offsets(&self, _: &str, _: &[u32]) -> Result<BTreeMap<u32, i64>> {
        Ok(BTreeMap::new())
    }
}
