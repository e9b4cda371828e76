//! The aggregates of a fold and their stored state.

use std::collections::BTreeMap;

use karat_lake::arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
};
use karat_schemas::pipelines::Aggregate;

use crate::{
    Result,
    query::plain_type,
    value::{self, Column, Value},
};

/// Which aggregate over which columns.
pub(super) struct AggregatePlan {
    kind: Kind,
    /// None counts rows.
    of: Option<String>,
    by: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Min,
    Max,
    Sum,
    Count,
    AnyTrue,
    First,
    Last,
    LatestSum,
}

/// The columns of one aggregate, ready for row access.
pub(super) struct Prepared {
    of: Option<Column>,
    by: Vec<Column>,
}

impl AggregatePlan {
    pub(super) fn new(aggregate: &Aggregate) -> Self {
        let (kind, of, by): (Kind, &String, &[String]) = match aggregate {
            Aggregate::Min { min } => (Kind::Min, min, &[]),
            Aggregate::Max { max } => (Kind::Max, max, &[]),
            Aggregate::Sum { sum } => (Kind::Sum, sum, &[]),
            Aggregate::Count { count } => (Kind::Count, count, &[]),
            Aggregate::AnyTrue { any_true } => (Kind::AnyTrue, any_true, &[]),
            Aggregate::First { first, by } => (Kind::First, first, by),
            Aggregate::Last { last, by } => (Kind::Last, last, by),
            Aggregate::LatestSum { latest_sum, by } => (Kind::LatestSum, latest_sum, by),
        };
        let counts_rows = kind == Kind::Count && of == "*";
        Self { kind, of: (!counts_rows).then(|| of.clone()), by: by.to_vec() }
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &String> {
        self.of.iter().chain(&self.by)
    }

    pub(super) fn output_type(&self, input: &SchemaRef) -> DataType {
        let of = self.of.as_ref().and_then(|name| input.field_with_name(name).ok());
        match self.kind {
            Kind::Count | Kind::LatestSum => DataType::Int64,
            Kind::AnyTrue => DataType::Boolean,
            _ => of.map_or(DataType::Utf8, |field| plain_type(field.data_type())),
        }
    }

    pub(super) fn prepare(&self, rows: &RecordBatch) -> Result<Prepared> {
        let of = match &self.of {
            Some(name) => value::columns(rows, std::slice::from_ref(name))?.pop(),
            None => None,
        };
        Ok(Prepared { of, by: value::columns(rows, &self.by)? })
    }

    pub(super) fn empty(&self) -> AggregateState {
        match self.kind {
            Kind::Min => AggregateState::Min(Value::Null),
            Kind::Max => AggregateState::Max(Value::Null),
            Kind::Sum => AggregateState::Sum(Value::Null),
            Kind::Count => AggregateState::Count(0),
            Kind::AnyTrue => AggregateState::AnyTrue(Value::Null),
            Kind::First => AggregateState::First(Vec::new(), Value::Null),
            Kind::Last => AggregateState::Last(Vec::new(), Value::Null),
            Kind::LatestSum => AggregateState::LatestSum(BTreeMap::new()),
        }
    }
}

/// The state of one aggregate of one key.
#[derive(Debug, Clone, PartialEq)]
pub enum AggregateState {
    Min(Value),
    Max(Value),
    Sum(Value),
    Count(i64),
    AnyTrue(Value),
    /// The order of the value, then the value; an empty order means none yet.
    First(Vec<Value>, Value),
    Last(Vec<Value>, Value),
    /// The latest number of each name, with its order.
    LatestSum(BTreeMap<Box<str>, (Vec<Value>, i64)>),
}

impl AggregateState {
    /// Takes one row.
    pub(super) fn update(&mut self, columns: &Prepared, row: usize) {
        let value = columns.of.as_ref().map_or(Value::Bool(true), |column| column.value(row));
        if value.is_null() {
            return;
        }
        let order = || columns.by.iter().map(|column| column.value(row)).collect::<Vec<_>>();
        match self {
            Self::Min(smallest) if smallest.is_null() || value < *smallest => *smallest = value,
            Self::Max(largest) if largest.is_null() || value > *largest => *largest = value,
            Self::Min(_) | Self::Max(_) => {}
            Self::Sum(sum) => *sum = add(sum, &value),
            Self::Count(count) => *count += 1,
            Self::AnyTrue(any) => *any = Value::Bool(*any == Value::Bool(true) || value == Value::Bool(true)),
            Self::First(first, kept) => {
                let order = order();
                if first.is_empty() || (&order, &value) < (&*first, &*kept) {
                    (*first, *kept) = (order, value);
                }
            }
            Self::Last(last, kept) => {
                let order = order();
                if last.is_empty() || (&order, &value) > (&*last, &*kept) {
                    (*last, *kept) = (order, value);
                }
            }
            Self::LatestSum(latest) => update_latest(latest, &value, &order()),
        }
    }

