//! What the doors and the API know of the layers behind them: commit notices, epochs, ends of the log, quarantine.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use karat_api::{health::ReadyCheck, lag::Lag, quarantine::Quarantine, snapshot::Poke};
use karat_eventlog::{ConsumerSettings, EventLog, PollLimits, StartPositions};
use karat_ingest::{Layer, Progress, Receipt, ReceiptSpan};
use karat_lake::{Lake, epochs::Epochs};
use karat_schemas::{
    COMMITS_TOPIC, clock,
    epoch::{Epoch, Notice},
    pipelines::{Pipeline, Pipelines},
};
use karat_transform::{bronze::table_name, plan::quarantine_name};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::ends::Ends;

/// Next offset of each partition.
type Positions = BTreeMap<u32, i64>;

/// How far bronze is by topic, gold by pipeline, and the log by topic.
#[derive(Debug, Clone, Default)]
struct Known {
    bronze: HashMap<String, Positions>,
    gold: HashMap<String, Positions>,
    /// The newest epoch by pipeline.
    epochs: HashMap<String, Newest>,
    /// By pipeline: the bronze version of the last commit that moves positions, of those that its epochs told of.
    moved: HashMap<String, u64>,
}

impl Known {
    /// Takes in the newest epoch of a pipeline of `topic`. Offsets only go up, but where a topic was accepted in the place of
    /// another, or without its lost end, they are given again: bronze then has no more of a partition than the epoch says.
    fn take(&mut self, pipeline: &str, topic: &str, epoch: &Epoch) {
        let covered = epoch.covers();
        let bronze = self.bronze.entry(topic.to_owned()).or_default();
        // An epoch names what moves until its pipeline is there; bronze has gone on by then.
        let moved = epoch.moved.as_ref().filter(|moved| self.moved.get(pipeline) != Some(&moved.bronze_version));
        if let Some(moved) = moved {
            lower(bronze, &moved.positions);
            self.moved.insert(pipeline.to_owned(), moved.bronze_version);
        }
        // The epoch that said what moves was not seen.
        if let Some(before) = self.gold.get(pipeline) {
            let is_back =
                |(partition, next): &(&u32, &i64)| before.get(*partition).is_some_and(|before| *next < before);
            lower(bronze, &covered.iter().filter(is_back).map(|(partition, next)| (*partition, *next)).collect());
        }
        advance(bronze, &covered);
        let newest = Newest {
            number: epoch.epoch,
            as_of_us: epoch.as_of_us,
            written_at_us: epoch.written_at_us,
            is_paused: epoch.paused.is_some(),
        };
        self.epochs.insert(pipeline.to_owned(), newest);
        self.gold.insert(pipeline.to_owned(), covered);
    }
}

/// What figures say of a pipeline's newest epoch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Newest {
    pub number: u64,
    /// Newest event time in it, and when it was written; microseconds since 1970 UTC.
    pub as_of_us: Option<i64>,
    pub written_at_us: i64,
    pub is_paused: bool,
}

/// A pipeline, its newest epoch, and how many records of the log that does not cover, where both are known.
pub struct PipelineLag {
    pub pipeline: String,
    pub newest: Newest,
    pub records: Option<u64>,
    /// When the oldest of them was seen first, microseconds since 1970 UTC.
    pub waiting_since_us: Option<i64>,
}

impl PipelineLag {
    /// How long the oldest record that the newest epoch does not cover has waited at `now_us`; where it was there before this
    /// process, the age of that epoch.
    pub fn lag_us(&self, now_us: i64) -> Option<i64> {
        let written_at_us = (self.newest.number > 0).then_some(self.newest.written_at_us);
        let since_us =
            self.waiting_since_us.or(written_at_us).filter(|_| self.records.is_some_and(|records| records > 0));
        self.records.map(|_| since_us.map_or(0, |since_us| now_us.saturating_sub(since_us).max(0)))
    }
}

