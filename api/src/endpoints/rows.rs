//! Rows of a query as JSON, as lines of JSON, and as CSV.
//!
//! Whole numbers, floats and booleans are written as such; text, dates and times as text, and decimals too, with every
//! digit, because many programs read numbers as floats. A float that is no number is null.

use std::io::Write;

use karat_http::ApiError;
use karat_lake::arrow::{
    array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, TimeUnit},
    error::ArrowError,
};

use crate::summary::{STRIDE, Work};

/// What a column is to its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Date,
    Timestamp,
    Decimal,
}

/// The kind of a column; none when no answer can hold it.
pub(super) fn kind_of(data_type: &DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Kind::Text,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Kind::Int,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Kind::Int,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::Float,
        DataType::Boolean => Kind::Bool,
        DataType::Date32 | DataType::Date64 => Kind::Date,
        DataType::Timestamp(..) => Kind::Timestamp,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Kind::Decimal
        }
        DataType::Dictionary(_, value) => kind_of(value)?,
        _ => return None,
    })
}

/// The values of one column, ready to be written.
enum Cells {
    Int(Int64Array),
    Float(Float64Array),
    Bool(BooleanArray),
    /// Dates, times and decimals hold nothing that has to be escaped.
    Shown(StringArray),
    Text(StringArray),
}

