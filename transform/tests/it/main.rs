//! The transform crate as a whole: events through the embedded log to gold, with a real lake.

// Helpers of tests are tests: what fails there fails the case.
#![allow(clippy::unwrap_used)]

mod airline;
mod bad_input;
#[cfg(debug_assertions)]
mod checkpoints;
#[cfg(debug_assertions)]
mod crash_points;
#[cfg(debug_assertions)]
mod disk;
mod drift;
mod event_log;
mod faults;
#[cfg(debug_assertions)]
mod judged;
#[cfg(debug_assertions)]
mod maintenance;
#[cfg(debug_assertions)]
mod owners;
mod pauses;
mod profits;
mod random_gold;
mod references;
mod second_pipeline;
mod support;
mod topics;
