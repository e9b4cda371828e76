//! The HTTP door from outside: a whole application over a temporary embedded log and accounts store.

#![allow(clippy::unwrap_used, clippy::type_complexity, reason = "a failing unwrap here is a failing test")]

mod app;
mod consent;
mod forms;
mod hostile;
mod progress;
mod receipts;
mod rights;
mod slow;
mod trouble;
