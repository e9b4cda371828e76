//! Single values outside of Arrow: what state stores hold, and how rows become keys.
//!
//! The encoding is canonical (equal values give equal bytes) and self-delimiting, so that encoded values in a row make
//! a key whose prefixes are the keys of its groups.

use std::{cmp::Ordering, sync::Arc};

use karat_lake::{
    arrow::array::Int64Array,
    arrow::{
        array::{
            Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float64Array, RecordBatch,
            StringArray, new_null_array,
        },
        compute::cast,
        datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, Schema, TimeUnit},
    },
};

use crate::{Error, Result};

/// One value. Dates and timestamps are their integers; the column's type says which.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Decimal(i128),
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// NULL is the smallest; values of one column are of one kind.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

const TEXT: u8 = 4;
const BYTES: u8 = 5;

impl Value {
    fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Float(_) => 3,
            Self::Text(_) => TEXT,
            Self::Bytes(_) => BYTES,
            Self::Decimal(_) => 6,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Appends the canonical encoding: kind, then length where it varies, then content.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        match self {
            Self::Null => {}
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::Int(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Float(value) => out.extend_from_slice(&value.to_bits().to_le_bytes()),
            Self::Text(value) => encode_bytes(value.as_bytes(), out),
            Self::Bytes(value) => encode_bytes(value, out),
            Self::Decimal(value) => out.extend_from_slice(&value.to_le_bytes()),
        }
    }

    /// Reads one value and moves `bytes` behind it; none when the bytes are damaged.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(match Raw::read(bytes)? {
            Raw::Null => Self::Null,
            Raw::Bool(value) => Self::Bool(value),
            Raw::Int(value) => Self::Int(value),
            Raw::Float(value) => Self::Float(value),
            Raw::Text(value) => Self::Text(value.into()),
            Raw::Bytes(value) => Self::Bytes(value.into()),
            Raw::Decimal(value) => Self::Decimal(value),
        })
    }
}

/// A value where it is stored.
pub enum Raw<'b> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'b str),
    Bytes(&'b [u8]),
    Decimal(i128),
}

impl<'b> Raw<'b> {
    /// As [`Value::decode`].
    pub fn read(bytes: &mut &'b [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        *bytes = rest;
        Some(match *kind {
            0 => Self::Null,
            1 => Self::Bool(take::<1>(bytes)?[0] != 0),
            2 => Self::Int(i64::from_le_bytes(take(bytes)?)),
            3 => Self::Float(f64::from_bits(u64::from_le_bytes(take(bytes)?))),
            TEXT => Self::Text(std::str::from_utf8(decode_bytes(bytes)?).ok()?),
            BYTES => Self::Bytes(decode_bytes(bytes)?),
            6 => Self::Decimal(i128::from_le_bytes(take(bytes)?)),
            _ => return None,
        })
    }
}

fn encode_bytes(value: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(value);
}

fn decode_bytes<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = u32::from_le_bytes(take(bytes)?);
    let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(value)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Encodes several values in a row.
pub fn encode_all(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * 12);
    values.iter().for_each(|value| value.encode(&mut out));
    out
}

/// Reads values until the bytes end; `what` names the store for the error.
pub fn decode_all(mut bytes: &[u8], what: &str) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        values.push(Value::decode(&mut bytes).ok_or_else(|| Error::DamagedState(what.to_owned()))?);
    }
    Ok(values)
}

/// A column made ready for [`Column::value`]: cast once to one of the seven kinds.
pub struct Column(ArrayRef);

impl Column {
    pub fn new(array: &ArrayRef) -> Result<Self> {
        let target = match array.data_type() {
            DataType::Boolean | DataType::Int64 | DataType::Float64 | DataType::Utf8 | DataType::Binary => None,
            DataType::Decimal128(..) => None,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Some(DataType::Int64),
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => {
                Some(DataType::Int64)
            }
            DataType::UInt32 | DataType::UInt64 => Some(DataType::Int64),
            DataType::Float16 | DataType::Float32 => Some(DataType::Float64),
            DataType::Utf8View | DataType::LargeUtf8 => Some(DataType::Utf8),
            DataType::BinaryView | DataType::LargeBinary => Some(DataType::Binary),
            DataType::Null => Some(DataType::Boolean),
            other => {
                return Err(Error::Declaration(format!(
                    "values of type {other} cannot be kept in state: cast the column"
                )));
            }
        };
        Ok(Self(match target {
            Some(DataType::Int64) if matches!(array.data_type(), DataType::Date32) => {
                cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?
            }
            Some(target) => cast(array, &target)?,
            None => Arc::clone(array),
        }))
    }

