//! What can go wrong with the log.
//!
//! Two questions matter to a caller, and both have an answer here: is it worth trying again
//! ([`Error::is_retriable`]), and is the position that we hold still in the log ([`Error::OffsetOutOfRange`],
//! [`Error::TopicRecreated`], [`Error::LogReplaced`]). After any failed append the outcome is unknown: some records may be in the log.

use std::path::PathBuf;

use thiserror::Error;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Error)]
pub enum Error {
    #[error("topic `{topic}` does not exist")]
    UnknownTopic { topic: String },

    #[error("topic name `{topic}` is not allowed: 1 to 249 letters, digits, `.`, `_` or `-`, at least one partition")]
    InvalidTopic { topic: String },

    /// The queue in front of the log is full. Nothing of the append was taken by the embedded log.
    #[error("the event log is busy: its queue is full, try again in a moment")]
    Busy,

    /// A record, or a whole append, is larger than the log takes.
    #[error("{what} has {size} bytes and the event log takes at most {limit}")]
    TooLarge { what: &'static str, size: usize, limit: usize },

    /// The log does not answer now.
    #[error("the event log cannot be reached: {reason}")]
    Unavailable { reason: String },

    /// The log does not hold the position that the table wants next: records are missing, or the topic is another one.
    #[error(
        "offset {wanted} of `{topic}` partition {partition} is not in the log, which holds {begin} up to {end}: if the records \
         between are given up, stop every transform process and run `karat topic accept {topic}`, which goes on with what is there"
    )]
    OffsetOutOfRange { topic: String, partition: u32, wanted: i64, begin: i64, end: i64 },

    /// The topic was deleted and created again: positions recorded for the old one mean nothing in it.
    #[error(
        "topic `{topic}` was deleted and created again: its id was `{expected}` and is `{found}`; if that is meant, stop \
         every transform process and run `karat topic accept {topic}`, which goes on with it from its beginning"
    )]
    TopicRecreated { topic: String, expected: String, found: String },

    /// The record before the position is another one than was read there.
    #[error(
        "offset {offset} of `{topic}` partition {partition} holds another record than was read there: the log lost its end, or \
         was put back from a copy, and gave its offsets to other records; what the tables have is safe; stop every transform \
         process and run `karat topic accept {topic}`, which goes on with the first record that they lack"
    )]
    LogReplaced { topic: String, partition: u32, offset: i64 },

    /// A write or an fsync failed. What is on disk is only known after the log has been opened again.
    #[error("the event log stopped after a failed write and takes nothing more: check the disk, then restart")]
    Poisoned,

    /// Another process has the folder of the embedded log open.
    #[error("the event log in `{}` is open in another process: stop that one, or use another folder", path.display())]
    Locked { path: PathBuf },

    /// Stored bytes do not read back.
    #[error("the event log is damaged: {detail}")]
    Damaged { detail: String },

    /// A client setting that librdkafka refuses. The value is left out: it may be a secret.
    #[error("kafka setting `{key}` was refused: {reason}")]
    Setting { key: String, reason: String },

    /// The broker refuses for good: authorization, authentication, a policy.
    #[error("the broker refused to {action}: {reason}")]
    Refused { action: &'static str, reason: String },

    /// Anything else, with its cause.
    #[error("{context}: {source}")]
    Internal { context: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Error {
    /// Wraps a foreign failure, for example one of the table that answers [`crate::StartPositions`].
    pub fn internal(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal { context: context.into(), source: source.into() }
    }

    /// True when the same call may succeed later without anyone doing something.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Busy | Self::Unavailable { .. } => true,
            Self::UnknownTopic { .. }
            | Self::InvalidTopic { .. }
            | Self::TooLarge { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::TopicRecreated { .. }
            | Self::LogReplaced { .. }
            | Self::Poisoned
            | Self::Locked { .. }
            | Self::Damaged { .. }
            | Self::Setting { .. }
            | Self::Refused { .. }
            | Self::Internal { .. } => false,
        }
    }
}
