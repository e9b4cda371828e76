//! What a client is told when a question cannot be planned or ends in an error: in our words, since those of the engine name
//! its insides. The log has the rest.

use karat_http::ApiError;
use karat_lake::{
    arrow::error::ArrowError,
    datafusion::{common::SchemaError, error::DataFusionError, sql::sqlparser::parser::ParserError},
};
use poem::http::StatusCode;

use super::guard::{refused, too_large, unreadable};
use crate::serving::params::short;

/// The answer when parsing or planning failed. `unknown_function` is one that the question names and that is not there.
pub(super) fn not_planned(error: DataFusionError, unknown_function: Option<&str>) -> ApiError {
    if let Some(name) = unknown_function {
        return refused(format!("there is no function `{}` here", short(name))).caused_by(error);
    }
    let answer = match error.find_root() {
        DataFusionError::SQL(parser, _) => match &**parser {
            ParserError::RecursionLimitExceeded => too_large("fewer brackets and queries inside of each other"),
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
                let (line, column) = place(text).unwrap_or((1, 1));
                unreadable(line, column)
            }
        },
        DataFusionError::SchemaError(schema, _) => match &**schema {
            SchemaError::FieldNotFound { field, .. } => {
                refused(format!("there is no column `{}` where it is named", short(&field.name)))
            }
            SchemaError::AmbiguousReference { field } => {
                refused(format!("the column `{}` could be that of several tables", short(&field.name)))
            }
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                refused(format!("two columns are called `{}`: name one with `AS`", short(name)))
            }
        },
        DataFusionError::NotImplemented(_) => refused("something in it is not answered here"),
        DataFusionError::ResourcesExhausted(_) => exhausted(),
        DataFusionError::ObjectStore(_)
        | DataFusionError::IoError(_)
        | DataFusionError::ParquetError(_)
        | DataFusionError::External(_)
        | DataFusionError::ExecutionJoin(_) => ApiError::internal("a table cannot be read"),
        // What is the same on every row is computed with the plan.
        root @ DataFusionError::ArrowError(..) if is_of_values(root) => failed(),
        _ => refused("it does not fit the tables: look at its columns, types, groups and the arguments of functions"),
    };
    answer.caused_by(error)
}

/// The answer when a question that was planned ended in an error.
pub(super) fn not_answered(error: DataFusionError) -> ApiError {
    let answer = match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => Some(exhausted()),
        root if is_of_values(root) => Some(failed()),
        _ => None,
    };
    match answer {
        Some(answer) => answer.caused_by(error),
        None => ApiError::internal(error),
    }
}

fn exhausted() -> ApiError {
    let message = "the question takes more memory than one may: ask for fewer groups or columns, or order less";
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "query_too_large", message)
}

fn failed() -> ApiError {
    let message = "an expression has no value on some row: a division by zero, a cast or a number that is too large";
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "query_failed", message)
}

/// Whether it is the values and not the engine that an expression failed on.
pub(crate) fn is_of_values(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::ArrowError(error, _) => matches!(
            **error,
            ArrowError::DivideByZero
                | ArrowError::ArithmeticOverflow(_)
                | ArrowError::CastError(_)
                | ArrowError::ParseError(_)
                | ArrowError::ComputeError(_)
                | ArrowError::InvalidArgumentError(_)
        ),
        DataFusionError::Execution(_) => true,
        _ => false,
    }
}

/// The place that the parser names at the end of its message.
fn place(text: &str) -> Option<(u64, u64)> {
    let (_, place) = text.rsplit_once("at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(line)?, digits(column)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_mistake_is_told_and_nothing_else_of_the_parser() {
        let text = "Expected: an expression, found: FROM at Line: 3, Column: 16";
        assert_eq!(place(text), Some((3, 16)));
        let error = DataFusionError::SQL(Box::new(ParserError::ParserError(text.to_owned())), None);
        let answer = not_planned(error, None);
        assert_eq!((answer.status().as_u16(), answer.code()), (400, "sql_unreadable"));
        assert_eq!(answer.message(), "`sql`: cannot be read at line 3, column 16");
        assert_eq!(place("no place"), None);
    }
}
