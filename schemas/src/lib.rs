//! Contracts: what crosses a border of Karat, as types. No I/O beyond reading text that the caller hands in.
//!
//! - [`pipelines`]: `pipelines.toml`, parsed once into types whose existence proves that they are well formed.
//! - [`events`]: JSON Schemas of the event types that ship, compiled validators for declared ones.
//! - [`attributes`]: names of record headers (the CloudEvents Kafka binding and Karat's own).
//! - [`clock`]: the time of this machine, without its jumps.
//! - [`command`]: what the API tells the transform workers.
//! - [`epoch`]: the manifest that names one version of each table, and commit notices.
//! - [`histogram`]: order-free percentiles, as gold stores them and the API folds them.
//! - [`json`]: strict JSON, and its canonical form.
//! - [`trace`]: W3C trace context, and the traces of a step.
//! - [`units`]: durations and sizes as people write them.

pub mod attributes;
pub mod clock;
pub mod command;
pub mod epoch;
pub mod events;
pub mod histogram;
pub mod json;
pub mod pipelines;
pub mod trace;
pub mod units;

/// The topic that announces each committed table version (spec L4).
pub const COMMITS_TOPIC: &str = "karat.commits";
/// The topic of commands to the transform workers (decision 14).
pub const COMMANDS_TOPIC: &str = "karat.commands";
