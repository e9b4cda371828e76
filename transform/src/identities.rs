//! Which events a pipeline has taken: identity to content, for every event it ever accepted.
//!
//! Almost every lookup asks for an event that was never seen, and must cost the same with fifty million behind it. So:
//! - The *recent* identities are a hash map in memory. On disk each step's are one value, written in the step's own
//!   batch, so a step costs one sequential write however many events it has.
//! - When the map is large it is *sealed*: a thread writes it, sorted, into the *settled* keyspace, one key an identity,
//!   and then the steps' values go.
//! - A Bloom filter in memory knows every settled identity; only what it may know is looked up on disk.
//!
//! Guarantees: an identity is in the recent values, or settled, or both, at every moment; both say the same, so a crash
//! between the two needs no repair. The filter is built from the settled keys when the store is opened.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
    sync::Arc,
    thread::{self, JoinHandle},
};

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch,
    compaction::Leveled,
    config::{CompressionPolicy, FilterPolicy, PinningPolicy},
};
use karat_lake::parquet::bloom_filter::Sbbf;

use crate::{Error, Result};

/// Name of the keyspace of settled identities.
const SETTLED: &str = "identities";
/// Name of the keyspace that holds each step's identities as one value.
const RECENT: &str = "identities.recent";

/// Identities in memory at which they are sealed: some 35 MiB, twice while they are written. Larger runs are merged
/// less often on disk.
const SEAL_AT: usize = 1 << 19;

/// Runs that are merged into the first level at once, and bytes of a file of a level. The level is as large as by the storage
/// crate's own numbers (4 of 64 MiB), but is written anew half as often, and its files, which are narrower, are merged with less of
/// the next one: an identity is written some eight times instead of eleven until there are fifty million. Each look on disk is
/// at two runs more. A file is larger than two runs, or one merge a run would not keep up. A store that was made with other
/// numbers keeps those.
const RUNS: u8 = 8;
const TABLE: u64 = 32 << 20;

/// Bytes of an identity and its content in a step's value.
const ENTRY: usize = 24;

/// Identities and contents; contents are told apart by 64 bits, which is enough to name a conflict.
pub type Entries = HashMap<u128, u64, BuildHasherDefault<FirstWord>>;

/// Identities are hashes already: their first word is as good as a hash of them.
#[derive(Default)]
pub struct FirstWord(u64);

impl Hasher for FirstWord {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk::<8>().map_or(0, |word| u64::from_ne_bytes(*word));
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The identities of one state store.
pub struct Identities {
    settled: Keyspace,
    recent: Keyspace,
    filter: Filter,
    active: Entries,
    /// Numbers of the steps' values that `active` came from.
    values: Range<u64>,
    sealed: Option<Sealed>,
    seal_at: usize,
}

/// Identities on their way to the settled keyspace.
struct Sealed {
    entries: Arc<Entries>,
    values: Range<u64>,
    writing: JoinHandle<fjall::Result<()>>,
}

impl Identities {
    /// Opens the keyspaces and reads what must be in memory: the recent values, and the settled keys for the filter.
    pub fn open(database: &Database) -> Result<Self> {
        // Filters of the store's own would be half a megabyte a file, read anew for nearly each of the lookups that ours lets
        // by; and an index that is not held would be as much. Hashes do not get shorter by compression.
        let options = || {
            let unfiltered = KeyspaceCreateOptions::default().filter_policy(FilterPolicy::disabled());
            let unpacked = unfiltered.data_block_compression_policy(CompressionPolicy::disabled());
            let merged = Leveled::default().with_l0_threshold(RUNS).with_table_target_size(TABLE);
            unpacked.index_block_pinning_policy(PinningPolicy::all(true)).compaction_strategy(Arc::new(merged))
        };
        let settled = database.keyspace(SETTLED, options)?;
        let recent = database.keyspace(RECENT, KeyspaceCreateOptions::default)?;
        let mut filter = Filter::default();
        for guard in settled.iter() {
            filter.insert(identity_of(&guard.key()?)?);
        }
        let (mut active, mut values) = (Entries::default(), 0..0);
        for guard in recent.iter() {
            let (number, entries) = guard.into_inner()?;
            let number = u64::from_be_bytes(number.first_chunk().copied().ok_or_else(damaged)?);
            values = if values.is_empty() { number..number + 1 } else { values.start..number + 1 };
            unpack(&entries, &mut active)?;
        }
        Ok(Self { settled, recent, filter, active, values, sealed: None, seal_at: SEAL_AT })
    }

    /// Settled identities, one a pair; recent ones, a step a pair.
    pub fn keyspaces(&self) -> (Keyspace, Keyspace) {
        (self.settled.clone(), self.recent.clone())
    }

