//! Rows as a file: CSV, NDJSON, Parquet, Arrow or a spreadsheet, streamed with flat memory.
//!
//! [`Exports::start`] takes a stream of Arrow batches and gives a [`Download`], a stream of bytes. Any route that has
//! [`Rows`] can answer a file with it.
//!
//! Guarantees:
//! - Memory follows the format and not the number of rows: one batch, what the format keeps of it (a row group of Parquet
//!   is the most), and a few pieces that wait for the client. Spreadsheets put their cells into unnamed files of a scratch
//!   folder, which are gone with the export, also after a crash.
//! - A file that is whole ends; any other breaks the connection. What fails before the first byte is an [`ApiError`].
//! - Files are made on blocking threads, so many at a time. One that nobody reads any more ends within a second or so,
//!   and each ends at the deadline.
//! - No text becomes a formula when the file is opened in a spreadsheet (checklist 66).
//!
//! Vocabulary: a *piece* is some bytes of a file on their way to the client; a *place* is the right to make a file.

mod answer;
mod arrow;
mod cells;
mod csv;
mod download;
mod ndjson;
mod parquet;
mod produce;
mod sink;
#[cfg(test)]
mod tests;
mod xlsx;
mod xlsx_column;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::stream::BoxStream;
use karat_http::ApiError;
use karat_lake::arrow::{array::RecordBatch, datatypes::SchemaRef};
use poem::http::StatusCode;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

pub use answer::ExportAnswer;
pub(crate) use answer::File;
pub(crate) use cells::{conform, plain};
pub use download::Download;

use produce::Job;

/// Pieces that wait for the client.
const WAITING_PIECES: usize = 4;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, with a header. A null is an empty cell.
    Csv,
    /// One JSON object a line.
    Ndjson,
    Parquet,
    /// The stream format of Arrow IPC.
    Arrow,
    /// Spreadsheets of Excel 2007 and later.
    Xlsx,
}

/// How a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    pub format: Format,
    /// Whether CSV begins with a byte order mark, by which some spreadsheets know UTF-8.
    pub has_mark: bool,
}

/// The rows of a file.
pub struct Rows {
    pub schema: SchemaRef,
    /// Of this schema, or with columns that can be cast to it without loss, in its order.
    pub batches: BoxStream<'static, Result<RecordBatch, ApiError>>,
}

/// Bounds of exports.
#[derive(Debug, Clone)]
pub struct ExportSettings {
    /// Files that are made at the same time; further ones are refused with 503.
    pub at_a_time: usize,
    /// The longest that making a file, and its client, may take.
    pub deadline: Duration,
    /// Folder on a disk for the cells of spreadsheets.
    pub scratch: PathBuf,
    /// Room there for one spreadsheet, in bytes, counted a little too high.
    pub scratch_bytes: u64,
}

impl Default for ExportSettings {
    fn default() -> Self {
        Self {
            at_a_time: 4,
            deadline: Duration::from_secs(15 * 60),
            scratch: std::env::temp_dir(),
            scratch_bytes: 16 << 30,
        }
    }
}

/// Makes files. Shared by every request.
pub struct Exports {
    settings: ExportSettings,
    places: Arc<Semaphore>,
}

/// The right to make one file.
pub struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

impl Exports {
    pub fn new(settings: ExportSettings) -> Self {
        let places = Arc::new(Semaphore::new(settings.at_a_time.min(Semaphore::MAX_PERMITS)));
        Self { settings, places }
    }

    /// A place, before anything is read for it.
    ///
    /// # Errors
    /// 503 with `Retry-After` when all are taken.
    pub fn place(&self) -> Result<Place, ApiError> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        permit.map(Place).map_err(|_| {
            let message = "too many files are made at once: ask again after `Retry-After`";
            ApiError::unavailable("exports_busy", message).retry_after(Duration::from_secs(5))
        })
    }

    /// Places that are free.
    pub fn free_places(&self) -> usize {
        self.places.available_permits()
    }

    /// Begins a file and waits for its first bytes; those of a spreadsheet come when it is ready.
    ///
    /// # Errors
    /// What fails before the first byte: 422 when the rows do not fit into the format, 504 at the deadline, and what
    /// reading the rows fails with.
    pub async fn start(&self, place: Place, rows: Rows, form: Form) -> Result<Download, ApiError> {
        form.require_fit(&rows.schema)?;
        let (sender, pieces) = mpsc::channel(WAITING_PIECES);
        let deadline = Instant::now() + self.settings.deadline;
        let job = Job { rows, form, settings: self.settings.clone(), sender, deadline };
        let handle = Handle::current();
        tokio::task::spawn_blocking(move || {
            // Until the work has ended, which may be after its client left.
            let _place = place;
            job.run(&handle);
        });
        Download::begin(pieces).await
    }
}

impl Format {
    /// As requests name them.
    pub const ALL: [(&'static str, Self); 5] = [
        ("csv", Self::Csv),
        ("ndjson", Self::Ndjson),
        ("parquet", Self::Parquet),
        ("arrow", Self::Arrow),
        ("xlsx", Self::Xlsx),
    ];

    /// The end of a file's name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Arrow => "arrows",
            Self::Xlsx => "xlsx",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        }
    }
}

impl Form {
    /// Cells hold one value.
    fn require_fit(self, schema: &SchemaRef) -> Result<(), ApiError> {
        let nested = schema.fields().iter().find(|field| field.data_type().is_nested());
        match (self.format, nested) {
            (Format::Csv | Format::Xlsx, Some(field)) => Err(does_not_fit(
                self.format,
                &format!("`ndjson`, `parquet` or `arrow`, since the column `{}` has values with parts", field.name()),
            )),
            _ => Ok(()),
        }
    }
}

/// 422: these rows need another format.
fn does_not_fit(format: Format, expected: &str) -> ApiError {
    let name = Format::ALL.iter().find(|(_, other)| *other == format).map_or("", |(name, _)| *name);
    ApiError::validation(vec![format!("`format`: expected {expected}, found `{name}`")])
}

/// 504: the file was not ready in time.
fn too_slow(deadline: Duration) -> ApiError {
    let message = format!("the file took longer than {} s: ask for less, or read it faster", deadline.as_secs());
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
}