/// Follows notices and epochs and answers from memory.
pub struct Watcher {
    log: Arc<dyn EventLog>,
    /// Pipelines by name, with topic and epochs.
    pipelines: Vec<(String, String, Epochs)>,
    known: watch::Sender<Known>,
    /// Of the topic of each pipeline, by its name.
    ends: Mutex<HashMap<String, Ends>>,
    quarantine: Quarantine,
    /// Who follows the epochs of a pipeline, each.
    pokes: Vec<Poke>,
    /// Rung when a notice says that there is an epoch.
    told: Notify,
}

/// How often the ends of the log are read, and epochs that no notice told of.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Watcher {
    pub fn new(
        log: Arc<dyn EventLog>,
        lake: &Lake,
        pipelines: &Pipelines,
        pokes: Vec<Poke>,
    ) -> karat_lake::Result<Arc<Self>> {
        let mut followed = Vec::new();
        for pipeline in &pipelines.pipelines {
            followed.push((pipeline.name.clone(), pipeline.topic.clone(), Epochs::of(lake, &pipeline.name)?));
        }
        let quarantined = |pipeline: &Pipeline| (pipeline.topic.clone(), quarantine_name(&pipeline.name));
        let quarantine = Quarantine::new(lake.clone(), pipelines.pipelines.iter().map(quarantined).collect());
        Ok(Arc::new(Self {
            log,
            quarantine,
            pipelines: followed,
            known: watch::channel(Known::default()).0,
            ends: Mutex::default(),
            pokes,
            told: Notify::new(),
        }))
    }

    /// Follows until it is dropped. A log that does not answer is tried again; what the lake says is read meanwhile.
    pub async fn run(self: Arc<Self>, log: Arc<dyn EventLog>) {
        tokio::join!(self.follow_notices(log.as_ref()), self.follow_epochs(), self.follow_ends());
    }

    async fn follow_notices(&self, log: &dyn EventLog) {
        loop {
            if let Err(error) = self.follow(log).await {
                tracing::warn!(%error, "commit notices cannot be read; epochs are looked for every second");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn follow_epochs(&self) {
        loop {
            self.look().await;
            // A lost notice costs a second.
            drop(tokio::time::timeout(LOOK_EVERY, self.told.notified()).await);
        }
    }

    async fn follow_ends(&self) {
        loop {
            for (name, topic, _) in &self.pipelines {
                if let Ok(info) = self.log.topic(topic).await {
                    let ends = (0..).zip(info.partitions.iter().map(|range| range.end)).collect();
                    let covered = self.known.borrow().gold.get(name).cloned().unwrap_or_default();
                    self.ends.lock().entry(name.clone()).or_default().see(ends, &covered, clock::now_us());
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How far each pipeline is, from memory.
    pub fn pipelines(&self) -> Vec<PipelineLag> {
        let (known, ends) = (self.known.borrow(), self.ends.lock());
        let none = Positions::new();
        let lag = |name: &String| {
            let covered = known.gold.get(name).unwrap_or(&none);
            PipelineLag {
                pipeline: name.clone(),
                newest: known.epochs.get(name).copied().unwrap_or_default(),
                records: ends.get(name).and_then(|ends| ends.records_after(covered)),
                waiting_since_us: ends.get(name).and_then(|ends| ends.waiting_since_us(covered)),
            }
        };
        self.pipelines.iter().map(|(name, ..)| lag(name)).collect()
    }

    /// Whether the log answers, for `/ready`.
    pub fn ready_check(self: &Arc<Self>) -> ReadyCheck {
        let (log, topic) = (Arc::clone(&self.log), COMMITS_TOPIC);
        ReadyCheck::new("log", move || {
            let log = Arc::clone(&log);
            async move { log.topic(topic).await.map(drop).map_err(|error| error.to_string()) }
        })
    }

    async fn follow(&self, log: &dyn EventLog) -> karat_eventlog::Result<()> {
        let start =
            Arc::new(FromEnd(log.topic(COMMITS_TOPIC).await?.partitions.iter().map(|range| range.end).collect()));
        // Every process follows every notice, so each has a group of its own.
        let group = format!("karat-notices-{}", uuid::Uuid::new_v4());
        let mut consumer = log.consumer(ConsumerSettings { group, topic: COMMITS_TOPIC.to_owned(), start }).await?;
        let limits = PollLimits { max_records: 1000, max_bytes: 8 << 20, max_wait: LOOK_EVERY };
        loop {
            let polled = consumer.poll(limits).await?;
            let mut has_epoch = false;
            for record in polled.records {
                match serde_json::from_slice(&record.payload) {
                    Ok(Notice::Bronze { table, positions, .. }) => self.bronze(&table, positions),
                    Ok(Notice::Epoch { .. }) => has_epoch = true,
                    Err(_) => {}
                }
            }
            if has_epoch {
                self.pokes.iter().for_each(|poke| poke.notify_one());
                self.told.notify_one();
            }
        }
    }

    fn bronze(&self, table: &str, positions: Positions) {
        let topic = self.pipelines.iter().map(|(_, topic, _)| topic).find(|topic| table_name(topic) == table);
        let Some(topic) = topic.cloned() else { return };
        self.known.send_modify(|known| advance(known.bronze.entry(topic).or_default(), &positions));
    }

    /// Reads the newest epoch of each pipeline.
    async fn look(&self) {
        for (name, topic, epochs) in &self.pipelines {
            let seen = self.known.borrow().epochs.get(name).map_or(0, |newest| newest.number);
            if let Ok(Some(epoch)) = epochs.newer_than(seen).await {
                self.known.send_modify(|known| known.take(name, topic, &epoch));
            }
        }
    }
}

fn advance(known: &mut Positions, positions: &Positions) {
    for (partition, next) in positions {
        let at = known.entry(*partition).or_insert(0);
        *at = (*next).max(*at);
    }
}

fn lower(known: &mut Positions, positions: &Positions) {
    for (partition, next) in positions {
        known.entry(*partition).and_modify(|at| *at = (*at).min(*next));
    }
}

fn covers(known: Option<&Positions>, positions: &Positions) -> bool {
    positions.iter().all(|(partition, next)| known.and_then(|known| known.get(partition)).is_some_and(|at| at >= next))
}

#[async_trait]
impl Progress for Watcher {
    async fn reached(&self, layer: Layer, topic: &str, positions: &Positions) {
        let mut known = self.known.subscribe();
        let is_reached = |known: &Known| match layer {
            Layer::Logged => true,
            Layer::Bronze => covers(known.bronze.get(topic), positions),
            // Silver and gold of a pipeline become visible together, in its epoch.
            Layer::Silver | Layer::Gold => self
                .pipelines
                .iter()
                .filter(|(_, of, _)| of == topic)
                .all(|(name, ..)| covers(known.gold.get(name), positions)),
        };
        let _ = known.wait_for(is_reached).await;
    }

    async fn quarantined(&self, receipt: &Receipt) -> Option<u64> {
        let spans = |spans: &BTreeMap<u32, ReceiptSpan>| {
            spans.iter().map(|(partition, span)| (*partition, span.first..span.next)).collect()
        };
        let topics = receipt.spans.iter().map(|(topic, of_topic)| (topic.clone(), spans(of_topic))).collect();
        self.quarantine.count(&receipt.batch.to_string(), &topics).await
    }
}

impl Lag for Watcher {
    fn records_after(&self, pipeline: &str, positions: &Positions) -> Option<u64> {
        self.ends.lock().get(pipeline).and_then(|ends| ends.records_after(positions))
    }

    fn waiting_since_us(&self, pipeline: &str, positions: &Positions) -> Option<i64> {
        self.ends.lock().get(pipeline).and_then(|ends| ends.waiting_since_us(positions))
    }
}

/// Notices from before the start say nothing that the newest epoch does not.
struct FromEnd(Vec<i64>);

#[async_trait]
impl StartPositions for FromEnd {
    async fn next_offsets(&self, _topic: &str, partitions: &[u32]) -> karat_eventlog::Result<Positions> {
        let end = |partition: &u32| Some((*partition, *self.0.get(usize::try_from(*partition).ok()?)?));
        Ok(partitions.iter().filter_map(end).collect())
    }
}

#[cfg(test)]
mod tests {
    use karat_schemas::epoch::Moved;

    use super::*;

    fn epoch(number: u64, next: i64, moved: Option<(u64, i64)>) -> Epoch {
        let moved =
            moved.map(|(bronze_version, next)| Moved { bronze_version, positions: BTreeMap::from([(0, next)]) });
        Epoch { epoch: number, positions: BTreeMap::from([(0, next), (1, 9)]), moved, ..Epoch::default() }
    }

    #[test]
    fn bronze_is_not_said_to_have_offsets_that_are_given_again_after_a_topic_was_accepted() {
        let mut known = Known::default();
        let bronze = |known: &Known| known.bronze["t"].clone();
        known.take("p", "t", &epoch(1, 30, None));
        advance(known.bronze.entry("t".to_owned()).or_default(), &BTreeMap::from([(0, 50)]));
        // A pipeline that is behind bronze, as always, takes nothing of it.
        known.take("p", "t", &epoch(2, 40, None));
        assert_eq!(bronze(&known), BTreeMap::from([(0, 50), (1, 9)]));
        // What this pipeline covers does not go back, but bronze does.
        known.take("p", "t", &epoch(3, 40, Some((7, 45))));
        assert_eq!(bronze(&known), BTreeMap::from([(0, 45), (1, 9)]));
        known.take("p", "t", &epoch(4, 40, Some((8, 20))));
        assert_eq!((bronze(&known)[&0], known.gold["p"][&0]), (20, 20));
        // Bronze goes on before the pipeline does, whose next epoch still says what moves.
        advance(known.bronze.entry("t".to_owned()).or_default(), &BTreeMap::from([(0, 25)]));
        known.take("p", "t", &epoch(5, 40, Some((8, 20))));
        assert_eq!((bronze(&known)[&0], known.gold["p"][&0]), (25, 20));
        known.take("p", "t", &epoch(6, 25, None));
        assert_eq!((bronze(&known)[&0], known.gold["p"][&0]), (25, 25));
    }

    #[test]
    fn bronze_goes_back_with_an_epoch_that_covers_less_when_the_one_that_said_why_was_not_seen() {
        let mut known = Known::default();
        known.take("p", "t", &epoch(1, 40, None));
        known.take("p", "t", &epoch(3, 12, None));
        assert_eq!(known.bronze["t"], BTreeMap::from([(0, 12), (1, 9)]));
        assert_eq!(known.epochs["p"].number, 3);
        // One of another pipeline that is behind says nothing of bronze.
        known.take("q", "t", &epoch(1, 5, None));
        known.take("q", "t", &epoch(2, 6, None));
        assert_eq!(known.bronze["t"], BTreeMap::from([(0, 12), (1, 9)]));
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_record_that_waits_and_else_nothing() {
        let newest = Newest { number: 7, written_at_us: 1_000, ..Newest::default() };
        let lag_us = |newest, records, waiting_since_us| {
            PipelineLag { pipeline: "p".to_owned(), newest, records, waiting_since_us }.lag_us(90_000)
        };
        assert_eq!(lag_us(newest, Some(3), Some(80_000)), Some(10_000), "not the age of the epoch");
        assert_eq!(lag_us(newest, Some(3), None), Some(89_000), "they came before this process");
        assert_eq!(lag_us(newest, Some(0), None), Some(0));
        assert_eq!(lag_us(newest, Some(3), Some(95_000)), Some(0), "a clock that was set back");
        assert_eq!(lag_us(newest, None, None), None);
        assert_eq!(lag_us(Newest::default(), Some(3), Some(80_000)), Some(10_000), "before the first epoch");
        assert_eq!(lag_us(Newest::default(), Some(3), None), Some(0));
    }
}
