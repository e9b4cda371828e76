//! Keys that wait, in the pieces in which the state store has them.
//!
//! Up to a million wait. Each in memory of its own would be nearly twice their size, and beside the pieces of the store.

use fjall::Slice;

/// The keys that some steps changed. One that was changed again is there again.
#[derive(Default)]
pub struct WaitingKeys {
    /// Those of a step: each key after its length. Shared with the store for as long as it has them in memory.
    pieces: Vec<Slice>,
    count: usize,
}

/// Bytes of a length.
const LENGTH: usize = 4;

impl WaitingKeys {
    /// Adds the keys of a step; gives them as they are stored.
    pub(super) fn add<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]> + Clone) -> Slice {
        let mut bytes = Vec::with_capacity(keys.clone().map(|key| LENGTH + key.len()).sum());
        for key in keys {
            bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(key);
            self.count += 1;
        }
        let piece = Slice::from(bytes);
        self.pieces.push(piece.clone());
        piece
    }

    /// Adds keys as they are stored; none when they are damaged.
    pub(super) fn add_stored(&mut self, piece: Slice) -> Option<()> {
        let mut rest: &[u8] = &piece;
        while !rest.is_empty() {
            (_, rest) = first(rest)?;
            self.count += 1;
        }
        self.pieces.push(piece);
        Some(())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The keys in their order, each once.
    pub(super) fn sorted(&self) -> Vec<&[u8]> {
        let mut keys = Vec::with_capacity(self.count);
        for piece in &self.pieces {
            let mut rest: &[u8] = piece;
            while let Some((key, behind)) = first(rest) {
                keys.push(key);
                rest = behind;
            }
        }
        // The keys of each step are in order already: this sort finds such runs, and only merges them.
        keys.sort();
        keys.dedup();
        keys
    }
}

/// The first key, and what is behind it; none where there is no whole one.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_of_steps_are_sorted_and_each_there_once_also_from_what_is_stored(
            steps in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..40), 0..20),
                0..6,
            ),
        ) {
            let (mut added, mut stored) = (WaitingKeys::default(), WaitingKeys::default());
            for keys in &steps {
                let piece = added.add(keys.iter().map(Vec::as_slice));
                stored.add_stored(piece).unwrap();
            }
            let expected: BTreeSet<&[u8]> = steps.iter().flatten().map(Vec::as_slice).collect();
            let expected: Vec<&[u8]> = expected.into_iter().collect();
            let count = steps.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!((added.sorted(), added.count()), (expected.clone(), count));
            prop_assert_eq!((stored.sorted(), stored.count()), (expected, count));
        }
    }

    #[test]
    fn keys_that_are_cut_off_are_damage() {
        let keys: [&[u8]; 2] = [b"one", b"another"];
        let piece = WaitingKeys::default().add(keys.into_iter());
        assert!(WaitingKeys::default().add_stored(piece.clone()).is_some());
        for end in [1, LENGTH, LENGTH + 1, piece.len() - 1] {
            assert!(WaitingKeys::default().add_stored(Slice::from(&piece[..end])).is_none(), "{end}");
        }
    }
}
