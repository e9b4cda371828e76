//! Random events of two types: readings, of which each counts, and versions of orders, of which the newest counts.

use std::collections::BTreeMap;

use karat_eventlog::{Headers, Record};
use karat_schemas::attributes as names;
use serde_json::json;

use super::declaration::TOPIC;

/// A small generator of numbers that are the same for a seed everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.below(texts.len())]
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let value = value(self);
        (self.below(6) > 0).then_some(value)
    }
}

/// Makes records, with their places in a topic of three partitions.
pub struct Events {
    seed: u64,
    random: Random,
    offsets: BTreeMap<u32, i64>,
    readings: u64,
}

impl Events {
    pub fn new(seed: u64) -> Self {
        Self { seed, random: Random::new(seed ^ 0xabcd), offsets: BTreeMap::new(), readings: 0 }
    }

    /// Next offset of each partition.
    pub fn next_offsets(&self) -> impl Iterator<Item = (u32, i64)> + '_ {
        self.offsets.iter().map(|(partition, next)| (*partition, *next))
    }

    pub fn next(&mut self) -> Record {
        let (event_type, id, data) = match self.random.below(2) {
            0 => {
                // One in ten was there before.
                let is_repeated = self.readings > 0 && self.random.below(10) == 0;
                let number = if is_repeated { self.random.below(self.readings as usize) as u64 } else { self.readings };
                self.readings += u64::from(!is_repeated);
                ("t.reading", format!("r{number}"), reading(self.seed, number))
            }
            _ => {
                // Versions come in any order, and again.
                let (order, version) = (self.random.below(40), self.random.below(8));
                ("t.order", format!("o{order}-{version}"), order_version(self.seed, order, version))
            }
        };
        self.record(event_type, &id, data)
    }

    fn record(&mut self, event_type: &str, id: &str, data: String) -> Record {
        let partition = u32::try_from(self.random.below(3)).unwrap();
        let next = self.offsets.entry(partition).or_insert(0);
        let offset = *next;
        *next += 1;
        let headers = [
            (names::CE_TYPE, event_type.as_bytes()),
            (names::CE_SOURCE, b"/random".as_slice()),
            (names::CE_ID, id.as_bytes()),
        ];
        Record {
            topic: TOPIC.into(),
            partition,
            offset,
            timestamp_us: 1_790_000_000_000_000,
            key: None,
            headers: Headers::from_pairs(headers),
            payload: data.into(),
        }
    }
}

/// Two months of times, no two alike.
fn time(random: &mut Random, number: usize) -> String {
    let (month, day) = (1 + random.below(2), 1 + random.below(28));
    format!("2026-{month:02}-{day:02}T{:02}:{:02}:00.{number:06}Z", random.below(24), random.below(60))
}

fn reading(seed: u64, number: u64) -> String {
    let mut random = Random::new(seed ^ (number + 7).wrapping_mul(0x1234_5678_9abc));
    random.next();
    let data = json!({
        "sensor": format!("s{}", random.below(9)),
        "area": random.maybe(|random| random.one_of(&["north", "south", "éast", ""])),
        "at": time(&mut random, number as usize),
        "value": random.maybe(|random| random.below(200) as i64 - 60),
        "ratio": random.maybe(|random| random.below(100_000) as f64 / 7.0 - 3000.0),
        "flag": random.maybe(|random| random.below(2) == 0),
        "price": random.maybe(|random| format!("{}.{:02}", random.below(5000), random.below(100))),
        "day": format!("2026-01-{:02}", 1 + random.below(5)),
    });
    data.to_string()
}

fn order_version(seed: u64, order: usize, version: usize) -> String {
    let mut random = Random::new(seed ^ ((order * 100 + version + 3) as u64).wrapping_mul(0x7777_1234_5677));
    random.next();
    let data = json!({
        "order_id": format!("order-{order}"),
        "version": version,
        "ordered_at": time(&mut random, order * 10 + version),
        "customer": format!("c{}", random.below(7)),
        "country": random.maybe(|random| random.one_of(&["de", "fr", "it"])),
        "amount": format!("{}.{:02}", random.below(900), random.below(100)),
        "items": random.maybe(|random| random.below(9)),
        "weight": random.below(10_000) as f64 / 3.0,
        "state": random.one_of(&["open", "paid", "sent", "deleted"]),
    });
    data.to_string()
}
