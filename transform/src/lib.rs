//! From events to gold: bronze, silver, quarantine, gold, epochs, replay.

mod appending;
mod batches;
pub mod bronze;
pub mod checkpoint;
mod compaction;
pub mod decode;
mod error;
mod figures;
pub mod fsck;
pub mod functions;
pub mod gold;
mod identities;
pub mod journal;
pub mod maintenance;
mod origin;
mod packed_keys;
mod parallel;
pub mod plan;
pub mod publish;
pub mod query;
pub mod rebuild;
pub mod reference;
mod rows;
pub mod runner;
pub mod shape;
mod shaper;
pub mod silver;
pub mod state;
pub mod step;
pub mod tables;
mod traces;
pub mod value;
pub mod verify;
pub mod worker;

pub use error::{Error, Result};
