//! Revisions: how often a bucket changed after its end, and when it last did (spec G4).

use std::sync::Arc;

use karat_lake::arrow::{
    array::ArrayRef,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use karat_schemas::pipelines::{Bucket, Grain};

use crate::{
    Error, Result,
    value::{self, Value},
};

/// Number of changes of a bucket after its end.
pub const REVISION: &str = "revision";
/// When the last of them was made.
pub const REVISED_AT: &str = "revised_at";

/// The revision of one bucket.
#[derive(Debug, Clone)]
pub(super) struct Revision {
    count: i64,
    at: Value,
}

impl Default for Revision {
    fn default() -> Self {
        Self { count: 0, at: Value::Null }
    }
}

impl Revision {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        Value::Int(self.count).encode(out);
        self.at.encode(out);
    }

    /// Reads a revision and moves `bytes` behind it.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let Value::Int(count) = Value::decode(bytes)? else { return None };
        Some(Self { count, at: Value::decode(bytes)? })
    }

    /// The two columns of a summary.
    pub(super) fn columns(revisions: &[Self]) -> Result<[ArrayRef; 2]> {
        let counts: Vec<Value> = revisions.iter().map(|revision| Value::Int(revision.count)).collect();
        let times: Vec<Value> = revisions.iter().map(|revision| revision.at.clone()).collect();
        Ok([value::to_array(&DataType::Int64, &counts)?, value::to_array(&time_type(), &times)?])
    }
}

/// What counts as a revision in one table.
pub(super) struct Revisions {
    /// Place of the bucket's start among the groups.
    start: usize,
    grain: Grain,
}

impl Revisions {
    /// `key` is the columns of the table that are its groups.
    pub(super) fn new(bucket: &Bucket, key: &[String], schema: &SchemaRef) -> Result<Self> {
        let refused = |why: &str| Error::Declaration(format!("its bucket column `{}` is {why}", bucket.column));
        let start = key.iter().position(|name| *name == bucket.column);
        let start = start.ok_or_else(|| refused("not one of its groups"))?;
        if schema.field_with_name(&bucket.column)?.data_type() != &time_type() {
            return Err(refused("not a timestamp"));
        }
        Ok(Self { start, grain: bucket.grain })
    }

    /// Counts a change at `now_us` of the group with these values, when its bucket is over.
    pub(super) fn revise(&self, revision: &mut Revision, group: &[Value], now_us: i64) {
        if let Some(Value::Int(start)) = group.get(self.start)
            && now_us >= bucket_end(*start, self.grain)
        {
            revision.count += 1;
            revision.at = Value::Int(now_us);
        }
    }
}

/// The table's columns: those of its SQL, and the revision of a summary.
pub(super) fn with_revision(schema: &SchemaRef, bucket: Option<&Bucket>) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    if bucket.is_some() {
        fields.push(Field::new(REVISION, DataType::Int64, true));
        fields.push(Field::new(REVISED_AT, time_type(), true));
    }
    Arc::new(Schema::new(fields))
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The end of a UTC bucket, microseconds since 1970.
fn bucket_end(start_us: i64, grain: Grain) -> i64 {
    const MINUTE: i64 = 60_000_000;
    match grain {
        Grain::QuarterHour => start_us.saturating_add(15 * MINUTE),
        Grain::Hour => start_us.saturating_add(60 * MINUTE),
        Grain::Day => start_us.saturating_add(24 * 60 * MINUTE),
        Grain::Week => start_us.saturating_add(7 * 24 * 60 * MINUTE),
        Grain::Month => {
            let start = chrono::DateTime::from_timestamp_micros(start_us);
            let end = start.and_then(|start| start.checked_add_months(chrono::Months::new(1)));
            end.map_or(i64::MAX, |end| end.timestamp_micros())
        }
    }
}
