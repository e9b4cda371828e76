//! Topics: create, delete, describe.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig,
    error::RDKafkaErrorCode,
};
use tokio::time::Instant;

use super::{
    KafkaSettings, MAX_MESSAGE_BYTES, REQUEST_DEADLINE,
    describe::{self, Description},
    failure,
};
use crate::{Error, PartitionRange, Result, TopicInfo, TopicSpec};

/// A created topic has leaders, and a deleted one is gone from every broker, within this or the call fails.
const SETTLE_DEADLINE: Duration = Duration::from_secs(20);
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Admin {
    client: Arc<AdminClient<DefaultClientContext>>,
    replication: u16,
}

impl Admin {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self> {
        let config = settings.client(&[], &[("allow.auto.create.topics", "false")]);
        let client = AdminClient::from_config(&config).map_err(|e| failure::from_client("connect", "", e))?;
        Ok(Self { client: Arc::new(client), replication: settings.replication.max(1) })
    }

    /// Asks any broker who the cluster is.
    pub(super) async fn check_reachable(&self) -> Result<()> {
        self.blocking(|client| match client.inner().fetch_cluster_id(REQUEST_DEADLINE) {
            Some(_) => Ok(()),
            None => Err(Error::Unavailable { reason: "no broker answered in time".into() }),
        })
        .await
    }

    pub(super) async fn ensure_topic(&self, spec: &TopicSpec) -> Result<()> {
        match self.describe(&spec.name).await {
            Err(Error::UnknownTopic { .. }) => self.create_topic(spec).await,
            other => other.map(drop),
        }
    }

    async fn create_topic(&self, spec: &TopicSpec) -> Result<()> {
        const ACTION: &str = "create a topic";
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let retention_ms = spec.retention.map_or("-1".to_owned(), |keep| keep.as_millis().to_string());
        let max_bytes = MAX_MESSAGE_BYTES.to_string();
        // With three replicas, one may be away while an acknowledged record is still on two.
        let in_sync = if self.replication >= 3 { "2" } else { "1" };
        let topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(self.replication.into()))
            .set("retention.ms", &retention_ms)
            .set("max.message.bytes", &max_bytes)
            .set("message.timestamp.type", "LogAppendTime")
            .set("min.insync.replicas", in_sync);
        let options =
            AdminOptions::new().request_timeout(Some(REQUEST_DEADLINE * 2)).operation_timeout(Some(REQUEST_DEADLINE));
        let created = self.client.create_topics([&topic], &options).await;
        for result in created.map_err(|e| failure::from_client(ACTION, &spec.name, e))? {
            match result {
                // Another process was faster: its topic is as good.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(failure::from_code(ACTION, &spec.name, code)),
            }
        }
        self.settle(&spec.name, true).await
    }

    pub(super) async fn delete_topic(&self, name: &str) -> Result<()> {
        const ACTION: &str = "delete a topic";
        let options =
            AdminOptions::new().request_timeout(Some(REQUEST_DEADLINE * 2)).operation_timeout(Some(REQUEST_DEADLINE));
        let deleted = self.client.delete_topics(&[name], &options).await;
        for result in deleted.map_err(|e| failure::from_client(ACTION, name, e))? {
            result.map_err(|(_, code)| failure::from_code(ACTION, name, code))?;
        }
        self.settle(name, false).await
    }

    /// Waits until the topic is usable, or gone: brokers learn of a change one after another.
    async fn settle(&self, name: &str, is_wanted: bool) -> Result<()> {
        let deadline = Instant::now() + SETTLE_DEADLINE;
        loop {
            match self.topic(name).await {
                Ok(_) if is_wanted => return Ok(()),
                Err(Error::UnknownTopic { .. }) if !is_wanted => return Ok(()),
                Err(error) if !error.is_retriable() && !matches!(error, Error::UnknownTopic { .. }) => {
                    return Err(error);
                }
                _ if Instant::now() >= deadline => {
                    let wanted = if is_wanted { "created" } else { "deleted" };
                    return Err(Error::Unavailable { reason: format!("topic `{name}` is not {wanted} yet") });
                }
                _ => tokio::time::sleep(SETTLE_PAUSE).await,
            }
        }
    }

    pub(super) async fn describe(&self, name: &str) -> Result<Description> {
        let name = name.to_owned();
        self.blocking(move |client| describe::describe(client.inner(), &name, REQUEST_DEADLINE)).await
    }

    pub(super) async fn topic(&self, name: &str) -> Result<TopicInfo> {
        let name = name.to_owned();
        self.blocking(move |client| {
            let Description { id, partitions } = describe::describe(client.inner(), &name, REQUEST_DEADLINE)?;
            let range = |partition: u32| {
                let number = partition.cast_signed();
                client
                    .inner()
                    .fetch_watermarks(&name, number, REQUEST_DEADLINE)
                    .map(|(begin, end)| PartitionRange { begin, end })
                    .map_err(|e| failure::from_client("ask for offsets", &name, e))
            };
            let partitions = (0..partitions).map(range).collect::<Result<_>>()?;
            Ok(TopicInfo { name, id, partitions })
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&AdminClient<DefaultClientContext>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let client = self.client.clone();
        tokio::task::spawn_blocking(move || ask(&client))
            .await
            .map_err(|e| Error::internal("a question to the broker was broken off", e))?
    }
}
