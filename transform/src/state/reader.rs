//! Reads a state store beside its owner, part by part, as of one moment.
//!
//! The store is closed when its owner goes: a reader holds nothing of it between two parts, and then finds it closed.

use std::{ops::Bound, sync::Arc};

use fjall::{Database, Keyspace, Readable, Snapshot};
use parking_lot::Mutex;

use super::{IDENTITIES, META, key_of_stored};
use crate::{Error, Result, identities::each_packed};

/// What takes a pair: keyspace, key, value.
pub(crate) type Push<'p> = &'p mut dyn FnMut(&str, &[u8], Option<&[u8]>);

/// A handle on an open store.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Mutex<Option<Open>>>);

struct Open {
    database: Database,
    spaces: Vec<(Kind, Keyspace)>,
    snapshot: Option<Snapshot>,
}

/// How the pairs of a keyspace are stored.
pub(super) enum Kind {
    Named(String),
    /// One identity a pair.
    Settled,
    /// The identities of a step a pair.
    Recent,
}

/// Where a reading is.
#[derive(Default)]
pub(crate) struct Cursor {
    space: usize,
    after: Option<Vec<u8>>,
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
        Self(Arc::new(Mutex::new(Some(Open { database, spaces, snapshot: None }))))
    }

    /// Lets go of the store; a part that is being read is read first.
    pub(super) fn close(&self) {
        *self.0.lock() = None;
    }

    /// Fixes the moment that parts are read of; gives a small value of the store at that moment. None when it is closed.
    pub(crate) fn snapshot(&self, meta: &str) -> Result<Option<Option<Vec<u8>>>> {
        let mut open = self.0.lock();
        let Some(open) = open.as_mut() else { return Ok(None) };
        let snapshot = open.database.snapshot();
        let space = open.spaces.iter().find(|(kind, _)| matches!(kind, Kind::Named(name) if name == META));
        let value = match space {
            Some((_, space)) => snapshot.get(space, meta)?,
            None => None,
        };
        open.snapshot = Some(snapshot);
        Ok(Some(value.map(|value| value.to_vec())))
    }

    /// Gives the next pairs of the snapshot, about `max_bytes` of them.
    pub(crate) fn part(&self, cursor: &mut Cursor, max_bytes: usize, push: Push<'_>) -> Result<Part> {
        let mut open = self.0.lock();
        let Some(open) = open.as_mut() else { return Ok(Part::Closed) };
        let Some(snapshot) = &open.snapshot else { return Ok(Part::Closed) };
        let mut bytes = 0;
        while let Some((kind, space)) = open.spaces.get(cursor.space) {
            let from = cursor.after.take().map_or(Bound::Unbounded, Bound::Excluded);
            for guard in snapshot.range::<Vec<u8>, _>(space, (from, Bound::Unbounded)) {
                let (key, value) = guard.into_inner()?;
                bytes += key.len() + value.len();
                kind.push(&key, &value, push)?;
                if bytes >= max_bytes {
                    cursor.after = Some(key.to_vec());
                    return Ok(Part::More);
                }
            }
            cursor.space += 1;
        }
        open.snapshot = None;
        Ok(Part::End)
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
        let (mut pairs, mut parts, mut cursor) = (BTreeMap::new(), 0, Cursor::default());
        loop {
            let part = reader.part(&mut cursor, 5000, &mut |space, key, value| {
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
    fn a_reader_finds_a_store_closed_whose_owner_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = StateStore::open(folder.path(), &[]).unwrap();
        let reader = store.reader();
        assert!(reader.snapshot("position").unwrap().is_some());
        drop(store);
        assert_eq!(reader.part(&mut Cursor::default(), 1, &mut |_, _, _| ()).unwrap(), Part::Closed);
        assert!(reader.snapshot("position").unwrap().is_none());
        StateStore::open(folder.path(), &[]).unwrap();
    }
}
