//! How many events of a batch are in quarantine (spec P6).
//!
//! Nothing is kept for it: the quarantine tables carry the receipt of each record, and the offsets of the batch say which
//! files to look at. Few look at once, and nobody waits long.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    time::Duration,
};

use futures::TryStreamExt;
use karat_lake::{
    Lake, Table,
    datafusion::{
        logical_expr::{col, lit},
        prelude::SessionContext,
    },
};
use tokio::{sync::Semaphore, time::timeout};

use crate::snapshot::Columns;

/// Looks at a time: each opens a table and reads a few columns of some of its files.
const PARALLEL_LOOKS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);

/// What goes wrong with a look is for the log alone.
type Looked<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Offsets of a batch by partition: from the first up to before the next. Records of others may lie between.
pub type Spans = BTreeMap<u32, Range<i64>>;

/// The quarantine tables of an installation.
pub struct Quarantine {
    lake: Lake,
    /// Topics, each with the table of one of its pipelines.
    tables: Vec<(String, String)>,
    looks: Semaphore,
}

impl Quarantine {
    /// `tables` are topics, each with the full name of the quarantine table of one of its pipelines.
    pub fn new(lake: Lake, tables: Vec<(String, String)>) -> Self {
        Self { lake, tables, looks: Semaphore::new(PARALLEL_LOOKS) }
    }

    /// Events with the receipt `batch` that are in quarantine of any pipeline now, an event once. None when that cannot
    /// be found out in time.
    pub async fn count(&self, batch: &str, topics: &BTreeMap<String, Spans>) -> Option<u64> {
        let look = async {
            let _look = self.looks.acquire().await.ok()?;
            let counted = self.look(batch, topics).await;
            counted.inspect_err(|error| tracing::warn!(%error, "quarantine cannot be read")).ok()
        };
        timeout(PATIENCE, look).await.ok().flatten()
    }

    async fn look(&self, batch: &str, topics: &BTreeMap<String, Spans>) -> Looked<u64> {
        let mut count = 0;
        for (topic, spans) in topics {
            let mut places = HashSet::new();
            for (_, table) in self.tables.iter().filter(|(of, _)| of == topic) {
                match self.lake.open(table).await {
                    Ok(table) => collect(&table, batch, spans, &mut places).await?,
                    Err(karat_lake::Error::UnknownTable(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            count += places.len() as u64;
        }
        Ok(count)
    }
}

/// Adds the places of the batch's rows: at most as many as the batch has events.
async fn collect(table: &Table, batch: &str, spans: &Spans, places: &mut HashSet<(i64, i64)>) -> Looked<()> {
    let (Some(first), Some(next)) = (spans.values().map(|span| span.start).min(), spans.values().map(|s| s.end).max())
    else {
        return Ok(());
    };
    let is_of_batch =
        col("receipt").eq(lit(batch)).and(col("offset").gt_eq(lit(first))).and(col("offset").lt(lit(next)));
    let rows = SessionContext::new().read_table(table.provider().await?)?.filter(is_of_batch)?;
    let mut rows = rows.select_columns(&["partition", "offset"])?.execute_stream().await?;
    while let Some(rows) = rows.try_next().await? {
        let columns = Columns::of(&rows);
        let (partitions, offsets) = (columns.numbers("partition")?, columns.numbers("offset")?);
        places.extend((0..rows.num_rows()).map(|row| (partitions.get_or_0(row), offsets.get_or_0(row))));
    }
    Ok(())
}
