//! Functions whose values can be larger than what they read, with a bound on one value.
//!
//! The engine does not count such values in any pool, and some of these functions multiply: a few `replace` inside of each
//! other make gigabytes of a short text, already while the planner computes constants. So the largest value that a call
//! could give is found out from the largest of each argument before it is made. One value is what is bounded, not a column:
//! a join, or a constant, puts it on every row of a batch.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use karat_lake::{
    arrow::{
        array::{Array, ArrayRef, AsArray},
        datatypes::{DataType, FieldRef},
    },
    datafusion::{
        common::tree_node::{TreeNode, TreeNodeRecursion},
        error::{DataFusionError, Result},
        execution::SessionStateDefaults,
        logical_expr::{
            ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        },
    },
};

/// Rows of a batch of a question.
pub(super) const BATCH_ROWS: usize = 512;
/// Threads that make batches of one question.
pub(super) const PARTITIONS: usize = 2;
/// What an element of a list takes beside its value.
const ELEMENT_BYTES: usize = 16;
/// The most characters that one of a format for times stands for, and some more.
const FORMATTED: usize = 32;
/// Groups of a pattern that are inside of each other, which regular expressions bound.
const NESTED_GROUPS: usize = 251;

/// Functions of the engine by name, and how they grow.
const GROWING: [(&str, Growth); 16] = [
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Separated),
    ("replace", Growth::Replaced),
    ("regexp_replace", Growth::Replaced),
    ("regexp_match", Growth::Captured),
    ("overlay", Growth::Overlaid),
    ("encode", Growth::Encoded),
    ("to_char", Growth::Formatted),
    ("string_to_array", Growth::Split),
    ("make_array", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("array_append", Growth::Sum),
    ("array_prepend", Growth::Sum),
    ("array_union", Growth::Sum),
    // Their parts are shared, until something copies rows.
    ("struct", Growth::Sum),
    ("named_struct", Growth::Sum),
];

/// The largest value that a function of one question may give, in bytes.
#[derive(Debug, Clone)]
pub(super) struct ValueBound(Arc<AtomicUsize>);

impl ValueBound {
    /// Of a question that may use `memory_bytes` for the values of its functions.
    pub(super) fn within(memory_bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(memory_bytes / (BATCH_ROWS * PARTITIONS))))
    }

    /// Divides it among the values that there may be at a time while `plan` makes a batch.
    ///
    /// # Errors
    /// When the plan cannot be walked.
    pub(super) fn divide_among(&self, plan: &LogicalPlan) -> Result<()> {
        let mut values = 0_usize;
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                values += at_a_time(expr)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        self.0.store(self.bytes() / values.max(1), Ordering::Relaxed);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// When a value of `bytes` is too large.
    fn check(&self, function: &str, bytes: usize) -> Result<()> {
        let most = self.bytes();
        if bytes <= most {
            return Ok(());
        }
        let what = format!("a value of `{function}` could have {bytes} bytes: expected at most {most}");
        Err(DataFusionError::ResourcesExhausted(what))
    }
}

/// The functions that grow, to be registered in the place of those of the engine.
pub(super) fn bounded_functions(bound: &ValueBound) -> Vec<ScalarUDF> {
    let functions = SessionStateDefaults::default_scalar_functions();
    let growing = functions.into_iter().filter_map(|function| {
        let (_, growth) = GROWING.iter().find(|(name, _)| *name == function.name())?;
        Some(bounded(function, *growth, bound))
    });
    growing.collect()
}

/// `function` with a bound on its values.
pub(super) fn bounded(function: Arc<ScalarUDF>, growth: Growth, bound: &ValueBound) -> ScalarUDF {
    ScalarUDF::new_from_impl(Bounded { function, growth, bound: bound.clone() })
}

fn is_bounded(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().is::<Bounded>())
}

