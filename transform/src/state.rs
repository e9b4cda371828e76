//! The local state of one pipeline: identities seen, folded keys, gold state, places of published rows.
//!
//! All of it can be rebuilt from bronze. It is kept in one embedded store, and everything that one step changes is
//! written in one atomic batch together with the bronze version that the step reached, after the step's tables are
//! committed. So after a crash the store is either before or after a whole step, and running that step again gives the
//! same tables (see [`crate::step`]).

mod buffers;
mod database;
mod reader;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    ops::Bound,
    path::Path,
};

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, PersistMode, Slice,
    config::{CompressionPolicy, PinningPolicy},
};
use serde::{Serialize, de::DeserializeOwned};

use self::buffers::Buffers;
pub(crate) use self::reader::{Part, Push, Reader, identity_of_pair, push_identity};
use crate::{
    Error, Result,
    identities::{Entries as IdentityEntries, Identities},
    rebuild::remove,
};

/// The keyspace of the store's own small values.
pub(crate) const META: &str = "meta";
/// What identities are called where all pairs of a store are.
pub(crate) const IDENTITIES: &str = "identities";

/// Stands for the empty key, the one group of a table without groups: the store takes none. No encoded value begins so.
const EMPTY: &[u8] = &[0xf0];

fn stored_key(key: &[u8]) -> &[u8] {
    if key.is_empty() { EMPTY } else { key }
}

fn key_of_stored(key: &[u8]) -> Vec<u8> {
    if key == EMPTY { Vec::new() } else { key.to_vec() }
}

/// Filters and indexes of every file are held: a byte or two a key. Otherwise those of large files, hundreds of kilobytes
/// each, push everything else out of the cache and are read and checked anew for nearly each lookup.
///
/// Blocks are not compressed: where the keys of a step are all over a large store, nearly each lookup would unpack a block
/// of its own for one short value. A store that was made with compression keeps it.
fn options() -> KeyspaceCreateOptions {
    let held = PinningPolicy::all(true);
    let options = KeyspaceCreateOptions::default().data_block_compression_policy(CompressionPolicy::disabled());
    options.filter_block_pinning_policy(held.clone()).index_block_pinning_policy(held)
}

/// The store on disk.
pub struct StateStore {
    // Closed before the database.
    identities: Identities,
    keyspaces: HashMap<String, Keyspace>,
    buffers: Buffers,
    database: Database,
    reader: Reader,
}

impl StateStore {
    /// Opens or creates the store in `folder`, with a keyspace for each name.
    pub fn open(folder: &Path, names: &[String]) -> Result<Self> {
        make_whole(folder, |making| Self::open_existing(making, names).map(drop))?;
        Self::open_existing(folder, names)
    }

    fn open_existing(folder: &Path, names: &[String]) -> Result<Self> {
        let database = database::builder(folder).open()?;
        let mut keyspaces = HashMap::new();
        for name in names.iter().map(String::as_str).chain([META]) {
            keyspaces.insert(name.to_owned(), database.keyspace(name, options)?);
        }
        let identities = Identities::open(&database)?;
        let (settled, recent) = identities.keyspaces();
        let buffers = Buffers::new(keyspaces.values().chain([&settled, &recent]).cloned().collect());
        let named = keyspaces.iter().map(|(name, keyspace)| (reader::Kind::Named(name.clone()), keyspace.clone()));
        let spaces = named.chain([(reader::Kind::Settled, settled), (reader::Kind::Recent, recent)]).collect();
        let reader = Reader::new(database.clone(), spaces);
        Ok(Self { identities, keyspaces, buffers, database, reader })
    }

