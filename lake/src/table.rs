//! One Delta table, held open by its writer or reader.

mod checkpoint;
mod file;
mod follow;
mod history;
mod merged;
mod staging;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicBool},
};

use deltalake::{
    DeltaTable, Path,
    arrow::{
        array::RecordBatch,
        datatypes::{DataType, Schema, SchemaRef},
    },
    datafusion::catalog::TableProvider,
    kernel::{Add, Metadata, MetadataExt, Remove, StructType, engine::arrow_conversion::TryIntoKernel},
    logstore::{LogStoreRef, ObjectStoreRef},
    operations::create::CreateBuilder,
};
use karat_schemas::trace::Traces;
use object_store::ObjectStoreExt;
use url::Url;

pub(crate) use self::file::{HASH_TAG, hash_of, hash_of_parts};
pub use self::{checkpoint::checkpoint_at, file::DataFile, history::VersionSummary, staging::Staging};
use crate::{
    Error, Result,
    commit::{self, Committed, Entry, TransactionId},
    crash,
    read::read_file,
};

/// What a table should be when it is created.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Full name, `layer.table`: also its folder, `layer/table`.
    pub name: String,
    pub schema: SchemaRef,
    pub partition_by: Vec<String>,
    /// Columns with statistics in the log, for file pruning.
    pub stats_columns: Vec<String>,
    pub append_only: bool,
}

/// Says which column of `schema` no table can hold, and why.
///
/// # Errors
/// [`Error::Schema`] with the column and its type.
pub fn require_storable(table: &str, schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        let alone = Schema::new(vec![field.clone()]);
        let converted: std::result::Result<StructType, _> = (&alone).try_into_kernel();
        if converted.is_err() {
            let (name, found) = (field.name(), field.data_type());
            let reason =
                format!("column `{name}` is of type {found}, which a table cannot hold: cast it to text or a number");
            return Err(Error::Schema { table: table.to_owned(), reason });
        }
    }
    Ok(())
}

/// The type with the items of lists under one name: SQL and stored tables call them differently.
fn plain_lists(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => DataType::new_list(plain_lists(item.data_type()), true),
        other => other.clone(),
    }
}

/// What one commit added.
#[derive(Debug, Clone)]
pub struct CommitSummary {
    pub version: u64,
    pub files: Vec<DataFile>,
    pub positions: Vec<TransactionId>,
}

/// A table at the version that this handle knows. Not shared: one owner each (decision 8).
pub struct Table {
    name: String,
    schema: SchemaRef,
    /// The schema without the partition columns: what data files hold.
    file_schema: SchemaRef,
    stats_columns: Vec<String>,
    partition_by: Vec<String>,
    url: Url,
    metadata: Metadata,
    log: LogStoreRef,
    version: u64,
    files: BTreeMap<String, DataFile>,
    /// Those that were moved since the last checkpoint of the log, and those that were asked for.
    transactions: HashMap<String, Option<i64>>,
    /// Whether there are no others.
    knows_every_transaction: bool,
    may_follow_others: bool,
    is_checkpointing: Arc<AtomicBool>,
}

impl Table {
    /// Opens the table at `url`, or creates it. `spec.schema` must equal the stored one in names and types.
    pub async fn open_or_create(url: &Url, spec: &TableSpec) -> Result<Self> {
        crate::stores::register();
        let wrap = |source| Error::storage(&spec.name, source);
        let table = deltalake::DeltaTableBuilder::from_url(url.clone()).map_err(wrap)?.build().map_err(wrap)?;
        if !table.verify_deltatable_existence().await.map_err(wrap)? {
            create(table.log_store(), spec).await?;
        }
        let mut opened = Self::open(url, &spec.name).await?;
        opened.may_follow_others = spec.append_only;
        let columns = |schema: &SchemaRef| -> Vec<_> {
            schema.fields().iter().map(|field| (field.name().clone(), plain_lists(field.data_type()))).collect()
        };
        let (expected, found) = (columns(&spec.schema), columns(&opened.schema));
        if expected != found {
            let reason = format!("the pipeline gives {expected:?}, the table has {found:?}");
            return Err(Error::Schema { table: spec.name.clone(), reason });
        }
        opened.set_schema(spec.schema.clone());
        Ok(opened)
    }

    /// Opens an existing table at its newest version.
    pub async fn open(url: &Url, name: &str) -> Result<Self> {
        Self::open_at(url, name, None).await
    }