    /// The content that was accepted under `identity`; none when it is new.
    pub fn get(&self, identity: u128) -> Result<Option<u64>> {
        let sealed = || self.sealed.as_ref().and_then(|sealed| sealed.entries.get(&identity));
        if let Some(content) = self.active.get(&identity).or_else(sealed) {
            return Ok(Some(*content));
        }
        if !self.filter.may_have(identity) {
            return Ok(None);
        }
        match self.settled.get(identity.to_be_bytes())? {
            Some(content) => Ok(Some(u64::from_le_bytes(content.first_chunk().copied().ok_or_else(damaged)?))),
            None => Ok(None),
        }
    }

    /// Adds a step's identities to its batch.
    pub fn write(&mut self, entries: &Entries, batch: &mut OwnedWriteBatch) -> Result<()> {
        self.end_sealing(batch)?;
        if !entries.is_empty() {
            batch.insert(&self.recent, self.values.end.to_be_bytes(), pack(entries));
        }
        Ok(())
    }

    /// Takes over a step's identities after its batch was committed.
    pub fn committed(&mut self, entries: &Entries) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.values.end += 1;
        if self.active.is_empty() {
            self.active.clone_from(entries);
        } else {
            self.active.extend(entries.iter().map(|(identity, content)| (*identity, *content)));
        }
        if self.active.len() >= self.seal_at && self.sealed.is_none() {
            self.seal()?;
        }
        Ok(())
    }

    fn seal(&mut self) -> Result<()> {
        let entries = Arc::new(std::mem::take(&mut self.active));
        let values = self.values.clone();
        self.values = values.end..values.end;
        let (shared, settled) = (Arc::clone(&entries), self.settled.clone());
        let writing = thread::Builder::new()
            .name("identities".to_owned())
            .spawn(move || settle(&settled, &shared))
            .map_err(|source| Error::File { path: SETTLED.to_owned(), source })?;
        self.sealed = Some(Sealed { entries, values, writing });
        Ok(())
    }

    /// Once the sealed identities are settled, the steps' values and the memory go.
    fn end_sealing(&mut self, batch: &mut OwnedWriteBatch) -> Result<()> {
        let Some(sealed) = self.sealed.take_if(|sealed| sealed.writing.is_finished()) else { return Ok(()) };
        match sealed.writing.join() {
            Ok(result) => result?,
            Err(_) => return Err(Error::DamagedState(SETTLED.to_owned())),
        }
        for identity in sealed.entries.keys() {
            self.filter.insert(*identity);
        }
        for number in sealed.values {
            batch.remove(&self.recent, number.to_be_bytes());
        }
        Ok(())
    }
}

impl Drop for Identities {
    /// The thread writes into the database, which is closed after this.
    fn drop(&mut self) {
        if let Some(sealed) = self.sealed.take() {
            let _ = sealed.writing.join();
        }
    }
}

/// Writes entries as a sorted run: no journal, no memory table, one sequential write, synced at its end.
fn settle(settled: &Keyspace, entries: &Entries) -> fjall::Result<()> {
    let mut sorted: Vec<(u128, u64)> = entries.iter().map(|(identity, content)| (*identity, *content)).collect();
    sorted.sort_unstable();
    let mut ingestion = settled.start_ingestion()?;
    for (identity, content) in sorted {
        ingestion.write(identity.to_be_bytes(), content.to_le_bytes())?;
    }
    ingestion.finish()
}

fn pack(entries: &Entries) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY);
    for (identity, content) in entries {
        bytes.extend_from_slice(&identity.to_le_bytes());
        bytes.extend_from_slice(&content.to_le_bytes());
    }
    bytes
}

fn unpack(bytes: &[u8], into: &mut Entries) -> Result<()> {
    each_packed(bytes, |identity, content| {
        into.insert(identity, content);
    })
}

/// Gives every identity of a step's value.
pub(crate) fn each_packed(bytes: &[u8], mut each: impl FnMut(u128, u64)) -> Result<()> {
    for entry in bytes.chunks(ENTRY) {
        let (identity, content) = entry.split_first_chunk::<16>().ok_or_else(damaged)?;
        let content = content.first_chunk::<8>().ok_or_else(damaged)?;
        each(u128::from_le_bytes(*identity), u64::from_le_bytes(*content));
    }
    Ok(())
}

fn identity_of(key: &[u8]) -> Result<u128> {
    Ok(u128::from_be_bytes(key.first_chunk().copied().ok_or_else(damaged)?))
}

fn damaged() -> Error {
    Error::DamagedState(SETTLED.to_owned())
}

/// A Bloom filter that grows: layers, each four times the size of the one before up to a largest, so that fifty million
/// identities are five lookups of one cache line each, and some 106 MiB.
#[derive(Default)]
struct Filter {
    layers: Vec<Layer>,
}

struct Layer {
    bits: Sbbf,
    /// Identities that may still be added.
    room: usize,
}

