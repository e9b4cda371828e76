//! Writes the data files of a table, apart from the handle that commits them.

use deltalake::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    logstore::ObjectStoreRef,
};
use url::Url;

use super::DataFile;
use crate::{
    Result, crash,
    files::{self, FileSpec, write_file},
};

/// Writes files of one table, also while its handle is at work elsewhere. No version names them until a commit does.
#[derive(Clone)]
pub struct Staging {
    pub(super) table: String,
    pub(super) url: Url,
    pub(super) store: ObjectStoreRef,
    /// The schema without the partition columns.
    pub(super) file_schema: SchemaRef,
    pub(super) stats_columns: Vec<String>,
}

impl Staging {
    /// Writes rows to one data file; none when there are no rows.
    ///
    /// `prefix` starts the file's name; `partition` gives the value of each partition column, whose column the rows
    /// need not have.
    pub async fn stage(
        &self,
        prefix: &str,
        partition: &[(String, String)],
        batches: &[RecordBatch],
    ) -> Result<Option<DataFile>> {
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(None);
        }
        let batches = batches.iter().map(|batch| files::conform(&self.table, &self.file_schema, batch));
        let batches = batches.collect::<Result<Vec<_>>>()?;
        let spec = FileSpec { table: &self.table, prefix, partition, stats_columns: &self.stats_columns };
        crash::point(&self.url, "file.before").await;
        let add = write_file(&self.store, &spec, batches).await?;
        crash::point(&self.url, "file.after").await;
        Ok(Some(DataFile::from(add)))
    }
}
