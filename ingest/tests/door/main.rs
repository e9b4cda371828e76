//! The HTTP door from outside: a whole application over a temporary embedded log and accounts store.

mod app;
mod forms;
mod hostile;
mod progress;
mod receipts;
mod rights;
mod trouble;
