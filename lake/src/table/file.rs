//! One data file, as the log of its table tells of it.

use std::sync::Arc;

use deltalake::kernel::Add;

/// One data file of a table version.
#[derive(Debug, Clone)]
pub struct DataFile(Arc<Add>);

impl From<Add> for DataFile {
    fn from(add: Add) -> Self {
        Self(Arc::new(add))
    }
}

/// In the tags of a file: checksum of its bytes, so that damage can be told from what was written.
pub(crate) const HASH_TAG: &str = "karatHash";

pub(crate) fn hash_of(bytes: &[u8]) -> String {
    hash_of_parts(&[bytes])
}

/// The same of bytes that follow each other.
pub(crate) fn hash_of_parts(parts: &[&[u8]]) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    parts.iter().for_each(|part| hash.update(part));
    format!("{:016x}", hash.digest())
}

impl DataFile {
    /// A file that no commit names, at `path` below its table, such as `ingest_date=2026-01-31/part-1.parquet`.
    pub(crate) fn unnamed(path: &str, size: u64, partition_by: &[String]) -> Self {
        let values = path.split('/').filter_map(|part| part.split_once('='));
        let values = values.filter(|(column, _)| partition_by.iter().any(|known| known == column));
        Self::from(Add {
            path: path.to_owned(),
            partition_values: values.map(|(column, value)| (column.to_owned(), Some(value.to_owned()))).collect(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            modification_time: super::now_ms(),
            data_change: true,
            stats: None,
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
    }

    /// Checksum of the file as it was written; none in files of older versions.
    pub(crate) fn hash(&self) -> Option<&str> {
        self.0.tags.as_ref()?.get(HASH_TAG)?.as_deref()
    }

    pub(crate) fn add(&self) -> &Arc<Add> {
        &self.0
    }

    /// Path below the table's folder, as the log writes it.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    pub fn size_bytes(&self) -> i64 {
        self.0.size
    }

    /// When the file was written, milliseconds since 1970 UTC.
    pub fn written_at_ms(&self) -> i64 {
        self.0.modification_time
    }

    /// Rows in the file, when its statistics say so.
    pub fn rows(&self) -> Option<u64> {
        let stats: serde_json::Value = serde_json::from_str(self.0.stats.as_deref()?).ok()?;
        stats.get("numRecords")?.as_u64()
    }
}
