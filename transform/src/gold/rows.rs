//! Silver rows as the state store keeps them, for refreshes that run their SQL over kept rows.

use karat_lake::arrow::{
    array::{RecordBatch, RecordBatchOptions},
    datatypes::SchemaRef,
};

use crate::{
    Result,
    value::{self, Column, Value},
};

/// The values of a silver row.
pub(super) type Row = Vec<Value>;

/// The columns of `schema` in a batch that may have more, ready to be encoded row by row.
pub(super) struct Cells(Vec<Column>);

impl Cells {
    pub(super) fn of(rows: &RecordBatch, schema: &SchemaRef) -> Result<Self> {
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Self(value::columns(rows, &names)?))
    }

    pub(super) fn row(&self, row: usize) -> Row {
        self.0.iter().map(|column| column.value(row)).collect()
    }

    pub(super) fn encoded(&self, row: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() * 12);
        self.0.iter().for_each(|column| column.encode(row, &mut out));
        out
    }
}

/// One batch of kept rows.
pub(super) fn batch<'r>(schema: &SchemaRef, rows: impl Iterator<Item = &'r Row>) -> Result<RecordBatch> {
    let mut cells: Vec<Vec<Value>> = vec![Vec::new(); schema.fields().len()];
    let mut number = 0;
    for row in rows {
        number += 1;
        cells.iter_mut().zip(row).for_each(|(cell, value)| cell.push(value.clone()));
    }
    let types = schema.fields().iter();
    let columns =
        types.zip(&cells).map(|(field, cell)| value::to_array(field.data_type(), cell)).collect::<Result<_>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(number));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
