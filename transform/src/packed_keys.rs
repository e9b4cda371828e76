//! The encoded keys of a batch's rows, in one piece of memory.
//!
//! A step makes, sorts and compares a key for each of its rows. Each in memory of its own would be as many allocations, and
//! nearly every comparison of a sort would wait for two places in memory.

use std::cmp::Ordering;

use karat_lake::arrow::array::RecordBatch;

use crate::{Result, value};

/// One key a row.
pub(crate) struct PackedKeys {
    bytes: Vec<u8>,
    /// Where the key of each row ends.
    ends: Vec<usize>,
}

impl PackedKeys {
    /// The key of each row: the values of `names`, encoded.
    pub(crate) fn of(batch: &RecordBatch, names: &[String]) -> Result<Self> {
        let columns = value::columns(batch, names)?;
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(batch.num_rows()));
        for row in 0..batch.num_rows() {
            columns.iter().for_each(|column| column.encode(row, &mut bytes));
            ends.push(bytes.len());
        }
        Ok(Self { bytes, ends })
    }

    /// The key of a row.
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        let begin = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..self.ends[row]]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(move |row| self.get(row))
    }

    /// The rows in the order of their keys, those of one key by `among`, and then as they came.
    pub(crate) fn sorted(&self, among: impl Fn(usize, usize) -> Ordering) -> Vec<usize> {
        // Eight bytes behind what all keys begin with tell nearly all of them apart, and lie beside each other.
        let common = self.common();
        let mut rows: Vec<(u64, usize)> = self.iter().map(|key| word(&key[common..])).zip(0..).collect();
        rows.sort_unstable_by(|(word, row), (other_word, other)| {
            let by_key = word.cmp(other_word).then_with(|| self.get(*row).cmp(self.get(*other)));
            by_key.then_with(|| among(*row, *other)).then(row.cmp(other))
        });
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// How many bytes all keys begin with alike.
    fn common(&self) -> usize {
        let mut keys = self.iter();
        let first = keys.next().unwrap_or_default();
        keys.fold(first.len(), |common, key| {
            first[..common].iter().zip(key).take_while(|(byte, other)| byte == other).count()
        })
    }
}

/// The first eight bytes as a number of the same order; what is shorter is filled up with the smallest.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let length = bytes.len().min(word.len());
    word[..length].copy_from_slice(&bytes[..length]);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(keys: &[Vec<u8>]) -> PackedKeys {
        let ends = keys.iter().scan(0, |end, key| {
            *end += key.len();
            Some(*end)
        });
        PackedKeys { bytes: keys.concat(), ends: ends.collect() }
    }

    proptest! {
        #[test]
        fn rows_are_sorted_as_their_keys_are(
            begin in proptest::collection::vec(0_u8..3, 0..12),
            ends in proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..12), 0..60),
        ) {
            let keys: Vec<Vec<u8>> = ends.iter().map(|end| [begin.as_slice(), end].concat()).collect();
            let packed = packed(&keys);
            prop_assert!(packed.iter().eq(keys.iter().map(Vec::as_slice)));
            let mut expected: Vec<usize> = (0..keys.len()).collect();
            expected.sort_by(|row, other| keys[*row].cmp(&keys[*other]).then(other.cmp(row)));
            prop_assert_eq!(packed.sorted(|row, other| other.cmp(&row)), expected);
        }
    }
}
