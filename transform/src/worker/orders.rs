//! The orders to the pipelines of this process: records on `karat.commands`.
//!
//! An order is executed by the owner of its pipeline, and counts as executed when its outcome is in the lake; then how far the
//! orders of the partition are executed is written. A crash in between executes one twice, which has the effect of once. One that is given
//! up because the pipeline goes to another process, or the worker stops, is executed by the next owner.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use karat_eventlog::{ConsumerSettings, EventLog, PollLimits};
use karat_lake::{orders::OrderPositions, outcomes::Outcomes};
use karat_schemas::command::{Command, Outcome};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::ownership::Owned;
use crate::{Error, Result, bronze::writer::now_us};

/// Orders that may wait in memory: people give them.
const MOST_ORDERS: usize = 100;

/// How long an order waits that could not be executed, or whose outcome could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes orders until it is told to leave.
pub(super) async fn take_part(
    log: &dyn EventLog,
    settings: ConsumerSettings,
    executor: &Arc<Executor>,
    mut leaving: watch::Receiver<bool>,
) -> Result<()> {
    let mut consumer = log.consumer(settings).await?;
    let limits = PollLimits { max_records: 10, max_bytes: 1 << 20, max_wait: Duration::from_secs(1) };
    let mut waiting: BTreeMap<u32, VecDeque<(i64, Command)>> = BTreeMap::new();
    let mut busy = BTreeSet::new();
    let mut executing = JoinSet::new();
    loop {
        for (partition, queue) in &mut waiting {
            if !busy.contains(partition)
                && let Some((offset, command)) = queue.pop_front()
            {
                busy.insert(*partition);
                let (executor, partition) = (Arc::clone(executor), *partition);
                executing.spawn(async move {
                    let is_done = executor.execute(partition, offset, &command).await;
                    (partition, offset, command, is_done)
                });
            }
        }
        let has_room = waiting.values().map(VecDeque::len).sum::<usize>() < MOST_ORDERS;
        tokio::select! {
            biased;
            _ = leaving.wait_for(|leave| *leave) => break,
            Some(ended) = executing.join_next() => {
                let (partition, offset, command, is_done) = ended?;
                busy.remove(&partition);
                if !is_done && let Some(queue) = waiting.get_mut(&partition)
                    && queue.front().is_none_or(|(next, _)| *next > offset)
                {
                    queue.push_front((offset, command));
                }
            }
            polled = consumer.poll(limits), if has_room => {
                let polled = polled?;
                waiting.retain(|partition, _| !polled.revoked.contains(partition));
                for record in polled.records {
                    match serde_json::from_slice(&record.payload) {
                        Ok(command) => waiting.entry(record.partition).or_default().push_back((record.offset, command)),
                        Err(error) => {
                            tracing::warn!(offset = record.offset, %error, "an order does not parse and is left out");
                        }
                    }
                }
            }
        }
    }
    consumer.close().await;
    Ok(())
}

/// Executes orders.
pub(super) struct Executor {
    pub(super) owned: Owned,
    pub(super) outcomes: Outcomes,
    pub(super) positions: OrderPositions,
    /// Name of the lake.
    pub(super) lake: String,
    /// Whether the worker is stopping.
    pub(super) stop: watch::Receiver<bool>,
}

impl Executor {
    /// Executes one order; false when it is to be tried again, here or by another owner.
    async fn execute(&self, partition: u32, offset: i64, command: &Command) -> bool {
        let executed = match self.carry_out(command).await {
            Ok(true) => self.positions.put(partition, offset + 1).await.map(|()| true).map_err(Error::from),
            other => other,
        };
        let is_done = executed.unwrap_or_else(|error| {
            tracing::warn!(partition, offset, %error, "the outcome of an order is not written; it is tried again");
            false
        });
        if !is_done {
            tokio::time::sleep(AGAIN).await;
        }
        is_done
    }

    async fn carry_out(&self, command: &Command) -> Result<bool> {
        let Command::Replay { pipeline, id, lake } = command;
        if lake.as_ref().is_some_and(|lake| *lake != self.lake) {
            return Ok(true);
        }
        if let Some(id) = id
            && self.outcomes.get(id).await?.is_some()
        {
            return Ok(true);
        }
        let Some(failure) = self.replay(pipeline).await else { return Ok(false) };
        if let Some(id) = id {
            let failure = failure.map(|error| error.for_clients());
            let (id, pipeline) = (id.clone(), pipeline.clone());
            self.outcomes.put(&Outcome { id, pipeline, ended_at_us: now_us(), failure }).await?;
        }
        Ok(true)
    }

    /// How a replay ended; none when the pipeline went to another process first, or the worker stops.
    async fn replay(&self, pipeline: &str) -> Option<Option<Error>> {
        let Some(held) = self.owned.held(pipeline) else {
            return Some(Some(Error::UnknownPipeline(pipeline.to_owned())));
        };
        let mut losing = held.losing();
        let (done, ended) = oneshot::channel();
        let ended = async {
            held.orders.send(done).await.ok()?;
            ended.await.ok()
        };
        let result = tokio::select! {
            biased;
            () = losing.lost() => return None,
            result = ended => result?,
        };
        let is_over = *self.stop.borrow() || !held.is_owned();
        match result {
            Err(Error::ReplayGivenUp) if is_over => None,
            result => Some(result.err()),
        }
    }
}
