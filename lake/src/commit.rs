//! One commit: compare, write put-if-absent, resolve unknown outcomes.
//!
//! The stock path keeps every active file in memory and costs more with each commit; this one writes the next log entry
//! directly, at a flat cost. It is valid for tables that only Karat writes (engine facts, section 1).

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use deltalake::{
    kernel::{
        Action, Add, Metadata, Remove, Transaction,
        transaction::{CommitData, TransactionError},
    },
    logstore::{CommitOrBytes, LogStoreRef, ObjectStoreRef, get_actions},
    protocol::{DeltaOperation, SaveMode},
};
use futures::{StreamExt, TryStreamExt, stream};
use karat_schemas::trace::{TraceContext, Traces};
use object_store::{ObjectStoreExt, path::Path};

use crate::{Error, Result, table::hash_of_parts};

/// A position recorded in a commit: the application and its version, such as `karat.events/3` = next offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionId {
    pub application: String,
    pub version: i64,
}

impl TransactionId {
    pub fn new(application: impl Into<String>, version: i64) -> Self {
        Self { application: application.into(), version }
    }
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// This call wrote the version.
    Now(u64),
    /// The same positions were there already, from an attempt whose answer was lost.
    Before(u64),
}

impl Committed {
    pub fn version(self) -> u64 {
        match self {
            Self::Now(version) | Self::Before(version) => version,
        }
    }
}

/// In the first line of a commit: how many lines it has. A commit that was torn between two lines parses, and would read as
/// a smaller one.
const NUM_ACTIONS: &str = "karatActions";

/// In the first line of a commit of traced rows: the ids of the first few traces, and how many records had one.
const TRACES: &str = "karatTraces";
const TRACED: &str = "karatTracedRecords";

/// At the end of the first line: checksum of all other bytes of the commit. One in which a digit was altered parses, and would
/// read as another position or file.
const HASH: &str = r#","karatHash":""#;
const HASH_LENGTH: usize = 16;
const END: &str = r#""}}"#;

/// The commit with its checksum; as it is when its first line is not as expected.
fn with_hash(bytes: Bytes) -> Bytes {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(end);
    let Some(first) = first.strip_suffix(b"}}") else { return bytes };
    let (before, after) = ([first, HASH.as_bytes()].concat(), [END.as_bytes(), rest].concat());
    let hash = hash_of_parts(&[&before, &after]);
    [&before[..], hash.as_bytes(), &after].concat().into()
}

/// Whether the bytes are those that were written; true of a commit that does not say, as of other engines.
fn is_as_written(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let place = bytes[..end].windows(HASH.len()).rposition(|part| part == HASH.as_bytes());
    let Some((before, rest)) = place.map(|place| bytes.split_at(place + HASH.len())) else { return true };
    rest.split_at_checked(HASH_LENGTH).is_some_and(|(said, after)| said == hash_of_parts(&[before, after]).as_bytes())
}

/// Parses a commit file.
///
/// # Errors
/// [`Error::Damaged`] when it is empty, torn or altered, or does not parse.
pub(crate) fn parse(table: &str, version: u64, bytes: &Bytes) -> Result<Vec<Action>> {
    let damaged = |reason: String| Error::Damaged {
        table: table.to_owned(),
        file: format!("_delta_log/{version:020}.json"),
        reason,
    };
    // A power cut can leave a commit of length zero on a store that does not sync; it must not read as empty.
    if bytes.is_empty() {
        return Err(damaged("the commit file is empty".to_owned()));
    }
    let actions = get_actions(version, bytes).map_err(|error| damaged(error.to_string()))?;
    let said = actions.iter().find_map(|action| match action {
        Action::CommitInfo(commit) => commit.info.get(NUM_ACTIONS)?.as_u64(),
        _ => None,
    });
    match said {
        Some(said) if said != actions.len() as u64 => {
            Err(damaged(format!("the commit file is torn: it should have {said} lines and has {}", actions.len())))
        }
        _ if !is_as_written(bytes) => {
            Err(damaged("the commit file was altered: its bytes are not those that were written".to_owned()))
        }
        _ => Ok(actions),
    }
}