impl Cells {
    fn of(column: &ArrayRef) -> Result<Self, ArrowError> {
        let other = || ArrowError::SchemaError(format!("no answer can hold the type {}", column.data_type()));
        // A number that does not fit is an error and not null.
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let to = |column: &ArrayRef, data_type: &DataType| cast_with_options(column, data_type, &options);
        let text = |column: &ArrayRef| to(column, &DataType::Utf8);
        let kind = kind_of(column.data_type()).ok_or_else(other)?;
        Ok(match kind {
            Kind::Int => Self::Int(downcast(&to(column, &DataType::Int64)?).ok_or_else(other)?),
            Kind::Float => Self::Float(downcast(&to(column, &DataType::Float64)?).ok_or_else(other)?),
            Kind::Bool => Self::Bool(downcast(&to(column, &DataType::Boolean)?).ok_or_else(other)?),
            Kind::Text => Self::Text(downcast(&text(column)?).ok_or_else(other)?),
            Kind::Decimal => Self::Shown(downcast(&text(column)?).ok_or_else(other)?),
            Kind::Date => Self::Shown(downcast(&text(&to(column, &DataType::Date32)?)?).ok_or_else(other)?),
            Kind::Timestamp => {
                let utc = to(column, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
                Self::Shown(downcast(&text(&utc)?).ok_or_else(other)?)
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Int(cells) => cells.is_null(row),
            Self::Float(cells) => cells.is_null(row) || !cells.value(row).is_finite(),
            Self::Bool(cells) => cells.is_null(row),
            Self::Shown(cells) | Self::Text(cells) => cells.is_null(row),
        }
    }

    fn write_json(&self, row: usize, out: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        let written = match self {
            Self::Int(cells) => serde_json::to_writer(out, &cells.value(row)),
            Self::Float(cells) => serde_json::to_writer(out, &cells.value(row)),
            Self::Bool(cells) => serde_json::to_writer(out, &cells.value(row)),
            Self::Shown(cells) | Self::Text(cells) => serde_json::to_writer(out, cells.value(row)),
        };
        written.map_err(ApiError::internal)
    }

    fn write_csv(&self, row: usize, out: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.is_null(row) {
            return Ok(());
        }
        match self {
            Self::Int(cells) => write!(out, "{}", cells.value(row)).map_err(ApiError::internal),
            Self::Float(cells) => write!(out, "{}", cells.value(row)).map_err(ApiError::internal),
            Self::Bool(cells) => write!(out, "{}", cells.value(row)).map_err(ApiError::internal),
            Self::Shown(cells) => {
                out.extend_from_slice(cells.value(row).as_bytes());
                Ok(())
            }
            Self::Text(cells) => {
                write_quoted(cells.value(row), out);
                Ok(())
            }
        }
    }
}

fn downcast<A: Array + Clone + 'static>(column: &ArrayRef) -> Option<A> {
    column.as_any().downcast_ref::<A>().cloned()
}

/// Always in quotes, and with an apostrophe before what a spreadsheet would take for a formula.
fn write_quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        out.push(b'\'');
    }
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

/// Calls `write` for each row, with the cells of its columns.
fn each_row(
    batches: &[RecordBatch],
    work: &Work,
    mut write: impl FnMut(&[Cells], usize) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    for batch in batches {
        work.take(batch.get_array_memory_size().saturating_mul(2))?;
        let cells = batch.columns().iter().map(Cells::of).collect::<Result<Vec<_>, _>>().map_err(ApiError::internal)?;
        for row in 0..batch.num_rows() {
            if row % STRIDE == 0 {
                work.check()?;
            }
            write(&cells, row)?;
        }
    }
    Ok(())
}

/// The names of the columns as keys of JSON objects, quotes and colon included.
fn keys(names: &[String]) -> Result<Vec<Vec<u8>>, ApiError> {
    let key = |name: &String| {
        let mut key = serde_json::to_vec(name).map_err(ApiError::internal)?;
        key.push(b':');
        Ok(key)
    };
    names.iter().map(key).collect()
}

fn write_object(keys: &[Vec<u8>], cells: &[Cells], row: usize, out: &mut Vec<u8>) -> Result<(), ApiError> {
    out.push(b'{');
    for (index, (key, cells)) in keys.iter().zip(cells).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key);
        cells.write_json(row, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// One JSON array of objects.
pub(super) fn json(names: &[String], batches: &[RecordBatch], work: &Work) -> Result<Vec<u8>, ApiError> {
    let (keys, mut out) = (keys(names)?, vec![b'[']);
    each_row(batches, work, |cells, row| {
        if out.len() > 1 {
            out.push(b',');
        }
        write_object(&keys, cells, row, &mut out)
    })?;
    out.push(b']');
    Ok(out)
}

/// An object a line.
pub(super) fn ndjson(names: &[String], batches: &[RecordBatch], work: &Work) -> Result<Vec<u8>, ApiError> {
    let (keys, mut out) = (keys(names)?, Vec::new());
    each_row(batches, work, |cells, row| {
        write_object(&keys, cells, row, &mut out)?;
        out.push(b'\n');
        Ok(())
    })?;
    Ok(out)
}

/// With a line of names first; lines end as RFC 4180 says.
pub(super) fn csv(names: &[String], batches: &[RecordBatch], work: &Work) -> Result<Vec<u8>, ApiError> {
    let mut out = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_quoted(name, &mut out);
    }
    out.extend_from_slice(b"\r\n");
    each_row(batches, work, |cells, row| {
        for (index, cells) in cells.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            cells.write_csv(row, &mut out)?;
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::arrow::array::{Date32Array, Decimal128Array, TimestampMicrosecondArray};
    use serde_json::{Value, json};

    use super::*;

    fn rows() -> (Vec<String>, Vec<RecordBatch>) {
        let largest = 10_i128.pow(38) - 1;
        let amounts = Decimal128Array::from(vec![Some(largest), Some(-30), None]);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("text", Arc::new(StringArray::from(vec![Some("=1+1"), Some("a \"b\",\nc"), None]))),
            ("n", Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(-1), None]))),
            ("x", Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN), None]))),
            ("is_it", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ("day", Arc::new(Date32Array::from(vec![Some(0), Some(20_000), None]))),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![Some(0), Some(1_500_000), None]).with_timezone("UTC")),
            ),
            ("amount", Arc::new(amounts.with_precision_and_scale(38, 2).unwrap())),
        ];
        let names = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        (names, vec![RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()])
    }

    #[test]
    fn every_kind_is_written_exactly_in_json() {
        let (names, batches) = rows();
        let written: Value = serde_json::from_slice(&json(&names, &batches, &Work::unbounded()).unwrap()).unwrap();
        let nothing =
            json!({"text": null, "n": null, "x": null, "is_it": null, "day": null, "at": null, "amount": null});
        let expected = json!([
            {"text": "=1+1", "n": i64::MAX, "x": 0.5, "is_it": true, "day": "1970-01-01", "at": "1970-01-01T00:00:00Z",
             "amount": "999999999999999999999999999999999999.99"},
            {"text": "a \"b\",\nc", "n": -1, "x": null, "is_it": false, "day": "2024-10-04",
             "at": "1970-01-01T00:00:01.500Z", "amount": "-0.30"},
            nothing,
        ]);
        assert_eq!(written, expected);
        let lines = String::from_utf8(ndjson(&names, &batches, &Work::unbounded()).unwrap()).unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(Value::from(lines), expected);
    }

    #[test]
    fn text_of_csv_is_quoted_and_no_formula() {
        let (names, batches) = rows();
        let written = String::from_utf8(csv(&names, &batches, &Work::unbounded()).unwrap()).unwrap();
        assert_eq!(
            written,
            "\"text\",\"n\",\"x\",\"is_it\",\"day\",\"at\",\"amount\"\r\n\
             \"'=1+1\",9223372036854775807,0.5,true,1970-01-01,1970-01-01T00:00:00Z,999999999999999999999999999999999999.99\r\n\
             \"a \"\"b\"\",\nc\",-1,,false,2024-10-04,1970-01-01T00:00:01.500Z,-0.30\r\n,,,,,,\r\n"
        );
    }

    #[test]
    fn no_rows_are_an_empty_list() {
        let names = ["a".to_owned()];
        assert_eq!(json(&names, &[], &Work::unbounded()).unwrap(), b"[]");
        assert_eq!(csv(&names, &[], &Work::unbounded()).unwrap(), b"\"a\"\r\n");
    }
}