    /// The column's value in the row.
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Min(value) | Self::Max(value) | Self::Sum(value) | Self::AnyTrue(value) => value.clone(),
            Self::First(_, value) | Self::Last(_, value) => value.clone(),
            Self::Count(count) => Value::Int(*count),
            Self::LatestSum(latest) if latest.is_empty() => Value::Null,
            Self::LatestSum(latest) => {
                Value::Int(latest.values().fold(0i64, |sum, (_, number)| sum.saturating_add(*number)))
            }
        }
    }

    pub(super) fn encode_all(states: &[Self]) -> Vec<u8> {
        let mut out = Vec::with_capacity(states.len() * 16);
        states.iter().for_each(|state| state.encode(&mut out));
        out
    }

    pub(super) fn decode_all(mut bytes: &[u8]) -> Option<Vec<Self>> {
        let mut states = Vec::new();
        while !bytes.is_empty() {
            states.push(Self::decode(&mut bytes)?);
        }
        Some(states)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut plain = |kind: u8, value: &Value| {
            out.push(kind);
            value.encode(out);
        };
        match self {
            Self::Min(value) => plain(0, value),
            Self::Max(value) => plain(1, value),
            Self::Sum(value) => plain(2, value),
            Self::Count(count) => plain(3, &Value::Int(*count)),
            Self::AnyTrue(value) => plain(4, value),
            Self::First(order, value) => {
                plain(5, value);
                encode_order(order, out);
            }
            Self::Last(order, value) => {
                plain(6, value);
                encode_order(order, out);
            }
            Self::LatestSum(latest) => {
                plain(7, &Value::Int(i64::try_from(latest.len()).unwrap_or(i64::MAX)));
                for (name, (order, number)) in latest {
                    Value::Text(name.clone()).encode(out);
                    Value::Int(*number).encode(out);
                    encode_order(order, out);
                }
            }
        }
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        *bytes = rest;
        let value = Value::decode(bytes)?;
        Some(match kind {
            0 => Self::Min(value),
            1 => Self::Max(value),
            2 => Self::Sum(value),
            3 => Self::Count(int(&value)?),
            4 => Self::AnyTrue(value),
            5 => Self::First(decode_order(bytes)?, value),
            6 => Self::Last(decode_order(bytes)?, value),
            7 => {
                let mut latest = BTreeMap::new();
                for _ in 0..int(&value)? {
                    let Value::Text(name) = Value::decode(bytes)? else { return None };
                    let number = int(&Value::decode(bytes)?)?;
                    latest.insert(name, (decode_order(bytes)?, number));
                }
                Self::LatestSum(latest)
            }
            _ => return None,
        })
    }
}

fn update_latest(latest: &mut BTreeMap<Box<str>, (Vec<Value>, i64)>, value: &Value, order: &[Value]) {
    let Value::Text(json) = value else { return };
    let Ok(numbers) = serde_json::from_str::<BTreeMap<Box<str>, i64>>(json) else { return };
    for (name, number) in numbers {
        let is_later = latest.get(&name).is_none_or(|(last, kept)| (order, number) > (last.as_slice(), *kept));
        if is_later {
            latest.insert(name, (order.to_vec(), number));
        }
    }
}

/// Sums saturate: a total beyond 64 bits stays at the limit rather than turning negative.
pub(crate) fn add(sum: &Value, value: &Value) -> Value {
    match (sum, value) {
        (Value::Null, value) => value.clone(),
        (sum, Value::Null) => sum.clone(),
        (Value::Int(sum), Value::Int(value)) => Value::Int(sum.saturating_add(*value)),
        (Value::Float(sum), Value::Float(value)) => Value::Float(sum + value),
        (Value::Decimal(sum), Value::Decimal(value)) => Value::Decimal(sum.saturating_add(*value)),
        (sum, _) => sum.clone(),
    }
}

fn encode_order(order: &[Value], out: &mut Vec<u8>) {
    Value::Int(i64::try_from(order.len()).unwrap_or(i64::MAX)).encode(out);
    order.iter().for_each(|value| value.encode(out));
}

fn decode_order(bytes: &mut &[u8]) -> Option<Vec<Value>> {
    let length = int(&Value::decode(bytes)?)?;
    (0..length).map(|_| Value::decode(bytes)).collect()
}

fn int(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value { Some(*number) } else { None }
}