/// Whether a commit file has the lines that it says it has, without parsing them: for commits that somebody else parses,
/// who would take an empty, a shortened or an altered one for whole.
///
/// # Errors
/// [`Error::Damaged`] when it has not.
pub(crate) fn require_whole(table: &str, version: u64, bytes: &Bytes) -> Result<()> {
    let lines = || bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let first: serde_json::Value =
        lines().next().and_then(|line| serde_json::from_slice(line).ok()).unwrap_or_default();
    let said = first["commitInfo"][NUM_ACTIONS].as_u64();
    let is_torn = said.is_some_and(|said| said != lines().count() as u64);
    if bytes.is_empty() || is_torn || !is_as_written(bytes) {
        // Says in words what is wrong.
        return parse(table, version, bytes).map(drop);
    }
    Ok(())
}

/// The ids of the traces that a commit names, and how many of its records had one.
pub(crate) fn traces(actions: &[Action]) -> (Vec<String>, u64) {
    let infos = actions.iter().filter_map(|action| match action {
        Action::CommitInfo(commit) => Some(&commit.info),
        _ => None,
    });
    let (mut ids, mut records) = (Vec::new(), 0);
    for info in infos {
        let listed = info.get(TRACES).and_then(serde_json::Value::as_array).into_iter().flatten();
        ids.extend(listed.filter_map(|id| id.as_str().map(str::to_owned)));
        records += info.get(TRACED).and_then(serde_json::Value::as_u64).unwrap_or(0);
    }
    (ids, records)
}

/// The positions in a commit that is whole, without parsing the rest of it.
pub(crate) fn transactions(bytes: &Bytes) -> Vec<TransactionId> {
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let lines = lines.filter(|line| line.contains("\"txn\""));
    let transaction = |line: &str| {
        let action: serde_json::Value = serde_json::from_str(line).ok()?;
        let transaction = &action["txn"];
        Some(TransactionId::new(transaction["appId"].as_str()?, transaction["version"].as_i64()?))
    };
    lines.filter_map(transaction).collect()
}

pub(crate) struct Entry<'a> {
    pub(crate) table: &'a str,
    pub(crate) partition_by: &'a [String],
    pub(crate) adds: &'a [Add],
    pub(crate) removes: Vec<Remove>,
    /// New columns, when they change.
    pub(crate) metadata: Option<Metadata>,
    pub(crate) transactions: &'a [TransactionId],
    /// Of the rows that are added.
    pub(crate) traces: &'a Traces,
}

impl Entry<'_> {
    pub(crate) fn bytes(&self) -> Result<Bytes> {
        let is_append = self.removes.is_empty();
        let operation = DeltaOperation::Write {
            mode: if is_append { SaveMode::Append } else { SaveMode::Overwrite },
            partition_by: Some(self.partition_by.to_vec()),
            predicate: None,
        };
        let removes = self.removes.iter().cloned().map(Action::Remove);
        let adds = self.adds.iter().cloned().map(Action::Add);
        let metadata = self.metadata.iter().cloned().map(Action::Metadata);
        let actions: Vec<Action> = metadata.chain(removes).chain(adds).collect();
        let transactions = self.transactions.iter().map(|id| Transaction::new(&id.application, id.version)).collect();
        // With the entry that says so.
        let num_actions = actions.len() + self.transactions.len() + 1;
        let mut metadata = HashMap::from([
            ("isBlindAppend".to_owned(), is_append.into()),
            (NUM_ACTIONS.to_owned(), num_actions.into()),
        ]);
        if !self.traces.is_empty() {
            let ids: Vec<String> = self.traces.contexts().iter().map(TraceContext::trace_id_text).collect();
            metadata.insert(TRACES.to_owned(), ids.into());
            metadata.insert(TRACED.to_owned(), self.traces.num_records().into());
        }
        let bytes = CommitData::new(actions, operation, metadata, transactions).get_bytes();
        bytes.map(with_hash).map_err(|error| Error::storage(self.table, error))
    }
}

