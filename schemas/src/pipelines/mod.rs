//! `pipelines.toml` as types: what flows, in every environment alike.
//!
//! [`parse`] reads the text and reports every problem at once, each with its line. What needs SQL to be planned (do the
//! columns exist, can a table be merged) is checked by the transform crate on top of this; [`read`] gives it what could
//! be read of a file with problems.

mod check;
mod endpoint;
mod model;
mod parse;

pub use check::warnings;
pub use endpoint::{
    DECIMAL_SCALE, Endpoint, MAX_TEXT_CHARS, Order, Parameter, ParameterType, ParameterValue, Rows, Written,
};
pub use model::*;
pub use parse::{Problem, Problems, Read, parse, read};

/// The text of the pipelines that ship: the reference file at the root of the project.
pub const BUILT_IN: &str = include_str!("../../../pipelines.toml");
