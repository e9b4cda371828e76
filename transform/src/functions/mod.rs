//! SQL functions that Karat adds to DataFusion.
//!
//! | function | gives |
//! |---|---|
//! | `json_text(json, path)` | the text at a dotted path (numbers and booleans as written), or NULL |
//! | `json_int(json, path)` | the whole number there, or NULL |
//! | `json_numbers_by_key(list, 'a,b', path)` | a JSON object: for each item of a list, the number at `path` by the item's fields `a`, `b` |
//! | `json_number(name, number)` | the JSON object `{name: number}`, or NULL |
//! | `histogram(x)` | an order-free histogram of whole numbers ([`karat_schemas::histogram`]) |
//! | `percentile(x, p)` | the value of rank ceil(p n) |
//!
//! `weighted_histogram` and `weighted_set` serve the merge refresh and take the row's weight.

mod aggregates;
mod json;

use karat_lake::datafusion::{logical_expr::AggregateUDF, prelude::SessionContext};

pub use aggregates::{HISTOGRAM, PERCENTILE};
pub(crate) use aggregates::{WeightedSet, add_to_set, decode_set, encode_set, weighted_histogram, weighted_set};

/// Registers every function.
pub fn register(context: &SessionContext) {
    json::all().into_iter().for_each(|function| context.register_udf(function));
    aggregates::all().into_iter().for_each(|function: AggregateUDF| context.register_udaf(function));
}
