//! Aggregates taken apart into what can be added and subtracted.

use karat_lake::datafusion::{
    arrow::datatypes::DataType,
    functions_aggregate::expr_fn::{count, max, min, sum},
    logical_expr::{Expr, ExprFunctionExt, cast, col, expr::AggregateFunction, lit, when},
    scalar::ScalarValue,
};
use karat_schemas::histogram::Histogram;

use crate::{
    Error, Result,
    functions::{self, WeightedSet, add_to_set, decode_set, encode_set},
    query::plain_type,
    silver::fold::WEIGHT,
    value::Value,
};

/// How one aggregate of the SQL is made from parts.
#[derive(Debug, Clone)]
pub(super) struct FinalPlan {
    kind: Kind,
    /// Index of the first part.
    first: usize,
    /// The argument is a whole number, kept wide.
    is_whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Part: the sum of weights.
    Count,
    /// Parts: the weighted sum, and the number of values, which tells zero from nothing.
    Sum,
    Average,
    /// As [`Kind::Average`], with so many more digits behind the point than the values have.
    DecimalAverage {
        shift: u32,
    },
    Percentile(f64),
    Histogram,
    DistinctCount,
    Min,
    Max,
}

/// Stored state of one part of one group.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PartState {
    Sum(Value),
    Histogram(Histogram),
    Set(WeightedSet),
    Min(Value),
    Max(Value),
}

impl FinalPlan {
    /// Plans the parts of `expr` and appends their expressions over changed rows to `parts`, whose first entry is the
    /// group's row count. `result` is the type that the SQL gives it, `input` that of its
    /// argument.
    pub(super) fn take_apart(
        expr: &Expr,
        result: &DataType,
        input: &DataType,
        is_append_only: bool,
        parts: &mut Vec<Expr>,
    ) -> Result<Self> {
        let expr = if let Expr::Alias(alias) = expr { alias.expr.as_ref() } else { expr };
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else {
            return Err(refused(format!("`{expr}` is not an aggregate")));
        };
        if !params.order_by.is_empty() || params.null_treatment.is_some() {
            return Err(refused(format!("`{expr}` depends on an order")));
        }
        let expected = if matches!(func.name(), functions::PERCENTILE) { 2 } else { 1 };
        if params.args.len() > expected {
            return Err(refused(format!("`{expr}` has more than {expected} arguments")));
        }
        let first = parts.len() - 1;
        let argument = params.args.first().cloned().unwrap_or_else(|| lit(1i64));
        let counted = match &params.filter {
            Some(filter) => filter.as_ref().clone().and(argument.clone().is_not_null()),
            None => argument.clone().is_not_null(),
        };
        let weight_when_counted = when(counted.clone(), col(WEIGHT)).otherwise(lit(0i64))?;
        let value_when_counted = when(counted.clone(), argument.clone()).end()?;
        // Rows that are only added have weight 1: the plain aggregates of the engine, with its filter, say the same.
        let plain = |aggregate: Expr| match &params.filter {
            Some(filter) => aggregate.filter(filter.as_ref().clone()).build(),
            None => Ok(aggregate),
        };
        let num_counted =
            if is_append_only { plain(count(argument.clone()))? } else { sum(weight_when_counted.clone()) };
        let mut part = |expr: Expr| {
            let name = format!("p{}", parts.len());
            parts.push(expr.alias(name));
        };
        let kind = match (func.name(), params.distinct) {
            ("count", false) => {
                part(num_counted);
                Kind::Count
            }
            ("count", true) if matches!(plain_type(input), DataType::Binary) || input.is_nested() => {
                return Err(refused(format!("`{expr}` counts values that have no text")));
            }
            ("count", true) => {
                part(
                    functions::weighted_set().call(vec![cast(value_when_counted, DataType::Utf8), weight_when_counted]),
                );
                Kind::DistinctCount
            }
            ("sum" | "avg", false) if input.is_floating() && !is_append_only => {
                return Err(refused(format!(
                    "`{expr}` adds floats, and taking one away again loses digits: cast to a decimal, or set refresh `keys`"
                )));
            }
            ("sum" | "avg", false) => {
                let total = match (is_narrow(input), is_append_only) {
                    (true, true) => plain(functions::exact_sum().call(vec![cast(argument, DataType::Int64)]))?,
                    (true, false) => {
                        let value = cast(value_when_counted, DataType::Int64);
                        functions::exact_sum().call(vec![value, col(WEIGHT)])
                    }
                    (false, true) => plain(sum(wide(argument, input)))?,
                    (false, false) => sum(when(counted, wide(argument, input) * col(WEIGHT)).end()?),
                };
                part(total);
                part(num_counted);
                match (func.name(), input, result) {
                    ("sum", ..) => Kind::Sum,
                    (_, DataType::Decimal128(_, from), DataType::Decimal128(_, to)) if to >= from => {
                        Kind::DecimalAverage { shift: u32::from(to.abs_diff(*from)) }
                    }
                    (_, _, DataType::Float64) => Kind::Average,
                    (_, _, other) => return Err(refused(format!("`{expr}` gives {other}"))),
                }
            }
            (functions::HISTOGRAM | functions::PERCENTILE, false) => {
                let value = cast(value_when_counted, DataType::Int64);
                part(functions::weighted_histogram().call(vec![value, weight_when_counted]));
                if func.name() == functions::HISTOGRAM {
                    Kind::Histogram
                } else {
                    Kind::Percentile(quantile(&params.args)?)
                }
            }
            ("min", false) if is_append_only => {
                part(plain(min(argument))?);
                Kind::Min
            }
            ("max", false) if is_append_only => {
                part(plain(max(argument))?);
                Kind::Max
            }
            ("min" | "max", false) => {
                return Err(refused(format!("`{expr}` cannot give up a value, and rows of this table change")));
            }
            (name, _) => return Err(refused(format!("`{name}` cannot be added to and subtracted from"))),
        };
        Ok(Self { kind, first, is_whole: input.is_integer() })
    }

