//! What the parts of a batch change, put together in the order of the keys.

use fjall::Slice;
use karat_lake::arrow::array::RecordBatch;

use super::Keyed;
use crate::state::Step;

/// What some keys of a batch change.
pub(super) struct Part {
    /// The rows that went.
    pub(super) old: RecordBatch,
    /// The rows that came.
    pub(super) new: RecordBatch,
    pub(super) new_keys: Vec<Vec<u8>>,
    /// The state of each key.
    pub(super) stored: Vec<(Vec<u8>, Slice)>,
}

/// Gives the state of all parts to the step; gives the rows that went and those that came.
pub(super) fn put_together(parts: Vec<Part>, step: &mut Step<'_>, keyspace: &str) -> (Vec<RecordBatch>, Keyed) {
    let (mut old, mut new, mut new_keys, mut stored) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        old.push(part.old);
        new.push(part.new);
        new_keys.extend(part.new_keys);
        stored.extend(part.stored);
    }
    step.put_all(keyspace, stored);
    (old, Keyed { keys: new_keys, rows: new })
}