    /// Opens an existing table at `version`, or at its newest.
    pub async fn open_at(url: &Url, name: &str, version: Option<u64>) -> Result<Self> {
        crate::stores::register();
        let wrap = |source| Error::storage(name, source);
        let mut table = deltalake::DeltaTableBuilder::from_url(url.clone()).map_err(wrap)?.build().map_err(wrap)?;
        if !table.verify_deltatable_existence().await.map_err(wrap)? {
            return Err(Error::UnknownTable(name.to_owned()));
        }
        match version {
            Some(version) => table.load_version(version).await.map_err(wrap)?,
            None => table.load().await.map_err(wrap)?,
        }
        let log = table.log_store();
        let state = table.snapshot().map_err(wrap)?;
        let mut files = BTreeMap::new();
        for view in state.log_data().iter() {
            // Deprecated in favour of Arrow views of the log; a commit of ours needs the action itself.
            #[allow(deprecated)]
            let add = view.add_action();
            files.insert(add.path.clone(), DataFile::from(add));
        }
        let version = state.version();
        let (metadata, schema) = (state.metadata().clone(), state.snapshot().arrow_schema());
        let stats = metadata.configuration().get("delta.dataSkippingStatsColumns").cloned();
        let mut opened = Self {
            name: name.to_owned(),
            schema: schema.clone(),
            file_schema: schema.clone(),
            stats_columns: stats.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect(),
            partition_by: metadata.partition_columns().to_vec(),
            url: url.clone(),
            metadata,
            log,
            version,
            files,
            transactions: HashMap::new(),
            knows_every_transaction: false,
            may_follow_others: false,
            is_checkpointing: Arc::default(),
        };
        opened.set_schema(schema);
        opened.require_whole_commits().await?;
        Ok(opened)
    }

