//! The rows that a step appends, on their way to files while the rest of the step is computed.
//!
//! Encoding them takes about as long as bringing gold up to date, and neither needs the other. No version names a file before
//! the step's commit does.

use std::collections::HashMap;

use karat_lake::{DataFile, Staging, arrow::array::RecordBatch};
use tokio::task::JoinSet;

use crate::Result;

/// Files of one step, being written. Dropping it ends the work: the tables may be on their way out.
pub struct Appending {
    tables: HashMap<String, Staging>,
    writing: JoinSet<Result<(String, Option<DataFile>)>>,
}

impl Appending {
    /// Of the tables that take the step's rows.
    pub(crate) fn new(tables: HashMap<String, Staging>) -> Self {
        Self { tables, writing: JoinSet::new() }
    }

    /// Begins to write the rows of a table, all of them; nothing for a table that does not take any.
    pub(crate) fn begin(&mut self, table: &str, rows: RecordBatch) {
        let Some(staging) = self.tables.get(table).cloned() else { return };
        let table = table.to_owned();
        self.writing.spawn(async move {
            let file = staging.stage("part", &[], &[rows]).await?;
            Ok((table, file))
        });
    }

    /// Waits for the files, by table.
    pub(crate) async fn written(mut self) -> Result<HashMap<String, DataFile>> {
        let mut files = HashMap::new();
        while let Some(written) = self.writing.join_next().await {
            let (table, file) = written??;
            files.extend(file.map(|file| (table, file)));
        }
        Ok(files)
    }
}
