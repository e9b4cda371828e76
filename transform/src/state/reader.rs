//! Reads a state store beside its owner, part by part, as of one moment.
//!
//! The store is closed when its owner goes, between two parts: a reader then finds it closed.
//!
//! A snapshot of the storage crate keeps every buffer that goes to a file while it is open, of all keyspaces, in memory: under
//! load that is hundreds of megabytes until a large state is read. So there is one only while the readings of all keyspaces
//! begin. Each of them holds the files and the buffer of its moment, and nothing that is written later.

use std::{collections::VecDeque, sync::Arc};

use fjall::{AnyTree, Database, Keyspace, KvPair, LsmError, Readable, SeqNo};
use parking_lot::{Mutex, MutexGuard};

use super::{IDENTITIES, META, key_of_stored};
use crate::{Error, Result, identities::each_packed};

/// What takes a pair: keyspace, key, value.
pub(crate) type Push<'p> = &'p mut dyn FnMut(&str, &[u8], Option<&[u8]>);

/// A handle on an open store.
#[derive(Clone)]
pub(crate) struct Reader {
    open: Arc<Mutex<Option<Open>>>,
    /// Held while the store takes a batch, and while a moment is fixed. The storage crate makes all numbers up to its own visible
    /// when it has written a buffer to a file or merged files: also that of a batch which it has taken in part.
    batch: Arc<Mutex<()>>,
}

struct Open {
    database: Database,
    spaces: Vec<(Kind, Keyspace)>,
    reading: Option<Reading>,
}

/// What is left of a reading: the pairs of each keyspace, by its place among them.
type Reading = VecDeque<(usize, Pairs)>;
type Pairs = Box<dyn Iterator<Item = Result<KvPair, LsmError>> + Send>;

/// How the pairs of a keyspace are stored.
pub(super) enum Kind {
    Named(String),
    /// One identity a pair.
    Settled,
    /// The identities of a step a pair.
    Recent,
}

/// What a reading came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    More,
    End,
    /// The owner is gone.
    Closed,
}

impl Reader {
    pub(super) fn new(database: Database, spaces: Vec<(Kind, Keyspace)>) -> Self {
        let open = Open { database, spaces, reading: None };
        Self { open: Arc::new(Mutex::new(Some(open))), batch: Arc::default() }
    }

    /// No moment is fixed while this is held: for a batch of the store, which is before or after it as a whole.
    pub(super) fn during_batch(&self) -> MutexGuard<'_, ()> {
        self.batch.lock()
    }

    /// Lets go of the store; a part that is being read is read first.
    pub(super) fn close(&self) {
        *self.open.lock() = None;
    }

    /// Fixes the moment that parts are read of, from the first one on; gives a small value of the store at that moment. None when
    /// it is closed.
    pub(crate) fn snapshot(&self, meta: &str) -> Result<Option<Option<Vec<u8>>>> {
        let mut open = self.open.lock();
        let Some(open) = open.as_mut() else { return Ok(None) };
        // One that was not read to its end.
        open.reading = None;
        let _between_batches = self.batch.lock();
        let snapshot = open.database.snapshot();
        let space = open.spaces.iter().find(|(kind, _)| matches!(kind, Kind::Named(name) if name == META));
        let value = match space {
            Some((_, space)) => snapshot.get(space, meta)?,
            None => None,
        };
        let spaces = open.spaces.iter().enumerate();
        let reading = spaces.map(|(place, (_, space))| Ok((place, pairs_of(space, snapshot.seqno())?)));
        open.reading = Some(reading.collect::<Result<_>>()?);
        Ok(Some(value.map(|value| value.to_vec())))
    }

    /// Gives the next pairs as of the moment, about `max_bytes` of them.
    pub(crate) fn part(&self, max_bytes: usize, push: Push<'_>) -> Result<Part> {
        let mut open = self.open.lock();
        let Some(open) = open.as_mut() else { return Ok(Part::Closed) };
        let Some(reading) = &mut open.reading else { return Ok(Part::Closed) };
        let mut bytes = 0;
        while let Some((place, pairs)) = reading.front_mut() {
            let (kind, _) = &open.spaces[*place];
            for pair in pairs.by_ref() {
                let (key, value) = pair.map_err(fjall::Error::from)?;
                bytes += key.len() + value.len();
                kind.push(&key, &value, push)?;
                if bytes >= max_bytes {
                    return Ok(Part::More);
                }
            }
            reading.pop_front();
        }
        open.reading = None;
        Ok(Part::End)
    }
}

/// The pairs of a keyspace as of a moment of which a snapshot is open.
fn pairs_of(space: &Keyspace, moment: SeqNo) -> Result<Pairs> {
    match &space.tree {
        AnyTree::Standard(tree) => Ok(Box::new(tree.create_iter(moment, None))),
        // None is made with values apart from their keys.
        AnyTree::Blob(_) => Err(Error::DamagedState(space.name().to_string())),
    }
}

impl Kind {
    fn push(&self, key: &[u8], value: &[u8], push: Push<'_>) -> Result<()> {
        match self {
            Self::Named(name) => push(name, &key_of_stored(key), Some(value)),
            Self::Settled => push(IDENTITIES, key, Some(value)),
            Self::Recent => each_packed(value, |identity, content| push_identity(identity, content, push))?,
        }
        Ok(())
    }
}

/// An identity as a pair.
pub(crate) fn push_identity(identity: u128, content: u64, push: Push<'_>) {
    push(IDENTITIES, &identity.to_be_bytes(), Some(&content.to_le_bytes()));
}

