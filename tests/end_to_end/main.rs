//! The product as its users meet it: the real binary, driven over HTTP and from the shell, in folders of its own.
//!
//! With `KARAT_TEST_KAFKA=host:port` the main scenario runs on a real broker too.

// Helpers of tests are tests: what fails there fails the case.
#![allow(clippy::unwrap_used)]

mod accounts;
mod bad_input;
#[cfg(debug_assertions)]
mod canary;
mod chaos;
mod chaos_on_kafka;
mod client;
mod clock;
mod consent;
mod crash;
mod dashboard;
mod demo;
mod disk;
mod disks;
mod epochs;
mod failing_calls;
mod fleet;
mod flood;
mod fsck;
mod judged;
mod kafka;
mod limits;
mod load;
mod lost_answers;
mod matrix;
mod memory;
mod observed;
mod on_s3;
mod openapi;
mod owners;
mod power;
mod process;
mod replay;
mod report;
mod sample;
mod settings;
mod shell;
mod soak;
mod stop;
mod topics;
mod vitals;
mod wait;