    fn set_schema(&mut self, schema: SchemaRef) {
        self.file_schema = file_schema_of(&schema, &self.partition_by);
        self.schema = schema;
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the table is.
    pub fn url(&self) -> &Url {
        &self.url
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the table was made, milliseconds since 1970 UTC, if that is known: other writers need not say it.
    pub(crate) fn created_ms(&self) -> Option<i64> {
        self.metadata.created_time()
    }

    /// The files of this version, by path.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &DataFile> {
        self.files.values()
    }

    pub fn file(&self, path: &str) -> Option<&DataFile> {
        self.files.get(path)
    }

    /// The newest position committed for `application`.
    pub async fn position(&mut self, application: &str) -> Result<Option<i64>> {
        let found = self.positions(&[application.to_owned()]).await?;
        Ok(found.first().copied().flatten())
    }

    /// The newest positions committed for `applications`, in their order. Those that this handle has not seen yet are looked for
    /// in the whole log, at once.
    pub async fn positions(&mut self, applications: &[String]) -> Result<Vec<Option<i64>>> {
        let is_unknown = |name: &&String| !self.transactions.contains_key(*name);
        let unknown: Vec<String> = applications.iter().filter(is_unknown).cloned().collect();
        if !unknown.is_empty() && !self.knows_every_transaction {
            let wrap = |source| Error::storage(&self.name, source);
            let snapshot = deltalake::kernel::EagerSnapshot::try_new(self.log.as_ref(), Some(self.version)).await;
            let snapshot = snapshot.map_err(wrap)?;
            for name in unknown {
                let found = snapshot.transaction_version(self.log.as_ref(), &name).await;
                let found = found.map_err(|source| Error::storage(&self.name, source))?;
                self.transactions.insert(name, found);
            }
        }
        Ok(applications.iter().map(|name| self.transactions.get(name).copied().flatten()).collect())
    }

    /// What writes files of this table.
    pub fn staging(&self) -> Staging {
        Staging {
            table: self.name.clone(),
            url: self.url.clone(),
            store: self.log.object_store(None),
            file_schema: self.file_schema.clone(),
            stats_columns: self.stats_columns.clone(),
        }
    }

    /// Appends rows to a table without partition columns and moves positions, in one version.
    pub async fn append(&mut self, batches: &[RecordBatch], positions: &[TransactionId]) -> Result<Committed> {
        let staged = self.staging().stage("part", &[], batches).await?;
        self.commit(Vec::new(), staged.into_iter().collect(), positions).await
    }

    /// Removes the files `removed` (by path), adds `added`, and moves positions, in one version.
    ///
    /// After an error the handle must be thrown away and the table opened again: the outcome may be unknown. Staged
    /// files are never deleted here; vacuum removes what no version names, by age.
    pub async fn commit(
        &mut self,
        removed: Vec<String>,
        added: Vec<DataFile>,
        positions: &[TransactionId],
    ) -> Result<Committed> {
        self.commit_traced(removed, added, positions, &Traces::default()).await
    }

    /// The same, of rows that belong to traces, which the commit names.
    pub async fn commit_traced(
        &mut self,
        removed: Vec<String>,
        added: Vec<DataFile>,
        positions: &[TransactionId],
        traces: &Traces,
    ) -> Result<Committed> {
        let removes = removed.iter().filter_map(|path| self.files.get(path)).map(remove).collect();
        let adds: Vec<Add> = added.iter().map(|file| file.add().as_ref().clone()).collect();
        let entry = Entry {
            table: &self.name,
            partition_by: &self.partition_by,
            adds: &adds,
            removes,
            metadata: None,
            transactions: positions,
            traces,
        };
        crash::point(&self.url, "commit.before").await;
        let committed =
            commit::write(&self.log, &self.log.object_store(None), self.version, &entry, self.may_follow_others)
                .await?;
        crash::point(&self.url, "commit.after").await;
        if self.last_checkpoint().await? >= Some(committed.version()) {
            return self.found_again(&added, positions, committed.version()).await;
        }
        if committed.version() > self.version + 1 || matches!(committed, Committed::Before(_)) {
            self.refresh_to(committed.version()).await?;
        } else {
            for path in &removed {
                self.files.remove(path);
            }
            self.files.extend(added.into_iter().map(|file| (file.path().to_owned(), file)));
        }
        self.version = committed.version();
        for position in positions {
            self.transactions.insert(position.application.clone(), Some(position.version));
        }
        Ok(committed)
    }

    /// Puts `added` in the place of the files `replaced` (by path), with the same rows: no data changes, and no position.
    pub async fn exchange(&mut self, replaced: Vec<String>, added: Vec<DataFile>) -> Result<Committed> {
        let removes = replaced.iter().filter_map(|path| self.files.get(path)).map(remove);
        let removes = removes.map(|remove| Remove { data_change: false, ..remove }).collect();
        let adds: Vec<Add> =
            added.iter().map(|file| Add { data_change: false, ..file.add().as_ref().clone() }).collect();
        let entry = Entry {
            table: &self.name,
            partition_by: &self.partition_by,
            adds: &adds,
            removes,
            metadata: None,
            transactions: &[],
            traces: &Traces::default(),
        };
        crash::point(&self.url, "exchange.before").await;
        let committed = commit::write(&self.log, &self.log.object_store(None), self.version, &entry, false).await?;
        crash::point(&self.url, "exchange.after").await;
        replaced.iter().for_each(|path| drop(self.files.remove(path)));
        self.files.extend(added.into_iter().map(|file| (file.path().to_owned(), file)));
        self.version = committed.version();
        Ok(committed)
    }

    /// Copies a data file of `other` into this table's folder; a commit must name it.
    pub async fn adopt(&self, other: &Self, file: &DataFile) -> Result<DataFile> {
        let path = Path::parse(file.path()).map_err(|error| Error::Damaged {
            table: other.name.clone(),
            file: file.path().to_owned(),
            reason: error.to_string(),
        })?;
        let bytes = other.bytes_of(&path).await?;
        self.log.object_store(None).put(&path, bytes.into()).await?;
        Ok(file.clone())
    }

    pub(crate) async fn bytes_of(&self, path: &Path) -> Result<bytes::Bytes> {
        Ok(self.log.object_store(None).get(path).await?.bytes().await?)
    }

    /// Replaces every file, and the columns when `schema` differs, in one version.
    pub async fn replace_all(
        &mut self,
        schema: &SchemaRef,
        added: Vec<DataFile>,
        positions: &[TransactionId],
    ) -> Result<Committed> {
        let files = self.log.object_store(None);
        self.replace_all_from(&files, schema, added, positions).await
    }

    /// The same, with files that are not beside the log of this table, but in `files`.
    pub(crate) async fn replace_all_from(
        &mut self,
        files: &ObjectStoreRef,
        schema: &SchemaRef,
        added: Vec<DataFile>,
        positions: &[TransactionId],
    ) -> Result<Committed> {
        let names = |schema: &SchemaRef| -> Vec<_> {
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
        };
        let metadata = if names(schema) == names(&self.schema) { None } else { Some(self.metadata_with(schema)?) };
        let removed: Vec<String> = self.files.keys().cloned().collect();
        let adds: Vec<Add> = added.iter().map(|file| file.add().as_ref().clone()).collect();
        let entry = Entry {
            table: &self.name,
            partition_by: &self.partition_by,
            adds: &adds,
            removes: self.files.values().map(remove).collect(),
            metadata,
            transactions: positions,
            traces: &Traces::default(),
        };
        crash::point(&self.url, "replace.before").await;
        let committed = commit::write(&self.log, files, self.version, &entry, false).await?;
        crash::point(&self.url, "replace.after").await;
        removed.iter().for_each(|path| drop(self.files.remove(path)));
        self.files.extend(added.into_iter().map(|file| (file.path().to_owned(), file)));
        self.version = committed.version();
        self.set_schema(schema.clone());
        for position in positions {
            self.transactions.insert(position.application.clone(), Some(position.version));
        }
        Ok(committed)
    }

    fn metadata_with(&self, schema: &SchemaRef) -> Result<Metadata> {
        let invalid = |reason: String| Error::Schema { table: self.name.clone(), reason };
        let schema: StructType = schema.as_ref().try_into_kernel().map_err(|error| invalid(error.to_string()))?;
        let metadata = self.metadata.clone();
        metadata.with_schema(&schema).map_err(|error| invalid(error.to_string()))
    }

    /// Reads one file: the columns of `schema`, or all.
    pub async fn read(&self, file: &DataFile, schema: Option<&SchemaRef>) -> Result<Vec<RecordBatch>> {
        let store = self.log.object_store(None);
        read_file(&self.name, &store, schema.unwrap_or(&self.schema), file).await
    }

    /// Reads every row of this version.
    pub async fn read_all(&self) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for file in self.files.values() {
            rows.extend(self.read(file, None).await?);
        }
        Ok(rows)
    }

