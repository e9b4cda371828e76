//! Replays: what is rebuilt from bronze.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::{Args, Subcommand};

use super::{Format, InstanceArgs};

#[derive(Debug, Subcommand)]
pub enum ReplayCommand {
    /// Show what a replay would read and write; changes nothing.
    ///
    /// With an interval it also shows the events of that interval. The rebuild is of the whole tables all the same: a
    /// row may depend on events from before the interval, and what lies outside comes out as it is.
    #[command(
        after_help = "Examples:\n  karat replay plan etl_runs --all\n  karat replay plan etl_runs --from 2026-01-01 --to 2026-02-01 --format json"
    )]
    Plan {
        pipeline: String,
        #[command(flatten)]
        range: ReplayRange,
        #[command(flatten)]
        instance: InstanceArgs,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Rebuild, and swap the tables in one step. Readers and ingestion go on.
    ///
    /// The whole tables are rebuilt, also with an interval: a row may depend on events from before it, and what lies
    /// outside comes out as it is.
    #[command(
        after_help = "Examples:\n  karat replay start etl_runs --all\n  karat replay start etl_runs --from 2026-01-01 --to 2026-02-01"
    )]
    Start {
        pipeline: String,
        #[command(flatten)]
        range: ReplayRange,
        #[command(flatten)]
        instance: InstanceArgs,
    },
}

/// What a replay is for: everything, or the events of an interval.
#[derive(Debug, Clone, Copy, Args)]
pub struct ReplayRange {
    /// The whole history.
    #[arg(long, required_unless_present_any = ["from", "to"], conflicts_with_all = ["from", "to"])]
    pub all: bool,
    /// Event time at which the interval begins: RFC 3339, or a date, which is its start in UTC.
    #[arg(long, value_name = "TIME", value_parser = instant, requires = "to")]
    pub from: Option<DateTime<Utc>>,
    /// Event time before which it ends.
    #[arg(long, value_name = "TIME", value_parser = instant, requires = "from")]
    pub to: Option<DateTime<Utc>>,
}

fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    let midnight = |date: NaiveDate| date.and_time(NaiveTime::MIN).and_utc();
    let date = || text.parse::<NaiveDate>().map(midnight);
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).or_else(|_| date());
    time.map_err(|_| "expected a time such as 2026-01-31T10:00:00Z, or a date such as 2026-01-31".to_owned())
}
