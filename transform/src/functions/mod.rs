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
//! `weighted_histogram`, `weighted_set` and `exact_sum` serve the merge refresh and take the row's weight.

mod exact_sum;
mod histograms;
mod json;
mod one_group;
mod weighted_set;

use karat_lake::datafusion::prelude::SessionContext;

pub(crate) use exact_sum::exact_sum;
pub(crate) use histograms::weighted_histogram;
pub use histograms::{HISTOGRAM, PERCENTILE};
pub(crate) use weighted_set::{WeightedSet, add_to_set, decode_set, encode_set, weighted_set};

/// Registers every function.
pub fn register(context: &SessionContext) {
    json::all().into_iter().for_each(|function| context.register_udf(function));
    histograms::all().into_iter().for_each(|function| context.register_udaf(function));
}