    /// Appends the encoding of [`Column::value`], without making the value.
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) {
        let array = &self.0;
        if array.is_null(row) {
            return Value::Null.encode(out);
        }
        match array.data_type() {
            DataType::Utf8 => {
                out.push(TEXT);
                encode_bytes(array.as_string::<i32>().value(row).as_bytes(), out);
            }
            DataType::Binary => {
                out.push(BYTES);
                encode_bytes(array.as_binary::<i32>().value(row), out);
            }
            _ => self.value(row).encode(out),
        }
    }

    pub fn value(&self, row: usize) -> Value {
        let array = &self.0;
        if array.is_null(row) {
            return Value::Null;
        }
        match array.data_type() {
            DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
            DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
            DataType::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => Value::Text(array.as_string::<i32>().value(row).into()),
            DataType::Binary => Value::Bytes(array.as_binary::<i32>().value(row).into()),
            DataType::Decimal128(..) => Value::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
            _ => Value::Null,
        }
    }
}

/// The columns of a batch, ready for row access.
pub fn columns(batch: &RecordBatch, names: &[String]) -> Result<Vec<Column>> {
    let column = |name: &String| {
        let array = batch.column_by_name(name);
        array.ok_or_else(|| Error::Declaration(format!("column `{name}` is missing"))).and_then(Column::new)
    };
    names.iter().map(column).collect()
}

/// The encoded key of each row: the values of `names`.
pub fn row_keys(batch: &RecordBatch, names: &[String]) -> Result<Vec<Vec<u8>>> {
    let columns = columns(batch, names)?;
    let mut bytes = Vec::new();
    let key = |row| {
        bytes.clear();
        columns.iter().for_each(|column| column.encode(row, &mut bytes));
        bytes.clone()
    };
    Ok((0..batch.num_rows()).map(key).collect())
}

/// Makes an Arrow column of `data_type` from values of one kind.
pub fn to_array(data_type: &DataType, values: &[Value]) -> Result<ArrayRef> {
    let ints = || -> ArrayRef {
        Arc::new(values.iter().map(|v| if let Value::Int(v) = v { Some(*v) } else { None }).collect::<Int64Array>())
    };
    Ok(match data_type {
        DataType::Boolean => Arc::new(
            values.iter().map(|v| if let Value::Bool(v) = v { Some(*v) } else { None }).collect::<BooleanArray>(),
        ),
        DataType::Float64 => Arc::new(
            values.iter().map(|v| if let Value::Float(v) = v { Some(*v) } else { None }).collect::<Float64Array>(),
        ),
        DataType::Utf8 => Arc::new(
            values
                .iter()
                .map(|v| if let Value::Text(v) = v { Some(v.as_ref()) } else { None })
                .collect::<StringArray>(),
        ),
        DataType::Binary => Arc::new(
            values
                .iter()
                .map(|v| if let Value::Bytes(v) = v { Some(v.as_ref()) } else { None })
                .collect::<BinaryArray>(),
        ),
        DataType::Decimal128(precision, scale) => Arc::new(
            values
                .iter()
                .map(|v| if let Value::Decimal(v) = v { Some(*v) } else { None })
                .collect::<Decimal128Array>()
                .with_precision_and_scale(*precision, *scale)?,
        ),
        DataType::Int64 => ints(),
        DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Int32 => cast(&ints(), data_type)?,
        DataType::Date32 => cast(&cast(&ints(), &DataType::Int32)?, data_type)?,
        DataType::Null => new_null_array(data_type, values.len()),
        other => {
            return Err(Error::Declaration(format!("values of type {other} cannot be kept in state: cast the column")));
        }
    })
}

/// Refuses rows whose values could not be read back from state.
pub fn require_kept(schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        to_array(field.data_type(), &[]).map_err(|_| {
            let (name, found) = (field.name(), field.data_type());
            Error::Declaration(format!(
                "column `{name}` is of type {found}, which cannot be kept in state: cast it to text, a number or a time"
            ))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_a_row() {
        let values = vec![
            Value::Null,
            Value::Bool(true),
            Value::Int(-5),
            Value::Float(1.5),
            Value::Text("é".into()),
            Value::Bytes([0, 1].into()),
            Value::Decimal(-1 << 100),
        ];
        assert_eq!(decode_all(&encode_all(&values), "test").unwrap(), values);
    }

    #[test]
    fn damaged_bytes_are_named_not_guessed() {
        let bytes = encode_all(&[Value::Text("hello".into())]);
        assert!(
            matches!(decode_all(&bytes[..bytes.len() - 1], "fold.x"), Err(Error::DamagedState(what)) if what == "fold.x")
        );
    }

    #[test]
    fn arrays_and_values_are_the_same_both_ways() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let types = [time, DataType::Date32, DataType::Int64, DataType::Int32];
        for data_type in types {
            let values = vec![Value::Int(19_000), Value::Null];
            let array = to_array(&data_type, &values).unwrap();
            let column = Column::new(&array).unwrap();
            assert_eq!(vec![column.value(0), column.value(1)], values, "{data_type}");
        }
    }
}
