//! Measures the memory of making files: synthetic runs through each writer of exports, read as fast as they come.
//!
//! The rows are made a batch at a time and the bytes are counted and dropped, so what is measured is the writers and what
//! waits between them and the client.
#![allow(clippy::print_stdout)]

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use karat_api::export::{ExportSettings, Exports, Form, Format, Rows};
use karat_benches::{
    Error, Result, exit_code,
    machine::{Machine, forget_peak_memory, peak_memory_mib},
};
use karat_http::ApiError;
use karat_lake::arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    error::ArrowError,
};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Makes a file of each format and prints the most memory that each took.
#[derive(Parser)]
struct Options {
    /// Rows of each file. Spreadsheets have 10000000 at most.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,
    /// Only this format.
    #[arg(long, value_parser = ["csv", "ndjson", "parquet", "arrow", "xlsx"])]
    format: Option<String>,
    /// Folder on a disk for the cells of spreadsheets; the system's for temporary files when absent. Ten million rows
    /// take some 10 GB there.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Fail when a file takes more memory.
    #[arg(long)]
    at_most_mib: Option<f64>,
}

const BATCH_ROWS: u64 = 8192;
const START_US: i64 = 1_767_225_600_000_000;

#[derive(Serialize)]
struct Report {
    rows: u64,
    files: Vec<Made>,
    /// The most of all.
    peak_memory_mib: f64,
    load: f64,
}

#[derive(Serialize)]
struct Made {
    format: &'static str,
    bytes: u64,
    seconds: f64,
    peak_memory_mib: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run(Options::parse()).await)
}

async fn run(options: Options) -> Result<()> {
    let mut settings = ExportSettings { deadline: Duration::from_secs(6 * 60 * 60), ..ExportSettings::default() };
    if let Some(scratch) = options.scratch {
        settings.scratch = scratch;
    }
    let exports = Exports::new(settings);
    let mut files = Vec::new();
    for (name, format) in Format::ALL {
        if options.format.as_ref().is_none_or(|wanted| wanted == name) {
            let made = make(&exports, name, format, options.rows).await?;
            eprintln!("{name}: {} bytes, {} s, {} MiB", made.bytes, made.seconds, made.peak_memory_mib);
            files.push(made);
        }
    }
    let worst = files.iter().map(|made| made.peak_memory_mib).fold(0.0, f64::max);
    let report = Report { rows: options.rows, files, peak_memory_mib: worst, load: Machine::read().load };
    println!("{}", serde_json::to_string(&report)?);
    match options.at_most_mib.filter(|at_most| worst > *at_most) {
        None => Ok(()),
        Some(at_most) => Err(Error::WrongResult(format!("{worst} MiB, at most {at_most} MiB are allowed"))),
    }
}

async fn make(exports: &Exports, name: &'static str, format: Format, num_rows: u64) -> Result<Made> {
    let failed = |error: ApiError| Error::Io(std::io::Error::other(format!("{name}: {error:?}")));
    forget_peak_memory();
    let start = Instant::now();
    let schema = runs(0, 0)?.schema();
    let starts = (0..num_rows.div_ceil(BATCH_ROWS)).map(|number| number * BATCH_ROWS);
    let batches = starts.map(move |first| runs(first, BATCH_ROWS.min(num_rows - first)).map_err(ApiError::internal));
    let rows = Rows { schema, batches: stream::iter(batches).boxed() };
    let place = exports.place().map_err(failed)?;
    let download = exports.start(place, rows, Form { format, has_mark: false }).await.map_err(failed)?;
    let bytes = download.try_fold(0, |sum, piece| async move { Ok(sum + piece.len() as u64) }).await?;
    Ok(Made { format: name, bytes, seconds: start.elapsed().as_secs_f64(), peak_memory_mib: peak_memory_mib() })
}

/// Runs with the columns of `/runs/export`, about as long as real ones.
fn runs(first: u64, count: u64) -> Result<RecordBatch, ArrowError> {
    let numbers = || (first..first + count).map(|number| number as i64);
    let texts = |text: fn(i64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter(numbers().map(|number| Some(text(number)))))
    };
    let maybe = |text: fn(i64) -> Option<String>| -> ArrayRef { Arc::new(StringArray::from_iter(numbers().map(text))) };
    let whole = |value: fn(i64) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter(numbers().map(|number| Some(value(number)))))
    };
    let instants = |value: fn(i64) -> i64| -> ArrayRef {
        let values = numbers().map(|number| Some(value(number)));
        Arc::new(TimestampMicrosecondArray::from_iter(values).with_timezone("UTC"))
    };
    let durations: ArrayRef =
        Arc::new(Float64Array::from_iter(numbers().map(|number| Some((number % 90_000) as f64 + 0.25))));
    let columns = [
        ("source", texts(|number| format!("source-{}", number % 50))),
        ("run_id", texts(|number| format!("0197b3a2-5c1e-7d40-8a77-{number:012x}"))),
        ("job", texts(|number| format!("load_{}", number % 400))),
        ("user_id", texts(|number| format!("0197a001-0000-7000-8000-{:012}", number % 1000))),
        ("status", texts(|number| ["failed", "completed"][usize::from(number % 20 != 0)].to_owned())),
        ("started_at", instants(|number| START_US + number * 3_000_000)),
        ("finished_at", instants(|number| START_US + number * 3_000_000 + 41_250_000)),
        ("duration_ms", durations),
        ("records_read", whole(|number| number * 7 % 100_000)),
        ("records_written", whole(|number| number * 7 % 99_000)),
        ("records_failed", whole(|number| number % 3)),
        ("bytes_written", whole(|number| number * 7919)),
        ("error_message", maybe(|number| (number % 20 == 0).then(|| "=no space left on device".to_owned()))),
        ("parent_run_id", maybe(|_| None)),
        ("last_event_at", instants(|number| START_US + number * 3_000_000 + 41_250_000)),
        ("events", whole(|_| 2)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
}
