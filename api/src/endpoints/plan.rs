//! [`PlannedEndpoint`]: a declaration whose SQL works over the gold tables of its pipeline.
//!
//! The SQL is planned again for each answer, over the tables at the versions of one epoch; planning costs a millisecond,
//! and what it depends on is all in the plan. Values take the place of the parameters in the plan, as literals of their
//! declared types.

use std::{fmt, sync::Arc};

use futures::TryStreamExt;
use karat_access::Role;
use karat_http::ApiError;
use karat_lake::{
    arrow::{
        array::RecordBatch,
        datatypes::{Schema, SchemaRef},
    },
    datafusion::{
        catalog::TableProvider,
        common::{ParamValues, ScalarValue},
        datasource::empty::EmptyTable,
        error::DataFusionError,
        execution::{SendableRecordBatchStream, context::SQLOptions, runtime_env::RuntimeEnv},
        logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, SortExpr},
        prelude::{DataFrame, SessionContext},
    },
};
use karat_schemas::{
    epoch::Epoch,
    pipelines::{DECIMAL_SCALE, Endpoint, Order, ParameterType, ParameterValue},
};
use poem::http::StatusCode;

use super::{checks, kinds::kind_of};
use crate::{
    lakehouse::{
        rows::{TableReader, TableVersion, scan_error},
        sql::is_of_values,
    },
    serving::scans::{NamedTable, session_over},
    snapshot::Snapshot,
};

/// Digits of a decimal parameter.
const DECIMAL_PRECISION: u8 = 38;

/// A declared endpoint, ready to answer.
pub struct PlannedEndpoint {
    pub(super) declared: Endpoint,
    /// Who may ask for everybody's rows.
    pub(super) roles: Vec<Role>,
    /// The gold tables that it reads, by the name that the SQL has for them.
    tables: Vec<(String, SchemaRef)>,
    /// Columns of the answer.
    pub(super) schema: SchemaRef,
}

/// A value for each parameter, by name.
pub(super) type Values = Vec<(String, ScalarValue)>;

impl fmt::Debug for PlannedEndpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PlannedEndpoint").field("declared", &self.declared).finish_non_exhaustive()
    }
}

impl PlannedEndpoint {
    /// Plans `declared` over the gold tables of its pipeline, by name and columns.
    ///
    /// # Errors
    /// What is wrong with it, in words for who wrote the file.
    pub async fn new(declared: Endpoint, gold: &[(String, SchemaRef)]) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut roles = Vec::new();
        for name in &declared.roles {
            match name.parse::<Role>() {
                Ok(role) => roles.push(role),
                Err(problem) => problems.push(problem),
            }
        }
        let (plan, bound) = Self::plan(&declared, gold).await.map_err(|error| vec![error.to_string()])?;
        problems.extend(checks::problems(&declared, &plan).map_err(|error| vec![error.to_string()])?);
        let columns = bound.schema().as_arrow().clone();
        problems.extend(column_problems(&declared, &columns));
        if !problems.is_empty() {
            return Err(problems);
        }
        let names = checks::tables_of(&plan).map_err(|error| vec![error.to_string()])?;
        let tables = gold.iter().filter(|(name, _)| names.contains(name)).cloned().collect();
        Ok(Self { declared, roles, tables, schema: Arc::new(columns) })
    }

    /// The plan as it is written, and with an empty value for each parameter, which shows that the types go together.
    async fn plan(
        declared: &Endpoint,
        gold: &[(String, SchemaRef)],
    ) -> Result<(LogicalPlan, LogicalPlan), DataFusionError> {
        let empty = |(name, schema): &(String, SchemaRef)| (name.clone(), empty_table(schema));
        let tables: Vec<_> = gold.iter().map(empty).collect();
        let session = session_over(Arc::<RuntimeEnv>::default(), &tables)?;
        let plan = logical(&session, &declared.sql).await?;
        let mut values: Values =
            declared.parameters.iter().map(|one| (one.name.clone(), scalar(one.parameter_type, None))).collect();
        values.extend(own_values("", None));
        if !checks::undeclared(declared, &plan)?.is_empty() {
            // They are named as problems; there is no value for them.
            return Ok((plan.clone(), plan));
        }
        let bound = plan.clone().replace_params_with_values(&ParamValues::from(values))?;
        session.state().create_physical_plan(&bound).await?;
        Ok((plan, bound))
    }

    pub(super) fn name(&self) -> &str {
        &self.declared.name
    }

    /// Rows `skip` to `skip + fetch` of the answer at one epoch.
    ///
    /// # Errors
    /// As [`Self::open`], 503 when too many wait, and what [`answer_error`] makes of an error on the way.
    pub(super) async fn rows(
        self: &Arc<Self>,
        reader: &Arc<TableReader>,
        snapshot: &Arc<Snapshot>,
        values: Values,
        skip: usize,
        fetch: usize,
    ) -> Result<Vec<RecordBatch>, ApiError> {
        let (planned, tables, snapshot) = (Arc::clone(self), Arc::clone(reader), Arc::clone(snapshot));
        let read = async move {
            let batches = planned.open(&tables, &snapshot.epoch, values, skip, fetch).await?;
            batches.try_collect::<Vec<_>>().await.map_err(|error| answer_error(error, skip > 0))
        };
        reader.scans.run(read).await
    }

    /// The same as they come, for work that runs in turn.
    ///
    /// # Errors
    /// 410 when a table's version is that of a cursor and no longer kept; 422 when a figure cannot be computed from these
    /// values; 503 when too much memory is used; 500 when the lake fails.
    pub(super) async fn open(
        &self,
        reader: &TableReader,
        epoch: &Epoch,
        values: Values,
        skip: usize,
        fetch: usize,
    ) -> Result<SendableRecordBatchStream, ApiError> {
        // A page behind the first is that of a cursor.
        let is_older = skip > 0;
        let mut tables = Vec::with_capacity(self.tables.len());
        for (name, schema) in &self.tables {
            let full_name = format!("gold.{name}");
            let table = match epoch.tables.get(&full_name) {
                Some(version) => reader.provider(&TableVersion::of(&full_name, *version, is_older)).await?,
                None => empty_table(schema),
            };
            tables.push((name.clone(), table));
        }
        self.run(reader, &tables, values, skip, fetch).await.map_err(|error| answer_error(error, is_older))
    }

    async fn run(
        &self,
        reader: &TableReader,
        tables: &[NamedTable],
        values: Values,
        skip: usize,
        fetch: usize,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let session = reader.scans.session_over(tables)?;
        let plan = logical(&session, &self.declared.sql).await?;
        let plan = plan.replace_params_with_values(&ParamValues::from(values))?;
        let sorts = sorts(&plan, &self.declared.order);
        let plan = LogicalPlanBuilder::from(plan).sort(sorts)?.limit(skip, Some(fetch))?.build()?;
        DataFrame::new(session.state(), plan).execute_stream().await
    }
}

