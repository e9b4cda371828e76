//! What the pipeline cannot do without, measured alone with stock parts: arrow's JSON reader, and parquet's writer at the
//! same compression. Their sum is the limit that `log-to-gold` is compared with.
//!
//! One thread, everything in memory: no log, no files, no sync, no identities, no gold.
#![allow(clippy::print_stdout)]

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use chrono::DateTime;
use clap::Parser;
use karat_benches::{Error, Result, exit_code, machine::cpu_seconds};
use karat_lake::{
    arrow::{
        array::{BinaryBuilder, Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
        json::ReaderBuilder,
    },
    parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::WriterProperties,
    },
};
use serde::Serialize;
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures decoding and encoding of a file of events, one a line, with stock parts.
#[derive(Parser)]
struct Options {
    /// Events with the fields of `pipelines/append.toml`, one a line.
    #[arg(long)]
    input: PathBuf,
    /// Rows of a batch.
    #[arg(long, default_value_t = 50_000)]
    batch: usize,
}

/// Microseconds of one core, an event.
#[derive(Serialize)]
struct Report {
    events: usize,
    decode_us: f64,
    encode_bronze_us: f64,
    encode_silver_us: f64,
    sum_us: f64,
    /// With as many cores as the machine has.
    events_per_second: u64,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let text = std::fs::read(&options.input).map_err(Error::file(&options.input))?;
    // The stock reader ends at the first line that is not JSON of the schema; the pipeline quarantines it.
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| is_good(line)).collect();
    let began = cpu_seconds();
    let mut batches = Vec::new();
    for chunk in lines.chunks(options.batch) {
        let mut decoder = ReaderBuilder::new(schema()).with_batch_size(options.batch).build_decoder()?;
        for line in chunk {
            decoder.decode(line)?;
        }
        batches.extend(decoder.flush()?);
    }
    let decoded = cpu_seconds();
    for chunk in lines.chunks(options.batch) {
        encode(&as_received(chunk)?)?;
    }
    let bronze = cpu_seconds();
    for batch in &batches {
        encode(batch)?;
    }
    let silver = cpu_seconds();
    let each = |seconds: f64| (seconds * 1e8 / lines.len().max(1) as f64).round() / 100.0;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Report {
        events: batches.iter().map(RecordBatch::num_rows).sum(),
        decode_us: each(decoded - began),
        encode_bronze_us: each(bronze - decoded),
        encode_silver_us: each(silver - bronze),
        sum_us: each(silver - began),
        events_per_second: (lines.len() as f64 * cores as f64 / (silver - began)) as u64,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn is_good(line: &[u8]) -> bool {
    let Ok(Value::Object(event)) = serde_json::from_slice(line) else { return false };
    schema().fields().iter().all(|field| match (event.get(field.name()), field.data_type()) {
        (None | Some(Value::Null), _) => field.is_nullable(),
        (Some(value), DataType::Int64) => value.is_i64(),
        (Some(Value::String(text)), DataType::Timestamp(..)) => DateTime::parse_from_rfc3339(text).is_ok(),
        (Some(value), _) => value.is_string(),
    })
}

fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let texts = ["event_id", "source", "user_id", "entity", "status"].map(|name| (name, DataType::Utf8));
    let numbers = ["records_read", "records_written", "records_failed", "bytes"].map(|name| (name, DataType::Int64));
    let times = ["started_at", "finished_at"].map(|name| (name, time.clone()));
    let required = texts.into_iter().chain(numbers).chain(times);
    let mut fields: Vec<Field> = required.map(|(name, data_type)| Field::new(name, data_type, false)).collect();
    fields.push(Field::new("error", DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}

/// Bytes as they came, with their offsets.
fn as_received(lines: &[&[u8]]) -> Result<RecordBatch> {
    let mut payloads = BinaryBuilder::with_capacity(lines.len(), lines.iter().map(|line| line.len()).sum());
    lines.iter().for_each(|line| payloads.append_value(line));
    let offsets: Int64Array = (0..).take(lines.len()).map(Some).collect();
    let schema =
        Schema::new(vec![Field::new("payload", DataType::Binary, false), Field::new("offset", DataType::Int64, true)]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(payloads.finish()), Arc::new(offsets)])?)
}

fn encode(batch: &RecordBatch) -> Result<()> {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1)?);
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(batch)?;
    std::hint::black_box(writer.into_inner()?);
    Ok(())
}
