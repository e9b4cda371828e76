//! Judges what a question says: its statement as it was parsed, and the plan that was made of it.
//!
//! Both by what is allowed, not by what is forbidden: what a later version of the parser or the planner can say is refused
//! until it stands here.

use std::{collections::BTreeMap, ops::ControlFlow};

use karat_http::ApiError;
use karat_lake::{
    arrow::datatypes::DataType,
    datafusion::{
        common::{
            TableReference,
            tree_node::{TreeNode, TreeNodeRecursion},
        },
        execution::session_state::SessionState,
        logical_expr::{Expr as Planned, LogicalPlan},
        sql::{
            parser::Statement as Parsed,
            sqlparser::ast::{
                Expr, Function, FunctionArguments, Query, Select, SetExpr, Statement, TableFactor, Visit, Visitor,
            },
        },
    },
};

use super::{
    guard::{refused, too_large},
    written_out,
};

/// Tables, subqueries and common table expressions that a question reads, each as often as it is named.
const MAX_TABLES: usize = 32;
/// Parts of a plan. Expressions that read each other twice would double it each time.
const MAX_NODES: usize = 2_000;
/// Parts of an expression in which the columns of the queries below are written out.
const MAX_PARTS: usize = 50_000;
/// Elements of a list, and bytes, of a fixed size. The engine takes the memory of a batch of them before it looks at one, and
/// where the system does not give it, that ends the process.
const MAX_FIXED_SIZE: usize = 1_000;

/// Refuses everything but one `SELECT` over tables, and gives the function that it names and that is not there, if any.
///
/// # Errors
/// 400 `sql_refused` or `sql_too_large`.
pub(super) fn check_statement(parsed: &Parsed, state: &SessionState) -> Result<Option<String>, ApiError> {
    let Parsed::Statement(statement) = parsed else {
        return Err(refused("only one `SELECT` is answered"));
    };
    let mut judge = Judge { state, tables: 0, unknown_function: None };
    match statement.visit(&mut judge) {
        ControlFlow::Continue(()) => Ok(judge.unknown_function),
        ControlFlow::Break(Refusal::Tables) => Err(too_large(&format!("at most {MAX_TABLES} tables and subqueries"))),
        ControlFlow::Break(Refusal::What(what)) => Err(refused(format!("{what} is not answered"))),
    }
}

/// The tables of the epoch that a question reads, by full name with their version.
///
/// # Errors
/// 400 `sql_refused` for a table that is not there.
pub(super) fn tables_of(
    parsed: &Parsed,
    state: &SessionState,
    known: &BTreeMap<String, u64>,
) -> Result<Vec<(String, u64)>, ApiError> {
    let named =
        state.resolve_table_references(parsed).map_err(|error| refused("a name is unclear").caused_by(error))?;
    let mut tables = Vec::new();
    for table in named {
        let name = match &table {
            TableReference::Partial { schema, table } => format!("{schema}.{table}"),
            other => other.to_string(),
        };
        match known.get(&name) {
            Some(version) if matches!(table, TableReference::Partial { .. }) => tables.push((name, *version)),
            _ => {
                let names: Vec<String> = known.keys().map(|name| format!("`{name}`")).collect();
                return Err(refused(format!("there is no table of this name; there are {}", names.join(", ")))
                    .detail(format!("found `{}`", crate::serving::params::short(&name))));
            }
        }
    }
    Ok(tables)
}

