//! How much a question in SQL may take, on the command line and in the environment.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use karat_api::lakehouse::sql::SqlSettings;

/// Bounds of `POST /query`, and the port that asks it for PostgreSQL clients.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Questions in SQL")]
pub struct SqlArgs {
    /// The longest that a question in SQL may take, in seconds.
    #[arg(long, value_name = "SECONDS", env = "KARAT__SERVER__SQL_DEADLINE", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub sql_deadline: u64,
    /// Memory for all questions in SQL that run at a time, in MiB.
    #[arg(long, value_name = "MIB", env = "KARAT__SERVER__SQL_MEMORY", default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub sql_memory: u32,
    /// Questions in SQL that run at a time; further ones are refused.
    #[arg(long, value_name = "NUMBER", env = "KARAT__SERVER__SQL_PARALLEL", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub sql_parallel: u16,
    /// Address for PostgreSQL clients, who log in with an API key, in binaries that are built with the feature `postgres-wire`;
    /// there is no such port when absent.
    #[arg(long, value_name = "ADDR", env = "KARAT__SERVER__POSTGRES_LISTEN")]
    pub postgres_listen: Option<SocketAddr>,
}

impl SqlArgs {
    /// The bounds, with those that are fixed.
    pub fn settings(&self) -> SqlSettings {
        SqlSettings {
            deadline: Duration::from_secs(self.sql_deadline),
            memory_bytes: usize::try_from(u64::from(self.sql_memory) << 20).unwrap_or(usize::MAX),
            parallel: usize::from(self.sql_parallel),
            ..SqlSettings::default()
        }
    }
}
