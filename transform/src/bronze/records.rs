//! Records of a topic by their offsets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use karat_eventlog::{ConsumerSettings, EventLog, PartitionRange, PollLimits, Record, StartPositions};

use crate::{Error, Result};

/// Offsets by partition, from the first up to but without the second.
pub(crate) type Ranges = BTreeMap<u32, (i64, i64)>;

pub(crate) fn is_in(ranges: &Ranges, (partition, offset): (u32, i64)) -> bool {
    ranges.get(&partition).is_some_and(|(begin, end)| (*begin..*end).contains(&offset))
}

struct FromOffsets(BTreeMap<u32, i64>);

#[async_trait]
impl StartPositions for FromOffsets {
    async fn next_offsets(&self, _: &str, _: &[u32]) -> karat_eventlog::Result<BTreeMap<u32, i64>> {
        Ok(self.0.clone())
    }
}

/// How long the log may give nothing of what it says it holds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The records in `ranges`, which the log holds.
pub(crate) async fn read_log(log: &dyn EventLog, topic: &str, ranges: &Ranges) -> Result<Vec<Record>> {
    let info = log.topic(topic).await?;
    // Partitions of which nothing is wanted are passed over.
    let begin = |(partition, range): (usize, &PartitionRange)| {
        let partition = u32::try_from(partition).unwrap_or(u32::MAX);
        (partition, ranges.get(&partition).map_or(range.end, |(begin, _)| *begin))
    };
    let start = Arc::new(FromOffsets(info.partitions.iter().enumerate().map(begin).collect()));
    // A group of its own: a member of an earlier one that was killed would keep its partitions for a while.
    let group = format!("karat-records-{}", uuid::Uuid::new_v4());
    let settings = ConsumerSettings { group, topic: topic.to_owned(), start };
    let mut consumer = log.consumer(settings).await?;
    let mut missing: BTreeMap<u32, i64> = ranges.iter().map(|(partition, (_, end))| (*partition, *end)).collect();
    let mut records = Vec::new();
    while !missing.is_empty() {
        let limits = PollLimits { max_records: 10_000, max_bytes: 32 << 20, max_wait: PATIENCE };
        let polled = consumer.poll(limits).await?;
        if polled.records.is_empty() {
            return Err(Error::Declaration(format!("topic `{topic}` does not give the records that it says it holds")));
        }
        for record in polled.records {
            if missing.get(&record.partition).is_some_and(|end| record.offset + 1 >= *end) {
                missing.remove(&record.partition);
            }
            if is_in(ranges, (record.partition, record.offset)) {
                records.push(record);
            }
        }
    }
    consumer.close().await;
    Ok(records)
}
