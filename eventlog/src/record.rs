//! One record, as appended and as read.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::Headers;

/// A record on its way into the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Decides the partition; records of one key keep their order.
    pub key: Option<Bytes>,
    pub headers: Headers,
    pub payload: Bytes,
}

impl NewRecord {
    /// Key, headers and payload together, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.headers.as_bytes().len() + self.payload.len()
    }
}

/// A record read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub topic: Arc<str>,
    pub partition: u32,
    pub offset: i64,
    /// When the log took it, in microseconds since 1970 UTC.
    pub timestamp_us: i64,
    pub key: Option<Bytes>,
    pub headers: Headers,
    /// Empty for a tombstone.
    pub payload: Bytes,
}

impl Record {
    /// Key, headers and payload together, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.headers.as_bytes().len() + self.payload.len()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(self.offset, self.timestamp_us, self.key.as_deref(), &self.payload)
    }
}

/// Tells whether a place of the log still holds the record that was read there: 23 bits of the offset, so that one
/// of another place is recognised, and 40 bits of a hash over timestamp, key and payload. It can be kept, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(i64);

const OFFSET_BITS: u32 = 23;

impl Fingerprint {
    pub(crate) fn new(offset: i64, timestamp_us: i64, key: Option<&[u8]>, payload: &[u8]) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&timestamp_us.to_le_bytes());
        // A record without a key is another one than a record with an empty key.
        hash.update(&key.map_or(-1, |key| key.len() as i64).to_le_bytes());
        hash.update(key.unwrap_or_default());
        hash.update(payload);
        // One bit is the sign's.
        let of_content = (hash.digest() >> (OFFSET_BITS + 1) << OFFSET_BITS).cast_signed();
        Self(of_content | Self::of_place(offset))
    }

    fn of_place(offset: i64) -> i64 {
        offset & ((1 << OFFSET_BITS) - 1)
    }

    /// Whether it is of a record at this offset.
    pub fn is_of(self, offset: i64) -> bool {
        Self::of_place(self.0) == Self::of_place(offset)
    }
}

impl From<i64> for Fingerprint {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

impl From<Fingerprint> for i64 {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_places_and_contents_apart_and_stays_as_it_is() {
        let key = Some(b"k".as_slice());
        let one = Fingerprint::new(7, 1_000, key, b"payload");
        // Tables keep it: it must not change.
        assert_eq!(i64::from(one), 8_081_500_952_563_023_879);
        assert_eq!(Fingerprint::from(i64::from(one)), one);
        assert!(one.is_of(7) && !one.is_of(6) && !one.is_of(8) && i64::from(one) >= 0);
        for other in [
            Fingerprint::new(7, 1_001, key, b"payload"),
            Fingerprint::new(7, 1_000, None, b"kpayload"),
            Fingerprint::new(7, 1_000, Some(b"kp"), b"ayload"),
            Fingerprint::new(7, 1_000, key, b"payloae"),
        ] {
            assert!(other != one && other.is_of(7));
        }
    }
}
