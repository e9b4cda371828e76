//! What librdkafka's errors mean for a caller of the log.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::{Error, MAX_RECORD_BYTES};

/// Translates an error code. `topic` names it where that matters.
pub(super) fn from_code(action: &'static str, topic: &str, code: Code) -> Error {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownTopicId | Code::UnknownPartition => {
            Error::UnknownTopic { topic: topic.into() }
        }
        Code::InvalidTopic => Error::InvalidTopic { topic: topic.into() },
        Code::QueueFull => Error::Busy,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            Error::TooLarge { what: "a record", size: MAX_RECORD_BYTES, limit: MAX_RECORD_BYTES }
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::Authentication
        | Code::TopicDeletionDisabled
        | Code::InvalidReplicationFactor
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::InvalidRecord
        | Code::PolicyViolation => Error::Refused { action, reason: code.to_string() },
        other => Error::Unavailable { reason: format!("could not {action}: {other}") },
    }
}

/// Translates any error of the client.
pub(super) fn from_client(action: &'static str, topic: &str, error: KafkaError) -> Error {
    match error {
        // The value is left out on purpose: it may be a secret.
        KafkaError::ClientConfig(_, reason, key, _) => Error::Setting { key, reason },
        other => match other.rdkafka_error_code() {
            Some(code) => from_code(action, topic, code),
            None => Error::internal(format!("kafka could not {action}"), other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_are_retriable_and_refusals_are_not() {
        let retriable = |code| from_code("append", "t", code).is_retriable();
        for code in [Code::MessageTimedOut, Code::AllBrokersDown, Code::NotEnoughReplicas, Code::QueueFull] {
            assert!(retriable(code), "{code}");
        }
        for code in [Code::TopicAuthorizationFailed, Code::MessageSizeTooLarge, Code::UnknownTopicOrPartition] {
            assert!(!retriable(code), "{code}");
        }
    }
}
