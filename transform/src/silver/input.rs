//! One input: events of some types, decoded and shaped by row-wise SQL.

use std::{collections::HashSet, sync::Arc};

use karat_lake::arrow::{
    array::{ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, UInt32Array},
    compute::take,
    datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type},
};
use karat_schemas::pipelines::Input;

use crate::{
    Error, Result,
    batches::{column, join},
    bronze,
    decode::{Decoded, Decoder, Failure, RESCUED, ROW},
    query::{Planner, Query},
};

/// Columns of the event itself that silver SQL may use beside the declared ones.
const EVENT_COLUMNS: &[&str] =
    &["ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "publisher", "publish_for_others", "ingest_time"];
/// A number that depends on the event's identity alone: the last resort of an order between events.
const EVENT_HASH: &str = "event_hash";

/// A planned input.
pub struct InputPlan {
    pub name: String,
    pub into: String,
    types: HashSet<String>,
    decoder: Decoder,
    query: Query,
    /// The event columns that the SQL names.
    event_columns: Vec<String>,
    table_schema: SchemaRef,
}

/// What an input made of a batch.
pub struct Shaped {
    /// Silver columns and `_row`, the index in the bronze batch.
    pub rows: RecordBatch,
    /// Rows are indexes in the bronze batch.
    pub failures: Vec<Failure>,
}

impl InputPlan {
    pub async fn new(input: &Input) -> Result<Self> {
        let decoder = Decoder::new(&input.columns, input.rescue);
        let sql = input.sql.clone().unwrap_or_else(|| format!("SELECT * FROM {}", input.name));
        let event_columns: Vec<String> = EVENT_COLUMNS
            .iter()
            .chain([&EVENT_HASH])
            .filter(|name| sql.contains(**name) && !input.columns.iter().any(|column| column.name == **name))
            .map(|name| (*name).to_owned())
            .collect();
        let mut fields: Vec<Field> = decoder.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let bronze = bronze::schema();
        for name in &event_columns {
            fields.push(match bronze.field_with_name(name) {
                Ok(field) => field.clone(),
                Err(_) => Field::new(name, DataType::Int64, true),
            });
        }
        let table_schema: SchemaRef = Arc::new(Schema::new(fields));
        let planner = Planner::new(&[(&input.name, table_schema.clone())])?;
        let carried: &[&str] = if input.rescue { &[RESCUED, ROW] } else { &[ROW] };
        let query = planner
            .row_wise(&sql, carried)
            .await
            .map_err(|error| Error::Declaration(format!("input `{}`: {error}", input.name)))?;
        let plan = Self {
            name: input.name.clone(),
            into: input.into.clone(),
            types: input.types.iter().cloned().collect(),
            decoder,
            query,
            event_columns,
            table_schema,
        };
        karat_lake::require_storable(&format!("silver.{}", input.into), &plan.schema())
            .map_err(|error| Error::Declaration(format!("input `{}`: {error}", input.name)))?;
        Ok(plan)
    }

    /// Silver columns that this input gives, without `_row`.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.query.schema().fields().iter().filter(|field| field.name() != ROW);
        Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
    }

    pub fn takes(&self, event_type: &str) -> bool {
        self.types.contains(event_type)
    }

    /// Reads the payloads of the bronze rows whose indexes are in `rows`.
    pub fn decode(&self, bronze: &RecordBatch, rows: &[u32]) -> Result<Decoded> {
        let payloads: &BinaryArray = column(bronze, "payload")?.as_binary();
        self.decoder.decode(rows.iter().map(|row| payloads.value(*row as usize)))
    }

    /// Shapes what [`InputPlan::decode`] gave for the same `rows`; `hashes` has one value a bronze row.
    pub async fn shape(
        &mut self,
        bronze: &RecordBatch,
        rows: &[u32],
        hashes: &[i64],
        decoded: Decoded,
    ) -> Result<Shaped> {
        let in_bronze = |failure: Failure| Failure { row: rows[failure.row] as usize, ..failure };
        let mut failures: Vec<Failure> = decoded.failures.into_iter().map(in_bronze).collect();
        let table = self.with_event_columns(bronze, rows, hashes, &decoded.rows)?;
        let shaped = match self.query.run(&[(&self.name, table.clone())]).await {
            Ok(shaped) => shaped,
            Err(Error::Sql(_) | Error::Arrow(_)) => self.shape_apart(&table, &mut failures).await?,
            Err(error) => return Err(error),
        };
        Ok(Shaped { rows: shaped, failures })
    }

    /// The SQL failed on some row: halves are run until it stands alone. Row-wise SQL gives the rest the same result.
    async fn shape_apart(&mut self, table: &RecordBatch, failures: &mut Vec<Failure>) -> Result<RecordBatch> {
        let (mut parts, mut waiting) = (Vec::new(), vec![table.clone()]);
        while let Some(rows) = waiting.pop() {
            match self.query.run(&[(&self.name, rows.clone())]).await {
                Ok(shaped) => parts.push(shaped),
                Err(Error::Sql(_) | Error::Arrow(_)) if rows.num_rows() > 1 => {
                    let half = rows.num_rows() / 2;
                    waiting.push(rows.slice(half, rows.num_rows() - half));
                    waiting.push(rows.slice(0, half));
                }
                Err(Error::Sql(_) | Error::Arrow(_)) => {
                    let index = rows.column_by_name(ROW).map(|column| column.as_primitive::<UInt32Type>().value(0));
                    failures.push(Failure {
                        row: index.unwrap_or_default() as usize,
                        code: "sql_error",
                        message: format!("the SQL of input `{}` fails on this record", self.name),
                    });
                }
                Err(error) => return Err(error),
            }
        }
        join(self.query.schema(), parts)
    }

    /// Adds the event columns, and makes `_row` an index in the bronze batch.
    fn with_event_columns(
        &self,
        bronze: &RecordBatch,
        rows: &[u32],
        hashes: &[i64],
        decoded: &RecordBatch,
    ) -> Result<RecordBatch> {
        let index = decoded.column_by_name(ROW).map(|column| column.as_primitive::<UInt32Type>().clone());
        let index = index.unwrap_or_else(|| UInt32Array::from(Vec::<u32>::new()));
        let bronze_rows = UInt32Array::from_iter_values(index.values().iter().map(|row| rows[*row as usize]));
        let mut columns: Vec<ArrayRef> = decoded.columns().to_vec();
        if let Ok(position) = decoded.schema().index_of(ROW) {
            columns[position] = Arc::new(bronze_rows.clone());
        }
        for name in &self.event_columns {
            columns.push(match bronze.column_by_name(name) {
                Some(column) => take(column, &bronze_rows, None)?,
                None => {
                    Arc::new(Int64Array::from_iter_values(bronze_rows.values().iter().map(|row| hashes[*row as usize])))
                }
            });
        }
        Ok(RecordBatch::try_new(self.table_schema.clone(), columns)?)
    }
}

/// The event type of each bronze row.
pub fn event_types(bronze: &RecordBatch) -> Result<&StringArray> {
    let column = bronze.column_by_name("ce_type").and_then(|column| column.as_string_opt::<i32>());
    column.ok_or_else(|| Error::Declaration("bronze has no `ce_type`".to_owned()))
}
