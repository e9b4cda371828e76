//! From rows to data files.
//!
//! Files are encoded here rather than by the stock writer, for three reasons: encoding runs on blocking threads, a
//! file's name can carry the slot of a keyed table, and statistics are kept for the declared columns alone.

use std::{collections::HashSet, sync::Arc};

use deltalake::{
    Path,
    arrow::{
        array::{
            Array, ArrayRef, Date32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
            new_null_array,
        },
        compute::{CastOptions, cast_with_options, max, max_string, min, min_string},
        datatypes::{DataType, SchemaRef, TimeUnit},
        row::{Row, RowConverter, SortField},
    },
    kernel::Add,
    logstore::ObjectStoreRef,
    parquet::{
        arrow::ArrowWriter,
        basic::{Compression, ZstdLevel},
        file::properties::{EnabledStatistics, WriterProperties},
        schema::types::ColumnPath,
    },
};
use object_store::ObjectStoreExt;
use serde_json::{Map, Value, json};

use crate::{
    Error, Result,
    table::{HASH_TAG, hash_of},
};

/// What the files of one [`write_file`] call have in common.
pub(crate) struct FileSpec<'a> {
    pub(crate) table: &'a str,
    /// Start of the file name.
    pub(crate) prefix: &'a str,
    /// Value of each partition column; these columns must not be among the rows'.
    pub(crate) partition: &'a [(String, String)],
    pub(crate) stats_columns: &'a [String],
}

/// Writes `batches`, which share one schema, as one data file. Nothing is visible until a commit names it.
pub(crate) async fn write_file(store: &ObjectStoreRef, spec: &FileSpec<'_>, batches: Vec<RecordBatch>) -> Result<Add> {
    let stats_columns = spec.stats_columns.to_vec();
    let table = spec.table.to_owned();
    let encoded = tokio::task::spawn_blocking(move || {
        let stats = statistics(&batches, &stats_columns);
        encode(&batches).map(|bytes| (bytes, stats)).map_err(|error| Error::storage(&table, error))
    });
    let (bytes, stats) = encoded.await??;
    let folder: String = spec.partition.iter().map(|(column, value)| format!("{column}={value}/")).collect();
    let path = format!("{folder}{}-{}.parquet", spec.prefix, uuid::Uuid::new_v4());
    let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    let hash = (HASH_TAG.to_owned(), Some(hash_of(&bytes)));
    store.put(&Path::from(path.as_str()), bytes.into()).await?;
    let values = spec.partition.iter().map(|(column, value)| (column.clone(), Some(value.clone()))).collect();
    Ok(Add {
        path,
        partition_values: values,
        size,
        modification_time: crate::table::now_ms(),
        data_change: true,
        stats: Some(stats.to_string()),
        tags: Some([hash].into()),
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    })
}

/// Below this many rows zstd's working memory, made anew for each column, costs more than the compression itself.
const ROWS_FOR_ZSTD: usize = 10_000;

fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>, deltalake::parquet::errors::ParquetError> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let mut writer = ArrowWriter::try_new(Vec::new(), first.schema(), Some(properties(first, batches)))?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.into_inner()
}

/// zstd level 1 gives the smallest files at about the cost of lz4 on event text; small files, which are soon written
/// again, take snappy. Page statistics cost more than they give here: files are pruned by the log, and small.
fn properties(first: &RecordBatch, batches: &[RecordBatch]) -> WriterProperties {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default());
    let mut properties = WriterProperties::builder()
        .set_compression(if rows < ROWS_FOR_ZSTD { Compression::SNAPPY } else { zstd })
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for (field, column) in first.schema_ref().fields().iter().zip(first.columns()) {
        if !field.data_type().is_nested() && is_mostly_distinct(column) {
            let path = ColumnPath::from(field.name().as_str());
            properties = properties.set_column_dictionary_enabled(path, false);
        }
    }
    properties.build()
}

/// Rows that are looked at to learn whether a column repeats itself.
const SAMPLE: usize = 256;

/// Whether a dictionary of the column would be as long as the column: then building it is work for nothing.
fn is_mostly_distinct(column: &ArrayRef) -> bool {
    let sample = column.slice(0, column.len().min(SAMPLE));
    let Ok(converter) = RowConverter::new(vec![SortField::new(sample.data_type().clone())]) else { return false };
    let Ok(rows) = converter.convert_columns(std::slice::from_ref(&sample)) else { return false };
    let distinct: HashSet<Row<'_>> = rows.iter().collect();
    distinct.len() > sample.len() / 2
}

