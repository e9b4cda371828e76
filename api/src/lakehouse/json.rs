//! Rows as JSON, with nothing lost: whole numbers as they are, decimals as text, times as RFC 3339 in UTC, bytes as base64.
//! What JSON has no form for (not a number, infinite) is null, and values inside of values are text.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, NaiveDate, SecondsFormat};
use karat_lake::arrow::{
    array::{
        Array, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray, UInt64Array,
    },
    compute::cast,
    datatypes::{DataType, TimeUnit},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::value::RawValue;

/// How a row looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"column": value}`: for columns of different names.
    Objects,
    /// `[value]`, in the order of the columns.
    Lists,
}

/// Rows that are written one after the other, up to a number and a size.
pub(crate) struct JsonRows {
    shape: Shape,
    max_rows: usize,
    max_bytes: usize,
    bytes: Vec<u8>,
    rows: usize,
}

impl JsonRows {
    /// At most `max_rows` rows; they end before one that would make them larger than `max_bytes`, the first excepted.
    pub(crate) fn new(shape: Shape, max_rows: usize, max_bytes: usize) -> Self {
        Self { shape, max_rows, max_bytes, bytes: b"[".to_vec(), rows: 0 }
    }

    /// Writes the rows of a batch; false when not all of them had room.
    ///
    /// # Errors
    /// When a column cannot be read.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<bool, ArrowError> {
        let schema = batch.schema();
        let columns = batch.columns().iter().map(|column| Cells::of(column.as_ref()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let names: Vec<Vec<u8>> = match self.shape {
            Shape::Objects => schema.fields().iter().map(|field| key(field.name())).collect::<Result<_, _>>()?,
            Shape::Lists => vec![Vec::new(); columns.len()],
        };
        let (open, close) = if self.shape == Shape::Objects { (b'{', b'}') } else { (b'[', b']') };
        for row in 0..batch.num_rows() {
            if self.rows == self.max_rows {
                return Ok(false);
            }
            let before = self.bytes.len();
            if self.rows > 0 {
                self.bytes.push(b',');
            }
            self.bytes.push(open);
            for (at, (name, cells)) in names.iter().zip(&columns).enumerate() {
                if at > 0 {
                    self.bytes.push(b',');
                }
                self.bytes.extend_from_slice(name);
                cells.write(row, &mut self.bytes)?;
            }
            self.bytes.push(close);
            if self.bytes.len() > self.max_bytes && self.rows > 0 {
                self.bytes.truncate(before);
                return Ok(false);
            }
            self.rows += 1;
        }
        Ok(true)
    }

    /// The number of rows that were written.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// The list of all of them.
    ///
    /// # Errors
    /// When it is no JSON, which would be a fault here.
    pub(crate) fn finish(mut self) -> Result<Box<RawValue>, ArrowError> {
        self.bytes.push(b']');
        let text = String::from_utf8(self.bytes).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        RawValue::from_string(text).map_err(json_error)
    }
}

fn key(name: &str) -> Result<Vec<u8>, ArrowError> {
    let mut key = serde_json::to_vec(name).map_err(json_error)?;
    key.push(b':');
    Ok(key)
}

fn json_error(error: serde_json::Error) -> ArrowError {
    ArrowError::JsonError(error.to_string())
}

/// The values of one column.
enum Cells {
    Null,
    Whole(Int64Array),
    Unsigned(UInt64Array),
    Float(Float64Array),
    Flag(BooleanArray),
    Text(StringArray),
    Bytes(BinaryArray),
    Time(TimestampMicrosecondArray),
    Date(Date32Array),
}

impl Cells {
    fn of(column: &dyn Array) -> Result<Self, ArrowError> {
        let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        Ok(match column.data_type() {
            DataType::Null => Self::Null,
            DataType::UInt64 => Self::Unsigned(as_type(column, &DataType::UInt64)?),
            whole if whole.is_integer() => Self::Whole(as_type(column, &DataType::Int64)?),
            float if float.is_floating() => Self::Float(as_type(column, &DataType::Float64)?),
            DataType::Boolean => Self::Flag(as_type(column, &DataType::Boolean)?),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text(as_type(column, &DataType::Utf8)?),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes(as_type(column, &DataType::Binary)?)
            }
            DataType::Timestamp(..) => Self::Time(as_type(column, &utc())?),
            DataType::Date32 | DataType::Date64 => Self::Date(as_type(column, &DataType::Date32)?),
            DataType::Dictionary(_, value) => Self::of(cast(column, value)?.as_ref())?,
            _ => Self::Text(shown(column)?),
        })
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        match self {
            Self::Whole(values) if values.is_valid(row) => number(out, values.value(row)),
            Self::Unsigned(values) if values.is_valid(row) => number(out, values.value(row)),
            Self::Float(values) if values.is_valid(row) => text(out, &values.value(row)),
            Self::Flag(values) if values.is_valid(row) => text(out, &values.value(row)),
            Self::Text(values) if values.is_valid(row) => text(out, values.value(row)),
            Self::Bytes(values) if values.is_valid(row) => text(out, &STANDARD.encode(values.value(row))),
            Self::Time(values) if values.is_valid(row) => text(out, &time(values.value(row))),
            Self::Date(values) if values.is_valid(row) => text(out, &date(values.value(row))),
            _ => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }
}

fn as_type<A: Array + Clone + 'static>(column: &dyn Array, wanted: &DataType) -> Result<A, ArrowError> {
    let column = cast(column, wanted)?;
    let found = column.as_any().downcast_ref::<A>().cloned();
    found.ok_or_else(|| ArrowError::CastError(format!("expected a column of type {wanted}")))
}