/// The values that no request gives.
pub(super) fn own_values(caller: &str, as_of_us: Option<i64>) -> [(String, ScalarValue); 2] {
    [
        (checks::CALLER.to_owned(), ScalarValue::Utf8(Some(caller.to_owned()))),
        (checks::AS_OF.to_owned(), scalar(ParameterType::Timestamp, as_of_us.map(ParameterValue::Timestamp))),
    ]
}

/// A value as the plan has it; NULL of the declared type when there is none.
pub(super) fn scalar(kind: ParameterType, value: Option<ParameterValue>) -> ScalarValue {
    use ParameterValue as V;
    let (precision, scale) = (DECIMAL_PRECISION, DECIMAL_SCALE);
    let utc = || Some("UTC".into());
    match value {
        Some(V::Text(text)) => ScalarValue::Utf8(Some(text)),
        Some(V::Int(number)) => ScalarValue::Int64(Some(number)),
        Some(V::Decimal(number)) => ScalarValue::Decimal128(Some(number), precision, scale),
        Some(V::Date(days)) => ScalarValue::Date32(Some(days)),
        Some(V::Timestamp(us)) => ScalarValue::TimestampMicrosecond(Some(us), utc()),
        Some(V::Bool(value)) => ScalarValue::Boolean(Some(value)),
        None => match kind {
            ParameterType::Text => ScalarValue::Utf8(None),
            ParameterType::Int => ScalarValue::Int64(None),
            ParameterType::Decimal => ScalarValue::Decimal128(None, precision, scale),
            ParameterType::Date => ScalarValue::Date32(None),
            ParameterType::Timestamp => ScalarValue::TimestampMicrosecond(None, utc()),
            ParameterType::Bool => ScalarValue::Boolean(None),
        },
    }
}

fn empty_table(schema: &SchemaRef) -> Arc<dyn TableProvider> {
    Arc::new(EmptyTable::new(Arc::clone(schema)))
}

/// The plan of one read-only statement.
async fn logical(session: &SessionContext, sql: &str) -> Result<LogicalPlan, DataFusionError> {
    let plan = session.state().create_logical_plan(sql).await?;
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan)?;
    Ok(plan)
}

/// The declared order and then every other column: rows that are equal in it are equal, so the pages of one epoch join to
/// the whole.
fn sorts(plan: &LogicalPlan, order: &[Order]) -> Vec<SortExpr> {
    let columns = plan.schema().columns();
    let declared = order.iter().filter_map(|order| {
        let column = columns.iter().find(|column| column.name == order.column)?;
        Some(Expr::Column(column.clone()).sort(!order.is_descending, false))
    });
    let is_other = |name: &str| order.iter().all(|order| order.column != name);
    let others = columns.iter().filter(|column| is_other(&column.name));
    declared.chain(others.map(|column| Expr::Column(column.clone()).sort(true, false))).collect()
}

fn column_problems(declared: &Endpoint, columns: &Schema) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, field) in columns.fields().iter().enumerate() {
        if columns.fields()[..index].iter().any(|other| other.name() == field.name()) {
            problems.push(format!("its SQL gives two columns `{}`: name one of them with AS", field.name()));
        }
        if kind_of(field.data_type()).is_none() {
            let (name, data_type) = (field.name(), field.data_type());
            problems.push(format!("its column `{name}` is of type {data_type}, which no answer can hold: cast it"));
        }
    }
    for order in &declared.order {
        if columns.field_with_name(&order.column).is_err() {
            problems.push(format!("its `order` names `{}`, which is no column of its SQL", order.column));
        }
    }
    problems
}

/// The answer to a failed query. What the values of a request lead to is said to be theirs; `is_older` is that of
/// [`scan_error`].
pub(super) fn answer_error(error: DataFusionError, is_older: bool) -> ApiError {
    if is_of_values(error.find_root()) {
        let message = "a figure cannot be computed from these values: it is too large, divided by zero, or no number";
        return ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "not_computable", message).caused_by(error);
    }
    scan_error(error, is_older)
}
