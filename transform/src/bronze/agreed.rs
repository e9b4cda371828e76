//! Up to where a bronze table and the log hold the same records.
//!
//! A log that lost its end gives the offsets again, to other records: below some offset both are the same, from there on
//! they differ. It is looked for from the end, a bounded piece at a time.

use std::collections::{BTreeMap, HashMap};

use karat_eventlog::{EventLog, PartitionRange, Record};
use karat_lake::{
    Table,
    arrow::{
        array::{Array, ArrayRef, AsArray},
        compute::cast,
        datatypes::{DataType, Int64Type, TimestampMicrosecondType},
    },
    datafusion::prelude::{SessionContext, col, lit},
};

use super::records::read_log;
use crate::Result;

/// Records compared at once: they are in memory together.
const PIECE: i64 = 16_384;

/// What tells records of one place apart.
type Content = (i64, Option<Vec<u8>>, Vec<u8>);

/// The first offset of a partition, at most `wanted`, from which on the log has other records than the table, or none.
pub(super) async fn end_of_agreement(
    log: &dyn EventLog,
    topic: &str,
    table: &Table,
    partition: u32,
    wanted: i64,
    range: PartitionRange,
) -> Result<i64> {
    let mut end = wanted.min(range.end);
    while end > range.begin {
        let begin = range.begin.max(end - PIECE);
        let records = read_log(log, topic, &BTreeMap::from([(partition, (begin, end))])).await?;
        let rows = rows_between(table, partition, begin, end).await?;
        let differs = |record: &&Record| {
            let content = (record.timestamp_us, record.key.as_deref().map(<[u8]>::to_vec), record.payload.to_vec());
            // A place that the table has twice is one that was accepted before. One that it does not have says nothing.
            rows.get(&record.offset).is_some_and(|known| !known.contains(&content))
        };
        match records.iter().filter(differs).map(|record| record.offset).min() {
            None => break,
            Some(first) if first > begin => return Ok(first),
            Some(_) => end = begin,
        }
    }
    Ok(end)
}

async fn rows_between(table: &Table, partition: u32, begin: i64, end: i64) -> Result<HashMap<i64, Vec<Content>>> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let is_meant =
        col("partition").eq(lit(number)).and(col("offset").gt_eq(lit(begin))).and(col("offset").lt(lit(end)));
    let rows = SessionContext::new()
        .read_table(table.provider().await?)?
        .filter(is_meant)?
        .select_columns(&["offset", "broker_time", "key", "payload"])?
        .collect()
        .await?;
    let mut found: HashMap<i64, Vec<Content>> = HashMap::new();
    for batch in &rows {
        let offsets = batch["offset"].as_primitive::<Int64Type>();
        let times = batch["broker_time"].as_primitive::<TimestampMicrosecondType>();
        let keys = binary(&batch["key"])?;
        let payloads = binary(&batch["payload"])?;
        let (keys, payloads) = (keys.as_binary::<i32>(), payloads.as_binary::<i32>());
        for row in 0..batch.num_rows() {
            let key = keys.is_valid(row).then(|| keys.value(row).to_vec());
            let content = (times.value(row), key, payloads.value(row).to_vec());
            found.entry(offsets.value(row)).or_default().push(content);
        }
    }
    Ok(found)
}

/// The engine may read binary columns as views.
fn binary(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(column, &DataType::Binary)?)
}
