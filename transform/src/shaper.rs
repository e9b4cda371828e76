//! Shapes bronze batches ahead of the pipeline that takes them.
//!
//! While a pipeline commits one step, the next is already decoded here, on a thread of its own: two processors are busy
//! with one pipeline. A batch that is shaped and never taken, because the pipeline paused or was rebuilt, costs nothing
//! but its work: everything is in bronze.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use karat_schemas::pipelines::Pipeline;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};

use crate::{
    Result,
    batches::join,
    bronze::{self, BronzeBatch},
    shape::{Shaped, Shaping},
};

/// Bronze rows at which a step is full, whether they come from memory or from files: a step holds each of them in several forms.
pub(crate) const STEP_ROWS: usize = 50_000;

/// Shaped rows of the bronze versions after `after`, up to `version`.
pub struct ShapedBatch {
    pub after: u64,
    pub version: u64,
    /// Next offset of the partitions that moved.
    pub positions: BTreeMap<u32, i64>,
    pub shaped: Result<Shaped>,
}

/// Shapes until `batches` ends or nobody takes what is shaped, and only while the pipeline is `owned`. What cannot be planned cannot be opened either, and its
/// pipeline says why: here batches are then only let go.
pub async fn run(
    pipeline: Pipeline,
    declared: Option<Arc<HashSet<String>>>,
    owned: watch::Receiver<bool>,
    mut batches: mpsc::Receiver<BronzeBatch>,
    shaped: mpsc::Sender<ShapedBatch>,
) -> Result<()> {
    let mut shaping = match Shaping::new(&pipeline).await {
        Ok(shaping) => shaping,
        Err(error) => {
            tracing::debug!(pipeline = pipeline.name, %error, "nothing is shaped ahead");
            while batches.recv().await.is_some() {}
            return Ok(());
        }
    };
    let mut waiting = None;
    loop {
        let first = match waiting.take() {
            Some(batch) => batch,
            None => match batches.recv().await {
                Some(batch) => batch,
                None => return Ok(()),
            },
        };
        if !*owned.borrow() {
            // The owner reads it from the files.
            continue;
        }
        let group = Group::collect(first, &mut batches, &mut waiting);
        let declared = declared.clone();
        let (returned, batch) =
            tokio::task::spawn_blocking(move || Handle::current().block_on(group.shape(shaping, declared.as_deref())))
                .await?;
        shaping = returned;
        if shaped.send(batch).await.is_err() {
            return Ok(());
        }
    }
}

/// Batches of consecutive versions.
struct Group {
    after: u64,
    version: u64,
    positions: BTreeMap<u32, i64>,
    batches: Vec<BronzeBatch>,
}

impl Group {
    /// Takes what is there already, without a gap; a batch behind a gap is left in `waiting`.
    fn collect(
        first: BronzeBatch,
        batches: &mut mpsc::Receiver<BronzeBatch>,
        waiting: &mut Option<BronzeBatch>,
    ) -> Self {
        let mut rows = first.rows.num_rows();
        let mut group = Self {
            after: first.version.saturating_sub(1),
            version: first.version,
            positions: first.positions.clone(),
            batches: vec![first],
        };
        while rows < STEP_ROWS {
            let Ok(next) = batches.try_recv() else { break };
            if next.version != group.version + 1 {
                *waiting = Some(next);
                break;
            }
            rows += next.rows.num_rows();
            group.version = next.version;
            group.positions.extend(next.positions.clone());
            group.batches.push(next);
        }
        group
    }

    async fn shape(self, mut shaping: Shaping, declared: Option<&HashSet<String>>) -> (Shaping, ShapedBatch) {
        let rows = join(&bronze::schema(), self.batches.into_iter().map(|batch| batch.rows).collect());
        let shaped = match rows {
            Ok(rows) => shaping.shape(rows, declared).await,
            Err(error) => Err(error),
        };
        (shaping, ShapedBatch { after: self.after, version: self.version, positions: self.positions, shaped })
    }
}
