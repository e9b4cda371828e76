//! Records on their way from the reading thread to the consumer: many records in one buffer.
//!
//! Copying into one growing buffer and handing out slices of it costs one allocation a bundle, where a copy a record
//! would cost three a record.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers as _},
};

use crate::{Fingerprint, Headers, Record};

/// A bundle is passed on when it reaches either; a channel of [`IN_FLIGHT`] of them bounds what a consumer holds.
pub(super) const MAX_RECORDS: usize = 4_096;
pub(super) const MAX_BYTES: usize = 1024 * 1024;
pub(super) const IN_FLIGHT: usize = 8;

/// Records in the order in which they were read, each with its assignment generation (see `rebalance`).
#[derive(Default)]
pub(super) struct Bundle {
    buffer: BytesMut,
    entries: Vec<Entry>,
}

struct Entry {
    generation: u64,
    partition: u32,
    offset: i64,
    timestamp_us: i64,
    key: Option<Range<usize>>,
    headers: Range<usize>,
    payload: Range<usize>,
}

impl Bundle {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_RECORDS || self.buffer.len() >= MAX_BYTES
    }

    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>, generation: u64) {
        let key = message.key().map(|key| self.put(key));
        let headers_at = self.buffer.len();
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            Headers::put(&mut self.buffer, header.key, header.value.unwrap_or_default());
        }
        let headers = headers_at..self.buffer.len();
        let payload = self.put(message.payload().unwrap_or_default());
        self.entries.push(Entry {
            generation,
            partition: message.partition().cast_unsigned(),
            offset: message.offset(),
            timestamp_us: timestamp_us(message),
            key,
            headers,
            payload,
        });
    }

    fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        at..self.buffer.len()
    }

    /// Generations and records; these are slices of the one buffer.
    pub(super) fn into_records(self, topic: &Arc<str>) -> impl Iterator<Item = (u64, Record)> {
        let buffer: Bytes = self.buffer.freeze();
        let topic = topic.clone();
        self.entries.into_iter().map(move |entry| {
            let record = Record {
                topic: topic.clone(),
                partition: entry.partition,
                offset: entry.offset,
                timestamp_us: entry.timestamp_us,
                key: entry.key.map(|range| buffer.slice(range)),
                headers: Headers::from_bytes(buffer.slice(entry.headers)),
                payload: buffer.slice(entry.payload),
            };
            (entry.generation, record)
        })
    }
}

/// [`Record::fingerprint`] of a message that becomes no record.
pub(super) fn fingerprint_of(message: &BorrowedMessage<'_>) -> Fingerprint {
    let payload = message.payload().unwrap_or_default();
    Fingerprint::new(message.offset(), timestamp_us(message), message.key(), payload)
}

fn timestamp_us(message: &BorrowedMessage<'_>) -> i64 {
    message.timestamp().to_millis().unwrap_or(0).saturating_mul(1_000)
}
