//! All rows of an endpoint, for a file. They are read before its first byte is sent, so that what is too much is refused
//! instead of broken off; this bounds the memory that they take meanwhile, by their number and by their size.

use std::sync::Arc;

use futures::TryStreamExt;
use karat_http::ApiError;
use karat_lake::{
    arrow::array::RecordBatch,
    datafusion::{common::utils::memory::RecordBatchMemoryCounter, execution::SendableRecordBatchStream},
};
use poem::http::StatusCode;

use super::{
    PlannedEndpoint,
    plan::{Values, answer_error},
};
use crate::{
    export::{conform, plain},
    lakehouse::rows::TableReader,
    snapshot::Snapshot,
};

/// The most rows of a file.
const MAX_FILE_ROWS: usize = 100_000;
/// The most memory of its rows.
const MAX_FILE_BYTES: usize = 32 << 20;

impl PlannedEndpoint {
    /// Every row of the answer at one epoch, in the types of a file.
    ///
    /// # Errors
    /// As [`Self::open`], 503 when too many wait, and 422 when there are too many rows, or they are too large.
    pub(super) async fn whole(
        self: &Arc<Self>,
        reader: &Arc<TableReader>,
        snapshot: &Arc<Snapshot>,
        values: Values,
    ) -> Result<Vec<RecordBatch>, ApiError> {
        let (planned, tables, snapshot) = (Arc::clone(self), Arc::clone(reader), Arc::clone(snapshot));
        let read = async move {
            let batches = planned.open(&tables, &snapshot.epoch, values, 0, MAX_FILE_ROWS + 1).await?;
            within_bounds(batches).await
        };
        reader.scans.run(read).await
    }
}

async fn within_bounds(mut batches: SendableRecordBatchStream) -> Result<Vec<RecordBatch>, ApiError> {
    let (mut whole, mut num_rows, mut memory) = (Vec::new(), 0, RecordBatchMemoryCounter::new());
    while let Some(batch) = batches.try_next().await.map_err(|error| answer_error(error, false))? {
        // Text that is a view would keep all that it was read from in memory, and count as that.
        let batch = conform(&plain(&batch.schema()), &batch).map_err(ApiError::internal)?;
        num_rows += batch.num_rows();
        memory.count_batch(&batch);
        if num_rows > MAX_FILE_ROWS {
            return Err(too_much("too_many_rows", &format!("have more than {MAX_FILE_ROWS} rows")));
        }
        if memory.memory_usage() > MAX_FILE_BYTES {
            return Err(too_much("file_too_large", &format!("take more than {} MiB", MAX_FILE_BYTES >> 20)));
        }
        whole.push(batch);
    }
    Ok(whole)
}

fn too_much(code: &'static str, would: &str) -> ApiError {
    let message = format!("the file would {would}: narrow the parameters, or ask for pages");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
}
