//! One way to speak to SQLite, PostgreSQL and MySQL or MariaDB.
//!
//! Statements are written once, in the SQL that the three have in common: `?` for values, no `RETURNING`, text and
//! whole numbers only. Each engine keeps its own typed pool, and [`Row`] reads its columns with that engine's types, so
//! that a value which does not fit is an error and never a guess.
//!
//! # Guarantees
//! * A [`Tx`] holds what it read with [`Tx::rows_locked`] against every other writer until it ends.
//! * Statements of a [`Tx`] run in the order in which they were given, also those for later ([`Tx::later`]).
//! * Changes and audit rows are written at the end of [`Tx::commit`], under one lock: their numbers are in the order
//!   of their commits, on every engine.

mod database;
mod migrations;
mod transaction;
mod value;

pub(crate) use database::Database;
pub use migrations::Schema;
pub(crate) use transaction::Tx;
pub(crate) use value::{Row, Value, args};
