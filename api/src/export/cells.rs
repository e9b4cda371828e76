//! What the writers have in common: few types, and texts that are no formulas.

use std::sync::Arc;

use karat_lake::arrow::{
    array::RecordBatch,
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};

/// The schema of a file with rows of `schema`: one form of text and of bytes, no dictionaries, and times in UTC. Times
/// without a zone are taken as UTC, which the tables have.
pub(crate) fn plain(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| {
        let data_type = plain_type(field.data_type());
        Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, Some("UTC".into())),
        other => other.clone(),
    }
}

/// Gives a batch the types of `schema`. A value that would change is an error.
pub(crate) fn conform(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        cast_with_options(column, field.data_type(), &exact)
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<Vec<_>, ArrowError>>()?)
}

/// Whether a spreadsheet could take a text for a formula.
pub(super) fn is_formula(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r'))
}