/// Delta's file statistics: rows, and smallest, largest and number of nulls of each listed column.
fn statistics(batches: &[RecordBatch], columns: &[String]) -> Value {
    let (mut low, mut high, mut nulls) = (Map::new(), Map::new(), Map::new());
    for name in columns {
        let parts: Vec<&ArrayRef> = batches.iter().filter_map(|batch| batch.column_by_name(name)).collect();
        if parts.is_empty() {
            continue;
        }
        nulls.insert(name.clone(), json!(parts.iter().map(|part| part.null_count()).sum::<usize>()));
        // A part without bounds, because of a long text, leaves the file without bounds.
        let ranges: Option<Vec<(Value, Value)>> =
            parts.iter().filter(|part| part.null_count() < part.len()).map(|part| range(part)).collect();
        let Some(ranges) = ranges else { continue };
        let smallest = ranges.iter().map(|range| &range.0).min_by(|a, b| order(a, b));
        let largest = ranges.iter().map(|range| &range.1).max_by(|a, b| order(a, b));
        if let (Some(smallest), Some(largest)) = (smallest, largest) {
            low.insert(name.clone(), smallest.clone());
            high.insert(name.clone(), largest.clone());
        }
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    json!({"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls})
}

fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_str().cmp(&b.as_str()),
    }
}

/// Text longer than this is left out of the statistics: a cut-off largest value would have to be rounded up.
const LONGEST_TEXT_STATISTIC: usize = 64;

fn range(array: &ArrayRef) -> Option<(Value, Value)> {
    let any = array.as_any();
    match array.data_type() {
        DataType::Int64 => {
            let values: &Int64Array = any.downcast_ref()?;
            Some((json!(min(values)?), json!(max(values)?)))
        }
        DataType::Date32 => {
            let values: &Date32Array = any.downcast_ref()?;
            Some((date(min(values)?), date(max(values)?)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values: &TimestampMicrosecondArray = any.downcast_ref()?;
            // Statistics have milliseconds: the smallest is rounded down, the largest up.
            Some((instant(min(values)?.div_euclid(1000)), instant(max(values)?.div_euclid(1000) + 1)))
        }
        DataType::Utf8 => {
            let values: &StringArray = any.downcast_ref()?;
            let (low, high) = (min_string(values)?, max_string(values)?);
            let fits = low.len() <= LONGEST_TEXT_STATISTIC && high.len() <= LONGEST_TEXT_STATISTIC;
            fits.then(|| (json!(low), json!(high)))
        }
        _ => None,
    }
}

fn date(days: i32) -> Value {
    let value = deltalake::arrow::temporal_conversions::date32_to_datetime(days);
    json!(value.map(|value| value.date().to_string()))
}

fn instant(millis: i64) -> Value {
    let value = deltalake::arrow::temporal_conversions::timestamp_ms_to_datetime(millis);
    json!(value.map(|value| value.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()))
}

/// Gives `batch` the columns, order and types of `schema`; missing columns are NULL. Lossy casts are errors.
pub(crate) fn conform(table: &str, schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let exact = CastOptions { safe: false, ..Default::default() };
    let columns = schema.fields().iter().map(|field| {
        let Some(column) = batch.column_by_name(field.name()) else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        cast_with_options(column, field.data_type(), &exact).map_err(|error| Error::Schema {
            table: table.to_owned(),
            reason: format!("column `{}`: {error}", field.name()),
        })
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?)?)
}

#[cfg(test)]
mod tests {
    use deltalake::arrow::datatypes::{Field, Schema};

    use super::*;

    fn texts(values: Vec<Option<String>>) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("t", DataType::Utf8, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(StringArray::from(values))]).unwrap()
    }

    #[test]
    fn a_long_text_in_one_part_leaves_the_file_without_bounds() {
        let short = texts(vec![Some("m".to_owned()), None]);
        let long = texts(vec![Some("z".repeat(LONGEST_TEXT_STATISTIC + 1))]);
        let nothing = texts(vec![None]);
        let columns = ["t".to_owned()];
        let stats = statistics(&[short.clone(), nothing], &columns);
        assert_eq!((&stats["minValues"]["t"], &stats["nullCount"]["t"]), (&json!("m"), &json!(2)));
        let stats = statistics(&[short, long], &columns);
        assert_eq!((&stats["minValues"]["t"], &stats["numRecords"]), (&Value::Null, &json!(3)));
    }

    #[test]
    fn only_columns_that_repeat_themselves_get_a_dictionary() {
        let ids: ArrayRef = Arc::new((0..1000).collect::<Int64Array>());
        let sources: ArrayRef =
            Arc::new((0..1000).map(|row| Some(format!("source-{}", row % 20))).collect::<StringArray>());
        let nulls = new_null_array(&DataType::Utf8, 1000);
        assert_eq!([ids, sources, nulls].map(|column| is_mostly_distinct(&column)), [true, false, false]);
    }
}