    pub(super) fn empty_parts(&self) -> Vec<PartState> {
        match self.kind {
            Kind::Count => vec![PartState::Sum(Value::Int(0))],
            Kind::Sum | Kind::Average | Kind::DecimalAverage { .. } => {
                vec![PartState::Sum(Value::Null), PartState::Sum(Value::Int(0))]
            }
            Kind::Percentile(_) | Kind::Histogram => vec![PartState::Histogram(Histogram::default())],
            Kind::DistinctCount => vec![PartState::Set(WeightedSet::new())],
            Kind::Min => vec![PartState::Min(Value::Null)],
            Kind::Max => vec![PartState::Max(Value::Null)],
        }
    }

    /// A wide sum in 64 bits; a total beyond them stays at the limit.
    fn narrow(&self, sum: &Value) -> Value {
        match sum {
            Value::Decimal(sum) if self.is_whole => {
                Value::Int(i64::try_from(*sum).unwrap_or(if *sum < 0 { i64::MIN } else { i64::MAX }))
            }
            other => other.clone(),
        }
    }

    /// The aggregate's value.
    pub(super) fn value(&self, parts: &[PartState]) -> Value {
        match (self.kind, &parts[self.first..]) {
            (Kind::Count, [PartState::Sum(count), ..]) => count.clone(),
            (Kind::Sum, [PartState::Sum(sum), PartState::Sum(Value::Int(count)), ..]) => {
                if *count == 0 {
                    Value::Null
                } else {
                    self.narrow(sum)
                }
            }
            (Kind::Average, [PartState::Sum(sum), PartState::Sum(Value::Int(count)), ..]) => average(sum, *count),
            (
                Kind::DecimalAverage { shift },
                [PartState::Sum(Value::Decimal(sum)), PartState::Sum(Value::Int(count)), ..],
            ) => {
                let scaled = 10i128.checked_pow(shift).and_then(|factor| sum.checked_mul(factor));
                let average = scaled.and_then(|sum| sum.checked_div(i128::from(*count)));
                average.map_or(Value::Null, Value::Decimal)
            }
            (Kind::Histogram, [PartState::Histogram(histogram), ..]) => Value::Bytes(histogram.to_bytes().into()),
            (Kind::Percentile(p), [PartState::Histogram(histogram), ..]) => {
                histogram.quantile(p).map_or(Value::Null, |value| Value::Float(value as f64))
            }
            (Kind::DistinctCount, [PartState::Set(set), ..]) => {
                Value::Int(i64::try_from(set.len()).unwrap_or(i64::MAX))
            }
            (Kind::Min, [PartState::Min(value), ..]) | (Kind::Max, [PartState::Max(value), ..]) => value.clone(),
            _ => Value::Null,
        }
    }
}

