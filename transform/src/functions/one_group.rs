//! What the aggregates over many groups have in common.

use std::fmt::Debug;

use karat_lake::{
    arrow::array::{Array, ArrayRef, BooleanArray},
    datafusion::{
        common::ScalarValue,
        error::Result,
        logical_expr::{Accumulator, EmitTo, GroupsAccumulator},
    },
};

/// An aggregate that can make room for groups that have no rows yet.
pub(super) trait Groups: GroupsAccumulator + Debug + Sync + 'static {
    fn grow(&mut self, num_groups: usize);
}

/// An aggregate without groups: all rows are the one group, which is there also when no row came.
#[derive(Debug)]
pub(super) struct OneGroup<G>(pub(super) G);

impl<G: Groups> Accumulator for OneGroup<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |values| values.len());
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.grow(1);
        ScalarValue::try_from_array(&self.0.evaluate(EmitTo::All)?, 0)
    }

    fn size(&self) -> usize {
        GroupsAccumulator::size(&self.0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.grow(1);
        self.0.state(EmitTo::All)?.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |states| states.len());
        self.0.merge_batch(states, &vec![0; rows], 1)
    }
}

/// Whether the aggregate's filter lets the row pass.
pub(super) fn is_in(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}
