//! Record headers in one compact buffer.
//!
//! A busy log moves hundreds of thousands of records a second; one shared buffer a record instead of a vector of
//! pairs keeps the cost of a header to its bytes. Layout, repeated: key length `u16`, key, value length `u32`, value,
//! all little-endian. Order and repeated keys are kept.

use bytes::{BufMut, Bytes, BytesMut};

/// The lengths of a key and its value.
const LENGTHS_BYTES: usize = 6;

/// Ordered key-value pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Bytes);

impl Headers {
    /// Builds headers from pairs. A key longer than 65,535 bytes or a value longer than 4 GiB is left out, which no
    /// door can send: the HTTP limits are far below.
    pub fn from_pairs<'a, I>(pairs: I) -> Self
    where
        I: IntoIterator<Item = (&'a str, &'a [u8]), IntoIter: Clone>,
    {
        let pairs = pairs.into_iter();
        let room: usize = pairs.clone().map(|(key, value)| LENGTHS_BYTES + key.len() + value.len()).sum();
        let mut buffer = BytesMut::with_capacity(room);
        for (key, value) in pairs {
            Self::put(&mut buffer, key, value);
        }
        Self(buffer.freeze())
    }

    /// Appends one pair in the layout above, for a reader that collects many records in one buffer.
    pub(crate) fn put(buffer: &mut BytesMut, key: &str, value: &[u8]) {
        if let (Ok(key_length), Ok(value_length)) = (u16::try_from(key.len()), u32::try_from(value.len())) {
            buffer.put_u16_le(key_length);
            buffer.put_slice(key.as_bytes());
            buffer.put_u32_le(value_length);
            buffer.put_slice(value);
        }
    }

    /// Takes a buffer that [`Headers::as_bytes`] gave.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().find_map(|(k, v)| (k == key).then_some(v))
    }

    /// The pairs in order. A damaged tail ends the iteration.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (key_length, after) = rest.split_first_chunk::<2>()?;
            let (key, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*key_length)))?;
            let (value_length, after) = after.split_first_chunk::<4>()?;
            let (value, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*value_length)).ok()?)?;
            rest = after;
            Some((std::str::from_utf8(key).ok()?, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_in_order_with_repeats() {
        let pairs: Vec<(&str, &[u8])> = vec![("a", b"1"), ("b", b""), ("a", b"2")];
        let headers = Headers::from_pairs(pairs.clone());
        assert_eq!(headers.iter().collect::<Vec<_>>(), pairs);
        assert_eq!(headers.get("a"), Some(&b"1"[..]));
        assert_eq!(headers.get("c"), None);
    }

    #[test]
    fn a_damaged_tail_ends_the_iteration() {
        let whole = Headers::from_pairs([("key", &b"value"[..]), ("more", &b"values"[..])]);
        let cut = Headers::from_bytes(whole.as_bytes().slice(..whole.as_bytes().len() - 3));
        assert_eq!(cut.iter().count(), 1);
    }
}
