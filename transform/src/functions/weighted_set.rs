//! `weighted_set(text, weight)`: what a change does to a set of texts.
//!
//! The state does not depend on the order of rows and can be subtracted from.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use karat_lake::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    datafusion::{
        common::ScalarValue,
        error::{DataFusionError, Result},
        logical_expr::{Accumulator, AggregateUDF, Volatility, create_udaf},
    },
};

use crate::value::Value;

/// Text and weight, encoded in order. One function, so that two uses of it are equal.
pub(crate) fn weighted_set() -> AggregateUDF {
    static FUNCTION: LazyLock<AggregateUDF> = LazyLock::new(|| {
        create_udaf(
            "weighted_set",
            vec![DataType::Utf8, DataType::Int64],
            Arc::new(DataType::Binary),
            Volatility::Immutable,
            Arc::new(|_| Ok(Box::new(SetAccumulator::default()))),
            Arc::new(vec![DataType::Binary]),
        )
    });
    FUNCTION.clone()
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
