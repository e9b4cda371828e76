//! Rows from their encoded values, without making each value on the way.

use std::sync::Arc;

use karat_lake::arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, RecordBatch,
        RecordBatchOptions, StringBuilder,
    },
    compute::cast,
    datatypes::{DataType, SchemaRef},
};

use crate::{
    Error, Result,
    value::{Raw, require_kept},
};

/// Builds a batch of rows that were encoded with [`Column::encode`](crate::value::Column::encode), column by column.
pub struct EncodedRows {
    schema: SchemaRef,
    columns: Vec<Builder>,
    len: usize,
}

enum Builder {
    Bool(BooleanBuilder),
    /// Whole numbers, dates and times.
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Decimal(Decimal128Builder),
}

impl EncodedRows {
    /// # Errors
    /// [`Error::Declaration`] when a column's type cannot be kept.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        require_kept(schema)?;
        let columns = schema.fields().iter().map(|field| Builder::new(field.data_type())).collect();
        Ok(Self { schema: schema.clone(), columns, len: 0 })
    }

    /// Adds a row whose values are in `parts`, one after the other; `what` names the store for the error.
    pub fn push(&mut self, parts: &[&[u8]], what: &str) -> Result<()> {
        let damaged = || Error::DamagedState(what.to_owned());
        let mut parts = parts.iter().copied();
        let mut rest = parts.next().unwrap_or_default();
        for column in &mut self.columns {
            while rest.is_empty() {
                rest = parts.next().ok_or_else(damaged)?;
            }
            let value = Raw::read(&mut rest).ok_or_else(damaged)?;
            column.push(value).ok_or_else(damaged)?;
        }
        self.len += 1;
        if rest.is_empty() && parts.all(<[u8]>::is_empty) { Ok(()) } else { Err(damaged()) }
    }

    /// The rows so far; begins anew.
    pub fn take(&mut self) -> Result<RecordBatch> {
        let columns = self.columns.iter_mut().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| column.finish(field.data_type())).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.len)));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

impl Builder {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Float64 => Self::Float(Float64Builder::new()),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Binary => Self::Bytes(BinaryBuilder::new()),
            DataType::Decimal128(..) => Self::Decimal(Decimal128Builder::new().with_data_type(data_type.clone())),
            _ => Self::Int(Int64Builder::new()),
        }
    }

    fn push(&mut self, value: Raw<'_>) -> Option<()> {
        match (self, value) {
            (Self::Bool(builder), Raw::Null) => builder.append_null(),
            (Self::Int(builder), Raw::Null) => builder.append_null(),
            (Self::Float(builder), Raw::Null) => builder.append_null(),
            (Self::Text(builder), Raw::Null) => builder.append_null(),
            (Self::Bytes(builder), Raw::Null) => builder.append_null(),
            (Self::Decimal(builder), Raw::Null) => builder.append_null(),
            (Self::Bool(builder), Raw::Bool(value)) => builder.append_value(value),
            (Self::Int(builder), Raw::Int(value)) => builder.append_value(value),
            (Self::Float(builder), Raw::Float(value)) => builder.append_value(value),
            (Self::Text(builder), Raw::Text(value)) => builder.append_value(value),
            (Self::Bytes(builder), Raw::Bytes(value)) => builder.append_value(value),
            (Self::Decimal(builder), Raw::Decimal(value)) => builder.append_value(value),
            _ => return None,
        }
        Some(())
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        Ok(match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Int(builder) => {
                let numbers: ArrayRef = Arc::new(builder.finish());
                match data_type {
                    DataType::Int64 => numbers,
                    DataType::Date32 => cast(&cast(&numbers, &DataType::Int32)?, data_type)?,
                    other => cast(&numbers, other)?,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use karat_lake::arrow::{
        array::Array,
        datatypes::{Field, Schema, TimeUnit},
    };

    use super::*;
    use crate::value::{Column, Value, to_array};

    #[test]
    fn rows_come_back_as_they_were_from_any_number_of_parts() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let columns: [(DataType, Value); 7] = [
            (DataType::Boolean, Value::Bool(true)),
            (DataType::Int64, Value::Int(-1)),
            (time, Value::Int(1_000)),
            (DataType::Date32, Value::Int(20_000)),
            (DataType::Float64, Value::Float(0.5)),
            (DataType::Utf8, Value::Text("é".into())),
            (DataType::Decimal128(10, 2), Value::Decimal(123)),
        ];
        let fields = columns
            .iter()
            .enumerate()
            .map(|(index, (data_type, _))| Field::new(format!("c{index}"), data_type.clone(), true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let arrays = columns.iter().map(|(data_type, value)| to_array(data_type, &[value.clone(), Value::Null]));
        let batch = RecordBatch::try_new(schema.clone(), arrays.collect::<Result<_>>().unwrap()).unwrap();
        let cells: Vec<Column> = batch.columns().iter().map(|column| Column::new(column).unwrap()).collect();
        let encoded = |row: usize, range: std::ops::Range<usize>| {
            let mut bytes = Vec::new();
            cells[range].iter().for_each(|cell| cell.encode(row, &mut bytes));
            bytes
        };
        let mut rows = EncodedRows::new(&schema).unwrap();
        rows.push(&[&encoded(0, 0..3), &encoded(0, 3..7)], "test").unwrap();
        rows.push(&[&[], &encoded(1, 0..7), &[]], "test").unwrap();
        assert_eq!(rows.take().unwrap(), batch);
        assert_eq!(rows.take().unwrap().num_rows(), 0);
    }

    #[test]
    fn rows_that_are_short_long_or_of_another_kind_are_named() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let encode = |values: &[Value]| crate::value::encode_all(values);
        for bytes in [encode(&[]), encode(&[Value::Int(1), Value::Int(2)]), encode(&[Value::Bool(true)]), vec![2, 0]] {
            let pushed = EncodedRows::new(&schema).unwrap().push(&[&bytes], "rows");
            assert!(matches!(pushed, Err(Error::DamagedState(what)) if what == "rows"));
        }
        assert!(EncodedRows::new(&schema).unwrap().take().unwrap().column(0).is_empty());
    }
}