/// How many values of bounded functions there may be at a time while `expr` is computed, its own included. Those of a
/// chain, such as `a || b || c`, are two: the one before goes when the next is made.
fn at_a_time(expr: &Expr) -> Result<usize> {
    let (mut held, mut most) = (0, 0);
    expr.apply_children(|part| {
        let of_part = at_a_time(part)?;
        most = most.max(held + of_part);
        held += usize::from(of_part > 0);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(most.max(held + usize::from(is_bounded(expr))))
}

/// How the largest value follows from the largest of each argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// All of them one after the other.
    Sum,
    /// The same, with the first one between the others.
    Separated,
    /// The third one in the place of each match in the first.
    Replaced,
    /// A list of the parts of the first that the groups of the second have.
    Captured,
    /// The second one in the first, of which some may come again behind it.
    Overlaid,
    /// Two characters a byte.
    Encoded,
    /// A time by a format, the second one.
    Formatted,
    /// A list of the parts of the first.
    Split,
}

impl Growth {
    /// The most bytes of a value of a call with arguments that have at most `sizes` bytes each.
    fn most(self, sizes: &[usize]) -> usize {
        let size = |at: usize| sizes.get(at).copied().unwrap_or(0);
        let sum = sizes.iter().fold(0_usize, |sum, size| sum.saturating_add(*size));
        match self {
            Self::Sum => sum.saturating_add(sizes.len().saturating_mul(ELEMENT_BYTES)),
            Self::Separated => sum.saturating_add(size(0).saturating_mul(sizes.len())),
            // An empty text is found before each character and at the end, and what is put there may name what was found.
            Self::Replaced => {
                let places = size(0).saturating_add(1);
                let put = size(2).saturating_mul(places);
                size(0).saturating_add(put)
            }
            // Groups beside each other have parts beside each other; a group has two characters of the pattern at least.
            Self::Captured => {
                let groups = (size(1) / 2).saturating_add(1);
                let parts = size(0).saturating_mul(groups.min(NESTED_GROUPS));
                parts.saturating_add(groups.saturating_mul(ELEMENT_BYTES))
            }
            Self::Overlaid => size(0).saturating_mul(2).saturating_add(size(1)),
            Self::Encoded => size(0).saturating_mul(2).saturating_add(4),
            Self::Formatted => size(1).saturating_mul(FORMATTED),
            Self::Split => size(0).saturating_add(1).saturating_mul(ELEMENT_BYTES + 1),
        }
    }
}

/// A function that is asked only when its values are within the bound. What the planner would write it as without calling
/// it (`simplify`) is left out: that could be the function without a bound.
#[derive(Debug)]
struct Bounded {
    function: Arc<ScalarUDF>,
    growth: Growth,
    bound: ValueBound,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.function == other.function
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.function.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.function.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.function.is_strict()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sizes = args.args.iter().map(largest).collect::<Result<Vec<usize>>>()?;
        self.bound.check(self.name(), self.growth.most(&sizes))?;
        self.function.invoke_with_args(args)
    }
}

/// The bytes of the largest value.
fn largest(value: &ColumnarValue) -> Result<usize> {
    match value {
        ColumnarValue::Array(array) => Ok(largest_of(array)),
        ColumnarValue::Scalar(scalar) => Ok(largest_of(&scalar.to_array()?)),
    }
}

fn largest_of(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8 => widest(array.as_string::<i32>().value_offsets()),
        DataType::LargeUtf8 => widest(array.as_string::<i64>().value_offsets()),
        DataType::Utf8View => widest_view(array.as_string_view().views()),
        DataType::Binary => widest(array.as_binary::<i32>().value_offsets()),
        DataType::LargeBinary => widest(array.as_binary::<i64>().value_offsets()),
        DataType::BinaryView => widest_view(array.as_binary_view().views()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            elements(widest(list.value_offsets()), list.values())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            elements(widest(list.value_offsets()), list.values())
        }
        DataType::FixedSizeList(_, length) => {
            elements(usize::try_from(*length).unwrap_or(0), array.as_fixed_size_list().values())
        }
        DataType::Struct(_) => {
            array.as_struct().columns().iter().fold(0, |sum: usize, column| sum.saturating_add(largest_of(column)))
        }
        DataType::Dictionary(..) => largest_of(array.as_any_dictionary().values()),
        other => match other.primitive_width() {
            Some(bytes) => bytes,
            None if matches!(other, DataType::Null | DataType::Boolean) => 1,
            // All of them together, for kinds that no table has.
            None => array.get_array_memory_size(),
        },
    }
}