/// Identities of the first layer; a whole layer must be a power of two.
const FIRST_LAYER: usize = 1 << 20;
/// Bytes of an identity: some two of a thousand new ones are looked up on disk for nothing by each full layer. With one byte it
/// would be three of a hundred, each a block of every sorted file, and a step would take the longer the more files and full
/// layers there are.
const BYTES_EACH: usize = 2;
/// The largest layer is 32 MiB; then more of that size.
const LARGEST_GROWTH: usize = 2;

impl Filter {
    fn insert(&mut self, identity: u128) {
        if self.layers.last().is_none_or(|layer| layer.room == 0) {
            let room = FIRST_LAYER << (2 * self.layers.len().min(LARGEST_GROWTH));
            self.layers.push(Layer { bits: Sbbf::new_with_num_of_bytes(room * BYTES_EACH), room });
        }
        if let Some(layer) = self.layers.last_mut() {
            layer.bits.insert(identity.to_le_bytes().as_slice());
            layer.room -= 1;
        }
    }

    fn may_have(&self, identity: u128) -> bool {
        let bytes = identity.to_le_bytes();
        self.layers.iter().any(|layer| layer.bits.check(bytes.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use fjall::AbstractTree;

    use super::*;

    fn open(database: &Database) -> Identities {
        let mut identities = Identities::open(database).unwrap();
        identities.seal_at = 100;
        identities
    }

    fn step(database: &Database, identities: &mut Identities, range: Range<u128>) {
        let entries: Entries = range.map(|identity| (hash(identity), identity as u64)).collect();
        let mut batch = database.batch();
        identities.write(&entries, &mut batch).unwrap();
        batch.commit().unwrap();
        identities.committed(&entries).unwrap();
    }

    fn hash(number: u128) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&number.to_le_bytes())
    }

    fn wait_until_settled(database: &Database, identities: &mut Identities) {
        while let Some(sealed) = &identities.sealed {
            if sealed.writing.is_finished() {
                step(database, identities, 0..0);
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn identities_are_found_while_recent_sealed_and_settled_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::builder(folder.path()).open().unwrap();
        let mut identities = open(&database);
        let is_complete = |identities: &Identities, upto: u128| {
            (0..upto).all(|number| identities.get(hash(number)).unwrap() == Some(number as u64))
                && (upto..upto + 1000).all(|number| identities.get(hash(number)).unwrap().is_none())
        };
        for number in 0..25 {
            step(&database, &mut identities, number * 30..(number + 1) * 30);
            assert!(is_complete(&identities, (number + 1) * 30), "{number}");
        }
        wait_until_settled(&database, &mut identities);
        assert!(identities.settled.len().unwrap() >= 100);
        assert!(is_complete(&identities, 750));
        drop(identities);
        let identities = open(&database);
        assert!(identities.active.len() < 750);
        assert!(is_complete(&identities, 750));
    }

    #[test]
    fn eight_runs_are_merged_at_once_and_hold_the_same_before_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::builder(folder.path()).open().unwrap();
        let mut identities = open(&database);
        let seal = |identities: &mut Identities, run: u128| {
            step(&database, identities, run * 100..(run + 1) * 100);
            wait_until_settled(&database, identities);
        };
        (0..7).for_each(|run| seal(&mut identities, run));
        // The first may be alone when it is looked at, and is then no run over another any more.
        assert!((6..=7).contains(&identities.settled.tree.l0_run_count()));
        let is_complete = |identities: &Identities, runs: u128| {
            (0..runs * 100).all(|number| identities.get(hash(number)).unwrap() == Some(number as u64))
        };
        assert!(is_complete(&identities, 7));
        let (mut runs, deadline) = (7, Instant::now() + Duration::from_secs(60));
        while identities.settled.tree.l0_run_count() >= 6 {
            assert!(Instant::now() < deadline, "{runs} runs are not merged");
            seal(&mut identities, runs);
            runs += 1;
        }
        assert!(is_complete(&identities, runs));
        drop(identities);
        assert!(is_complete(&open(&database), runs));
    }

    #[test]
    fn a_crash_before_the_recent_values_are_removed_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::builder(folder.path()).open().unwrap();
        let mut identities = open(&database);
        step(&database, &mut identities, 0..200);
        drop(identities);
        let mut identities = open(&database);
        assert_eq!((identities.settled.len().unwrap(), identities.active.len()), (200, 200));
        step(&database, &mut identities, 200..201);
        wait_until_settled(&database, &mut identities);
        assert!((0..201).all(|number| identities.get(hash(number)).unwrap() == Some(number as u64)));
    }

    #[test]
    fn the_filter_knows_all_it_was_given_and_little_else() {
        let mut filter = Filter::default();
        (0..3_000_000).for_each(|number| filter.insert(hash(number)));
        assert_eq!(filter.layers.len(), 2);
        assert!((0..3_000_000).step_by(7).all(|number| filter.may_have(hash(number))));
        let wrong = (3_000_000..3_100_000).filter(|number| filter.may_have(hash(*number))).count();
        assert!(wrong < 1_000, "{wrong}");
    }
}