    /// This version as a DataFusion table, with file pruning by statistics.
    pub async fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        let wrap = |source| Error::storage(&self.name, source);
        let mut table = DeltaTable::new(self.log.clone());
        table.load_version(self.version).await.map_err(wrap)?;
        table.table_provider().await.map_err(|source| Error::storage(&self.name, source))
    }

    /// Where the file `path` of this table is, for messages.
    pub fn location_of(&self, path: &str) -> Path {
        Path::from(format!("{}/{path}", self.url))
    }
}

/// The columns that data files hold: all but those of the partition.
pub(crate) fn file_schema_of(schema: &SchemaRef, partition_by: &[String]) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| !partition_by.contains(field.name()));
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}

async fn create(log: LogStoreRef, spec: &TableSpec) -> Result<()> {
    let wrap = |source| Error::storage(&spec.name, source);
    let schema: StructType = spec
        .schema
        .as_ref()
        .try_into_kernel()
        .map_err(|error| Error::Schema { table: spec.name.clone(), reason: error.to_string() })?;
    let mut properties = vec![
        ("delta.appendOnly".to_owned(), Some(spec.append_only.to_string())),
        // A log checkpoint lists each file that was removed within this time: of a week, the default, there are millions. It is
        // for the cleaning of other engines, and Karat cleans by what its kept versions need.
        ("delta.deletedFileRetentionDuration".to_owned(), Some("interval 1 minute".to_owned())),
    ];
    if !spec.stats_columns.is_empty() {
        properties.push(("delta.dataSkippingStatsColumns".to_owned(), Some(spec.stats_columns.join(","))));
    }
    let location = log.clone();
    let created = CreateBuilder::new()
        .with_log_store(log)
        .with_table_name(&spec.name)
        .with_columns(schema.fields().cloned())
        .with_partition_columns(spec.partition_by.clone())
        .with_configuration(properties)
        .with_raise_if_key_not_exists(false)
        .await;
    match created {
        Ok(_) => Ok(()),
        // Somebody else created it at the same moment: which error says so depends on how far both were.
        Err(_) if location.is_delta_table_location().await.map_err(wrap)? => Ok(()),
        Err(source) => Err(wrap(source)),
    }
}

fn remove(file: &DataFile) -> Remove {
    let add = file.add();
    Remove {
        path: add.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now_ms()),
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
    }
}

pub(crate) use karat_schemas::clock::now_ms;
