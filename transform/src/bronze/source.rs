//! Which topic a bronze table is filled from, and how to go on with another one.
//!
//! Offsets mean something in one topic only. So the table remembers the identity of its topic, `<topic>#id`, beside the
//! positions, and a topic that was deleted and created again is refused by name, however many records it has (spec L3). Somebody
//! who knows what happened says [`accept`], which moves the positions to what the topic holds.
//!
//! A log can also lose its end and go on: a broker that was killed before its disk had it, a copy that was put back. So each
//! commit remembers the last record of a partition beside its position, and another one in its place is refused by name
//! ([`karat_eventlog::Error::LogReplaced`]). Accepting that goes on with the first record that the table does not have.
//!
//! Epochs name offsets too: what they cover is compared with receipts. So the newest of each pipeline learns first which positions
//! move, or a receipt of the offsets that are given again would be called gold before its records are read.

use std::collections::BTreeMap;

use karat_eventlog::{EventLog, TopicInfo};
use karat_lake::{Lake, Table, TransactionId, epochs::Epochs};
use karat_schemas::{
    epoch::{Epoch, Moved},
    pipelines::Pipelines,
};
use serde::Serialize;

use super::{agreed::end_of_agreement, position_name, table_name};
use crate::{Error, Result};

/// Application name of the identity of a topic.
fn identity_name(topic: &str) -> String {
    format!("{topic}#id")
}

/// Identity of a topic in 63 bits.
fn identity(info: &TopicInfo) -> i64 {
    i64::try_from(xxhash_rust::xxh3::xxh3_64(info.id.as_bytes()) >> 1).unwrap_or_default()
}

/// Says whether the table was filled from this topic. Gives what its next commit must remember, when it does not know yet.
pub(super) async fn check(table: &mut Table, info: &TopicInfo) -> Result<Option<TransactionId>> {
    let (name, found) = (identity_name(&info.name), identity(info));
    match table.position(&name).await? {
        None => Ok(Some(TransactionId::new(name, found))),
        Some(known) if known == found => Ok(None),
        Some(_) => Err(Error::ForeignTopic { topic: info.name.clone(), table: table.name().to_owned() }),
    }
}

/// How a partition goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accepted {
    pub partition: u32,
    /// The next offset that was wanted.
    pub wanted: i64,
    /// The next offset that is read now.
    pub next: i64,
    /// Records between the two that no table gets; 0 when that cannot be known.
    pub missing: i64,
}

/// Moves the positions of a topic's bronze table to what the topic holds: to its begin when it is another topic; to where it
/// has other records than the table, when its end was lost; else to the nearest offset that is there. Says how each partition
/// that was moved goes on. Nothing of the table is removed; doing it twice, or again after a crash, is as once. No worker may run.
///
/// # Errors
/// A topic or a table that is not there, and a commit or an epoch that another process was faster with.
pub async fn accept(log: &dyn EventLog, lake: &Lake, pipelines: &Pipelines, topic: &str) -> Result<Vec<Accepted>> {
    let info = log.topic(topic).await?;
    let mut table = lake.open(&table_name(topic)).await?;
    let is_other = matches!(check(&mut table, &info).await, Err(Error::ForeignTopic { .. }));
    let mut transactions = BTreeMap::from([(identity_name(topic), identity(&info))]);
    let mut accepted = Vec::new();
    for (partition, range) in (0..).zip(&info.partitions) {
        let name = position_name(topic, partition);
        let Some(wanted) = table.position(&name).await? else { continue };
        let next = match is_other {
            true => range.begin,
            false if wanted <= range.begin => range.begin,
            false => end_of_agreement(log, topic, &table, partition, wanted, *range).await?,
        };
        if next != wanted {
            let missing = if is_other { 0 } else { (next - wanted).max(0) };
            transactions.insert(name, next);
            accepted.push(Accepted { partition, wanted, next, missing });
        }
    }
    if is_other || !accepted.is_empty() {
        let positions = accepted.iter().map(|moved| (moved.partition, moved.next)).collect();
        let moved = Moved { bronze_version: table.version() + 1, positions };
        for pipeline in pipelines.pipelines.iter().filter(|pipeline| pipeline.topic == topic) {
            tell(lake, &pipeline.name, &moved).await?;
        }
        let transactions: Vec<_> = transactions.into_iter().map(|(name, at)| TransactionId::new(name, at)).collect();
        table.commit(Vec::new(), Vec::new(), &transactions).await?;
    }
    Ok(accepted)
}

/// Writes an epoch that is as the newest of the pipeline and knows which positions move.
async fn tell(lake: &Lake, pipeline: &str, moved: &Moved) -> Result<()> {
    let epochs = Epochs::of(lake, pipeline)?;
    let Some(last) = epochs.latest().await? else { return Ok(()) };
    let epoch = Epoch { epoch: last.epoch + 1, moved: Some(last.moved_with(moved.clone())), ..last };
    match epochs.put(&epoch).await? {
        true => Ok(()),
        false => Err(Error::EpochTaken { pipeline: pipeline.to_owned(), epoch: epoch.epoch }),
    }
}
