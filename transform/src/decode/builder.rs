//! One column under construction, and the rules of its type.

use std::sync::Arc;

use jiter::{Jiter, Peek};
use karat_lake::arrow::{
    array::{
        ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder,
        TimestampMicrosecondBuilder,
    },
    datatypes::{DataType, TimeUnit},
};
use karat_schemas::pipelines::{Column, ColumnType};

use super::{Fault, hash, kind, number, time};
use crate::Result;

/// The Arrow type of a declared type.
pub(crate) fn data_type(column_type: ColumnType) -> DataType {
    match column_type {
        ColumnType::String | ColumnType::Json => DataType::Utf8,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Float64 => DataType::Float64,
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Date => DataType::Date32,
        ColumnType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
    }
}

/// Room for the text of a row: that of most identifiers.
const TEXT_BYTES: usize = 16;

pub(super) struct ColumnBuilder {
    values: Values,
    /// Takes numbers and booleans written as text, and text written as a number.
    coerce: bool,
    len: usize,
    is_last_null: bool,
}

enum Values {
    Text(StringBuilder),
    Json(StringBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Decimal(Decimal128Builder, u8, i8),
}

impl ColumnBuilder {
    /// A builder with room for `rows` values: growing copies.
    pub(super) fn new(column: &Column, rows: usize) -> Self {
        let text = || StringBuilder::with_capacity(rows, rows * TEXT_BYTES);
        let data_type = data_type(column.column_type);
        let values = match column.column_type {
            ColumnType::String => Values::Text(text()),
            ColumnType::Json => Values::Json(text()),
            ColumnType::Int64 => Values::Int(Int64Builder::with_capacity(rows)),
            ColumnType::Float64 => Values::Float(Float64Builder::with_capacity(rows)),
            ColumnType::Bool => Values::Bool(BooleanBuilder::with_capacity(rows)),
            ColumnType::Timestamp => {
                Values::Timestamp(TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(data_type))
            }
            ColumnType::Date => Values::Date(Date32Builder::with_capacity(rows)),
            ColumnType::Decimal { precision, scale } => {
                let builder = Decimal128Builder::with_capacity(rows).with_data_type(data_type);
                Values::Decimal(builder, precision, scale)
            }
        };
        Self { values, coerce: column.coerce, len: 0, is_last_null: false }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_last_null(&self) -> bool {
        self.is_last_null
    }

    pub(super) fn append_null(&mut self) {
        match &mut self.values {
            Values::Text(builder) | Values::Json(builder) => builder.append_null(),
            Values::Int(builder) => builder.append_null(),
            Values::Float(builder) => builder.append_null(),
            Values::Bool(builder) => builder.append_null(),
            Values::Timestamp(builder) => builder.append_null(),
            Values::Date(builder) => builder.append_null(),
            Values::Decimal(builder, ..) => builder.append_null(),
        }
        self.len += 1;
        self.is_last_null = true;
    }

    /// Takes the value that `json` stands at, `depth` objects deep, and gives the hash of its content; none when it is
    /// too deep for one. On a fault nothing was appended.
    pub(super) fn append(
        &mut self,
        json: &mut Jiter<'_>,
        payload: &[u8],
        peek: Peek,
        depth: usize,
    ) -> Result<Option<u128>, Fault> {
        if matches!(peek, Peek::Null) {
            json.known_null()?;
            self.append_null();
            return Ok(Some(hash::NULL));
        }
        let hash = self.append_value(json, payload, peek, depth)?;
        self.len += 1;
        self.is_last_null = false;
        Ok(hash)
    }

    fn append_value(
        &mut self,
        json: &mut Jiter<'_>,
        payload: &[u8],
        peek: Peek,
        depth: usize,
    ) -> Result<Option<u128>, Fault> {
        let coerce = self.coerce;
        match &mut self.values {
            Values::Text(builder) => match peek {
                Peek::String => {
                    let value = json.known_str()?;
                    builder.append_value(value);
                    Ok(Some(hash::text(value)))
                }
                _ if coerce && peek.is_num() => {
                    let digits = text(json.known_number_bytes(peek)?);
                    builder.append_value(digits);
                    Ok(hash::number(digits))
                }
                Peek::True | Peek::False if coerce => {
                    let value = json.known_bool(peek)?;
                    builder.append_value(if value { "true" } else { "false" });
                    Ok(Some(hash::boolean(value)))
                }
                other => Err(wrong("text", other)),
            },
            Values::Json(builder) => {
                let start = json.current_index();
                json.known_skip(peek)?;
                let value = &payload[start..json.current_index()];
                builder.append_value(text(value).trim_ascii());
                Ok(hash::part(value, depth))
            }
            Values::Int(builder) => {
                let (digits, hash) = digits(json, peek, coerce, "a whole number")?;
                builder.append_value(number::int(digits)?);
                Ok(hash)
            }
            Values::Float(builder) => {
                let (digits, hash) = digits(json, peek, coerce, "a number")?;
                builder.append_value(number::float(digits)?);
                Ok(hash)
            }
            Values::Bool(builder) => match peek {
                Peek::True | Peek::False => {
                    let value = json.known_bool(peek)?;
                    builder.append_value(value);
                    Ok(Some(hash::boolean(value)))
                }
                Peek::String if coerce => {
                    let value = json.known_str()?;
                    builder.append_value(boolean(value)?);
                    Ok(Some(hash::text(value)))
                }
                other => Err(wrong("a boolean", other)),
            },
            Values::Timestamp(builder) => match peek {
                Peek::String => {
                    let value = json.known_str()?;
                    builder.append_value(time::timestamp(value, coerce)?);
                    Ok(Some(hash::text(value)))
                }
                other => Err(wrong("a time as text (RFC 3339)", other)),
            },
            Values::Date(builder) => match peek {
                Peek::String => {
                    let value = json.known_str()?;
                    builder.append_value(time::date(value)?);
                    Ok(Some(hash::text(value)))
                }
                other => Err(wrong("a date as text (YYYY-MM-DD)", other)),
            },
            Values::Decimal(builder, precision, scale) => {
                // Decimals are often sent as text, just because JSON numbers lose digits elsewhere: both are exact.
                let (digits, hash) = digits(json, peek, true, "a decimal")?;
                builder.append_value(number::decimal(digits, *precision, *scale)?);
                Ok(hash)
            }
        }
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match &mut self.values {
            Values::Text(builder) | Values::Json(builder) => Arc::new(builder.finish()),
            Values::Int(builder) => Arc::new(builder.finish()),
            Values::Float(builder) => Arc::new(builder.finish()),
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Decimal(builder, ..) => Arc::new(builder.finish()),
        })
    }
}

/// The text of a number, or of a string where that is allowed, and the hash of the value.
fn digits<'a>(
    json: &'a mut Jiter<'_>,
    peek: Peek,
    takes_text: bool,
    expected: &str,
) -> Result<(&'a str, Option<u128>), Fault> {
    match peek {
        _ if peek.is_num() => {
            let digits = text(json.known_number_bytes(peek)?);
            Ok((digits, hash::number(digits)))
        }
        Peek::String if takes_text => {
            let value = json.known_str()?;
            Ok((value, Some(hash::text(value))))
        }
        other => Err(wrong(expected, other)),
    }
}

fn boolean(text: &str) -> Result<bool, Fault> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Fault::new("wrong_type", format!("expected `true` or `false`, found `{}`", shorten(other)))),
    }
}

fn wrong(expected: &str, found: Peek) -> Fault {
    Fault::new("wrong_type", format!("expected {expected}, found {}", kind(found)))
}

/// The payload was checked to be UTF-8, so its parts are too.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The start of a value, for messages.
pub(super) fn shorten(value: &str) -> &str {
    let end = value.char_indices().nth(60).map_or(value.len(), |(index, _)| index);
    &value[..end]
}
