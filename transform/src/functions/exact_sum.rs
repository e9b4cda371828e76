//! `exact_sum(x, weight)`: the sum of whole numbers in 128 bits, so that no total turns negative on the way.

use std::sync::Arc;

use karat_lake::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array},
        datatypes::{DataType, Decimal128Type, Int64Type},
    },
    datafusion::{
        error::Result,
        logical_expr::{
            Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, TypeSignature,
            Volatility, function::AccumulatorArgs,
        },
    },
};

use super::one_group::{Groups, OneGroup, is_in};

/// The type of the sums.
const TOTAL: DataType = DataType::Decimal128(38, 0);

/// The sum of `x`, or of `x` times `weight`.
pub(crate) fn exact_sum() -> AggregateUDF {
    let arguments = |count| TypeSignature::Exact(vec![DataType::Int64; count]);
    let signature = Signature::one_of(vec![arguments(1), arguments(2)], Volatility::Immutable);
    AggregateUDF::new_from_impl(ExactSum { signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    signature: Signature,
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        "exact_sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(TOTAL)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(Sums::default())))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Sums::default()))
    }
}

/// The sums of many groups; none for a group without values.
#[derive(Debug, Default)]
struct Sums(Vec<Option<i128>>);

impl Groups for Sums {
    fn grow(&mut self, num_groups: usize) {
        self.0.resize(num_groups, None);
    }
}

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        num_groups: usize,
    ) -> Result<()> {
        self.grow(num_groups);
        let numbers = values[0].as_primitive::<Int64Type>();
        let weights = values.get(1).map(|weights| weights.as_primitive::<Int64Type>());
        for (row, group) in group_indices.iter().enumerate() {
            if numbers.is_valid(row) && is_in(filter, row) {
                let weight = weights.map_or(1, |weights| weights.value(row));
                *self.0[*group].get_or_insert(0) += i128::from(numbers.value(row)) * i128::from(weight);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums: Decimal128Array = emit_to.take_needed(&mut self.0).into_iter().collect();
        Ok(Arc::new(sums.with_data_type(TOTAL)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], num_groups: usize) -> Result<()> {
        self.grow(num_groups);
        let sums = states[0].as_primitive::<Decimal128Type>();
        for (row, group) in group_indices.iter().enumerate() {
            if sums.is_valid(row) {
                *self.0[*group].get_or_insert(0) += sums.value(row);
            }
        }
        Ok(())
    }

    /// Each row as a group of its own.
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |values| values.len());
        let groups: Vec<usize> = (0..rows).collect();
        let mut each = Self::default();
        each.update_batch(values, &groups, filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.capacity() * size_of::<Option<i128>>()
    }
}

#[cfg(test)]
mod tests {
    use karat_lake::arrow::array::Int64Array;

    use super::*;

    #[test]
    fn sums_beyond_64_bits_are_exact_with_weights_and_nothing_is_no_sum() {
        let mut sums = Sums::default();
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MAX), None, Some(5)]));
        let weights: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1, -1]));
        let filter = BooleanArray::from(vec![Some(true), Some(true), Some(true), None]);
        sums.update_batch(&[numbers.clone(), weights.clone()], &[0, 0, 1, 1], Some(&filter), 3).unwrap();
        assert_eq!(sums.0, [Some(3 * i128::from(i64::MAX)), None, None]);
        sums.update_batch(&[numbers, weights], &[0, 0, 1, 1], None, 3).unwrap();
        let state = sums.state(EmitTo::All).unwrap();
        sums.merge_batch(&state, &[0, 1, 1], 2).unwrap();
        assert_eq!(sums.0, [Some(6 * i128::from(i64::MAX)), Some(-5)]);
    }
}