/// Refuses plans that do anything but read, and plans that are too large.
///
/// # Errors
/// 400 `sql_refused` or `sql_too_large`.
pub(super) fn check_plan(plan: &LogicalPlan) -> Result<(), ApiError> {
    let (mut nodes, mut does_more) = (0, false);
    let walked = plan.apply_with_subqueries(|node| {
        nodes += 1;
        does_more |= !reads(node);
        Ok(if does_more || nodes > MAX_NODES { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(ApiError::internal)?;
    if does_more {
        return Err(refused("only reading tables is answered"));
    }
    if nodes > MAX_NODES {
        return Err(too_large(&format!("at most {MAX_NODES} steps")));
    }
    check_fixed_sizes(plan)?;
    check_sizes(plan)
}

fn check_fixed_sizes(plan: &LogicalPlan) -> Result<(), ApiError> {
    let mut is_too_large = false;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                is_too_large |= is_cast_to_fixed_size(part);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(ApiError::internal)?;
    if is_too_large {
        return Err(too_large(&format!("lists of a fixed size with at most {MAX_FIXED_SIZE} elements")));
    }
    Ok(())
}

fn is_cast_to_fixed_size(expr: &Planned) -> bool {
    match expr {
        Planned::Cast(cast) => fixed_size(cast.field.data_type()) > MAX_FIXED_SIZE,
        Planned::TryCast(cast) => fixed_size(cast.field.data_type()) > MAX_FIXED_SIZE,
        // Such a call becomes a cast when the plan is made quick. It names the type in a constant text.
        Planned::ScalarFunction(call) => {
            matches!(call.func.name(), "arrow_cast" | "arrow_try_cast") && call.args.iter().any(names_fixed_size)
        }
        _ => false,
    }
}

fn names_fixed_size(expr: &Planned) -> bool {
    let Planned::Literal(value, _) = expr else { return false };
    let named = value.try_as_str().flatten().and_then(|text| text.parse::<DataType>().ok());
    named.is_some_and(|data_type| fixed_size(&data_type) > MAX_FIXED_SIZE)
}

/// How many values a value of this type has place for, whatever it holds.
fn fixed_size(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeBinary(size) => usize::try_from(*size).unwrap_or(usize::MAX),
        DataType::FixedSizeList(of, size) => {
            usize::try_from(*size).unwrap_or(usize::MAX).saturating_mul(fixed_size(of.data_type()))
        }
        DataType::List(of)
        | DataType::LargeList(of)
        | DataType::ListView(of)
        | DataType::LargeListView(of)
        | DataType::Map(of, _)
        | DataType::RunEndEncoded(_, of) => fixed_size(of.data_type()),
        DataType::Struct(fields) => {
            fields.iter().fold(1, |sum: usize, field| sum.saturating_add(fixed_size(field.data_type())))
        }
        DataType::Dictionary(_, of) => fixed_size(of),
        _ => 1,
    }
}

fn check_sizes(plan: &LogicalPlan) -> Result<(), ApiError> {
    let mut most = written_out::largest(plan).map_err(ApiError::internal)?;
    let walked = plan.apply_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Subquery(_)) {
            most = most.max(written_out::largest(node)?);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(ApiError::internal)?;
    if most > MAX_PARTS {
        return Err(too_large(&format!("at most {MAX_PARTS} parts in an expression with its subqueries written out")));
    }
    Ok(())
}

fn reads(node: &LogicalPlan) -> bool {
    matches!(
        node,
        LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Unnest(_)
    )
}

enum Refusal {
    Tables,
    What(&'static str),
}

/// Walks over a statement. The depth of what it walks over is bounded before (`guard`).
struct Judge<'a> {
    state: &'a SessionState,
    tables: usize,
    unknown_function: Option<String>,
}

impl Judge<'_> {
    fn knows(&self, function: &str) -> bool {
        self.state.scalar_functions().contains_key(function)
            || self.state.aggregate_functions().contains_key(function)
            || self.state.window_functions().contains_key(function)
    }
}

impl Visitor for Judge<'_> {
    type Break = Refusal;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Refusal> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(Refusal::What("anything but `SELECT`")),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        if query.with.as_ref().is_some_and(|with| with.recursive) {
            return ControlFlow::Break(Refusal::What("`WITH RECURSIVE`"));
        }
        let asks_more = !query.locks.is_empty()
            || query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if asks_more {
            return ControlFlow::Break(Refusal::What("`FOR`, `SETTINGS`, `FORMAT` or `|>`"));
        }
        match &*query.body {
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::SetOperation { .. } | SetExpr::Values(_) => {
                self.count_table()
            }
            _ => ControlFlow::Break(Refusal::What("anything but `SELECT`")),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Refusal> {
        match select.into {
            Some(_) => ControlFlow::Break(Refusal::What("`SELECT INTO`")),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Refusal> {
        match factor {
            TableFactor::Table { args: None, version: None, sample: None, json_path: None, .. }
            | TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. } => self.count_table(),
            _ => ControlFlow::Break(Refusal::What("a function as a table")),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Refusal> {
        if let Expr::Function(function) = expr {
            let name = function.name.to_string().to_lowercase();
            if names_centroids(&name, function) {
                return ControlFlow::Break(Refusal::What("a percentile with a number of centroids"));
            }
            if !self.knows(&name) {
                self.unknown_function.get_or_insert(name);
            }
        }
        ControlFlow::Continue(())
    }
}

impl Judge<'_> {
    fn count_table(&mut self) -> ControlFlow<Refusal> {
        self.tables += 1;
        if self.tables > MAX_TABLES { ControlFlow::Break(Refusal::Tables) } else { ControlFlow::Continue(()) }
    }
}

/// Whether a percentile says how many centroids it has. The engine takes the memory for all of them before there are any, and
/// where the system does not give it, that ends the process.
fn names_centroids(name: &str, function: &Function) -> bool {
    let usual = match name.trim_matches(['"', '`']) {
        "approx_percentile_cont" => 2,
        "approx_percentile_cont_with_weight" => 3,
        _ => return false,
    };
    let FunctionArguments::List(list) = &function.args else { return false };
    list.args.len() + function.within_group.len() > usual
}
