//! Parquet with zstd. A row group is kept in memory until it is whole, and therefore bounded in rows and bytes.

use std::sync::Arc;

use karat_http::ApiError;
use karat_lake::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::WriterProperties,
    },
};

use super::{produce::Encoder, sink::Sink};

const GROUP_ROWS: usize = 128 * 1024;
const GROUP_BYTES: usize = 16 << 20;

pub(super) struct Parquet(ArrowWriter<Sink>);

impl Parquet {
    pub(super) fn new(sink: Sink, schema: &SchemaRef) -> Result<Self, ApiError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let writer = ArrowWriter::try_new(sink, Arc::clone(schema), Some(properties));
        writer.map(Self).map_err(ApiError::internal)
    }
}

impl Encoder for Parquet {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), ApiError> {
        self.0.write(batch).map_err(ApiError::internal)?;
        if self.0.in_progress_size() >= GROUP_BYTES {
            self.0.flush().map_err(ApiError::internal)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Sink, ApiError> {
        self.0.into_inner().map_err(ApiError::internal)
    }
}
