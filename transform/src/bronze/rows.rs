//! From log records to bronze rows.

use std::sync::Arc;

use chrono::DateTime;
use karat_eventlog::Record;
use karat_lake::arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
        StringDictionaryBuilder, TimestampMicrosecondBuilder, new_null_array,
    },
    compute::cast,
    datatypes::{DataType, Int32Type},
};
use karat_schemas::attributes as names;
use serde_json::{Map, Value};

use crate::{Result, bronze::schema};

/// Makes one batch of rows; `ingest_us` is the door's clock, microseconds since 1970 UTC (decision 18).
pub fn from_records(records: &[Record], ingest_us: i64) -> Result<RecordBatch> {
    let bytes = records.iter().map(|record| record.payload.len()).sum();
    let mut rows = Rows::with_capacity(records.len(), bytes);
    for record in records {
        rows.push(record);
    }
    rows.finish(records.len(), ingest_us)
}

/// Columns with few different values, built as dictionaries: hashing a short text beats copying it.
type Repeated = StringDictionaryBuilder<Int32Type>;

struct Rows {
    partition: Int32Builder,
    offset: Int64Builder,
    key: BinaryBuilder,
    payload: BinaryBuilder,
    headers: StringBuilder,
    id: StringBuilder,
    source: Repeated,
    event_type: Repeated,
    time: TimestampMicrosecondBuilder,
    subject: StringBuilder,
    dataschema: Repeated,
    content_type: Repeated,
    publisher: Repeated,
    for_others: BooleanBuilder,
    door: Repeated,
    receipt: Repeated,
    topic: Repeated,
    broker_time: TimestampMicrosecondBuilder,
}

impl Rows {
    fn with_capacity(rows: usize, payload_bytes: usize) -> Self {
        Self {
            partition: Int32Builder::with_capacity(rows),
            offset: Int64Builder::with_capacity(rows),
            key: BinaryBuilder::new(),
            payload: BinaryBuilder::with_capacity(rows, payload_bytes),
            headers: StringBuilder::new(),
            id: StringBuilder::new(),
            source: Repeated::new(),
            event_type: Repeated::new(),
            time: TimestampMicrosecondBuilder::with_capacity(rows),
            subject: StringBuilder::new(),
            dataschema: Repeated::new(),
            content_type: Repeated::new(),
            publisher: Repeated::new(),
            for_others: BooleanBuilder::with_capacity(rows),
            door: Repeated::new(),
            receipt: Repeated::new(),
            topic: Repeated::new(),
            broker_time: TimestampMicrosecondBuilder::with_capacity(rows),
        }
    }

    fn push(&mut self, record: &Record) {
        self.partition.append_value(i32::try_from(record.partition).unwrap_or(i32::MAX));
        self.offset.append_value(record.offset);
        self.key.append_option(record.key.as_deref());
        self.payload.append_value(&record.payload);
        self.topic.append_value(&*record.topic);
        self.broker_time.append_value(record.timestamp_us);
        let mut known = Known::default();
        let mut others = Map::new();
        for (name, value) in record.headers.iter() {
            let text = std::str::from_utf8(value).ok();
            match name {
                names::CE_ID => known.id = text,
                names::CE_SOURCE => known.source = text,
                names::CE_TYPE => known.event_type = text,
                names::CE_TIME => known.time = text,
                names::CE_SUBJECT => known.subject = text,
                names::CE_DATASCHEMA => known.dataschema = text,
                names::CONTENT_TYPE => known.content_type = text,
                names::PUBLISHER => known.publisher = text,
                names::PUBLISH_FOR_OTHERS => known.for_others = value == b"1",
                names::DOOR => known.door = text,
                names::RECEIPT => known.receipt = text,
                names::CE_SPECVERSION => {}
                other => {
                    let shown = text.map_or_else(|| hex::encode(value), str::to_owned);
                    others.insert(other.to_owned(), Value::String(shown));
                }
            }
        }
        self.push_known(&known);
        self.headers.append_option((!others.is_empty()).then(|| Value::Object(others).to_string()));
    }

    fn push_known(&mut self, known: &Known<'_>) {
        self.id.append_option(known.id);
        self.source.append_option(known.source);
        self.event_type.append_option(known.event_type);
        let time = known.time.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        self.time.append_option(time.map(|time| time.timestamp_micros()));
        self.subject.append_option(known.subject);
        self.dataschema.append_option(known.dataschema);
        self.content_type.append_option(known.content_type);
        self.publisher.append_option(known.publisher);
        self.for_others.append_value(known.for_others);
        self.door.append_option(known.door);
        self.receipt.append_option(known.receipt);
    }

    fn finish(mut self, rows: usize, ingest_us: i64) -> Result<RecordBatch> {
        let text = |mut builder: Repeated| -> Result<ArrayRef> { Ok(cast(&builder.finish(), &DataType::Utf8)?) };
        let mut ingest = TimestampMicrosecondBuilder::with_capacity(rows);
        ingest.append_slice(&vec![ingest_us; rows]);
        let utc =
            |mut builder: TimestampMicrosecondBuilder| -> ArrayRef { Arc::new(builder.finish().with_timezone("UTC")) };
        let schema = schema();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.payload.finish()),
            Arc::new(self.headers.finish()),
            Arc::new(self.id.finish()),
            text(self.source)?,
            text(self.event_type)?,
            utc(self.time),
            Arc::new(self.subject.finish()),
            text(self.dataschema)?,
            text(self.content_type)?,
            text(self.publisher)?,
            Arc::new(self.for_others.finish()),
            text(self.door)?,
            text(self.receipt)?,
            text(self.topic)?,
            utc(self.broker_time),
            utc(ingest),
            // The files do not hold it: it is the partition's value, written in the log.
            new_null_array(&DataType::Date32, rows),
        ];
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

#[derive(Default)]
struct Known<'h> {
    id: Option<&'h str>,
    source: Option<&'h str>,
    event_type: Option<&'h str>,
    time: Option<&'h str>,
    subject: Option<&'h str>,
    dataschema: Option<&'h str>,
    content_type: Option<&'h str>,
    publisher: Option<&'h str>,
    for_others: bool,
    door: Option<&'h str>,
    receipt: Option<&'h str>,
}
