//! Bounds the memory of what a store was told and has not in sorted files yet.
//!
//! Each keyspace collects its writes in a buffer, every version of a key beside the others. The storage crate bounds each
//! buffer alone, at 64 MiB, and all of them only by the size of its journal. A pipeline has three keyspaces a table, and
//! steps write the same keys again and again: its memory would grow for an hour, to half a gigabyte. So here all buffers of
//! a store share one bound, whatever the number of tables: when it is passed, the largest buffer becomes a file.

use fjall::{AbstractTree, Keyspace};

use crate::Result;

/// Bytes of all buffers of a store. Less would mean smaller files, which are merged more often.
const MOST: u64 = 64 << 20;

/// The buffers of one store.
pub(super) struct Buffers {
    keyspaces: Vec<Keyspace>,
    most: u64,
}

impl Buffers {
    pub(super) fn new(keyspaces: Vec<Keyspace>) -> Self {
        Self { keyspaces, most: MOST }
    }

    /// After each batch: lets the largest buffer go to disk when together they are too large. The file is written by a thread of
    /// the store, and the batches that come meanwhile go into a new buffer.
    pub(super) fn bound(&self) -> Result<()> {
        let sized = self.keyspaces.iter().map(|keyspace| (keyspace.tree.active_memtable().size(), keyspace));
        let (total, largest) = sized.fold((0, None), |(total, largest), (size, keyspace)| {
            let is_larger = largest.is_none_or(|(most, _)| size > most);
            (total + size, if is_larger { Some((size, keyspace)) } else { largest })
        });
        if let Some((_, largest)) = largest.filter(|_| total > self.most) {
            largest.rotate_memtable()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions};

    use super::*;

    #[test]
    fn many_keyspaces_that_are_written_again_and_again_stay_within_one_bound() {
        const MOST: u64 = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let database = Database::builder(folder.path()).open().unwrap();
        let open = |number: usize| database.keyspace(&number.to_string(), KeyspaceCreateOptions::default).unwrap();
        let keyspaces: Vec<Keyspace> = (0..30).map(open).collect();
        let buffers = Buffers { keyspaces: keyspaces.clone(), most: MOST };
        let mut largest = 0;
        for round in 0..400_u32 {
            let mut batch = database.batch();
            for keyspace in &keyspaces {
                batch.insert(keyspace, b"the same key", vec![round as u8; 1000]);
            }
            batch.commit().unwrap();
            buffers.bound().unwrap();
            let sizes = keyspaces.iter().map(|keyspace| keyspace.tree.active_memtable().size());
            largest = largest.max(sizes.sum());
        }
        // Twelve megabytes were written.
        assert!(largest < MOST + MOST / 8, "{largest}");
        assert!(keyspaces.iter().all(|keyspace| keyspace.get(b"the same key").unwrap().unwrap()[0] == 143));
    }
}
