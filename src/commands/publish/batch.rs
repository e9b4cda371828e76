//! Reads the files on a blocking thread and groups their records into requests.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::framing::Frames;
use super::item::{Refusal, Route, Wrap, prepare};

/// A request holds at most this many records and bytes: far below the door's limits, so that one answer comes soon.
const MAX_RECORDS: usize = 1_000;
const MAX_BYTES: usize = 2 << 20;
const READ_BUFFER: usize = 256 * 1024;

/// What comes out of the files, in their order.
pub(super) enum Work {
    Send(Batch),
    /// A record that is not sent.
    Refused {
        file: Arc<Path>,
        number: u64,
        refusal: Refusal,
    },
}

/// One request's records.
pub(super) struct Batch {
    pub file: Arc<Path>,
    pub route: Route,
    /// The place of each record in its file.
    pub numbers: Vec<u64>,
    /// The place of each record in the body, as the door counts them.
    pub body: Bytes,
}

/// What to read.
pub(super) struct Input {
    pub files: Vec<PathBuf>,
    pub from_line: u64,
    pub wrap: Option<Wrap>,
    /// Counts the bytes read from files, for the progress bar.
    pub read_bytes: Arc<AtomicU64>,
}

/// Reads everything; stops early when nobody receives any more. Blocks.
pub(super) fn read_all(input: &Input, out: &Sender<Work>) -> Result<(), (PathBuf, io::Error)> {
    for file in &input.files {
        let is_open = read_file(input, file, out).map_err(|error| (file.clone(), error))?;
        if !is_open {
            break;
        }
    }
    Ok(())
}

/// Whether the name says that it is one JSON text a line.
fn is_ndjson(file: &Path) -> bool {
    let name = file.to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    [".ndjson", ".jsonl"].iter().any(|ending| name.ends_with(ending)) || name == "-"
}

fn open(file: &Path, read_bytes: &Arc<AtomicU64>) -> io::Result<Box<dyn BufRead + Send>> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let counted = Counted { inner: File::open(file)?, read_bytes: read_bytes.clone() };
    let plain = BufReader::with_capacity(READ_BUFFER, counted);
    if file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz")) {
        let unpacked = flate2::bufread::MultiGzDecoder::new(plain);
        return Ok(Box::new(BufReader::with_capacity(READ_BUFFER, unpacked)));
    }
    Ok(Box::new(plain))
}

fn read_file(input: &Input, path: &Path, out: &Sender<Work>) -> io::Result<bool> {
    let file: Arc<Path> = Arc::from(path);
    let mut frames = Frames::open(open(path, &input.read_bytes)?, is_ndjson(path))?;
    let mut pending = Pending::new(file.clone());
    while let Some(frame) = frames.next()? {
        if frame.number < input.from_line {
            continue;
        }
        let prepared = frame.bytes.ok_or_else(too_large).and_then(|bytes| prepare(bytes, input.wrap.as_ref()));
        let work = match prepared {
            Ok((route, bytes)) => pending.add(route, frame.number, &bytes),
            Err(refusal) => {
                // What stands before it is sent before it, so that work comes out in the order of the file.
                let refused = Work::Refused { file: file.clone(), number: frame.number, refusal };
                if !send(out, pending.take()) {
                    return Ok(false);
                }
                Some(refused)
            }
        };
        if !send(out, work) {
            return Ok(false);
        }
    }
    Ok(send(out, pending.take()))
}

fn send(out: &Sender<Work>, work: Option<Work>) -> bool {
    work.is_none_or(|work| out.blocking_send(work).is_ok())
}

fn too_large() -> Refusal {
    let limit = karat_ingest::limits::MAX_EVENT_BYTES;
    let message = format!("the record is larger than the {limit} bytes that an event may have");
    Refusal { code: "event_too_large".to_owned(), path: String::new(), message }
}

struct Pending {
    file: Arc<Path>,
    route: Route,
    numbers: Vec<u64>,
    body: Vec<u8>,
}

impl Pending {
    fn new(file: Arc<Path>) -> Self {
        Self { file, route: Route::Events, numbers: Vec::new(), body: Vec::new() }
    }

    /// Adds a record; gives the batch before it when that is full or goes elsewhere.
    fn add(&mut self, route: Route, number: u64, bytes: &[u8]) -> Option<Work> {
        let is_full = self.numbers.len() == MAX_RECORDS || self.body.len() + bytes.len() > MAX_BYTES;
        let done = if is_full || route != self.route { self.take() } else { None };
        self.route = route;
        self.numbers.push(number);
        self.body.extend_from_slice(bytes);
        self.body.push(b'\n');
        done
    }

    fn take(&mut self) -> Option<Work> {
        if self.numbers.is_empty() {
            return None;
        }
        let (numbers, body) = (std::mem::take(&mut self.numbers), std::mem::take(&mut self.body));
        Some(Work::Send(Batch { file: self.file.clone(), route: self.route, numbers, body: body.into() }))
    }
}

struct Counted<R> {
    inner: R,
    read_bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(text: &str, name: &str, from_line: u64) -> Vec<Work> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        let mut out = File::create(&file).unwrap();
        if name.ends_with(".gz") {
            let mut packed = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            packed.finish().unwrap();
        } else {
            out.write_all(text.as_bytes()).unwrap();
        }
        let input = Input { files: vec![file], from_line, wrap: None, read_bytes: Arc::default() };
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1_000);
        read_all(&input, &sender).unwrap();
        drop(sender);
        std::iter::from_fn(|| receiver.blocking_recv()).collect()
    }

    fn numbers(work: &[Work]) -> Vec<Vec<u64>> {
        let of = |work: &Work| match work {
            Work::Send(batch) => batch.numbers.clone(),
            Work::Refused { number, .. } => vec![*number],
        };
        work.iter().map(of).collect()
    }

    #[test]
    fn records_are_grouped_by_route_in_the_order_of_the_file() {
        let (event, lineage) = (r#"{"specversion":"1.0"}"#, r#"{"eventTime":"t","run":{}}"#);
        let text = [event, event, lineage, "{broken", event, event].join("\n");
        for name in ["a.ndjson", "a.ndjson.gz", "a.json"] {
            assert_eq!(numbers(&read(&text, name, 0)), [vec![1, 2], vec![3], vec![4], vec![5, 6]], "{name}");
        }
        assert_eq!(numbers(&read(&text, "a.ndjson", 4)), [vec![4], vec![5, 6]]);
    }

    #[test]
    fn a_batch_ends_at_its_bounds() {
        let text = "{\"specversion\":\"1.0\"}\n".repeat(2_500);
        let sizes: Vec<usize> = numbers(&read(&text, "a.jsonl", 0)).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1_000, 1_000, 500]);
        let long = format!("{{\"specversion\":\"1.0\",\"data\":\"{}\"}}\n", "x".repeat(900_000)).repeat(5);
        let sizes: Vec<usize> = numbers(&read(&long, "a.jsonl", 0)).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }
}
