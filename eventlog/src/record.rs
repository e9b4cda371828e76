//! One record, as appended and as read.

use std::sync::Arc;

use bytes::Bytes;

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
}