fn elements(count: usize, values: &ArrayRef) -> usize {
    count.saturating_mul(largest_of(values).saturating_add(ELEMENT_BYTES))
}

/// The longest stretch between two offsets that are beside each other.
fn widest<O: Copy + Into<i64>>(offsets: &[O]) -> usize {
    let lengths = offsets.windows(2).filter_map(|pair| match pair {
        [begin, end] => {
            let (begin, end): (i64, i64) = ((*begin).into(), (*end).into());
            usize::try_from(end - begin).ok()
        }
        _ => None,
    });
    lengths.max().unwrap_or(0)
}

/// The same of views, which begin with their length.
fn widest_view(views: &[u128]) -> usize {
    views.iter().map(|view| *view as u32 as usize).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use karat_lake::{
        arrow::{
            array::{Int64Array, ListArray, StringArray, StringViewArray},
            datatypes::Int64Type,
        },
        datafusion::{common::ScalarValue, logical_expr::ident},
    };

    use super::*;

    #[test]
    fn the_largest_value_is_found_in_texts_views_numbers_and_lists() {
        let texts = ["", "four", "seventeen letters"];
        let arrays: [(ArrayRef, usize); 5] = [
            (Arc::new(StringArray::from(texts.to_vec())), 17),
            (Arc::new(StringArray::from(texts.to_vec()).slice(0, 2)), 4),
            (Arc::new(StringViewArray::from(texts.to_vec())), 17),
            (Arc::new(Int64Array::from(vec![1, 2])), 8),
            (
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
                    Some(vec![Some(1), Some(2), Some(3)]),
                    Some(vec![]),
                ])),
                3 * (8 + ELEMENT_BYTES),
            ),
        ];
        for (array, bytes) in arrays {
            assert_eq!(largest_of(&array), bytes, "{array:?}");
        }
        assert_eq!(largest(&ColumnarValue::Scalar(ScalarValue::Utf8(Some("four".to_owned())))).unwrap(), 4);
        assert_eq!(largest(&ColumnarValue::Scalar(ScalarValue::Utf8(None))).unwrap(), 0);
    }

    #[test]
    fn a_chain_has_two_values_at_a_time_and_arguments_are_all_there_at_once() {
        let functions = bounded_functions(&ValueBound::within(1 << 20));
        let concat = functions.iter().find(|function| function.name() == "concat").unwrap();
        let join = |left: Expr, right: Expr| concat.call(vec![left, right]);
        let one = join(ident("a"), ident("b"));
        let chain = (0..20).fold(one.clone(), |chain, _| join(chain, ident("c")));
        let wide = concat.call(vec![one.clone(); 5]);
        for (expr, values) in [(ident("a"), 0), (one, 1), (chain, 2), (wide, 6)] {
            assert_eq!(at_a_time(&expr).unwrap(), values, "{expr}");
        }
    }

    #[test]
    fn no_growth_is_less_than_what_the_function_makes() {
        let long = "x".repeat(50);
        assert!(Growth::Replaced.most(&[50, 1, 100]) >= long.replace('x', &"y".repeat(100)).len());
        assert!(Growth::Replaced.most(&[50, 0, 100]) >= long.replace("", &"y".repeat(100)).len());
        assert!(Growth::Separated.most(&[10, 5, 5, 5]) >= 3 * 5 + 2 * 10);
        assert!(Growth::Sum.most(&[10, 5]) >= 15);
        assert_eq!(Growth::Replaced.most(&[usize::MAX, 1, usize::MAX]), usize::MAX);
        assert!(Growth::Captured.most(&[10, "((.*))".len()]) >= 2 * 10);
        assert!(Growth::Overlaid.most(&[10, 5, 8, 8]) >= 10 + 5 + 10);
        assert_eq!(Growth::Formatted.most(&[8]), 0);
    }
}
