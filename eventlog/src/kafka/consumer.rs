//! The consumer as the caller has it: takes bundles from the reading thread, fences revoked partitions.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::{
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::{runtime::Handle, sync::mpsc, time::Instant};

use super::{
    KafkaSettings,
    bundle::{Bundle, IN_FLIGHT},
    failure,
    reader::{Display, Reader},
    rebalance::{Assignment, Shared},
    stuck::Tried,
};
use crate::{Consumer, ConsumerSettings, Error, PollLimits, Polled, Record, Result};

/// How long leaving the group may take.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct KafkaConsumer {
    topic: Arc<str>,
    bundles: mpsc::Receiver<Result<Bundle>>,
    displays: SyncSender<Display>,
    shared: Arc<Shared>,
    is_closed: Arc<AtomicBool>,
    /// Records of an older generation are not valid: their partition was taken away since.
    valid_from: BTreeMap<u32, u64>,
    ready: VecDeque<Record>,
    ready_bytes: usize,
    revoked: Vec<u32>,
    failure: Option<Error>,
}

impl KafkaConsumer {
    /// Joins the group; partitions come with the first polls.
    pub(super) fn open(
        kafka: &KafkaSettings,
        settings: ConsumerSettings,
        topic_id: String,
        tried: Tried,
    ) -> Result<Self> {
        let topic: Arc<str> = settings.topic.into();
        let shared = Arc::new(Shared::default());
        let assignment = Assignment {
            topic: topic.clone(),
            topic_id,
            start: settings.start,
            runtime: Handle::current(),
            shared: shared.clone(),
            places: Mutex::default(),
            failure: Mutex::default(),
        };
        let config = kafka.client(
            &[
                // Latency: an answer with one record after at most this.
                ("fetch.wait.max.ms", "10"),
                ("fetch.message.max.bytes", "4194304"),
                ("queued.min.messages", "100000"),
                ("queued.max.messages.kbytes", "32768"),
                // A killed member gives its partitions back in ten seconds, not in the forty-five of the default.
                ("session.timeout.ms", "10000"),
                // Who comes and goes is noticed at heartbeats.
                ("heartbeat.interval.ms", "1000"),
            ],
            &[
                ("group.id", &settings.group),
                ("partition.assignment.strategy", "cooperative-sticky"),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "error"),
                ("allow.auto.create.topics", "false"),
            ],
        );
        let consumer = BaseConsumer::from_config_and_context(&config, assignment)
            .map_err(|e| failure::from_client("connect", &topic, e))?;
        consumer.subscribe(&[&topic]).map_err(|e| failure::from_client("subscribe", &topic, e))?;
        let (sender, bundles) = mpsc::channel(IN_FLIGHT);
        let (displays, to_display) = sync_channel(IN_FLIGHT);
        let is_closed = Arc::new(AtomicBool::new(false));
        let reader = Reader { consumer, bundles: sender, displays: to_display, is_closed: is_closed.clone(), tried };
        std::thread::Builder::new()
            .name("event-log-reader".into())
            .spawn(move || reader.run())
            .map_err(|e| Error::internal("cannot start the event log's reader", e))?;
        Ok(Self {
            topic,
            bundles,
            displays,
            shared,
            is_closed,
            valid_from: BTreeMap::new(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            revoked: Vec::new(),
            failure: None,
        })
    }

    /// Takes note of revocations, and drops what is held of their partitions.
    fn fence(&mut self) {
        for revocation in self.shared.take_revocations() {
            self.ready.retain(|record| !revocation.partitions.contains(&record.partition));
            self.ready_bytes = self.ready.iter().map(Record::size_bytes).sum();
            for partition in revocation.partitions {
                self.valid_from.insert(partition, revocation.generation);
                self.revoked.push(partition);
            }
        }
    }

    fn accept(&mut self, bundle: Bundle) {
        // First the revocations that came before this bundle: what is held is older than they are, the bundle may not be.
        self.fence();
        let valid_from = &self.valid_from;
        let valid = bundle.into_records(&self.topic).filter_map(|(generation, record)| {
            let is_valid = valid_from.get(&record.partition).is_none_or(|from| *from <= generation);
            is_valid.then_some(record)
        });
        self.ready.extend(valid.inspect(|record| self.ready_bytes += record.size_bytes()));
    }

    /// Moves what is there into `ready`, up to the limits.
    fn collect(&mut self, limits: PollLimits) {
        self.fence();
        while self.failure.is_none() && self.ready.len() < limits.max_records && self.ready_bytes < limits.max_bytes {
            match self.bundles.try_recv() {
                Ok(Ok(bundle)) => self.accept(bundle),
                Ok(Err(error)) => self.failure = Some(error),
                Err(_) => return,
            }
        }
    }

    /// What the limits allow of `ready`; at least one record if there is any.
    fn hand_out(&mut self, limits: PollLimits) -> Polled {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < limits.max_records.max(1) && bytes < limits.max_bytes.max(1) {
            let Some(record) = self.ready.pop_front() else { break };
            bytes += record.size_bytes();
            records.push(record);
        }
        self.ready_bytes -= bytes;
        Polled { records, revoked: std::mem::take(&mut self.revoked) }
    }
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn poll(&mut self, limits: PollLimits) -> Result<Polled> {
        let deadline = Instant::now() + limits.max_wait;
        loop {
            self.collect(limits);
            if !self.ready.is_empty() || !self.revoked.is_empty() {
                return Ok(self.hand_out(limits));
            }
            if let Some(error) = self.failure.take() {
                return Err(error);
            }
            tokio::select! {
                received = self.bundles.recv() => match received {
                    Some(Ok(bundle)) => self.accept(bundle),
                    Some(Err(error)) => self.failure = Some(error),
                    None => return Err(Error::Unavailable { reason: "the consumer has ended: open another".into() }),
                },
                () = self.shared.bell.notified() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(Polled::default()),
            }
        }
    }

    async fn commit_for_display(&mut self, next_offsets: &BTreeMap<u32, i64>) {
        // A full queue means that newer ones are coming anyway.
        drop(self.displays.try_send(next_offsets.iter().map(|(&partition, &offset)| (partition, offset)).collect()));
    }

    async fn close(mut self: Box<Self>) {
        self.is_closed.store(true, Ordering::Release);
        // The channel ends with the thread, which leaves the group before.
        let ended = async { while self.bundles.recv().await.is_some() {} };
        if tokio::time::timeout(LEAVE_DEADLINE, ended).await.is_err() {
            tracing::warn!(topic = %self.topic, "the broker does not answer: the group finds out by itself that we left");
        }
    }
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        // The thread leaves the group by itself, without holding up this one.
        self.is_closed.store(true, Ordering::Release);
    }
}
