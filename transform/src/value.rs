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

use crate::{Error, Result, packed_keys::PackedKeys};

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

/// As [`Raw::compare`].
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        self.raw().compare(other.raw())
    }
}

const TEXT: u8 = 4;
const BYTES: u8 = 5;

impl Value {
    /// The value where it is.
    pub fn raw(&self) -> Raw<'_> {
        match self {
            Self::Null => Raw::Null,
            Self::Bool(value) => Raw::Bool(*value),
            Self::Int(value) => Raw::Int(*value),
            Self::Float(value) => Raw::Float(*value),
            Self::Text(value) => Raw::Text(value),
            Self::Bytes(value) => Raw::Bytes(value),
            Self::Decimal(value) => Raw::Decimal(*value),
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// As [`Raw::encode`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.raw().encode(out);
    }

    /// Reads one value and moves `bytes` behind it; none when the bytes are damaged.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Raw::read(bytes).map(Self::from)
    }
}

impl From<Raw<'_>> for Value {
    fn from(raw: Raw<'_>) -> Self {
        match raw {
            Raw::Null => Self::Null,
            Raw::Bool(value) => Self::Bool(value),
            Raw::Int(value) => Self::Int(value),
            Raw::Float(value) => Self::Float(value),
            Raw::Text(value) => Self::Text(value.into()),
            Raw::Bytes(value) => Self::Bytes(value.into()),
            Raw::Decimal(value) => Self::Decimal(value),
        }
    }
}

/// A value where it is: in a column, or encoded. A step compares and encodes millions of them, and allocates for none.
#[derive(Debug, Clone, Copy)]
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

    /// Appends the canonical encoding: kind, then length where it varies, then content.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.push(self.kind());
        match self {
            Self::Null => {}
            Self::Bool(value) => out.push(u8::from(value)),
            Self::Int(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Float(value) => out.extend_from_slice(&value.to_bits().to_le_bytes()),
            Self::Text(value) => encode_bytes(value.as_bytes(), out),
            Self::Bytes(value) => encode_bytes(value, out),
            Self::Decimal(value) => out.extend_from_slice(&value.to_le_bytes()),
        }
    }

    /// The order of values: NULL is the smallest; values of one column are of one kind.
    pub fn compare(self, other: Raw<'_>) -> Ordering {
        match (self, other) {
            (Raw::Bool(a), Raw::Bool(b)) => a.cmp(&b),
            (Raw::Int(a), Raw::Int(b)) => a.cmp(&b),
            (Raw::Float(a), Raw::Float(b)) => a.total_cmp(&b),
            (Raw::Text(a), Raw::Text(b)) => a.cmp(b),
            (Raw::Bytes(a), Raw::Bytes(b)) => a.cmp(b),
            (Raw::Decimal(a), Raw::Decimal(b)) => a.cmp(&b),
            (this, other) => this.kind().cmp(&other.kind()),
        }
    }

    fn kind(self) -> u8 {
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

/// A column made ready for access by row: cast once to one of the seven kinds. The kind is found out here, once, and not
/// for each cell.
pub struct Column(Cells);

enum Cells {
    Bool(BooleanArray),
    /// Whole numbers, dates and times.
    Int(Int64Array),
    Float(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    Decimal(Decimal128Array),
}

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
        let cells = match target {
            Some(DataType::Int64) if matches!(array.data_type(), DataType::Date32) => {
                cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?
            }
            Some(target) => cast(array, &target)?,
            None => Arc::clone(array),
        };
        Ok(Self(match cells.data_type() {
            DataType::Boolean => Cells::Bool(cells.as_boolean().clone()),
            DataType::Int64 => Cells::Int(cells.as_primitive::<Int64Type>().clone()),
            DataType::Float64 => Cells::Float(cells.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Cells::Text(cells.as_string::<i32>().clone()),
            DataType::Decimal128(..) => Cells::Decimal(cells.as_primitive::<Decimal128Type>().clone()),
            _ => Cells::Bytes(cells.as_binary::<i32>().clone()),
        }))
    }

    /// The value where it is in the column.
    pub fn raw(&self, row: usize) -> Raw<'_> {
        match &self.0 {
            Cells::Bool(cells) if cells.is_valid(row) => Raw::Bool(cells.value(row)),
            Cells::Int(cells) if cells.is_valid(row) => Raw::Int(cells.value(row)),
            Cells::Float(cells) if cells.is_valid(row) => Raw::Float(cells.value(row)),
            Cells::Text(cells) if cells.is_valid(row) => Raw::Text(cells.value(row)),
            Cells::Bytes(cells) if cells.is_valid(row) => Raw::Bytes(cells.value(row)),
            Cells::Decimal(cells) if cells.is_valid(row) => Raw::Decimal(cells.value(row)),
            _ => Raw::Null,
        }
    }

    /// Appends the encoding of [`Column::raw`].
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) {
        self.raw(row).encode(out);
    }

    pub fn value(&self, row: usize) -> Value {
        self.raw(row).into()
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
    Ok(PackedKeys::of(batch, names)?.iter().map(<[u8]>::to_vec).collect())
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
    fn values_in_a_column_are_ordered_and_encoded_like_values_on_their_own() {
        let values = [Value::Text("b".into()), Value::Null, Value::Text("".into()), Value::Text("ab".into())];
        let column = Column::new(&to_array(&DataType::Utf8, &values).unwrap()).unwrap();
        for (row, value) in values.iter().enumerate() {
            let mut bytes = Vec::new();
            column.encode(row, &mut bytes);
            assert_eq!(bytes, encode_all(std::slice::from_ref(value)));
            for (other, other_value) in values.iter().enumerate() {
                assert_eq!(
                    column.raw(row).compare(column.raw(other)),
                    value.cmp(other_value),
                    "{value:?} {other_value:?}"
                );
            }
        }
        let sorted = [Value::Null, Value::Text("".into()), Value::Text("ab".into()), Value::Text("b".into())];
        assert!(sorted.is_sorted());
        assert!(Value::Float(f64::NEG_INFINITY) < Value::Float(-0.0) && Value::Float(-0.0) < Value::Float(0.0));
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