    /// Reads the store beside its owner.
    pub(crate) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Begins a step: reads see the store and what the step has written; nothing is kept until [`StateStore::apply`].
    pub fn begin(&self) -> Step<'_> {
        Step { store: self, writes: Writes::default() }
    }

    /// A small value of the store's own, such as the position.
    pub fn meta<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        match self.keyspace(META)?.get(name)? {
            Some(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(|_| Error::DamagedState(name.to_owned()))?)),
            None => Ok(None),
        }
    }

    /// Makes the writes of a step permanent, all or none.
    pub fn apply(&mut self, writes: &Writes) -> Result<()> {
        let mut batch = self.database.batch();
        for (name, entries) in &writes.keyspaces {
            let keyspace = self.keyspace(name)?;
            for (key, value) in entries {
                let key = stored_key(key);
                match value {
                    Some(value) => batch.insert(keyspace, key, value.clone()),
                    None => batch.remove(keyspace, key),
                }
            }
        }
        self.identities.write(&writes.identities, &mut batch)?;
        {
            let _whole = self.reader.during_batch();
            batch.commit()?;
        }
        self.buffers.bound()?;
        self.identities.committed(&writes.identities)
    }

    /// Every pair of a keyspace, in key order. For recovery and rare recomputations: reads it whole.
    pub fn scan(&self, name: &str) -> Result<impl Iterator<Item = Result<(Vec<u8>, Vec<u8>)>> + '_> {
        let pairs = self.keyspace(name)?.iter();
        Ok(pairs.map(|guard| {
            guard.into_inner().map(|(key, value)| (key_of_stored(&key), value.to_vec())).map_err(Error::from)
        }))
    }

    /// Syncs to disk: on a graceful stop, so that a restart has nothing to do again.
    pub fn sync(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn keyspace(&self, name: &str) -> Result<&Keyspace> {
        self.keyspaces.get(name).ok_or_else(|| Error::DamagedState(name.to_owned()))
    }
}

/// Makes a new store under another name first: one that a crash or a full disk left half made never opens again.
fn make_whole(folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |source| Error::File { path: folder.display().to_string(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    if fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Ok(());
    }
    let making = folder.with_extension("new");
    remove(&making)?;
    make(&making)?;
    fs::rename(&making, folder).map_err(failed)
}

impl Drop for StateStore {
    /// The database closes with its last handle.
    fn drop(&mut self) {
        self.reader.close();
    }
}

/// Values are shared with the store, which keeps them in memory until they are in a file, and with its copy in the lake.
type Entries = BTreeMap<Vec<u8>, Option<Slice>>;

/// What a step wrote, detached from the store.
#[derive(Default)]
pub struct Writes {
    keyspaces: HashMap<String, Entries>,
    identities: IdentityEntries,
}

impl Writes {
    /// Sets a pair, or removes it.
    pub(crate) fn set(&mut self, keyspace: &str, key: Vec<u8>, value: Option<Vec<u8>>) {
        let value = value.map(Slice::from);
        match self.keyspaces.get_mut(keyspace) {
            Some(entries) => drop(entries.insert(key, value)),
            None => drop(self.keyspaces.insert(keyspace.to_owned(), BTreeMap::from([(key, value)]))),
        }
    }

    pub(crate) fn accept(&mut self, identity: u128, content: u64) {
        self.identities.insert(identity, content);
    }

    /// Takes in the pairs that were written later, without identities.
    pub(crate) fn take_pairs(&mut self, later: Self) {
        for (name, entries) in later.keyspaces {
            self.keyspaces.entry(name).or_default().extend(entries);
        }
    }

    /// Bytes of keys and values, about.
    pub(crate) fn bytes(&self) -> usize {
        let entries = self.keyspaces.values().flatten();
        let pairs =
            entries.map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len())).sum::<usize>();
        pairs + self.identities.len() * 24
    }

    /// Gives every pair but the identities; a value of none removes.
    pub(crate) fn each_pair(&self, push: Push<'_>) {
        for (name, entries) in &self.keyspaces {
            entries.iter().for_each(|(key, value)| push(name, key, value.as_deref()));
        }
    }

    /// Gives every identity as a pair.
    pub(crate) fn each_identity(&self, push: Push<'_>) {
        self.identities.iter().for_each(|(identity, content)| push_identity(*identity, *content, push));
    }
}

