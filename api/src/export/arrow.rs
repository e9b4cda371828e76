//! The stream format of Arrow IPC, which needs no seeking and no end to begin with.

use karat_http::ApiError;
use karat_lake::arrow::{array::RecordBatch, datatypes::Schema, ipc::writer::StreamWriter};

use super::{produce::Encoder, sink::Sink};

pub(super) struct Arrow(StreamWriter<Sink>);

impl Arrow {
    pub(super) fn new(sink: Sink, schema: &Schema) -> Result<Self, ApiError> {
        StreamWriter::try_new(sink, schema).map(Self).map_err(ApiError::internal)
    }
}

impl Encoder for Arrow {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), ApiError> {
        self.0.write(batch).map_err(ApiError::internal)
    }

    fn finish(mut self: Box<Self>) -> Result<Sink, ApiError> {
        self.0.finish().map_err(ApiError::internal)?;
        self.0.into_inner().map_err(ApiError::internal)
    }
}
