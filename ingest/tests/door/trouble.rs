//! The log in trouble: nothing is answered as accepted, and the publisher knows when to come back.

use std::sync::Arc;

use async_trait::async_trait;
use karat_eventlog::{Consumer, ConsumerSettings, Error, EventLog, NewRecord, Position, Result, TopicInfo, TopicSpec};
use serde_json::json;

use crate::app::{App, event};

/// A log that takes nothing, for this reason.
struct Failing(fn() -> Error);

#[async_trait]
impl EventLog for Failing {
    async fn ensure_topic(&self, _: &TopicSpec) -> Result<()> {
        Ok(())
    }

    async fn delete_topic(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn topic(&self, name: &str) -> Result<TopicInfo> {
        Err(Error::UnknownTopic { topic: name.into() })
    }

    async fn append(&self, _: &str, _: Vec<NewRecord>) -> Result<Vec<Position>> {
        Err((self.0)())
    }

    fn partition_of(&self, _: &[u8], _: u32) -> u32 {
        0
    }

    async fn consumer(&self, _: ConsumerSettings) -> Result<Box<dyn Consumer>> {
        Err((self.0)())
    }
}

#[tokio::test]
async fn a_log_that_takes_nothing_is_answered_with_503_and_when_to_come_back() {
    let cases: [(fn() -> Error, &str); 4] = [
        (|| Error::Busy, "log_busy"),
        (|| Error::Unavailable { reason: "secret host".into() }, "log_unavailable"),
        (|| Error::Poisoned, "log_unavailable"),
        (|| Error::UnknownTopic { topic: "karat.events".into() }, "log_unavailable"),
    ];
    for (fault, code) in cases {
        let app = App::start_with(|_| Arc::new(Failing(fault)), None).await;
        let answered = app.publish("events", "application/json", event("1").to_string()).await;
        assert_eq!((answered.status, &answered.body["code"]), (503, &json!(code)));
        assert!(answered.retry_after.unwrap().parse::<u64>().unwrap() >= 1);
        assert!(!answered.body.to_string().contains("secret host"));
    }
}
