//! CSV by RFC 4180: UTF-8, lines that end with CRLF, a header always.
//!
//! Texts that a spreadsheet could take for a formula get a `'` in front, names of columns too. Numbers stay as they are.

use std::{borrow::Cow, io::Write, sync::Arc};

use karat_http::ApiError;
use karat_lake::arrow::{
    array::{Array, ArrayRef, RecordBatch, StringArray},
    csv::{Writer, WriterBuilder, writer::Terminator},
    datatypes::{Field, Schema, SchemaRef},
    error::ArrowError,
};

use super::{cells::is_formula, produce::Encoder, sink::Sink};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

pub(super) struct Csv {
    writer: Writer<Sink>,
    /// With harmless names.
    schema: SchemaRef,
}

impl Csv {
    pub(super) fn new(mut sink: Sink, schema: &Schema, has_mark: bool) -> Result<Self, ApiError> {
        if has_mark {
            sink.write_all(BYTE_ORDER_MARK).map_err(ApiError::internal)?;
        }
        let field = |field: &Arc<Field>| field.as_ref().clone().with_name(harmless(field.name()));
        let schema = Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()));
        let mut writer = WriterBuilder::new().with_line_terminator(Terminator::CRLF).build(sink);
        // The header comes with the first batch, and shall be there without rows too.
        writer.write(&RecordBatch::new_empty(Arc::clone(&schema))).map_err(ApiError::internal)?;
        Ok(Self { writer, schema })
    }

    fn try_write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let columns = batch.columns().iter().map(harmless_column).collect();
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Encoder for Csv {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), ApiError> {
        self.try_write(batch).map_err(ApiError::internal)
    }

    fn finish(self: Box<Self>) -> Result<Sink, ApiError> {
        Ok(self.writer.into_inner())
    }
}

fn harmless(text: &str) -> Cow<'_, str> {
    if is_formula(text) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

fn harmless_column(column: &ArrayRef) -> ArrayRef {
    let Some(texts) = column.as_any().downcast_ref::<StringArray>() else { return Arc::clone(column) };
    if !texts.iter().flatten().any(is_formula) {
        return Arc::clone(column);
    }
    Arc::new(texts.iter().map(|text| text.map(harmless)).collect::<StringArray>())
}
