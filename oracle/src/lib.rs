//! The judge of every test with faults: was anything lost, is anything there twice?
//!
//! A test keeps a [`Ledger`] of what it sent and what it was told; [`judge`] reads the tables and compares. It knows
//! nothing of how the engine works, only what was promised (docs/DURABILITY.md):
//! - an acknowledged record is in bronze, once for each acknowledgement, with the bytes that were sent;
//! - a refused one is not there; one without an answer is there once or not at all;
//! - bronze has each place of the log once and no gap, and its recorded positions never fall;
//! - of the bronze rows of one event exactly one is in silver or in quarantine, the others are its duplicates; and nothing
//!   else is there.
//!
//! A [`LogCopy`] says in addition whether the log has an event that is missing, and that bronze has in each place what the
//! log has there.
//!
//! That gold equals a recomputation is for `verify` to say: [`Verdict::differs`] takes what it found.
//!
//! [`databases`] makes a database for each test of the accounts, on a server when one is named; [`Redis`] is a server for limits.
//! [`plain_http`] is what stand-ins for services on the web speak, [`passkeys`] an authenticator and its browser.
//!
//! [`Proxy`] is a door in front of a broker through which answers get lost, [`s3::Door`] one in front of an S3 server.
//!
//! *Identity* is the pair of `source` and `id` of an event; an *event* here is an identity with a payload.

pub mod databases;
mod ledger;
mod log;
pub mod passkeys;
pub mod plain_http;
mod proxy;
mod redis;
pub mod s3;
mod tables;
mod verdict;

pub use self::{
    ledger::{Ledger, Outcome},
    log::LogCopy,
    proxy::{Proxy, Weather},
    redis::Redis,
    tables::{Error, Watched},
    verdict::Verdict,
};

use karat_lake::Lake;

/// Compares the tables with what the ledger says of them, and with what the log holds when a copy of it is given.
///
/// # Errors
/// A table that cannot be read.
pub async fn judge(lake: &Lake, watched: &Watched, ledger: &Ledger, log: Option<&LogCopy>) -> Result<Verdict, Error> {
    let bronze = tables::Bronze::read(lake, &watched.bronze).await?;
    let mut verdict = Verdict::default();
    ledger.compare(&bronze, log, &mut verdict);
    if let Some(log) = log {
        log.compare(&bronze, &mut verdict);
    }
    bronze.compare_places(&mut verdict);
    tables::compare_positions(lake, &watched.bronze, &mut verdict).await?;
    tables::compare_refined(lake, watched, &bronze, &mut verdict).await?;
    Ok(verdict)
}
