//! Writes seeded events of ETL runs, one a line, and their totals as JSON on standard error.
#![allow(clippy::print_stdout)]

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use chrono::NaiveDate;
use clap::Parser;
use karat_benches::{
    Error, Result, exit_code,
    generate::{Generator, Plan, Shape},
};

/// Writes seeded events of ETL runs, one a line: the same options give the same bytes. Totals go to standard error.
#[derive(Parser)]
struct Options {
    /// Distinct good events.
    #[arg(long, default_value_t = 100_000)]
    count: u64,
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    sources: u32,
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// Share of events that are sent a second time.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    duplicates: f64,
    /// Extra bad events, as a share of the good ones.
    #[arg(long, default_value_t = 0.005, value_parser = share)]
    bad: f64,
    /// Share of events that come late.
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    out_of_order: f64,
    /// How many events late they come at most.
    #[arg(long, default_value_t = 10_000)]
    delay: u64,
    /// Days over which the runs are spread.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// The first day.
    #[arg(long, default_value = "2026-01-01")]
    start: NaiveDate,
    /// Draw the ids of the runs from so many, so that runs come again with other figures; each has its own when absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    keys: Option<u64>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_enum, default_value_t = Shape::RunFinished)]
    shape: Shape,
    /// The data alone, without CloudEvents around it.
    #[arg(long)]
    plain: bool,
    /// Where to write; standard output when absent.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    exit_code(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let start_ms = options.start.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis();
    let mut generator = Generator::new(Plan {
        count: options.count,
        sources: options.sources,
        jobs: options.jobs,
        duplicates: options.duplicates,
        bad: options.bad,
        out_of_order: options.out_of_order,
        delay: options.delay,
        days: options.days,
        start_ms,
        keys: options.keys,
        seed: options.seed,
        shape: options.shape,
        with_envelope: !options.plain,
        ..Plan::default()
    });
    let written = match &options.out {
        Some(path) => {
            let file = File::create(path).map_err(Error::file(path))?;
            write_lines(&mut generator, file).map_err(Error::file(path))
        }
        None => write_lines(&mut generator, io::stdout().lock()).map_err(Error::file("standard output")),
    };
    match written {
        // The reader has seen enough, as `head` does.
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        other => other?,
    }
    eprintln!("{}", serde_json::to_string(generator.truth())?);
    Ok(())
}

fn write_lines(generator: &mut Generator, out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    for mut line in generator {
        line.push('\n');
        out.write_all(line.as_bytes())?;
    }
    out.flush()
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(format!("`{text}` must be from 0 to 1")) }
}
