//! Repairs the one harm that a power cut can do to the store's journal.
//!
//! The last write, which was never acknowledged, may be on disk in part: pages in the middle can be missing while the
//! end is there. The store calls that a checksum mismatch and refuses to open. Nothing valid can follow such a write,
//! because each write waits for the fsync of the one before. So: if the first unreadable write is also the last thing
//! in the newest journal file, it is cut off; in every other case the file is left alone and the error stands.
//!
//! Journal format (of `fjall` 3): a write is a start mark (tag 1, item count `u32`, sequence number `u64`), items
//! (tag 2) and an end mark (tag 3, xxh3 of the items `u64`, four magic bytes); everything little-endian.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, Result};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const START_BYTES: usize = 1 + 4 + 8;
/// Tag, value type, compression, keyspace `u64`, key length `u16`, value length `u32`, stored length `u32`.
const ITEM_HEAD_BYTES: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
const END_BYTES: usize = 1 + 8 + 4;

/// Cuts an unfinished last write off the newest journal in `folder`; true if it did.
pub(super) fn cut_torn_tail(folder: &Path) -> Result<bool> {
    let failed = |e| Error::internal(format!("cannot repair the journal in `{}`", folder.display()), e);
    let Some(journal) = newest_journal(folder).map_err(failed)? else { return Ok(false) };
    let bytes = fs::read(&journal).map_err(failed)?;
    let Some(keep) = torn_tail_at(&bytes) else { return Ok(false) };
    let file = OpenOptions::new().write(true).open(&journal).map_err(failed)?;
    file.set_len(keep as u64).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(true)
}

fn newest_journal(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_journal = path.extension().is_some_and(|extension| extension == "jnl");
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        newest = newest.max(number.filter(|_| is_journal).map(|number| (number, path)));
    }
    Ok(newest.map(|(_, path)| path))
}

/// Where a torn last write begins, if the journal ends with one.
fn torn_tail_at(journal: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let write = Write::parse(journal, at)?;
        if !write.is_whole {
            let is_last = journal.get(write.end..)?.iter().all(|&byte| byte == 0);
            return is_last.then_some(at);
        }
        at = write.end;
    }
}

/// One write that has all its marks.
struct Write {
    end: usize,
    is_whole: bool,
}

impl Write {
    fn parse(journal: &[u8], start: usize) -> Option<Self> {
        if *journal.get(start)? != START {
            return None;
        }
        let items_at = start + START_BYTES;
        let mut at = items_at;
        while *journal.get(at)? == ITEM {
            let head = journal.get(at..at + ITEM_HEAD_BYTES)?;
            let key_bytes = u16::from_le_bytes(head.get(11..13)?.try_into().ok()?);
            let stored_bytes = u32::from_le_bytes(head.get(17..21)?.try_into().ok()?);
            at += ITEM_HEAD_BYTES + usize::from(key_bytes) + usize::try_from(stored_bytes).ok()?;
        }
        let end_mark = journal.get(at..at + END_BYTES).filter(|mark| mark.first() == Some(&END))?;
        let checksum = u64::from_le_bytes(end_mark.get(1..9)?.try_into().ok()?);
        Some(Self { end: at + END_BYTES, is_whole: xxh3_64(journal.get(items_at..at)?) == checksum })
    }
}