/// Attempts of one write whose answer is lost, before the error is the caller's.
const ATTEMPTS: u32 = 4;

/// Files that were written longer ago than this are looked for before a commit names them: nothing is cleaned up younger.
const YOUNG_MS: i64 = 5_000;

/// Files that are looked for at once.
const IN_FLIGHT: usize = 16;

/// What a commit names must be there. A process that stood still, or waited for its next step, may be so late that
/// its files were removed as what no commit names.
///
/// # Errors
/// [`Error::CleanedUp`].
async fn require_present(files: &ObjectStoreRef, entry: &Entry<'_>) -> Result<()> {
    let now_ms = crate::table::now_ms();
    let old = entry.adds.iter().filter(|add| now_ms - add.modification_time >= YOUNG_MS);
    let looked: Vec<_> = old.map(|add| is_present(Arc::clone(files), add.path.clone())).collect();
    let mut looked = stream::iter(looked).buffer_unordered(IN_FLIGHT);
    while let Some((file, is_present)) = looked.try_next().await? {
        if !is_present {
            return Err(Error::CleanedUp { table: entry.table.to_owned(), file });
        }
    }
    Ok(())
}

async fn is_present(store: ObjectStoreRef, file: String) -> Result<(String, bool)> {
    let path = Path::parse(&file).map_err(object_store::Error::from)?;
    match store.head(&path).await {
        Ok(_) => Ok((file, true)),
        Err(object_store::Error::NotFound { .. }) => Ok((file, false)),
        Err(error) => Err(error.into()),
    }
}

/// Writes `entry`, whose files are in `files`, as the version after `base`.
///
/// When that version is taken: by the same positions, the commit had landed; by others, the result depends on
/// `may_follow_others` (parallel appends to bronze) or is [`Error::Fenced`]. A failed write leaves the outcome unknown,
/// so the log is read before it is tried again.
pub(crate) async fn write(
    log: &LogStoreRef,
    files: &ObjectStoreRef,
    base: u64,
    entry: &Entry<'_>,
    may_follow_others: bool,
) -> Result<Committed> {
    require_present(files, entry).await?;
    let bytes = entry.bytes()?;
    let mut version = base + 1;
    let mut failures = 0;
    loop {
        let written =
            log.write_commit_entry(version, CommitOrBytes::LogBytes(bytes.clone()), uuid::Uuid::new_v4()).await;
        let error = match written {
            Ok(()) => return Ok(Committed::Now(version)),
            Err(error) => error,
        };
        let found = log.read_commit_entry(version).await.map_err(|source| Error::storage(entry.table, source))?;
        match found {
            Some(found) if found == bytes => {
                // It is there by name; what failed may have been to keep the name through a power cut.
                crate::durable::keep_names(log.root_url(), "_delta_log")
                    .await
                    .map_err(|error| Error::storage(entry.table, error))?;
                return Ok(Committed::Before(version));
            }
            Some(found) => {
                // The same positions in other bytes are another process's files: only appended rows may stand for ours.
                if !may_follow_others {
                    return Err(fenced(entry, version, "another commit"));
                }
                if same_positions(entry, version, &found)? {
                    return Ok(Committed::Before(version));
                }
                version += 1;
            }
            None => {
                failures += 1;
                if failures >= ATTEMPTS {
                    return Err(Error::storage(entry.table, transaction_error(error)));
                }
                tokio::time::sleep(std::time::Duration::from_millis(50 << failures)).await;
            }
        }
    }
}

