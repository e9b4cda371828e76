//! One run, and how it is written, whole or with a fault.

use std::fmt::Write;

use chrono::{DateTime, Datelike, Timelike};

use super::{Plan, random::Random};

/// Which fields a line has, and how they are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Events of type `etl.run.finished`, as the built-in pipelines take them.
    RunFinished,
    /// Events of type `bench.etl_run`: the fields of the comparison with other engines (`pipelines/append.toml`).
    EtlRun,
}

impl Shape {
    pub fn event_type(self) -> &'static str {
        match self {
            Self::RunFinished => "etl.run.finished",
            Self::EtlRun => "bench.etl_run",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Completed,
    Failed,
    Aborted,
}

/// What is wrong with a bad event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The line ends in the middle.
    Truncated,
    MissingField,
    UnknownStatus,
    NegativeCount,
    BadTime,
    FinishBeforeStart,
    /// Text where a number belongs.
    WrongType,
}

impl Fault {
    pub const ALL: [Self; 7] = [
        Self::Truncated,
        Self::MissingField,
        Self::UnknownStatus,
        Self::NegativeCount,
        Self::BadTime,
        Self::FinishBeforeStart,
        Self::WrongType,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::MissingField => "missing_field",
            Self::UnknownStatus => "unknown_status",
            Self::NegativeCount => "negative_count",
            Self::BadTime => "bad_time",
            Self::FinishBeforeStart => "finish_before_start",
            Self::WrongType => "wrong_type",
        }
    }
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct Run {
    id: String,
    source: u64,
    job: u64,
    user: u64,
    pub status: Status,
    pub records_read: u64,
    pub records_failed: u64,
    pub bytes: u64,
    start_ms: i64,
    duration_ms: i64,
    error: Option<&'static str>,
}

const ERRORS: [&str; 5] = [
    "the connection was closed by the other side",
    "no answer within 30 seconds",
    "column amount: a number was expected",
    "too many requests: try again later",
    "a row with this key is there already",
];

impl Run {
    /// A run that starts at `start_ms`. Low sources are busier than high ones, and most runs are short.
    pub fn random(random: &mut Random, plan: &Plan, start_ms: i64) -> Self {
        let sources = u64::from(plan.sources.max(1));
        let source = random.below(sources).min(random.below(sources));
        let status = match random.below(100) {
            0..=92 => Status::Completed,
            93..=96 => Status::Failed,
            _ => Status::Aborted,
        };
        let records_read = 1 + random.long_tailed(16);
        let records_failed = if status == Status::Completed { 0 } else { 1 + random.below(records_read) };
        Self {
            id: match plan.keys {
                None => time_ordered_id(random, start_ms),
                Some(keys) => keyed_id(random.below(keys.max(1)), plan.start_ms),
            },
            source,
            job: random.below(u64::from(plan.jobs.max(1))),
            user: random.below(u64::from(plan.users.max(1))),
            status,
            records_read,
            records_failed,
            bytes: records_read * (80 + random.below(320)),
            start_ms,
            duration_ms: 200 + i64::try_from(random.long_tailed(22)).unwrap_or(0),
            error: (status != Status::Completed).then(|| ERRORS[random.index(ERRORS.len())]),
        }
    }

    /// The line of this run, spoiled by `fault`.
    pub fn line(&self, plan: &Plan, fault: Option<Fault>, random: &mut Random) -> String {
        let mut fields = self.fields(plan.shape);
        if let Some(fault) = fault {
            spoil(&mut fields, fault, random);
        }
        let mut line = String::with_capacity(512);
        if plan.with_envelope {
            let (id, source, kind) = (&self.id, self.source, plan.shape.event_type());
            let _ = write!(
                line,
                r#"{{"specversion":"1.0","id":"{id}","source":"/benches/source-{source:03}","type":"{kind}","time":"{}","datacontenttype":"application/json","data":"#,
                Timestamp(self.start_ms + self.duration_ms)
            );
        }
        write_object(&fields, &mut line);
        if plan.with_envelope {
            line.push('}');
        }
        if fault == Some(Fault::Truncated) {
            // Every character is ASCII, so any place is a border.
            line.truncate(line.len() - 1 - random.index(line.len() / 2));
        }
        line
    }

