//! [`Job`]: makes one file, on a blocking thread.

use std::time::Duration;

use futures::StreamExt;
use karat_http::ApiError;
use karat_lake::arrow::array::RecordBatch;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    ExportSettings, Form, Format, Rows,
    arrow::Arrow,
    cells::{conform, plain},
    csv::Csv,
    download::Piece,
    ndjson::Ndjson,
    parquet::Parquet,
    sink::Sink,
    too_slow,
    xlsx::{Limits, Xlsx},
};

/// Rows that are encoded between two looks at whether the client is still there.
const STEP_ROWS: usize = 8 * 1024;

/// How long the end of a file may wait behind the deadline for a client that does not read.
const GRACE: Duration = Duration::from_millis(500);

/// The writer of one format.
pub(super) trait Encoder {
    /// Writes rows of the schema that the encoder was made for.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), ApiError>;

    /// Ends the file; the last bytes may still be in the sink.
    fn finish(self: Box<Self>) -> Result<Sink, ApiError>;
}

/// A file to be made.
pub(super) struct Job {
    pub(super) rows: Rows,
    pub(super) form: Form,
    pub(super) settings: ExportSettings,
    pub(super) sender: mpsc::Sender<Piece>,
    pub(super) deadline: Instant,
}

impl Job {
    pub(super) fn run(mut self, handle: &Handle) {
        let made = self.make(handle);
        if self.sender.is_closed() {
            tracing::debug!("the client of a file has left");
            return;
        }
        let last = match made {
            Ok(()) => Piece::End,
            Err(_) if Instant::now() >= self.deadline => Piece::Failed(too_slow(self.settings.deadline)),
            Err(error) => Piece::Failed(error),
        };
        let (sender, until) = (&self.sender, self.deadline.max(Instant::now()) + GRACE);
        // Without its last piece a file is cut off for its client.
        let _ = handle.block_on(async { timeout_at(until, sender.send(last)).await });
    }

    fn make(&mut self, handle: &Handle) -> Result<(), ApiError> {
        let schema = plain(&self.rows.schema);
        let sink = Sink::new(self.sender.clone(), handle.clone(), self.deadline);
        let mut encoder: Box<dyn Encoder> = match self.form.format {
            Format::Csv => Box::new(Csv::new(sink, &schema, self.form.has_mark)?),
            Format::Ndjson => Box::new(Ndjson::new(sink)),
            Format::Parquet => Box::new(Parquet::new(sink, &schema)?),
            Format::Arrow => Box::new(Arrow::new(sink, &schema)?),
            Format::Xlsx => {
                Box::new(Xlsx::new(sink, &schema, &self.settings.scratch, Limits::of(self.settings.scratch_bytes))?)
            }
        };
        while let Some(batch) = self.next(handle)? {
            for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
                if self.sender.is_closed() {
                    return Err(left());
                }
                let step = batch.slice(start, STEP_ROWS.min(batch.num_rows() - start));
                encoder.write(&conform(&schema, &step).map_err(ApiError::internal)?)?;
            }
        }
        encoder.finish()?.close().map_err(ApiError::internal)
    }

    /// The next batch; waits for it no longer than the client does.
    fn next(&mut self, handle: &Handle) -> Result<Option<RecordBatch>, ApiError> {
        let Self { rows, sender, deadline, settings, .. } = self;
        let late = || too_slow(settings.deadline);
        if Instant::now() >= *deadline {
            return Err(late());
        }
        handle.block_on(async {
            tokio::select! {
                biased;
                () = sender.closed() => Err(left()),
                next = timeout_at(*deadline, rows.batches.next()) => match next {
                    Ok(next) => next.transpose(),
                    Err(_) => Err(late()),
                },
            }
        })
    }
}

/// For nobody: it is what made the work end.
fn left() -> ApiError {
    ApiError::internal("the client has left")
}
