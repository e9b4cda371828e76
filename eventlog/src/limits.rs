//! The bounds that both logs share, so that a record which one takes is taken by the other.

use crate::{Error, NewRecord, Result, TopicSpec};

/// Largest record: key, headers and payload together. A door takes events of 1 MiB; the rest is room for the
/// attributes, which travel in headers, and for commands. Kafka topics get it as `max.message.bytes`.
pub const MAX_RECORD_BYTES: usize = 2 * 1024 * 1024;

/// Largest append. A door takes requests of 10 MiB.
pub const MAX_APPEND_BYTES: usize = 32 * 1024 * 1024;

/// Checks an append against both limits and gives its size.
pub(crate) fn check_sizes(records: &[NewRecord]) -> Result<usize> {
    let mut total = 0;
    for record in records {
        let size = record.size_bytes();
        if size > MAX_RECORD_BYTES {
            return Err(Error::TooLarge { what: "the record", size, limit: MAX_RECORD_BYTES });
        }
        total += size;
    }
    if total > MAX_APPEND_BYTES {
        return Err(Error::TooLarge { what: "the append", size: total, limit: MAX_APPEND_BYTES });
    }
    Ok(total)
}

/// Kafka's own rule for names, applied to both logs.
pub(crate) fn check_spec(spec: &TopicSpec) -> Result<()> {
    let is_name = (1..=249).contains(&spec.name.len())
        && spec.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && spec.name != "."
        && spec.name != "..";
    if is_name && spec.partitions > 0 && spec.partitions <= i32::MAX.cast_unsigned() {
        Ok(())
    } else {
        Err(Error::InvalidTopic { topic: spec.name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn spec(name: &str, partitions: u32) -> TopicSpec {
        TopicSpec { name: name.into(), partitions, retention: None }
    }

    #[test]
    fn topic_names_follow_the_rule_of_kafka() {
        assert!(check_spec(&spec("karat.events-1_a", 1)).is_ok());
        for bad in [spec("", 1), spec("..", 1), spec("a/b", 1), spec("ä", 1), spec(&"x".repeat(250), 1), spec("a", 0)]
        {
            assert!(check_spec(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_record_above_the_limit_is_refused_with_the_limit() {
        let payload = Bytes::from(vec![0; MAX_RECORD_BYTES + 1]);
        let refused = check_sizes(&[NewRecord { payload, ..NewRecord::default() }]);
        assert!(matches!(refused, Err(Error::TooLarge { limit: MAX_RECORD_BYTES, .. })), "{refused:?}");
    }

    #[test]
    fn an_append_above_the_limit_is_refused_with_the_limit() {
        let record = NewRecord { payload: Bytes::from(vec![0; MAX_RECORD_BYTES]), ..NewRecord::default() };
        let refused = check_sizes(&vec![record; MAX_APPEND_BYTES / MAX_RECORD_BYTES + 1]);
        assert!(matches!(refused, Err(Error::TooLarge { limit: MAX_APPEND_BYTES, .. })), "{refused:?}");
    }
}
