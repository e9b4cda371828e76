//! `karat publish FILE...`: sends the records of files to a server, in batches, resumable.
//!
//! A file is read piece by piece and never held whole; a bounded number of requests is under way. Publishing a file
//! again is safe: an event counts once. Rejected records are named on standard error with their line and reason.

mod batch;
mod framing;
mod item;
mod report;
mod sender;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    sync::atomic::AtomicU64,
    time::Duration,
};

use clap::{Args, ValueEnum};
use futures::{Stream, StreamExt};
use secrecy::SecretString;
use tokio::sync::mpsc;

use self::{
    batch::{Input, Work, read_all},
    item::Wrap,
    report::Report,
    sender::{Sender, Sent},
};

/// Publish the records of NDJSON and JSON files, `.gz` included; `-` is standard input.
///
/// Each record is a CloudEvent (it has `specversion`), an OpenLineage event (it has `eventTime` and `producer` or
/// `run`), or, with `--type` and `--source`, plain data that becomes a CloudEvent.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  karat publish examples/openlineage-airline.ndjson.gz\n  \
                        karat publish runs.json --type etl.run.finished --source /crm --id-field run_id --format json")]
pub struct PublishArgs {
    /// Files to publish, in this order.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Address of the server.
    #[arg(long, default_value = "http://127.0.0.1:8080", env = "KARAT_URL")]
    url: String,
    /// API key or access token.
    #[arg(long, env = "KARAT_KEY", hide_env_values = true)]
    key: Option<SecretString>,
    /// Event type of plain data.
    #[arg(long = "type", value_name = "TYPE", requires = "source")]
    event_type: Option<String>,
    /// CloudEvents source of plain data.
    #[arg(long, requires = "event_type")]
    source: Option<String>,
    /// Field of plain data that is the id; without it the id is the SHA-256 of the canonical data.
    #[arg(long, value_name = "FIELD", requires = "event_type")]
    id_field: Option<String>,
    /// Starts at this line (or item) of the only file, counted from 1.
    #[arg(long, value_name = "N", default_value_t = 1)]
    from_line: u64,
    /// Requests under way at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    /// Seconds for which a batch that the server does not take is tried again.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    retry_for: u64,
    /// Form of the summary: JSON goes to standard output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Form of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Why publishing stopped before the end.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
    #[error("cannot read `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The server answers, and will not take these records whatever the number of attempts.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unreachable(String),
    /// Publishing stopped in the middle; everything before the line is settled.
    #[error("{cause}; continue with `--from-line {line}` of `{}`", file.display())]
    Stopped { file: PathBuf, line: u64, cause: Box<Failure> },
}

impl Failure {
    /// The exit code of the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) | Self::Read { .. } => 2,
            Self::Unreachable(_) => 69,
            Self::Stopped { cause, .. } => cause.exit_code(),
        }
    }
}

/// Publishes. Gives 0 when every record was accepted and 1 when some were rejected; prints the summary in any case.
///
/// # Errors
/// When publishing stopped before the end, with its own exit code; the message says where to continue.
pub async fn run(args: PublishArgs) -> Result<ExitCode, Failure> {
    check(&args)?;
    let sender = Sender::new(&args.url, args.key.clone(), Duration::from_secs(args.retry_for))?;
    let concurrency = usize::from(args.concurrency);
    let read_bytes = Arc::new(AtomicU64::new(0));
    let mut report = Report::new(total_bytes(&args.files), read_bytes.clone());
    let (work, received) = mpsc::channel(concurrency);
    let input = Input {
        files: args.files,
        from_line: args.from_line,
        wrap: wrap(args.event_type, args.source, args.id_field),
        read_bytes,
    };
    let reader = tokio::task::spawn_blocking(move || read_all(&input, &work));
    let published = publish_all(&sender, received, concurrency, &mut report).await;
    // The reader ends by itself: nobody receives any more.
    let read = reader.await;
    report.finish(args.format == Format::Json);
    published?;
    match read {
        Ok(Ok(())) => Ok(ExitCode::from(u8::from(report.has_rejected()))),
        Ok(Err((path, source))) => Err(Failure::Read { path, source }),
        Err(error) => Err(Failure::Refused(format!("reading stopped: {error}"))),
    }
}

/// What became of one piece of work, with its place for the case that it failed.
struct Done {
    file: Arc<Path>,
    first: u64,
    result: Result<Sent, Failure>,
}

async fn publish_all(
    sender: &Sender,
    received: mpsc::Receiver<Work>,
    concurrency: usize,
    report: &mut Report,
) -> Result<(), Failure> {
    // In order, so that everything before a failure is settled.
    let mut done = std::pin::pin!(stream_of(received).map(|work| settle(sender, work)).buffered(concurrency));
    while let Some(Done { file, first, result }) = done.next().await {
        match result {
            Ok(sent) => {
                report.add(sent.accepted, sent.duplicates);
                for (number, refusal) in sent.rejected {
                    report.reject(&file, number, refusal);
                }
            }
            Err(cause) => {
                return Err(Failure::Stopped { file: file.to_path_buf(), line: first, cause: Box::new(cause) });
            }
        }
    }
    Ok(())
}

async fn settle(sender: &Sender, work: Work) -> Done {
    match work {
        Work::Refused { file, number, refusal } => {
            let sent = Sent { rejected: vec![(number, refusal)], ..Sent::default() };
            Done { file, first: number, result: Ok(sent) }
        }
        Work::Send(batch) => {
            let result = sender.send(&batch).await;
            Done { first: batch.numbers.first().copied().unwrap_or(1), file: batch.file, result }
        }
    }
}

fn stream_of(received: mpsc::Receiver<Work>) -> impl Stream<Item = Work> {
    futures::stream::unfold(received, |mut received| async { received.recv().await.map(|work| (work, received)) })
}

fn wrap(event_type: Option<String>, source: Option<String>, id_field: Option<String>) -> Option<Wrap> {
    Some(Wrap { event_type: event_type?, source: source?, id_field })
}

fn check(args: &PublishArgs) -> Result<(), Failure> {
    if args.from_line > 1 && args.files.len() > 1 {
        let message = "`--from-line` says where to start in one file, and several are given: publish them one by one";
        return Err(Failure::Usage(message.to_owned()));
    }
    let missing = args.files.iter().find(|file| *file != Path::new("-") && !file.is_file());
    match missing {
        Some(file) => Err(Failure::Usage(format!("`{}` is not a file", file.display()))),
        None => Ok(()),
    }
}

fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    files.iter().map(|file| file.metadata().ok().map(|metadata| metadata.len())).sum()
}
