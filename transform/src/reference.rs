//! Reference tables: small tables from files beside `pipelines.toml`, or by SQL from such, for joins in gold SQL.
//!
//! Guarantees:
//! - A pipeline computes with one content of each file at a time: the bytes are part of its declaration, and their hash of
//!   its fingerprint, which the state store keeps with every step.
//! - Another content is another declaration: [`crate::worker`] rebuilds the pipeline beside the live tables and swaps them
//!   in at one epoch, so no reader sees figures of two contents together. A start that finds another content than that of
//!   its state rebuilds first, so a step that runs again after a crash never meets it halfway.

use std::{
    collections::HashSet,
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use karat_lake::{
    arrow::{
        array::{ArrayRef, RecordBatch},
        compute::cast,
        csv,
        datatypes::{DataType, Field, Schema, SchemaRef},
        json,
    },
    parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
};
use karat_schemas::pipelines::{Pipelines, Problem, Reference};

use crate::{
    Error, Result,
    batches::join,
    decode::data_type,
    gold::choose::names_table,
    query::{Planner, plain_type, refuse_changing_functions},
};

/// Bytes of a file at most: it is held in memory by each pipeline that joins it.
const LARGEST: u64 = 64 << 20;

/// Rows looked at to find the types of columns that are not declared.
const LOOKED_AT: usize = 10_000;

/// The rows of a reference table.
pub struct ReferenceRows {
    pub name: String,
    pub rows: RecordBatch,
}

/// Reads the files of every reference table, relative to `folder`, and gives each pipeline those that its gold SQL names.
/// Returns what is wrong, and the names that are left out for it.
pub fn load(pipelines: &mut Pipelines, folder: &Path) -> (Vec<Problem>, HashSet<String>) {
    let (mut problems, mut left_out, mut loaded) = (Vec::new(), HashSet::<String>::new(), Vec::new());
    for reference in &pipelines.references {
        if let Some(sql) = &reference.sql {
            // What is wrong with the SQL is told where it is planned, with the pipeline that uses it.
            if left_out.iter().any(|name| names_table(sql, name)) {
                left_out.insert(reference.name.clone());
            } else {
                loaded.push(reference.clone());
            }
            continue;
        }
        let path = folder.join(&reference.file);
        let read = read_file(&path).and_then(|bytes| {
            let content = Reference { path, bytes: bytes.into(), ..reference.clone() };
            rows(&content).map(|_| content)
        });
        match read {
            Ok(content) => loaded.push(content),
            Err(error) => {
                let message = format!("reference table `{}`, file `{}`: {error}", reference.name, reference.file);
                problems.push(Problem { line: reference.line, message });
                left_out.insert(reference.name.clone());
            }
        }
    }
    for pipeline in &mut pipelines.pipelines {
        pipeline.references.clear();
        let mut used: Vec<&str> = pipeline.gold.iter().map(|gold| gold.sql.as_str()).collect();
        // From the last to the first: a query names only tables above it.
        for reference in loaded.iter().rev() {
            if used.iter().any(|sql| names_table(sql, &reference.name)) {
                pipeline.references.insert(0, reference.clone());
                used.extend(reference.sql.as_deref());
            }
        }
    }
    (problems, left_out)
}

/// A reference table: the rows of its file, or of its query over the tables `above` it.
pub async fn table(reference: &Reference, above: &[ReferenceRows]) -> Result<ReferenceRows> {
    let Some(sql) = &reference.sql else { return rows(reference) };
    let wrap = |error: Error| refused(format!("reference table `{}`: {error}", reference.name));
    let tables: Vec<(&str, SchemaRef)> = above.iter().map(|table| (table.name.as_str(), table.rows.schema())).collect();
    let planner = Planner::new(&tables)?;
    let known = |name: &String| above.iter().any(|table| table.name == *name);
    if let Some(unknown) = planner.tables_of(sql).map_err(wrap)?.iter().find(|name| !known(name)) {
        let reason = format!("there is no reference table `{unknown}` above it: declare that first");
        return Err(wrap(refused(reason)));
    }
    let plan = planner.logical(sql).await.map_err(wrap)?;
    refuse_changing_functions(&plan).map_err(wrap)?;
    let mut query = planner.query(plan).map_err(wrap)?;
    let inputs: Vec<(&str, RecordBatch)> =
        above.iter().map(|table| (table.name.as_str(), table.rows.clone())).collect();
    Ok(ReferenceRows { name: reference.name.clone(), rows: query.run(&inputs).await.map_err(wrap)? })
}

/// The rows of a reference table whose bytes are loaded.
pub fn rows(reference: &Reference) -> Result<ReferenceRows> {
    let extension = Path::new(&reference.file).extension().and_then(|extension| extension.to_str());
    let batches = match extension {
        Some("csv") => read_csv(reference),
        Some("ndjson" | "jsonl" | "json") => read_json(reference),
        Some("parquet") => read_parquet(reference),
        _ => Err(refused("its name must end in .csv, .ndjson, .jsonl, .json (one object a line) or .parquet")),
    }?;
    let found = batches.first().map(RecordBatch::schema).ok_or_else(|| refused("it has no rows"))?;
    let schema = wanted(reference, &found)?;
    let batches = batches.iter().map(|batch| conform(batch, &schema)).collect::<Result<Vec<_>>>()?;
    let rows = join(&schema, batches)?;
    for column in reference.columns.iter().filter(|column| column.required) {
        if rows.column_by_name(&column.name).is_some_and(|values| values.null_count() > 0) {
            return Err(refused(format!("column `{}` is required and has rows without a value", column.name)));
        }
    }
    Ok(ReferenceRows { name: reference.name.clone(), rows })
}

fn refused(reason: impl Into<String>) -> Error {
    Error::Declaration(reason.into())
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let wrap = |source: std::io::Error| refused(source.to_string());
    let size = std::fs::metadata(path).map_err(wrap)?.len();
    if size > LARGEST {
        return Err(refused(format!(
            "it has {size} bytes; a reference table may have {LARGEST}: publish its rows as events"
        )));
    }
    std::fs::read(path).map_err(wrap)
}

/// The declared type of a column, when its types are declared.
fn declared(reference: &Reference, name: &str) -> Option<DataType> {
    reference.columns.iter().find(|column| column.name == name).map(|column| data_type(column.column_type))
}

/// The columns found in a file, with the declared types where there are some.
fn typed(reference: &Reference, found: &Schema, other: impl Fn(&DataType) -> DataType) -> SchemaRef {
    let field = |field: &Arc<Field>| {
        let data_type = declared(reference, field.name()).unwrap_or_else(|| other(field.data_type()));
        Field::new(field.name(), data_type, true)
    };
    Arc::new(Schema::new(found.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The columns of the table: the declared ones, or all of the file.
fn wanted(reference: &Reference, found: &Schema) -> Result<SchemaRef> {
    if reference.columns.is_empty() {
        return Ok(typed(reference, found, plain_type));
    }
    let mut fields = Vec::new();
    for column in &reference.columns {
        if found.field_with_name(&column.name).is_err() {
            let names: Vec<String> = found.fields().iter().map(|field| format!("`{}`", field.name())).collect();
            return Err(refused(format!("there is no column `{}`; found {}", column.name, names.join(", "))));
        }
        fields.push(Field::new(&column.name, data_type(column.column_type), true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef> {
        let found =
            batch.column_by_name(field.name()).ok_or_else(|| refused(format!("no column `{}`", field.name())))?;
        Ok(cast(found, field.data_type())?)
    };
    Ok(RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect::<Result<_>>()?)?)
}

fn read_csv(reference: &Reference) -> Result<Vec<RecordBatch>> {
    let format = csv::reader::Format::default().with_header(true);
    let (found, _) = format.infer_schema(Cursor::new(&reference.bytes), Some(LOOKED_AT))?;
    // Columns that nobody declared, in a file with declared ones, are not looked at: as text they cannot fail.
    let is_declared = !reference.columns.is_empty();
    let schema = typed(reference, &found, |found| if is_declared { DataType::Utf8 } else { found.clone() });
    let reader = csv::ReaderBuilder::new(schema).with_format(format).build(Cursor::new(&reference.bytes))?;
    Ok(reader.collect::<Result<_, _>>()?)
}

fn read_json(reference: &Reference) -> Result<Vec<RecordBatch>> {
    let schema = if reference.columns.is_empty() {
        let (found, _) = json::reader::infer_json_schema(Cursor::new(&reference.bytes), Some(LOOKED_AT))?;
        Arc::new(found)
    } else {
        let fields =
            reference.columns.iter().map(|column| Field::new(&column.name, data_type(column.column_type), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    };
    let reader = json::ReaderBuilder::new(schema).build(Cursor::new(&reference.bytes))?;
    Ok(reader.collect::<Result<_, _>>()?)
}

fn read_parquet(reference: &Reference) -> Result<Vec<RecordBatch>> {
    let bytes = bytes::Bytes::copy_from_slice(&reference.bytes);
    let unreadable = |error: karat_lake::parquet::errors::ParquetError| refused(error.to_string());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(unreadable)?.build().map_err(unreadable)?;
    Ok(reader.collect::<Result<_, _>>()?)
}

/// Looks for other contents of the files that a pipeline joins.
pub(crate) struct Watch {
    seen: Vec<(PathBuf, Option<(SystemTime, u64)>)>,
}

impl Watch {
    pub(crate) fn new(references: &[Reference]) -> Self {
        // Not looked at yet, so it has the stamp of no file: what changed since it was loaded must be found.
        let unseen = Some((SystemTime::UNIX_EPOCH, u64::MAX));
        Self { seen: references.iter().filter(has_file).map(|reference| (reference.path.clone(), unseen)).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The references with other bytes than `known`, or none when all are the same. A file that cannot be read, such as one
    /// that is being written, keeps its content, with a warning. Blocks on the files.
    pub(crate) fn changed(&mut self, known: &[Reference]) -> Option<Vec<Reference>> {
        let mut current = known.to_vec();
        let mut is_changed = false;
        let files = current.iter_mut().filter(|reference| has_file(&&**reference));
        for (reference, (path, seen)) in files.zip(&mut self.seen) {
            let stamp = std::fs::metadata(&*path).ok().and_then(|file| Some((file.modified().ok()?, file.len())));
            if stamp == *seen {
                continue;
            }
            let read = read_file(path).and_then(|bytes| {
                let other = Reference { bytes: bytes.into(), ..reference.clone() };
                rows(&other).map(|_| other)
            });
            match read {
                Ok(other) => {
                    is_changed |= other.bytes != reference.bytes;
                    *reference = other;
                }
                Err(error) => {
                    tracing::warn!(reference = reference.name, %error, "the file cannot be used: its last content stays")
                }
            }
            *seen = stamp;
        }
        is_changed.then_some(current)
    }
}

fn has_file(reference: &&Reference) -> bool {
    reference.sql.is_none()
}

/// One text for the contents of a pipeline's references, for its fingerprint.
pub(crate) fn fingerprint(references: &[Reference]) -> String {
    let hash =
        |reference: &Reference| format!("{}={:032x}", reference.name, xxhash_rust::xxh3::xxh3_128(&reference.bytes));
    references.iter().map(hash).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use karat_schemas::pipelines::parse;

    use super::*;

    fn read(file: &str, content: &str, columns: &str) -> Result<Vec<String>, String> {
        let text = format!("version = 1\n[[reference]]\nname = \"r\"\nfile = \"{file}\"\n{columns}");
        let reference = parse(&text).map_err(|problems| problems.to_string())?.references.remove(0);
        let reference = Reference { bytes: content.as_bytes().into(), ..reference };
        let rows = rows(&reference).map_err(|error| error.to_string())?.rows;
        let schema = rows.schema();
        Ok(schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect())
    }

    const CSV: &str = "code,name,rate\nde,Germany,1.10\nfr,France,\n";

    #[test]
    fn types_are_those_of_the_file_or_the_declared_ones() {
        assert_eq!(read("r.csv", CSV, "").unwrap(), ["code Utf8", "name Utf8", "rate Float64"]);
        let columns =
            "columns = [{ name = \"rate\", type = \"decimal(6,4)\" }, { name = \"code\", type = \"string\" }]";
        assert_eq!(read("r.csv", CSV, columns).unwrap(), ["rate Decimal128(6, 4)", "code Utf8"]);
        let lines = "{\"code\":\"de\",\"n\":1}\n{\"code\":\"fr\"}\n";
        assert_eq!(read("r.ndjson", lines, "").unwrap(), ["code Utf8", "n Int64"]);
    }

    #[test]
    fn a_file_that_is_not_as_declared_is_refused_with_the_reason() {
        let column = |name: &str, more: &str| format!("columns = [{{ name = \"{name}\", {more} }}]");
        for (file, columns, reason) in [
            ("r.csv", column("cod", "type = \"string\""), "`cod`; found `code`, `name`, `rate`"),
            ("r.csv", column("name", "type = \"int64\""), "Germany"),
            ("r.csv", column("rate", "type = \"float64\", required = true"), "`rate` is required"),
            ("r.xlsx", String::new(), ".csv"),
            ("r.ndjson", String::new(), ""),
        ] {
            let error = read(file, CSV, &columns).unwrap_err();
            assert!(error.contains(reason), "{file} {columns}: {error}");
        }
        assert!(read("r.csv", "code,name\n", "").unwrap_err().contains("no rows"));
    }
}
