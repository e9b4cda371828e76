//! NDJSON: one object a line, every column in each, nulls too. Numbers are written digit by digit, times by RFC 3339.

use karat_http::ApiError;
use karat_lake::arrow::{
    array::RecordBatch,
    json::{LineDelimitedWriter, WriterBuilder, writer::LineDelimited},
};

use super::{produce::Encoder, sink::Sink};

pub(super) struct Ndjson(LineDelimitedWriter<Sink>);

impl Ndjson {
    pub(super) fn new(sink: Sink) -> Self {
        Self(WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(sink))
    }
}

impl Encoder for Ndjson {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), ApiError> {
        self.0.write(batch).map_err(ApiError::internal)
    }

    fn finish(mut self: Box<Self>) -> Result<Sink, ApiError> {
        self.0.finish().map_err(ApiError::internal)?;
        Ok(self.0.into_inner())
    }
}
