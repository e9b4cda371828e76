//! Receipts: signed names of accepted batches (spec P6, decision 15).
//!
//! A receipt says which offsets a batch got, so its state is found by comparing positions and nothing is stored. The
//! signature keeps people from asking about offsets that are not theirs. Records of the batch carry its id.

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretBox};
use uuid::Uuid;

use crate::outcome::Positions;

const VERSION: u8 = 1;
/// 128 bits of the HMAC: nobody can try enough of them over HTTP.
const MAC_BYTES: usize = 16;
/// The longest receipt text that is looked at.
const MAX_TEXT: usize = 16 * 1024;

/// Offsets of one partition: from the first of the batch up to the next offset behind it. Records of other batches may
/// lie between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptSpan {
    pub first: i64,
    pub next: i64,
}

/// An accepted batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Written on every record of the batch (`karat_receipt`).
    pub batch: Uuid,
    /// Who published it: a user id.
    pub publisher: Uuid,
    /// Records that were appended.
    pub records: u32,
    /// By topic and partition.
    pub spans: BTreeMap<String, BTreeMap<u32, ReceiptSpan>>,
}

impl Receipt {
    /// The next offset behind the batch in each partition.
    pub fn positions(&self) -> Positions {
        let next = |spans: &BTreeMap<u32, ReceiptSpan>| spans.iter().map(|(p, span)| (*p, span.next)).collect();
        self.spans.iter().map(|(topic, spans)| (topic.clone(), next(spans))).collect()
    }
}

/// Signs receipts and reads them back. Every process of an installation needs the same one.
pub struct ReceiptKey(hmac::Key);

impl ReceiptKey {
    /// Derives the key from a secret of any length; 32 random bytes or more are wanted.
    pub fn new(secret: &SecretBox<[u8]>) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret());
        // A key of its own for this purpose, whatever else the secret is used for.
        let derived = hmac::sign(&root, b"karat receipt v1");
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The text that the publisher gets.
    pub fn seal(&self, receipt: &Receipt) -> String {
        let mut bytes = encode(receipt);
        let mac = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(&mac.as_ref()[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The receipt behind a text; `None` when this key did not seal it.
    pub fn open(&self, text: &str) -> Option<Receipt> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        let expected = hmac::sign(&self.0, body);
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..MAC_BYTES], mac).ok()?;
        decode(body)
    }
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ReceiptKey")
    }
}

/// Version, batch, publisher, records, then each topic: name length and name, number of partitions, each with its
/// number, first offset and length. Big-endian.
fn encode(receipt: &Receipt) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(receipt.batch.as_bytes());
    out.extend_from_slice(receipt.publisher.as_bytes());
    out.extend_from_slice(&receipt.records.to_be_bytes());
    for (topic, spans) in &receipt.spans {
        // Topic names have at most 249 bytes, and a batch touches at most 10,000 partitions.
        out.push(u8::try_from(topic.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(topic.as_bytes());
        out.extend_from_slice(&u16::try_from(spans.len()).unwrap_or(u16::MAX).to_be_bytes());
        for (partition, span) in spans {
            out.extend_from_slice(&partition.to_be_bytes());
            out.extend_from_slice(&span.first.to_be_bytes());
            out.extend_from_slice(&u32::try_from(span.next - span.first).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out
}

fn decode(bytes: &[u8]) -> Option<Receipt> {
    let mut rest = Rest(bytes);
    if rest.take::<1>()? != [VERSION] {
        return None;
    }
    let batch = Uuid::from_bytes(rest.take()?);
    let publisher = Uuid::from_bytes(rest.take()?);
    let records = u32::from_be_bytes(rest.take()?);
    let mut spans = BTreeMap::new();
    while !rest.0.is_empty() {
        let length = usize::from(rest.take::<1>()?[0]);
        let (topic, after) = rest.0.split_at_checked(length)?;
        rest = Rest(after);
        let mut partitions = BTreeMap::new();
        for _ in 0..u16::from_be_bytes(rest.take()?) {
            let partition = u32::from_be_bytes(rest.take()?);
            let first = i64::from_be_bytes(rest.take()?);
            let next = first.checked_add(i64::from(u32::from_be_bytes(rest.take()?)))?;
            partitions.insert(partition, ReceiptSpan { first, next });
        }
        spans.insert(std::str::from_utf8(topic).ok()?.to_owned(), partitions);
    }
    Some(Receipt { batch, publisher, records, spans })
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, after) = self.0.split_first_chunk::<N>()?;
        self.0 = after;
        Some(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(secret: &[u8]) -> ReceiptKey {
        ReceiptKey::new(&SecretBox::new(secret.into()))
    }

    fn receipt() -> Receipt {
        let spans = BTreeMap::from([(0, ReceiptSpan { first: 5, next: 9 }), (3, ReceiptSpan { first: 0, next: 1 })]);
        Receipt {
            batch: Uuid::now_v7(),
            publisher: Uuid::now_v7(),
            records: 5,
            spans: BTreeMap::from([("karat.events".to_owned(), spans)]),
        }
    }

    #[test]
    fn a_receipt_opens_as_it_was_sealed() {
        let (key, receipt) = (key(b"secret"), receipt());
        assert_eq!(key.open(&key.seal(&receipt)), Some(receipt.clone()));
        assert_eq!(receipt.positions()["karat.events"], BTreeMap::from([(0, 9), (3, 1)]));
    }

    #[test]
    fn a_changed_or_foreign_receipt_does_not_open() {
        let (key, text) = (key(b"secret"), key(b"secret").seal(&receipt()));
        assert_eq!(super::tests::key(b"other").open(&text), None);
        for cut in 0..text.len() {
            assert_eq!(key.open(&text[..cut]), None, "cut at {cut}");
        }
        for at in 0..text.len() {
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(key.open(&changed), None, "changed at {at}");
        }
        assert_eq!(key.open(""), None);
        assert_eq!(key.open(&"A".repeat(1_000_000)), None);
    }
}