/// Keys and values.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The view of one step: the store with the step's own writes over it.
pub struct Step<'s> {
    store: &'s StateStore,
    writes: Writes,
}

impl Step<'_> {
    /// The value of a key. It may hold on to the block of the store that it was read from: what is kept for long is a copy.
    pub fn get(&self, keyspace: &str, key: &[u8]) -> Result<Option<Slice>> {
        if let Some(written) = self.writes.keyspaces.get(keyspace).and_then(|entries| entries.get(key)) {
            return Ok(written.clone());
        }
        Ok(self.store.keyspace(keyspace)?.get(stored_key(key))?)
    }

    pub fn put(&mut self, keyspace: &str, key: Vec<u8>, value: Vec<u8>) {
        self.entries(keyspace).insert(key, Some(Slice::from(value)));
    }

    /// Puts many pairs. Those that are in the order of their keys are taken over without a search for the place of each.
    pub fn put_all(&mut self, keyspace: &str, pairs: Vec<(Vec<u8>, Slice)>) {
        let mut pairs: Entries = pairs.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.entries(keyspace).append(&mut pairs);
    }

    pub fn remove(&mut self, keyspace: &str, key: Vec<u8>) {
        self.entries(keyspace).insert(key, None);
    }

    /// The content that was accepted under `identity`, by this step or before; none when it is new.
    pub fn content_of(&self, identity: u128) -> Result<Option<u64>> {
        match self.writes.identities.get(&identity) {
            Some(content) => Ok(Some(*content)),
            None => self.store.identities.get(identity),
        }
    }

    /// Accepts `content` under a new identity.
    pub fn accept(&mut self, identity: u128, content: u64) {
        self.writes.identities.insert(identity, content);
    }

    /// A small value of the store's own.
    pub fn put_meta<T: Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        let bytes = serde_json::to_vec(value)?;
        self.put(META, name.as_bytes().to_vec(), bytes);
        Ok(())
    }

    /// The pairs whose key starts with `prefix`, in key order.
    pub fn prefix(&self, keyspace: &str, prefix: &[u8]) -> Result<Pairs> {
        let mut found = BTreeMap::new();
        for guard in self.store.keyspace(keyspace)?.prefix(prefix) {
            let (key, value) = guard.into_inner()?;
            found.insert(key_of_stored(&key), value.to_vec());
        }
        if let Some(entries) = self.writes.keyspaces.get(keyspace) {
            let from = (Bound::Included(prefix.to_vec()), Bound::Unbounded);
            for (key, value) in entries.range(from).take_while(|(key, _)| key.starts_with(prefix)) {
                match value {
                    Some(value) => found.insert(key.clone(), value.to_vec()),
                    None => found.remove(key),
                };
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Every pair of a keyspace as this step sees it. Rare: reads it whole.
    pub fn scan(&self, keyspace: &str) -> Result<Pairs> {
        self.prefix(keyspace, &[])
    }

    /// The next pairs of the store after a key that is not empty, in key order, at most `limit`. What the step wrote itself
    /// is not among them.
    pub fn stored_after(&self, keyspace: &str, key: Option<&Vec<u8>>, limit: usize) -> Result<Pairs> {
        let from = key.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        let pairs = self.store.keyspace(keyspace)?.range::<Vec<u8>, _>((from, Bound::Unbounded));
        let pairs = pairs.take(limit).map(|guard| {
            guard.into_inner().map(|(key, value)| (key_of_stored(&key), value.to_vec())).map_err(Error::from)
        });
        pairs.collect()
    }

    /// The next pairs after a key that is not empty, in key order, about `limit` of them, as this step sees them; and the key
    /// to go on after, none at the end.
    pub fn seen_after(&self, keyspace: &str, key: Option<&Vec<u8>>, limit: usize) -> Result<(Pairs, Option<Vec<u8>>)> {
        let stored = self.stored_after(keyspace, key, limit)?;
        let last = stored.last().filter(|_| stored.len() >= limit).map(|(key, _)| key.clone());
        let Some(entries) = self.writes.keyspaces.get(keyspace) else { return Ok((stored, last)) };
        let mut seen: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().collect();
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let to = last.as_ref().map_or(Bound::Unbounded, Bound::Included);
        for (key, value) in entries.range::<Vec<u8>, _>((from, to)) {
            match value {
                Some(value) => seen.insert(key.clone(), value.to_vec()),
                None => seen.remove(key),
            };
        }
        Ok((seen.into_iter().collect(), last))
    }

    /// Ends the step and hands over what it wrote.
    pub fn into_writes(self) -> Writes {
        self.writes
    }

    fn entries(&mut self, keyspace: &str) -> &mut Entries {
        self.writes.keyspaces.entry(keyspace.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_sees_its_writes_and_the_store_sees_them_after_apply() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = StateStore::open(folder.path(), &["a".to_owned()]).unwrap();
        let mut step = store.begin();
        step.put("a", b"k1".to_vec(), b"1".to_vec());
        step.put("a", b"k2".to_vec(), b"2".to_vec());
        step.put("a", Vec::new(), b"of all".to_vec());
        let writes = step.into_writes();
        store.apply(&writes).unwrap();
        let mut step = store.begin();
        step.remove("a", b"k1".to_vec());
        step.put("a", b"k3".to_vec(), b"3".to_vec());
        let keys =
            |step: &Step<'_>| step.prefix("a", b"k").unwrap().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&step), [b"k2", b"k3"]);
        assert_eq!(store.begin().get("a", b"k1").unwrap().as_deref(), Some(b"1".as_slice()));
        drop(step);
        assert_eq!(keys(&store.begin()), [b"k1", b"k2"]);
        assert_eq!(store.begin().get("a", b"").unwrap().as_deref(), Some(b"of all".as_slice()));
        assert_eq!(store.begin().scan("a").unwrap()[0], (Vec::new(), b"of all".to_vec()));
    }

    #[test]
    fn a_step_sees_the_same_in_parts_of_any_size_as_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = StateStore::open(folder.path(), &["a".to_owned()]).unwrap();
        let mut step = store.begin();
        (1..9_u8).for_each(|number| step.put("a", vec![number * 10], vec![number]));
        let writes = step.into_writes();
        store.apply(&writes).unwrap();
        for has_writes in [false, true] {
            let mut step = store.begin();
            if has_writes {
                [10, 30, 31, 80].into_iter().for_each(|key| step.remove("a", vec![key]));
                let puts = [1, 20, 41, 42, 90, 91].into_iter();
                puts.for_each(|key| step.put("a", vec![key], b"of the step".to_vec()));
            }
            let whole = step.scan("a").unwrap();
            assert_eq!(whole.len(), if has_writes { 10 } else { 8 });
            for limit in 1..12 {
                let (mut seen, mut after) = (Vec::new(), None);
                loop {
                    let (pairs, last) = step.seen_after("a", after.as_ref(), limit).unwrap();
                    seen.extend(pairs);
                    after = last;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(seen, whole, "{limit}");
            }
        }
    }

    #[test]
    fn pairs_put_together_are_as_if_each_was_put_last() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = StateStore::open(folder.path(), &["a".to_owned()]).unwrap();
        let mut step = store.begin();
        step.put("a", b"k1".to_vec(), b"before".to_vec());
        step.remove("a", b"k3".to_vec());
        step.put("a", b"k9".to_vec(), b"stays".to_vec());
        let pairs = [(b"k3", "third"), (b"k1", "first"), (b"k2", "second")];
        step.put_all("a", pairs.map(|(key, value)| (key.to_vec(), Slice::from(value))).to_vec());
        let expected = [("k1", "first"), ("k2", "second"), ("k3", "third"), ("k9", "stays")];
        let expected = expected.map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()));
        assert_eq!(step.scan("a").unwrap(), expected);
        let writes = step.into_writes();
        store.apply(&writes).unwrap();
        assert_eq!(store.begin().scan("a").unwrap(), expected);
    }
}
