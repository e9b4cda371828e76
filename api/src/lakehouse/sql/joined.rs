//! `||`, `OVERLAY`, and lists and structs that are written out, as calls of functions whose values are bounded: the planner
//! would make operators and functions of them that are not.

use std::sync::Arc;

use karat_lake::{
    arrow::{compute::kernels::concat_elements::concat_elements_dyn, datatypes::DataType},
    datafusion::{
        common::DFSchema,
        error::{DataFusionError, Result},
        logical_expr::{
            ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
            Volatility,
            binary::BinaryTypeCoercer,
            planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawDictionaryExpr},
        },
        sql::sqlparser::ast::BinaryOperator,
    },
};

use super::growth::{Growth, ValueBound, bounded};

/// Comes before the planners of the engine.
#[derive(Debug)]
pub(super) struct BoundedPlanner {
    joined: ScalarUDF,
    list: Option<ScalarUDF>,
    overlay: Option<ScalarUDF>,
    plain_struct: Option<ScalarUDF>,
    named_struct: Option<ScalarUDF>,
}

impl BoundedPlanner {
    /// With the `functions` that are bounded already.
    pub(super) fn new(functions: &[ScalarUDF], bound: &ValueBound) -> Self {
        let joined =
            Arc::new(ScalarUDF::new_from_impl(Joined { signature: Signature::user_defined(Volatility::Immutable) }));
        let named = |name: &str| functions.iter().find(|function| function.name() == name).cloned();
        Self {
            joined: bounded(joined, Growth::Sum, bound),
            list: named("make_array"),
            overlay: named("overlay"),
            plain_struct: named("struct"),
            named_struct: named("named_struct"),
        }
    }
}

impl ExprPlanner for BoundedPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op != BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { left, right, .. } = expr;
        if left.get_type(schema)?.is_nested() || right.get_type(schema)?.is_nested() {
            return Err(DataFusionError::NotImplemented("`||` of lists: `array_concat` joins them".to_owned()));
        }
        Ok(PlannerResult::Planned(self.joined.call(vec![left, right])))
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, _schema: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(match &self.list {
            Some(list) => PlannerResult::Planned(list.call(exprs)),
            None => PlannerResult::Original(exprs),
        })
    }

    fn plan_struct_literal(&self, args: Vec<Expr>, is_named_struct: bool) -> Result<PlannerResult<Vec<Expr>>> {
        let function = if is_named_struct { &self.named_struct } else { &self.plain_struct };
        Ok(match function {
            Some(function) => PlannerResult::Planned(function.call(args)),
            None => PlannerResult::Original(args),
        })
    }

    fn plan_dictionary_literal(
        &self,
        expr: RawDictionaryExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawDictionaryExpr>> {
        let Some(function) = &self.named_struct else { return Ok(PlannerResult::Original(expr)) };
        let args = expr.keys.into_iter().zip(expr.values).flat_map(|(key, value)| [key, value]).collect();
        Ok(PlannerResult::Planned(function.call(args)))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(match &self.overlay {
            Some(overlay) => PlannerResult::Planned(overlay.call(args)),
            None => PlannerResult::Original(args),
        })
    }
}

/// `a || b`: NULL when one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Joined {
    signature: Signature,
}

impl Joined {
    /// Types that the operator has for such a pair: those of its arguments, and that of its value.
    fn types(arg_types: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        let [left, right] = arg_types else {
            return Err(DataFusionError::Plan(format!("`||` has two sides, found {}", arg_types.len())));
        };
        let operator = BinaryTypeCoercer::new(left, &Operator::StringConcat, right);
        let (left, right) = operator.get_input_types()?;
        Ok((vec![left, right], operator.get_result_type()?))
    }
}

impl ScalarUDFImpl for Joined {
    fn name(&self) -> &str {
        "||"
    }

    /// As a column is called that has no other name.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let sides: Vec<String> = args.iter().map(|side| side.schema_name().to_string()).collect();
        Ok(sides.join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Self::types(arg_types).map(|(arguments, _)| arguments)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Self::types(arg_types).map(|(_, value)| value)
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = &args.args[..] else {
            return Err(DataFusionError::Internal("`||` without two sides".to_owned()));
        };
        let (left, right) = (left.to_array(args.number_rows)?, right.to_array(args.number_rows)?);
        Ok(ColumnarValue::Array(concat_elements_dyn(&left, &right)?))
    }
}
