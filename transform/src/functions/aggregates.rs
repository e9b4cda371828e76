//! Aggregates whose state does not depend on the order of rows and can be subtracted from.

use std::{collections::BTreeMap, sync::Arc};

use karat_lake::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        compute::cast,
        datatypes::{DataType, Float64Type, Int64Type},
    },
    datafusion::{
        common::ScalarValue,
        error::{DataFusionError, Result},
        logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf},
    },
};
use karat_schemas::histogram::Histogram;

use crate::value::Value;

pub const HISTOGRAM: &str = "histogram";
pub const PERCENTILE: &str = "percentile";

pub(super) fn all() -> Vec<AggregateUDF> {
    let int = DataType::Int64;
    vec![
        of_histogram(HISTOGRAM, vec![int.clone()], Output::Bytes),
        of_histogram(PERCENTILE, vec![int, DataType::Float64], Output::Quantile),
        weighted_histogram(),
        weighted_set(),
    ]
}

/// `weighted_histogram(x, weight)`: what a change does to a histogram.
pub(crate) fn weighted_histogram() -> AggregateUDF {
    of_histogram("weighted_histogram", vec![DataType::Int64, DataType::Int64], Output::Weighted)
}

/// `weighted_set(text, weight)`: what a change does to a set of texts: text and weight, encoded in order.
pub(crate) fn weighted_set() -> AggregateUDF {
    create_udaf(
        "weighted_set",
        vec![DataType::Utf8, DataType::Int64],
        Arc::new(DataType::Binary),
        Volatility::Immutable,
        Arc::new(|_| Ok(Box::new(SetAccumulator::default()))),
        Arc::new(vec![DataType::Binary]),
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Bytes,
    Quantile,
    /// Bytes; the second argument is the weight.
    Weighted,
}

fn of_histogram(name: &str, inputs: Vec<DataType>, output: Output) -> AggregateUDF {
    let result = if output == Output::Quantile { DataType::Float64 } else { DataType::Binary };
    create_udaf(
        name,
        inputs,
        Arc::new(result),
        Volatility::Immutable,
        Arc::new(move |_| Ok(Box::new(HistogramAccumulator { histogram: Histogram::default(), p: 0.5, output }))),
        Arc::new(vec![DataType::Binary, DataType::Float64]),
    )
}

#[derive(Debug)]
struct HistogramAccumulator {
    histogram: Histogram,
    p: f64,
    output: Output,
}

impl Accumulator for HistogramAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let numbers = cast(&values[0], &DataType::Int64)?;
        let numbers = numbers.as_primitive::<Int64Type>();
        if self.output == Output::Quantile && !values[1].is_empty() {
            self.p = cast(&values[1], &DataType::Float64)?.as_primitive::<Float64Type>().value(0);
        }
        let weights = (self.output == Output::Weighted).then(|| values[1].as_primitive::<Int64Type>());
        for row in (0..numbers.len()).filter(|row| numbers.is_valid(*row)) {
            self.histogram.add(numbers.value(row), weights.map_or(1, |weights| weights.value(row)));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(match self.output {
            Output::Quantile => ScalarValue::Float64(self.histogram.quantile(self.p).map(|value| value as f64)),
            _ => ScalarValue::Binary(Some(self.histogram.to_bytes())),
        })
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.histogram.to_bytes())), ScalarValue::Float64(Some(self.p))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let parts = cast(&states[0], &DataType::Binary)?;
        for bytes in parts.as_binary::<i32>().iter().flatten() {
            let part = Histogram::from_bytes(bytes);
            self.histogram.merge(&part.ok_or_else(|| DataFusionError::Execution("damaged histogram".to_owned()))?);
        }
        if self.output == Output::Quantile && !states[1].is_empty() {
            self.p = states[1].as_primitive::<Float64Type>().value(0);
        }
        Ok(())
    }
}

/// Texts with their weights; those of weight zero are gone.
pub(crate) type WeightedSet = BTreeMap<Box<str>, i64>;

pub(crate) fn encode_set(set: &WeightedSet) -> Vec<u8> {
    let mut out = Vec::new();
    for (text, weight) in set {
        Value::Text(text.clone()).encode(&mut out);
        Value::Int(*weight).encode(&mut out);
    }
    out
}

pub(crate) fn decode_set(mut bytes: &[u8]) -> Option<WeightedSet> {
    let mut set = WeightedSet::new();
    while !bytes.is_empty() {
        match (Value::decode(&mut bytes)?, Value::decode(&mut bytes)?) {
            (Value::Text(text), Value::Int(weight)) => set.insert(text, weight),
            _ => return None,
        };
    }
    Some(set)
}

pub(crate) fn add_to_set(set: &mut WeightedSet, text: &str, weight: i64) {
    let count = match set.get_mut(text) {
        Some(count) => count,
        None => set.entry(text.into()).or_insert(0),
    };
    *count += weight;
    if *count == 0 {
        set.remove(text);
    }
}

#[derive(Debug, Default)]
struct SetAccumulator {
    set: WeightedSet,
}

impl Accumulator for SetAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let texts = cast(&values[0], &DataType::Utf8)?;
        let (texts, weights) = (texts.as_string::<i32>(), values[1].as_primitive::<Int64Type>());
        for row in (0..texts.len()).filter(|row| texts.is_valid(*row)) {
            add_to_set(&mut self.set, texts.value(row), weights.value(row));
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(Some(encode_set(&self.set))))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let parts = cast(&states[0], &DataType::Binary)?;
        for bytes in parts.as_binary::<i32>().iter().flatten() {
            let part = decode_set(bytes).ok_or_else(|| DataFusionError::Execution("damaged set".to_owned()))?;
            part.iter().for_each(|(text, weight)| add_to_set(&mut self.set, text, *weight));
        }
        Ok(())
    }
}
