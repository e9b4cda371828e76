//! Gold: figures by SQL over one silver table, kept up to date by what changed (spec G1).
//!
//! [`merge`] folds weighted changes into stored aggregate state; [`keys`] recomputes the groups that a change touches.
//! [`choose`] says which serves a declaration, and why not the other.

pub mod choose;
mod group;
pub mod keys;
pub mod merge;

use std::sync::Arc;

use karat_lake::arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use karat_schemas::pipelines::{Bucket, Grain};

/// What a batch changed in a gold table.
pub struct GoldChanges {
    /// Rows that are there now, with the encoded key of each.
    pub upserts: RecordBatch,
    pub upsert_keys: Vec<Vec<u8>>,
    pub deleted_keys: Vec<Vec<u8>>,
}

/// Number of changes of a bucket after its end (spec G4).
pub const REVISION: &str = "revision";
/// When the last of them was made.
pub const REVISED_AT: &str = "revised_at";

/// The table's columns: those of its SQL, and the revision of a summary.
pub(crate) fn with_revision(schema: &SchemaRef, bucket: Option<&Bucket>) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    if bucket.is_some() {
        fields.push(Field::new(REVISION, DataType::Int64, true));
        fields.push(Field::new(REVISED_AT, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true));
    }
    Arc::new(Schema::new(fields))
}

/// The end of a UTC bucket, microseconds since 1970.
pub(crate) fn bucket_end(start_us: i64, grain: Grain) -> i64 {
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
