//! Reads data files into Arrow rows.

use std::sync::Arc;

use deltalake::{
    Path,
    arrow::{
        array::{ArrayRef, RecordBatch, new_null_array},
        compute::cast,
        datatypes::{DataType, SchemaRef},
    },
    datafusion::common::ScalarValue,
    kernel::Add,
    logstore::ObjectStoreRef,
    parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
};
use object_store::ObjectStoreExt;

use crate::{
    Error, Result,
    table::{DataFile, hash_of},
};

/// Rows a batch: large enough that per-batch costs vanish, small enough for caches.
const BATCH_ROWS: usize = 64 * 1024;

/// Reads the columns of `schema` from one data file, partition columns included; missing columns are NULL.
///
/// # Errors
/// [`Error::Damaged`] when its bytes are not those that were written, which its commit has a checksum of.
pub async fn read_file(
    table: &str,
    store: &ObjectStoreRef,
    schema: &SchemaRef,
    file: &DataFile,
) -> Result<Vec<RecordBatch>> {
    let add = file.add();
    let damaged = |reason: String| Error::Damaged { table: table.to_owned(), file: add.path.clone(), reason };
    let path = Path::parse(&add.path).map_err(|error| damaged(error.to_string()))?;
    let bytes = store.get(&path).await?.bytes().await?;
    let hash = file.hash().map(str::to_owned);
    let (schema, add, table) = (schema.clone(), Arc::clone(add), table.to_owned());
    tokio::task::spawn_blocking(move || {
        let damaged = |reason: String| Error::Damaged { table: table.clone(), file: add.path.clone(), reason };
        if hash.is_some_and(|written| written != hash_of(&bytes)) {
            return Err(damaged("the bytes are not those that were written".to_owned()));
        }
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| damaged(error.to_string()))?;
        let wanted = |name: &str| schema.field_with_name(name).is_ok();
        let file_fields = builder.schema().fields().clone();
        let roots = file_fields.iter().enumerate().filter(|(_, field)| wanted(field.name())).map(|(index, _)| index);
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.collect::<Vec<_>>());
        let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        let reader = reader.map_err(|error| damaged(error.to_string()))?;
        reader.map(|batch| shape(&schema, &add, &batch.map_err(|error| damaged(error.to_string()))?)).collect()
    })
    .await?
}

fn shape(schema: &SchemaRef, add: &Add, batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef> {
        if let Some(value) = add.partition_values.get(field.name()) {
            return partition_column(value.as_deref(), field.data_type(), batch.num_rows());
        }
        match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(cast(column, field.data_type())?),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        }
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?)?)
}

fn partition_column(value: Option<&str>, data_type: &DataType, rows: usize) -> Result<ArrayRef> {
    let invalid = |error: deltalake::datafusion::error::DataFusionError| Error::Schema {
        table: String::new(),
        reason: format!("partition value: {error}"),
    };
    let scalar = match value {
        Some(text) => ScalarValue::try_from_string(text.to_owned(), data_type),
        None => ScalarValue::try_from(data_type),
    };
    scalar.map_err(invalid)?.to_array_of_size(rows).map_err(invalid)
}

/// The smallest and largest value of an integer or timestamp column in a file, from its statistics.
///
/// Timestamps are widened by the millisecond that delta statistics truncate. `None` when the file does not say.
pub fn add_stats_range(file: &DataFile, column: &str) -> Option<(serde_json::Value, serde_json::Value)> {
    let stats: serde_json::Value = serde_json::from_str(file.add().stats.as_deref()?).ok()?;
    Some((stats.get("minValues")?.get(column)?.clone(), stats.get("maxValues")?.get(column)?.clone()))
}