/// Values as Arrow shows them: exact for decimals.
fn shown(column: &dyn Array) -> Result<StringArray, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let values = (0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string()));
    Ok(StringArray::from_iter(values))
}

fn number(out: &mut Vec<u8>, value: impl std::fmt::Display) -> Result<(), ArrowError> {
    write!(out, "{value}").map_err(|error| ArrowError::ExternalError(Box::new(error)))
}

/// A value as JSON writes it: floats that it has no form for become null.
fn text<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), ArrowError> {
    serde_json::to_writer(out, value).map_err(json_error)
}

/// Null for a time that no calendar has.
fn time(us: i64) -> Option<String> {
    DateTime::from_timestamp_micros(us).map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

fn date(days: i32) -> Option<String> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    Some(epoch.checked_add_signed(chrono::TimeDelta::days(days.into()))?.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::arrow::{
        array::{ArrayRef, Decimal128Array, Int32Array},
        datatypes::{Field, Schema},
    };
    use serde_json::{Value, json};

    use super::*;

    fn batch() -> RecordBatch {
        let decimals = Decimal128Array::from(vec![Some(12_345_678_901_234_567_890_i128), None]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("whole", Arc::new(Int64Array::from(vec![Some(9_007_199_254_740_993), None]))),
            ("float", Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN)]))),
            ("money", Arc::new(decimals.with_precision_and_scale(38, 2).unwrap())),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("UTC"))),
            ("day", Arc::new(Date32Array::from(vec![Some(-1), None]))),
            ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None]))),
            ("is_on", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("a \"name\"", Arc::new(StringArray::from(vec![Some("a\"\n\u{0}"), None]))),
            ("small", Arc::new(Int32Array::from(vec![Some(-3), None]))),
        ];
        let fields: Vec<_> =
            columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn values_are_written_without_losing_a_digit() {
        let mut rows = JsonRows::new(Shape::Objects, 10, 1 << 20);
        assert!(rows.add(&batch()).unwrap());
        let written = rows.finish().unwrap();
        assert!(written.get().contains("\"whole\":9007199254740993"), "{}", written.get());
        let read: Value = serde_json::from_str(written.get()).unwrap();
        assert_eq!(
            read[0],
            json!({
                "whole": 9_007_199_254_740_993_i64, "float": 0.5, "money": "123456789012345678.90",
                "at": "1970-01-01T00:00:01.500Z", "day": "1969-12-31", "bytes": "AP8=", "is_on": true,
                "a \"name\"": "a\"\n\u{0}", "small": -3,
            })
        );
        assert!(read[1].as_object().unwrap().values().all(Value::is_null), "{}", read[1]);
    }

    #[test]
    fn rows_end_at_their_number_and_at_their_size() {
        let mut few = JsonRows::new(Shape::Lists, 1, 1 << 20);
        assert!(!few.add(&batch()).unwrap());
        assert_eq!(few.len(), 1);
        let mut small = JsonRows::new(Shape::Lists, 10, 10);
        assert!(!small.add(&batch()).unwrap());
        assert_eq!(small.len(), 1, "one row at least, however large");
        let read: Value = serde_json::from_str(small.finish().unwrap().get()).unwrap();
        assert_eq!(read[0][0], json!(9_007_199_254_740_993_i64));
    }
}
