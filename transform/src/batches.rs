//! Small helpers over record batches.

use karat_lake::arrow::{
    array::{ArrayRef, RecordBatch},
    compute::concat_batches,
    datatypes::SchemaRef,
};

use crate::{Error, Result};

/// One batch of all rows. A single batch is passed on as it is: concatenating would copy it.
pub fn join(schema: &SchemaRef, mut batches: Vec<RecordBatch>) -> Result<RecordBatch> {
    match batches.len() {
        1 => Ok(batches.remove(0).with_schema(schema.clone())?),
        _ => Ok(concat_batches(schema, &batches)?),
    }
}

/// The column of that name.
pub fn column<'b>(batch: &'b RecordBatch, name: &str) -> Result<&'b ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::Declaration(format!("column `{name}` is missing")))
}
