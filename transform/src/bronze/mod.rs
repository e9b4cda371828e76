//! Bronze: one append-only table a topic, raw bytes as received, unique on (topic, partition, offset).
//!
//! [`rows`] turns log records into rows; [`writer`] owns the loop from the log to commits; [`count`] tells what is
//! there; [`source`] knows which topic it came from, and `agreed` up to where both are the same; `merge` makes few files of many, and `read` reads both version by
//! version. The position of each
//! partition is part of the commit that holds its rows (spec B2), so data and position cannot disagree.

mod agreed;
pub mod count;
pub(crate) mod merge;
pub(crate) mod read;
pub(crate) mod records;
pub mod rows;
pub mod source;
pub mod writer;

use std::sync::Arc;

use karat_lake::{
    TableSpec,
    arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};

pub use writer::{BronzeBatch, BronzeSettings, BronzeWriter};

/// Full name of a topic's bronze table: `karat.events` becomes `bronze.karat_events`.
pub fn table_name(topic: &str) -> String {
    let plain: String =
        topic.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    format!("bronze.{plain}")
}

/// Application name of a partition's position: its next offset (decision 10).
pub fn position_name(topic: &str, partition: u32) -> String {
    format!("{topic}/{partition}")
}

/// Application name of a partition's last record: its [`karat_eventlog::Fingerprint`].
pub fn last_record_name(topic: &str, partition: u32) -> String {
    format!("{topic}/{partition}#last")
}

/// The schema of every bronze table.
pub fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true);
    Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("key", DataType::Binary, true),
        Field::new("payload", DataType::Binary, true),
        text("headers"),
        text("ce_id"),
        text("ce_source"),
        text("ce_type"),
        time("ce_time"),
        text("ce_subject"),
        text("ce_dataschema"),
        text("content_type"),
        text("publisher"),
        Field::new("publish_for_others", DataType::Boolean, true),
        text("door"),
        text("receipt"),
        text("topic"),
        time("broker_time"),
        time("ingest_time"),
        Field::new("ingest_date", DataType::Date32, true),
    ]))
}

/// What the bronze table of `topic` looks like.
pub fn table_spec(topic: &str) -> TableSpec {
    TableSpec {
        name: table_name(topic),
        schema: schema(),
        partition_by: vec!["ingest_date".to_owned()],
        stats_columns: vec!["offset".to_owned(), "ingest_time".to_owned(), "ce_time".to_owned()],
        append_only: true,
    }
}