/// Whether the commit found at `version` holds all of our positions; fences when it holds only some, or moved one
/// elsewhere: another writer owns a part of what we hold.
fn same_positions(entry: &Entry<'_>, version: u64, found: &Bytes) -> Result<bool> {
    let actions = parse(entry.table, version, found)?;
    let mut num_same = 0;
    for action in actions {
        // Files that we replace may be among those: only appends may come between.
        if matches!(action, Action::Remove(_)) && !entry.removes.is_empty() {
            return Err(fenced(entry, version, "a commit that removes files"));
        }
        let Action::Txn(transaction) = action else { continue };
        if let Some(ours) = entry.transactions.iter().find(|ours| ours.application == transaction.app_id) {
            if ours.version != transaction.version {
                return Err(fenced(entry, version, &format!("{} = {}", transaction.app_id, transaction.version)));
            }
            num_same += 1;
        }
    }
    if num_same != 0 && num_same != entry.transactions.len() {
        return Err(fenced(entry, version, "a part of our positions"));
    }
    Ok(num_same != 0)
}

fn fenced(entry: &Entry<'_>, expected: u64, found: &str) -> Error {
    Error::Fenced { table: entry.table.to_owned(), expected, found: found.to_owned() }
}

fn transaction_error(error: TransactionError) -> deltalake::DeltaTableError {
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit() -> Bytes {
        commit_of(&Traces::default())
    }

    fn commit_of(traces: &Traces) -> Bytes {
        let transactions = [TransactionId::new("topic/0", 41)];
        let entry = Entry {
            table: "bronze.t",
            partition_by: &[],
            adds: &[],
            removes: Vec::new(),
            metadata: None,
            transactions: &transactions,
            traces,
        };
        entry.bytes().unwrap()
    }

    #[test]
    fn a_commit_names_the_traces_of_its_rows_and_is_whole() {
        let mut of_rows = Traces::default();
        (1..=20).for_each(|number| of_rows.add(TraceContext::new(number, 1, true).unwrap()));
        let bytes = commit_of(&of_rows);
        let actions = parse("bronze.t", 1, &bytes).unwrap();
        require_whole("bronze.t", 1, &bytes).unwrap();
        let (ids, records) = traces(&actions);
        assert_eq!((ids.len(), records, ids[0].as_str()), (16, 20, "00000000000000000000000000000001"));
        assert_eq!(traces(&parse("bronze.t", 1, &commit()).unwrap()), (Vec::new(), 0));
    }

    #[test]
    fn a_commit_reads_as_it_was_written_and_its_checksum_is_in_its_first_line() {
        let bytes = commit();
        assert!(bytes.starts_with(b"{\"commitInfo\":") && bytes.split(|byte| *byte == b'\n').count() == 2);
        assert_eq!(parse("bronze.t", 1, &bytes).unwrap().len(), 2);
        require_whole("bronze.t", 1, &bytes).unwrap();
        assert_eq!(transactions(&bytes), [TransactionId::new("topic/0", 41)]);
        let first: serde_json::Value =
            serde_json::from_slice(bytes.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        assert_eq!(first["commitInfo"]["karatHash"].as_str().unwrap().len(), HASH_LENGTH);
    }

    #[test]
    fn every_altered_byte_of_a_commit_is_damage_unless_it_hides_the_checksum() {
        let whole = commit();
        let name = HASH.as_bytes();
        let hidden = whole.windows(name.len()).position(|bytes| bytes == name).unwrap();
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.to_vec();
                bytes[place] ^= 1 << bit;
                let bytes = Bytes::from(bytes);
                let is_hidden = (hidden..hidden + name.len()).contains(&place);
                assert!(parse("bronze.t", 1, &bytes).is_err() || is_hidden, "byte {place}, bit {bit}");
                assert!(require_whole("bronze.t", 1, &bytes).is_err() || is_hidden, "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_commit_without_a_checksum_is_taken_as_it_is() {
        let bytes = Bytes::from_static(br#"{"txn":{"appId":"topic/0","version":41}}"#);
        assert_eq!(parse("bronze.t", 1, &bytes).unwrap().len(), 1);
        require_whole("bronze.t", 1, &bytes).unwrap();
    }
}
