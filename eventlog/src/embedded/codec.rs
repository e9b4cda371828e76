//! How records lie in a stored batch.
//!
//! A batch is one value of the store: a version byte, then the records one after another. A record is the lengths of
//! key, headers and payload (`u32` each, little-endian; [`NO_KEY`] for a record without one) and then their bytes.
//! Offsets and the timestamp belong to the batch, so that a publisher's task can encode before either is known, and
//! reading hands out slices of the one buffer.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::{Error, Headers, NewRecord, Record, Result};

/// First byte of each batch.
pub(super) const VERSION: u8 = 1;

const NO_KEY: u32 = u32::MAX;
const LENGTHS_BYTES: usize = 12;

/// Appends one record to `buffer`. The caller has checked the size limits, so lengths fit `u32`.
pub(super) fn encode(record: &NewRecord, buffer: &mut Vec<u8>) {
    let key = record.key.as_ref();
    buffer.reserve(LENGTHS_BYTES + record.size_bytes());
    buffer.put_u32_le(key.map_or(NO_KEY, |key| key.len() as u32));
    buffer.put_u32_le(record.headers.as_bytes().len() as u32);
    buffer.put_u32_le(record.payload.len() as u32);
    buffer.extend_from_slice(key.map_or(&[], |key| key));
    buffer.extend_from_slice(record.headers.as_bytes());
    buffer.extend_from_slice(&record.payload);
}

/// A stored batch: offsets `base..base + count` of one partition.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) base: i64,
    pub(super) count: u32,
    pub(super) timestamp_us: i64,
    /// The stored value, version byte included.
    pub(super) value: Bytes,
}

impl Batch {
    pub(super) fn end(&self) -> i64 {
        self.base + i64::from(self.count)
    }
}

/// Walks through the records of a batch.
#[derive(Debug)]
pub(super) struct BatchReader {
    batch: Batch,
    at: usize,
    next_offset: i64,
}

impl BatchReader {
    /// Starts at `offset`, which must lie in the batch.
    pub(super) fn new(batch: Batch, offset: i64) -> Result<Self> {
        if batch.value.first() != Some(&VERSION) {
            return Err(damaged(&batch, "unknown version"));
        }
        let mut reader = Self { next_offset: batch.base, at: 1, batch };
        while reader.next_offset < offset {
            let lengths = reader.lengths()?;
            reader.at += LENGTHS_BYTES + lengths.total();
            reader.next_offset += 1;
        }
        Ok(reader)
    }

    /// The next record, or none at the end of the batch.
    pub(super) fn next(&mut self, topic: &Arc<str>, partition: u32) -> Result<Option<Record>> {
        if self.next_offset >= self.batch.end() {
            return Ok(None);
        }
        let lengths = self.lengths()?;
        let key_at = self.at + LENGTHS_BYTES;
        let headers_at = key_at + lengths.key.unwrap_or(0);
        let payload_at = headers_at + lengths.headers;
        let end = payload_at + lengths.payload;
        let record = Record {
            topic: topic.clone(),
            partition,
            offset: self.next_offset,
            timestamp_us: self.batch.timestamp_us,
            key: lengths.key.map(|_| self.batch.value.slice(key_at..headers_at)),
            headers: Headers::from_bytes(self.batch.value.slice(headers_at..payload_at)),
            payload: self.batch.value.slice(payload_at..end),
        };
        self.at = end;
        self.next_offset += 1;
        Ok(Some(record))
    }

    fn lengths(&self) -> Result<Lengths> {
        let rest = self.batch.value.get(self.at..).unwrap_or_default();
        let read = |index: usize| -> Option<u32> {
            let bytes = rest.get(index * 4..index * 4 + 4)?;
            bytes.try_into().ok().map(u32::from_le_bytes)
        };
        let lengths = match (read(0), read(1), read(2)) {
            (Some(key), Some(headers), Some(payload)) => Lengths {
                key: (key != NO_KEY).then_some(key as usize),
                headers: headers as usize,
                payload: payload as usize,
            },
            _ => return Err(damaged(&self.batch, "a record is cut")),
        };
        if LENGTHS_BYTES + lengths.total() > rest.len() {
            return Err(damaged(&self.batch, "a record is longer than its batch"));
        }
        Ok(lengths)
    }
}

struct Lengths {
    key: Option<usize>,
    headers: usize,
    payload: usize,
}

impl Lengths {
    fn total(&self) -> usize {
        self.key.unwrap_or(0) + self.headers + self.payload
    }
}

fn damaged(batch: &Batch, what: &str) -> Error {
    Error::Damaged { detail: format!("{what} in the batch at offset {} ({} records)", batch.base, batch.count) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(records: &[NewRecord]) -> Batch {
        let mut value = vec![VERSION];
        records.iter().for_each(|record| encode(record, &mut value));
        Batch { base: 100, count: records.len() as u32, timestamp_us: 7, value: value.into() }
    }

    fn read_all(batch: Batch, from: i64) -> Result<Vec<Record>> {
        let topic: Arc<str> = "t".into();
        let mut reader = BatchReader::new(batch, from)?;
        let mut records = Vec::new();
        while let Some(record) = reader.next(&topic, 3)? {
            records.push(record);
        }
        Ok(records)
    }

    prop_compose! {
        fn any_record()(key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
                        header in proptest::option::of(("[a-z]{0,10}", proptest::collection::vec(any::<u8>(), 0..40))),
                        payload in proptest::collection::vec(any::<u8>(), 0..400)) -> NewRecord {
            let headers = Headers::from_pairs(header.iter().map(|(k, v)| (k.as_str(), v.as_slice())));
            NewRecord { key: key.map(Bytes::from), headers, payload: payload.into() }
        }
    }

    proptest! {
        #[test]
        fn records_read_back_from_any_offset(records in proptest::collection::vec(any_record(), 1..20), skip in 0usize..20) {
            let skip = skip.min(records.len());
            let read = read_all(batch(&records), 100 + skip as i64).unwrap();
            prop_assert_eq!(read.len(), records.len() - skip);
            for (index, record) in read.iter().enumerate() {
                let written = &records[skip + index];
                prop_assert_eq!(record.offset, 100 + (skip + index) as i64);
                prop_assert_eq!(&record.key, &written.key);
                prop_assert_eq!(&record.headers, &written.headers);
                prop_assert_eq!(&record.payload, &written.payload);
            }
        }

        #[test]
        fn a_cut_batch_is_an_error_and_never_a_panic(records in proptest::collection::vec(any_record(), 1..5), cut in 1usize..500) {
            let mut batch = batch(&records);
            let keep = batch.value.len().saturating_sub(cut);
            batch.value = batch.value.slice(..keep);
            prop_assert!(read_all(batch, 100).is_err());
        }
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let mut value = vec![9];
        encode(&NewRecord::default(), &mut value);
        let batch = Batch { base: 0, count: 1, timestamp_us: 0, value: value.into() };
        assert!(matches!(BatchReader::new(batch, 0), Err(Error::Damaged { .. })));
    }
}
