//! What a bronze table holds of a time, for people who plan a replay.

use std::{collections::BTreeMap, ops::Range};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use karat_lake::{
    Table,
    arrow::{
        array::{Array, AsArray, RecordBatch},
        compute::cast,
        datatypes::DataType,
    },
    datafusion::{
        common::ScalarValue,
        logical_expr::{col, lit},
        prelude::{SessionContext, coalesce},
    },
};
use serde::Serialize;

use crate::Result;

/// The rows of one event type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TypeCount {
    /// None for records that came without one.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    pub rows: u64,
    /// Of their payloads.
    pub bytes: u64,
}

/// Counts the rows whose event time is in `interval`, a type at a time, in the order of their names. An event without
/// a time has that of its arrival (decision 26). Reads every payload once, in flat memory.
pub async fn count_types(bronze: &Table, interval: Range<DateTime<Utc>>) -> Result<Vec<TypeCount>> {
    let instant =
        |time: DateTime<Utc>| lit(ScalarValue::TimestampMicrosecond(Some(time.timestamp_micros()), Some("UTC".into())));
    let time = coalesce(vec![col("ce_time"), col("ingest_time")]);
    let is_inside = time.clone().gt_eq(instant(interval.start)).and(time.lt(instant(interval.end)));
    let rows = SessionContext::new().read_table(bronze.provider().await?)?;
    let rows = rows.filter(is_inside)?.select_columns(&["ce_type", "payload"])?;
    let mut rows = rows.execute_stream().await?;
    let mut types = BTreeMap::new();
    while let Some(batch) = rows.try_next().await? {
        add(&batch, &mut types)?;
    }
    Ok(types.into_iter().map(|(event_type, (rows, bytes))| TypeCount { event_type, rows, bytes }).collect())
}

fn add(batch: &RecordBatch, types: &mut BTreeMap<Option<String>, (u64, u64)>) -> Result<()> {
    // Engines read text and bytes as views or not, as they like.
    let (names, payloads) = (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Binary)?);
    let (names, payloads) = (names.as_string::<i32>(), payloads.as_binary::<i32>());
    for row in 0..batch.num_rows() {
        let name = names.is_valid(row).then(|| names.value(row).to_owned());
        let (rows, bytes) = types.entry(name).or_default();
        *rows += 1;
        *bytes += payloads.value(row).len() as u64;
    }
    Ok(())
}