    fn fields(&self, shape: Shape) -> Vec<(&'static str, Cell)> {
        let (id, job, bytes) = match shape {
            Shape::RunFinished => ("run_id", ("job", "job"), "bytes_written"),
            Shape::EtlRun => ("event_id", ("entity", "entity"), "bytes"),
        };
        let (start_ms, finish_ms) = (self.start_ms, self.start_ms + self.duration_ms);
        vec![
            (id, Cell::Text(self.id.clone())),
            ("source", Cell::Text(format!("source-{:03}", self.source))),
            (job.0, Cell::Text(format!("{}-{:03}", job.1, self.job))),
            ("user_id", Cell::Text(format!("user-{:05}", self.user))),
            ("status", Cell::Word(status_word(self.status, shape))),
            ("records_read", Cell::Number(self.records_read)),
            ("records_written", Cell::Number(self.records_read - self.records_failed)),
            ("records_failed", Cell::Number(self.records_failed)),
            (bytes, Cell::Number(self.bytes)),
            ("started_at", Cell::Time(start_ms)),
            ("finished_at", Cell::Time(finish_ms)),
            ("error", self.error.map_or(Cell::Null, Cell::Word)),
        ]
    }
}

fn status_word(status: Status, shape: Shape) -> &'static str {
    match (status, shape) {
        (Status::Completed, Shape::RunFinished) => "completed",
        (Status::Completed, Shape::EtlRun) => "success",
        (Status::Failed, _) => "failed",
        (Status::Aborted, Shape::RunFinished) => "aborted",
        (Status::Aborted, Shape::EtlRun) => "partial",
    }
}

/// A value that needs no JSON escapes.
enum Cell {
    Null,
    Word(&'static str),
    Text(String),
    Number(u64),
    Negative,
    Time(i64),
}

fn spoil(fields: &mut Vec<(&'static str, Cell)>, fault: Fault, random: &mut Random) {
    let mut set = |name: &str, cell: Cell| {
        if let Some(field) = fields.iter_mut().find(|field| field.0 == name) {
            field.1 = cell;
        }
    };
    match fault {
        Fault::Truncated => {}
        // Id, source, status and start are required in both shapes.
        Fault::MissingField => {
            fields.remove([0, 1, 4, 9][random.index(4)]);
        }
        Fault::UnknownStatus => set("status", Cell::Word("done")),
        Fault::NegativeCount => set("records_failed", Cell::Negative),
        Fault::BadTime => set("started_at", Cell::Word("yesterday")),
        Fault::FinishBeforeStart => {
            if let [.., (_, start), (_, finish), _] = fields.as_mut_slice() {
                std::mem::swap(start, finish);
            }
        }
        Fault::WrongType => set("records_read", Cell::Word("many")),
    }
}

fn write_object(fields: &[(&str, Cell)], out: &mut String) {
    for (index, (name, cell)) in fields.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        let _ = write!(out, "{before}\"{name}\":");
        let _ = match cell {
            Cell::Null => write!(out, "null"),
            Cell::Word(text) => write!(out, "\"{text}\""),
            Cell::Text(text) => write!(out, "\"{text}\""),
            Cell::Number(number) => write!(out, "{number}"),
            Cell::Negative => write!(out, "-1"),
            Cell::Time(millis) => write!(out, "\"{}\"", Timestamp(*millis)),
        };
    }
    out.push('}');
}

/// Milliseconds since 1970 UTC, written as RFC 3339.
pub(crate) struct Timestamp(pub i64);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = DateTime::from_timestamp_millis(self.0).unwrap_or_default();
        let (date, millis) = (time.date_naive(), self.0.rem_euclid(1000));
        write!(out, "{:04}-{:02}-{:02}T", date.year(), date.month(), date.day())?;
        write!(out, "{:02}:{:02}:{:02}.{millis:03}Z", time.hour(), time.minute(), time.second())
    }
}

/// A UUID of version 7 (RFC 9562) whose random bits come from the seed.
fn time_ordered_id(random: &mut Random, start_ms: i64) -> String {
    let (a, b) = (random.next(), random.next());
    uuid(start_ms, a, b)
}

/// The id of one of many things that come again and again.
fn keyed_id(key: u64, start_ms: i64) -> String {
    uuid(start_ms, 0, key)
}

fn uuid(start_ms: i64, a: u64, b: u64) -> String {
    let millis = start_ms.unsigned_abs() & 0xffff_ffff_ffff;
    let variant = 0x8000 | (a >> 16 & 0x3fff);
    format!(
        "{:08x}-{:04x}-7{:03x}-{variant:04x}-{:012x}",
        millis >> 16,
        millis & 0xffff,
        a & 0xfff,
        b & 0xffff_ffff_ffff
    )
}
