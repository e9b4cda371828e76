//! From events to gold: bronze, silver, quarantine, gold, epochs, replay.

pub mod bronze;
pub mod decode;
mod error;
pub mod functions;
pub mod gold;
pub mod plan;
pub mod publish;
pub mod query;
pub mod rebuild;
pub mod runner;
pub mod silver;
pub mod state;
pub mod step;
pub mod tables;
pub mod value;
pub mod verify;
pub mod worker;

pub use error::{Error, Result};