impl PartState {
    /// Adds what a batch changed; none when the value is not of the part's kind.
    pub(super) fn merge(&mut self, change: &Value) -> Option<()> {
        match (self, change) {
            (Self::Histogram(histogram), Value::Bytes(bytes)) => histogram.merge(&Histogram::from_bytes(bytes)?),
            (Self::Set(set), Value::Bytes(bytes)) => {
                decode_set(bytes)?.iter().for_each(|(text, weight)| add_to_set(set, text, *weight));
            }
            (_, Value::Null) => {}
            (Self::Sum(sum), change) => *sum = crate::silver::fold::add(sum, change),
            (Self::Min(value), change) if value.is_null() || change < value => *value = change.clone(),
            (Self::Max(value), change) if value.is_null() || change > value => *value = change.clone(),
            (Self::Min(_) | Self::Max(_), _) => {}
            _ => return None,
        }
        Some(())
    }

    pub(super) fn lost_exactness(&self) -> bool {
        matches!(self, Self::Histogram(histogram) if histogram.lost_exactness())
    }

    pub(super) fn could_keep_values(&self) -> bool {
        matches!(self, Self::Histogram(histogram) if histogram.could_keep_values())
    }

    pub(super) fn stored(&self) -> Value {
        match self {
            Self::Sum(value) | Self::Min(value) | Self::Max(value) => value.clone(),
            Self::Histogram(histogram) => Value::Bytes(histogram.to_state().into()),
            Self::Set(set) => Value::Bytes(encode_set(set).into()),
        }
    }

    /// A part of this kind from its stored form.
    pub(super) fn of_stored(&self, value: Value) -> Option<Self> {
        Some(match (self, value) {
            (Self::Sum(_), value) => Self::Sum(value),
            (Self::Min(_), value) => Self::Min(value),
            (Self::Max(_), value) => Self::Max(value),
            (Self::Histogram(_), Value::Bytes(bytes)) => Self::Histogram(Histogram::from_bytes(&bytes)?),
            (Self::Set(_), Value::Bytes(bytes)) => Self::Set(decode_set(&bytes)?),
            _ => return None,
        })
    }
}

/// Whole numbers that 64 bits hold.
fn is_narrow(input: &DataType) -> bool {
    input.is_integer() && *input != DataType::UInt64
}

/// Whole numbers are added in 128 bits, so that no total turns negative on the way.
fn wide(argument: Expr, input: &DataType) -> Expr {
    if input.is_integer() { cast(argument, DataType::Decimal128(38, 0)) } else { argument }
}

fn average(sum: &Value, count: i64) -> Value {
    match sum {
        _ if count == 0 => Value::Null,
        Value::Decimal(sum) => Value::Float(*sum as f64 / count as f64),
        Value::Float(sum) => Value::Float(sum / count as f64),
        _ => Value::Null,
    }
}

fn quantile(args: &[Expr]) -> Result<f64> {
    match args.get(1) {
        Some(Expr::Literal(ScalarValue::Float64(Some(p)), _)) if (0.0..=1.0).contains(p) => Ok(*p),
        _ => Err(refused("the second argument of `percentile` must be a number from 0.0 to 1.0".to_owned())),
    }
}

fn refused(reason: String) -> Error {
    Error::Declaration(reason)
}
