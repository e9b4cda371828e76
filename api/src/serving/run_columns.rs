//! The columns of a file of runs: those of `Run` in answers, in its order, with their types.

use std::sync::Arc;

use karat_lake::{
    arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    datafusion::logical_expr::{Expr, ident, lit},
};

/// The schema of a file of runs.
pub(crate) fn schema() -> SchemaRef {
    let instant = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let fields = [
        ("source", DataType::Utf8),
        ("run_id", DataType::Utf8),
        ("job", DataType::Utf8),
        ("user_id", DataType::Utf8),
        ("status", DataType::Utf8),
        ("started_at", instant()),
        ("finished_at", instant()),
        ("duration_ms", DataType::Float64),
        ("records_read", DataType::Int64),
        ("records_written", DataType::Int64),
        ("records_failed", DataType::Int64),
        ("bytes_written", DataType::Int64),
        ("error_message", DataType::Utf8),
        ("parent_run_id", DataType::Utf8),
        ("last_event_at", instant()),
        ("events", DataType::Int64),
    ];
    Arc::new(Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec()))
}

/// How each column follows from the table.
pub(super) fn expressions() -> Vec<Expr> {
    let of = |field: &Arc<Field>| match field.name().as_str() {
        "duration_ms" => (ident("duration_us") / lit(1000.0)).alias("duration_ms"),
        name => ident(name),
    };
    schema().fields().iter().map(of).collect()
}
