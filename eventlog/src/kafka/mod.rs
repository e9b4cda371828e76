//! The log on Apache Kafka, through librdkafka.
//!
//! - Append: idempotent producer with `acks=all`; an append is answered when the broker has acknowledged every record of
//!   it. A broker alone keeps acknowledged records through its own crash, but fsyncs them later: surviving a power cut
//!   takes a replication of three or more, for which topics are created with `min.insync.replicas=2`.
//! - Topics are created with the declared partitions, and stamped by the broker. A record's key decides its partition as
//!   Java clients decide it, so keys keep their order whoever publishes.
//! - Read: a consumer group with cooperative rebalancing. Positions are asked for whenever partitions are assigned
//!   (spec L2); broker-side offsets are written for lag displays and never read.
//! - Topic identity is the broker's topic id (spec L3); brokers before 2.8 have none and show the zero id.
//!
//! A topic that does not exist is never created by appending to it.

mod admin;
mod bundle;
mod consumer;
mod describe;
mod failure;
mod partitioner;
mod producer;
mod reader;
mod rebalance;
mod stuck;

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use rdkafka::ClientConfig;

use self::{admin::Admin, producer::Producer, stuck::Tried};
use crate::{
    Consumer, ConsumerSettings, EventLog, MAX_RECORD_BYTES, NewRecord, Position, Result, TopicInfo, TopicSpec, Waiting,
    limits,
};

/// Deadline of one question to the brokers.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Longest pause between two attempts to reach a broker that is away, in milliseconds. librdkafka's ten seconds would come on
/// top of every outage, for each client of a process one after another.
const RECONNECT_AT_MOST_MS: &str = "1000";
/// Connections are kept to every broker. Where librdkafka opens them when they are needed, a question about a topic asks again
/// whenever an attempt has failed, which cuts the pause short: with no broker, a processor is busy until one is back.
const CONNECT_WHEN_ASKED: &str = "false";
/// A largest record with what the protocol adds to it.
const MAX_MESSAGE_BYTES: usize = MAX_RECORD_BYTES + 64 * 1024;

/// How to reach the brokers.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port`, comma-separated.
    pub bootstrap: String,
    /// librdkafka properties passed through as they are: TLS, SASL, tuning. They cannot weaken what the log promises:
    /// acknowledgements, idempotence and the handling of offsets are set after them.
    pub properties: BTreeMap<String, String>,
    /// Replicas of the topics that are created.
    pub replication: u16,
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of properties may be secrets.
        f.debug_struct("KafkaSettings")
            .field("bootstrap", &self.bootstrap)
            .field("properties", &self.properties.keys())
            .field("replication", &self.replication)
            .finish()
    }
}

impl KafkaSettings {
    /// `defaults`, then the operator's properties, then `fixed`.
    fn client(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "karat");
        config.set("reconnect.backoff.max.ms", RECONNECT_AT_MOST_MS);
        config.set("enable.sparse.connections", CONNECT_WHEN_ASKED);
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        for (key, value) in fixed {
            config.set(*key, *value);
        }
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }
}

/// A connection to the brokers.
pub struct KafkaLog {
    settings: KafkaSettings,
    admin: Admin,
    producer: Producer,
    tried: Tried,
}

impl KafkaLog {
    /// Connects. [`crate::Error::Unavailable`] when no broker answers within ten seconds.
    pub async fn connect(settings: KafkaSettings) -> Result<Self> {
        let admin = Admin::new(&settings)?;
        admin.check_reachable().await?;
        Ok(Self { producer: Producer::new(&settings)?, admin, settings, tried: Tried::default() })
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        limits::check_spec(spec)?;
        self.admin.ensure_topic(spec).await
    }

    async fn delete_topic(&self, name: &str) -> Result<()> {
        self.producer.forget(name);
        self.admin.delete_topic(name).await
    }

    async fn topic(&self, name: &str) -> Result<TopicInfo> {
        self.admin.topic(name).await
    }

    async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        limits::check_sizes(&records)?;
        if !self.producer.knows(topic) {
            self.admin.describe(topic).await?;
            self.producer.remember(topic);
        }
        self.producer.append(topic, &records).await
    }

    fn waiting(&self) -> Waiting {
        Waiting { records: Some(self.producer.in_flight()), bytes: None }
    }

    fn partition_of(&self, key: &[u8], partitions: u32) -> u32 {
        partitioner::partition_of(key, partitions)
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>> {
        let topic = self.admin.describe(&settings.topic).await?;
        let tried = Tried::clone(&self.tried);
        Ok(Box::new(consumer::KafkaConsumer::open(&self.settings, settings, topic.id, tried)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_pass_through_but_cannot_weaken_the_log() {
        let properties = [("linger.ms", "50"), ("acks", "0"), ("sasl.password", "s3cret")];
        let settings = KafkaSettings {
            bootstrap: "127.0.0.1:1".into(),
            properties: properties.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            replication: 1,
        };
        let config = settings.client(&[("linger.ms", "3")], &[("acks", "all")]);
        assert_eq!((config.get("linger.ms"), config.get("acks")), (Some("50"), Some("all")));
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}
