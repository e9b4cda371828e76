//! `histogram(x)`, `percentile(x, p)` and `weighted_histogram(x, weight)`: order-free histograms of whole numbers.

use std::sync::Arc;

use karat_lake::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array},
        compute::cast,
        datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type},
    },
    datafusion::{
        error::{DataFusionError, Result},
        logical_expr::{
            Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
            function::{AccumulatorArgs, StateFieldsArgs},
        },
    },
};
use karat_schemas::histogram::Histogram;

use super::one_group::{Groups, OneGroup, is_in};

pub const HISTOGRAM: &str = "histogram";
pub const PERCENTILE: &str = "percentile";

pub(super) fn all() -> Vec<AggregateUDF> {
    let int = DataType::Int64;
    vec![
        function(HISTOGRAM, vec![int.clone()], Output::Bytes),
        function(PERCENTILE, vec![int, DataType::Float64], Output::Quantile),
        weighted_histogram(),
    ]
}

/// `weighted_histogram(x, weight)`: what a change does to a histogram.
pub(crate) fn weighted_histogram() -> AggregateUDF {
    function("weighted_histogram", vec![DataType::Int64, DataType::Int64], Output::Weighted)
}

fn function(name: &'static str, arguments: Vec<DataType>, output: Output) -> AggregateUDF {
    AggregateUDF::new_from_impl(HistogramFunction {
        name,
        signature: Signature::exact(arguments, Volatility::Immutable),
        output,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Output {
    Bytes,
    Quantile,
    /// State; the second argument is the weight.
    Weighted,
}

impl Output {
    fn data_type(self) -> DataType {
        if self == Self::Quantile { DataType::Float64 } else { DataType::Binary }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HistogramFunction {
    name: &'static str,
    signature: Signature,
    output: Output,
}

impl AggregateUDFImpl for HistogramFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.output.data_type())
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(Histograms::new(self.output))))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field =
            |part: &str, data_type| Arc::new(Field::new(format!("{}[{part}]", arguments.name), data_type, true));
        Ok(vec![field("histogram", DataType::Binary), field("p", DataType::Float64)])
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Histograms::new(self.output)))
    }
}

/// The histograms of many groups.
#[derive(Debug)]
struct Histograms {
    groups: Vec<Gathered>,
    p: f64,
    output: Output,
}

/// A histogram, and values that are still to be added: many at once cost far less than one by one.
#[derive(Debug, Default)]
struct Gathered {
    histogram: Histogram,
    values: Vec<(i64, i64)>,
}

/// Values that wait, at most.
const GATHERED: usize = 1024;

impl Gathered {
    fn add(&mut self, value: i64, weight: i64) {
        self.values.push((value, weight));
        if self.values.len() >= GATHERED {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if !self.values.is_empty() {
            self.histogram.add_all(std::mem::take(&mut self.values));
        }
    }

    fn whole(mut self) -> Histogram {
        self.settle();
        self.histogram
    }
}

impl Histograms {
    fn new(output: Output) -> Self {
        Self { groups: Vec::new(), p: 0.5, output }
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Histogram> {
        emit_to.take_needed(&mut self.groups).into_iter().map(Gathered::whole).collect()
    }
}

impl Groups for Histograms {
    fn grow(&mut self, num_groups: usize) {
        self.groups.resize_with(num_groups, Gathered::default);
    }
}

impl GroupsAccumulator for Histograms {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        filter: Option<&BooleanArray>,
        num_groups: usize,
    ) -> Result<()> {
        self.grow(num_groups);
        let numbers = values[0].as_primitive::<Int64Type>();
        if self.output == Output::Quantile && !values[1].is_empty() {
            self.p = values[1].as_primitive::<Float64Type>().value(0);
        }
        let weights = (self.output == Output::Weighted).then(|| values[1].as_primitive::<Int64Type>());
        for (row, group) in group_indices.iter().enumerate() {
            if numbers.is_valid(row) && is_in(filter, row) {
                self.groups[*group].add(numbers.value(row), weights.map_or(1, |weights| weights.value(row)));
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (output, p) = (self.output, self.p);
        let histograms = self.take(emit_to);
        Ok(match output {
            Output::Quantile => {
                let value = |histogram: &Histogram| histogram.quantile(p).map(|value| value as f64);
                Arc::new(histograms.iter().map(value).collect::<Float64Array>())
            }
            Output::Bytes => bytes(&histograms, Histogram::to_bytes),
            Output::Weighted => bytes(&histograms, Histogram::to_state),
        })
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let histograms = self.take(emit_to);
        let p = Float64Array::from(vec![self.p; histograms.len()]);
        Ok(vec![bytes(&histograms, Histogram::to_state), Arc::new(p)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], group_indices: &[usize], num_groups: usize) -> Result<()> {
        self.grow(num_groups);
        let parts = cast(&states[0], &DataType::Binary)?;
        let parts = parts.as_binary::<i32>();
        for (row, group) in group_indices.iter().enumerate() {
            if parts.is_valid(row) {
                let part = Histogram::from_bytes(parts.value(row));
                let part = part.ok_or_else(|| DataFusionError::Execution("damaged histogram".to_owned()))?;
                self.groups[*group].histogram.merge(&part);
            }
        }
        if self.output == Output::Quantile && !states[1].is_empty() {
            self.p = states[1].as_primitive::<Float64Type>().value(0);
        }
        Ok(())
    }

    /// Each row as a group of its own.
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |values| values.len());
        let groups: Vec<usize> = (0..rows).collect();
        let mut each = Self::new(self.output);
        each.update_batch(values, &groups, filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        let waiting: usize = self.groups.iter().map(|group| group.values.capacity()).sum();
        size_of_val(self) + self.groups.capacity() * size_of::<Gathered>() + waiting * size_of::<(i64, i64)>()
    }
}

fn bytes(histograms: &[Histogram], form: fn(&Histogram) -> Vec<u8>) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values(histograms.iter().map(form)))
}
