//! Expectations: rules on silver rows, and what becomes of the rows that break them (spec S3).

use std::{collections::BTreeMap, sync::Arc};

use karat_lake::arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use karat_schemas::pipelines::{Action, Expectation, NullMeans, Silver};

use crate::{
    Error, Result,
    decode::ROW,
    query::{Planner, Query},
};

/// Column that rules see beside the row's own.
pub const INGEST_TIME: &str = "ingest_time";

/// The rule of a row on which a rule cannot be computed.
const EXPECTATION_ERROR: &str = "expectation_error";

/// The rules of one table, planned.
pub struct Checks {
    rules: Vec<Expectation>,
    query: Query,
}

/// What the rules say of one row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub is_dropped: bool,
    /// Names of the rules that send the row to quarantine.
    pub quarantined_by: Vec<String>,
    pub pauses: bool,
}

/// Rows that broke a rule, by silver table and rule.
pub type RuleCounts = BTreeMap<(String, String), u64>;

impl Checks {
    /// Plans the rules over rows of `schema`; none when the table has no rules.
    pub async fn new(silver: &Silver, schema: &SchemaRef) -> Result<Option<Self>> {
        if silver.expect.is_empty() {
            return Ok(None);
        }
        let query = Self::plan(&silver.name, &silver.expect, schema)
            .await
            .map_err(|error| Error::Declaration(format!("expectations of `{}`: {error}", silver.name)))?;
        Ok(Some(Self { rules: silver.expect.clone(), query }))
    }

    /// Why rules cannot be planned: each rule on its own.
    pub async fn problems(silver: &Silver, schema: &SchemaRef) -> Vec<Error> {
        let mut problems = Vec::new();
        for rule in &silver.expect {
            if let Err(error) = Self::plan(&silver.name, std::slice::from_ref(rule), schema).await {
                let message = format!("expectation `{}` of `{}`: {error}", rule.name, silver.name);
                problems.push(Error::Declaration(message));
            }
        }
        problems
    }

    async fn plan(table: &str, rules: &[Expectation], schema: &SchemaRef) -> Result<Query> {
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        if schema.field_with_name(INGEST_TIME).is_err() {
            fields.push(Field::new(INGEST_TIME, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true));
        }
        fields.push(Field::new(ROW, DataType::UInt32, true));
        let planner = Planner::new(&[(table, Arc::new(Schema::new(fields)))])?;
        let columns: Vec<String> =
            rules.iter().enumerate().map(|(index, rule)| format!("({}) AS rule_{index}", rule.check)).collect();
        let query = planner.row_wise(&format!("SELECT {} FROM {table}", columns.join(", ")), &[ROW]).await?;
        for (rule, field) in rules.iter().zip(query.schema().fields()) {
            if field.data_type() != &DataType::Boolean {
                let message = format!("`{}` is not a boolean but {}", rule.check, field.data_type());
                return Err(Error::Declaration(message));
            }
        }
        Ok(query)
    }

    /// Judges each row of `rows`, which has the table's columns, `ingest_time` and `_row`.
    ///
    /// A row on which a rule cannot be computed goes to quarantine alone, under the name `expectation_error`.
    pub async fn judge(&mut self, table: &str, rows: &RecordBatch, counts: &mut RuleCounts) -> Result<Vec<Verdict>> {
        let (mut verdicts, mut waiting) = (Vec::with_capacity(rows.num_rows()), vec![rows.clone()]);
        while let Some(part) = waiting.pop() {
            match self.query.run(&[(table, part.clone())]).await {
                Ok(results) => verdicts.extend(self.verdicts(table, &results, part.num_rows(), counts)),
                Err(Error::Sql(_) | Error::Arrow(_)) if part.num_rows() > 1 => {
                    let half = part.num_rows() / 2;
                    waiting.push(part.slice(half, part.num_rows() - half));
                    waiting.push(part.slice(0, half));
                }
                Err(Error::Sql(_) | Error::Arrow(_)) => {
                    *counts.entry((table.to_owned(), EXPECTATION_ERROR.to_owned())).or_default() += 1;
                    verdicts.push(Verdict { quarantined_by: vec![EXPECTATION_ERROR.to_owned()], ..Verdict::default() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(verdicts)
    }

    fn verdicts(&self, table: &str, results: &RecordBatch, rows: usize, counts: &mut RuleCounts) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::default(); rows];
        for (index, rule) in self.rules.iter().enumerate() {
            let passed = results.column(index).as_boolean();
            let mut broken = 0;
            for (row, verdict) in verdicts.iter_mut().enumerate() {
                let is_good = if passed.is_null(row) { rule.null == NullMeans::Pass } else { passed.value(row) };
                if is_good {
                    continue;
                }
                broken += 1;
                match rule.action {
                    Action::Warn => {}
                    Action::Drop => verdict.is_dropped = true,
                    Action::Quarantine => verdict.quarantined_by.push(rule.name.clone()),
                    Action::Fail => {
                        verdict.quarantined_by.push(rule.name.clone());
                        verdict.pauses = true;
                    }
                }
            }
            if broken > 0 {
                *counts.entry((table.to_owned(), rule.name.clone())).or_default() += broken;
            }
        }
        verdicts
    }
}