/// An identity from a pair.
pub(crate) fn identity_of_pair(key: &[u8], value: Option<&[u8]>) -> Result<(u128, u64)> {
    let damaged = || Error::DamagedState(IDENTITIES.to_owned());
    let identity = key.first_chunk().ok_or_else(damaged)?;
    let content = value.and_then(<[u8]>::first_chunk).ok_or_else(damaged)?;
    Ok((u128::from_be_bytes(*identity), u64::from_le_bytes(*content)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fjall::AbstractTree;

    use super::*;
    use crate::state::StateStore;

    fn fill(store: &mut StateStore, numbers: std::ops::Range<u32>) {
        let mut step = store.begin();
        for number in numbers {
            step.put("a", number.to_be_bytes().to_vec(), vec![7; 20]);
            step.accept(u128::from(number) << 64, 5);
        }
        step.put("b", Vec::new(), b"of all".to_vec());
        step.put_meta("position", &3).unwrap();
        let writes = step.into_writes();
        store.apply(&writes).unwrap();
    }

    #[test]
    fn parts_are_the_whole_store_as_of_the_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = StateStore::open(folder.path(), &["a".to_owned(), "b".to_owned()]).unwrap();
        fill(&mut store, 0..1000);
        let reader = store.reader();
        assert_eq!(reader.snapshot("position").unwrap(), Some(Some(b"3".to_vec())));
        fill(&mut store, 1000..1100);
        let (mut pairs, mut parts) = (BTreeMap::new(), 0);
        loop {
            let part = reader.part(5000, &mut |space, key, value| {
                pairs.insert((space.to_owned(), key.to_vec()), value.unwrap().to_vec());
            });
            parts += 1;
            if part.unwrap() == Part::End {
                break;
            }
        }
        let of = |name: &str| pairs.keys().filter(|(space, _)| space == name).count();
        assert_eq!((of("a"), of("b"), of(IDENTITIES), of(META)), (1000, 1, 1000, 1));
        assert!(pairs.contains_key(&("b".to_owned(), Vec::new())) && parts > 4);
    }

    #[test]
    fn a_reading_goes_on_while_buffers_are_written_to_files_and_keeps_none_of_them_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = StateStore::open(folder.path(), &["a".to_owned(), "b".to_owned()]).unwrap();
        fill(&mut store, 0..1000);
        let space = store.keyspace("a").unwrap().clone();
        let one = space.tree.active_memtable().size();
        let reader = store.reader();
        reader.snapshot("position").unwrap();
        let (mut keys, mut push) = (Vec::new(), 0);
        for _ in 0..20 {
            fill(&mut store, 0..2000);
            space.rotate_memtable_and_wait().unwrap();
            let part = reader.part(500, &mut |space, key, _| {
                push += 1;
                keys.extend((space == "a").then(|| key.to_vec()));
            });
            assert_eq!(part.unwrap(), Part::More);
        }
        // Forty times as much was written.
        let in_memory = space.tree.get_version_history_lock().memtable_size_sum();
        assert!(in_memory < 16 * one, "{in_memory} bytes, and {one} at first");
        loop {
            let part = reader.part(5000, &mut |space, key, _| keys.extend((space == "a").then(|| key.to_vec())));
            if part.unwrap() == Part::End {
                break;
            }
        }
        let expected: Vec<Vec<u8>> = (0..1000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
        assert_eq!((keys, push > 100), (expected, true));
    }

    #[test]
    fn a_moment_is_never_in_the_midst_of_a_batch_also_while_buffers_become_files() {
        const KEYS: u32 = 500;
        let folder = tempfile::tempdir().unwrap();
        let mut store = StateStore::open(folder.path(), &["a".to_owned(), "b".to_owned()]).unwrap();
        let (reader, small) = (store.reader(), store.keyspace("b").unwrap().clone());
        let mut moments = Vec::new();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for round in 0..150_u32 {
                    let mut step = store.begin();
                    for key in 0..KEYS {
                        step.put("a", key.to_be_bytes().to_vec(), round.to_be_bytes().to_vec());
                    }
                    step.put("b", b"key".to_vec(), round.to_be_bytes().to_vec());
                    step.put_meta("position", &round).unwrap();
                    let writes = step.into_writes();
                    store.apply(&writes).unwrap();
                }
            });
            loop {
                let is_last = writing.is_finished();
                small.rotate_memtable().unwrap();
                let position = reader.snapshot("position").unwrap().unwrap();
                let mut rounds = BTreeMap::<Vec<u8>, usize>::new();
                let mut push = |space: &str, _: &[u8], value: Option<&[u8]>| {
                    if space != META {
                        *rounds.entry(value.unwrap().to_vec()).or_default() += 1;
                    }
                };
                assert_eq!(reader.part(usize::MAX, &mut push).unwrap(), Part::End);
                // Before the first batch there is nothing.
                moments.extend(position.map(|position| (serde_json::from_slice::<u32>(&position).unwrap(), rounds)));
                if is_last {
                    break;
                }
            }
        });
        assert_eq!(moments.last().unwrap().0, 149);
        for (position, rounds) in moments {
            let whole = BTreeMap::from([(position.to_be_bytes().to_vec(), KEYS as usize + 1)]);
            assert_eq!(rounds, whole, "{position}");
        }
    }

    #[test]
    fn a_reader_finds_a_store_closed_whose_owner_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path(), &[]).unwrap();
        let reader = store.reader();
        assert!(reader.snapshot("position").unwrap().is_some());
        drop(store);
        assert_eq!(reader.part(1, &mut |_, _, _| ()).unwrap(), Part::Closed);
        assert!(reader.snapshot("position").unwrap().is_none());
        StateStore::open(folder.path(), &[]).unwrap();
    }
}
