//! A pipeline, planned: every SQL compiled, every reference resolved.
//!
//! Building a [`PipelinePlan`] is what `karat validate` does beyond reading the file; a pipeline that plans, runs.

use std::sync::Arc;

use karat_lake::{
    TableSpec,
    arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use karat_schemas::pipelines::{Gold, Pipeline, Pipelines, Problem, Silver, SilverMode};

use crate::{
    Error, Result,
    gold::choose::{GoldPlan, Source},
    publish::PublishedTable,
    shape::Shaping,
    silver::{fold::FoldPlan, input::InputPlan},
};

/// Columns that say where a silver row came from.
pub const PARTITION: &str = "_partition";
pub const OFFSET: &str = "_offset";

/// A pipeline ready to run.
pub struct PipelinePlan {
    pub name: String,
    pub topic: String,
    pub shaping: Shaping,
    pub appends: Vec<AppendPlan>,
    pub folds: Vec<FoldPlan>,
    pub golds: Vec<NamedGold>,
    /// Changes with anything that changes what the pipeline computes.
    pub fingerprint: String,
}

/// An append table, or the entrance of an upsert: what inputs feed.
pub struct AppendPlan {
    pub name: String,
    /// Its place among the tables that inputs feed.
    pub number: u8,
    /// Columns that inputs give.
    pub input_schema: SchemaRef,
    /// Columns of the table; for an upsert, the same as the inputs'.
    pub schema: SchemaRef,
    /// Rows go into an upsert instead of a table of their own.
    pub is_upsert: bool,
    time: Option<String>,
}

/// A gold table with the silver table that it follows.
pub struct NamedGold {
    pub name: String,
    pub source: String,
    pub plan: GoldPlan,
    bucket: Option<String>,
}

impl PipelinePlan {
    pub async fn new(pipeline: &Pipeline) -> Result<Self> {
        let shaping = Shaping::new(pipeline).await?;
        let (mut appends, mut folds) = (Vec::new(), Vec::new());
        for silver in pipeline.silver.iter().filter(|silver| silver.mode != SilverMode::Fold) {
            let number =
                u8::try_from(appends.len()).map_err(|_| Error::Declaration("more than 255 silver tables".into()))?;
            let append = AppendPlan::new(silver, shaping.inputs(), number)?;
            if silver.mode == SilverMode::Upsert {
                folds.push(FoldPlan::new(silver, &append.input_schema).await?);
            }
            appends.push(append);
        }
        for silver in pipeline.silver.iter().filter(|silver| silver.mode == SilverMode::Fold) {
            let from = appends.iter().find(|append| Some(&append.name) == silver.from.as_ref());
            let from = from
                .ok_or_else(|| Error::Declaration(format!("silver table `{}` folds an unknown table", silver.name)))?;
            folds.push(FoldPlan::new(silver, &from.schema).await?);
        }
        let mut golds = Vec::new();
        for gold in &pipeline.gold {
            golds.push(Self::gold(gold, &appends, &folds).await?);
        }
        Ok(Self {
            name: pipeline.name.clone(),
            topic: pipeline.topic.clone(),
            shaping,
            appends,
            folds,
            golds,
            fingerprint: fingerprint(pipeline),
        })
    }

    async fn gold(gold: &Gold, appends: &[AppendPlan], folds: &[FoldPlan]) -> Result<NamedGold> {
        let place = [PARTITION.to_owned(), OFFSET.to_owned()];
        let mut sources: Vec<Source<'_>> = folds
            .iter()
            .map(|fold| Source { table: &fold.name, schema: fold.schema(), key: &fold.key, is_append_only: false })
            .collect();
        sources.extend(appends.iter().filter(|append| !append.is_upsert).map(|append| Source {
            table: &append.name,
            schema: &append.schema,
            key: &place,
            is_append_only: true,
        }));
        let (plan, source) = GoldPlan::new(gold, &sources).await?;
        let bucket = gold.bucket.as_ref().map(|bucket| bucket.column.clone());
        Ok(NamedGold { name: gold.name.clone(), source, plan, bucket })
    }

    /// Every keyspace that the state store needs.
    pub fn keyspaces(&self) -> Vec<String> {
        let mut names = Vec::new();
        for fold in &self.folds {
            names.push(FoldPlan::keyspace(&fold.name));
            names.push(PublishedTable::keyspace(&silver_name(&fold.name)));
        }
        for gold in &self.golds {
            names.push(GoldPlan::keyspace(&gold.name));
            names.push(PublishedTable::keyspace(&gold_name(&gold.name)));
        }
        names
    }

    /// What the append tables look like, quarantine last.
    pub fn append_specs(&self) -> Vec<TableSpec> {
        let tables = self.appends.iter().filter(|append| !append.is_upsert).map(|append| TableSpec {
            name: silver_name(&append.name),
            schema: append.schema.clone(),
            partition_by: Vec::new(),
            stats_columns: append.time.iter().cloned().chain([OFFSET.to_owned()]).collect(),
            append_only: false,
        });
        tables.chain([quarantine_spec(&self.name)]).collect()
    }

    /// What the keyed tables look like, with the key columns of each.
    pub fn keyed_specs(&self) -> Vec<(TableSpec, Vec<String>)> {
        let spec = |name: String, schema: &SchemaRef, stats: Vec<String>| TableSpec {
            name,
            schema: schema.clone(),
            partition_by: Vec::new(),
            stats_columns: stats,
            append_only: false,
        };
        let silver = self.folds.iter().map(|fold| {
            let times =
                fold.schema().fields().iter().filter(|field| matches!(field.data_type(), DataType::Timestamp(..)));
            let stats = times.map(|field| field.name().clone()).chain(fold.key.iter().cloned()).collect();
            (spec(silver_name(&fold.name), fold.schema(), stats), fold.key.clone())
        });
        let gold = self.golds.iter().map(|gold| {
            let stats = gold.bucket.iter().chain(gold.plan.key()).cloned().collect();
            (spec(gold_name(&gold.name), gold.plan.schema(), stats), gold.plan.key().to_vec())
        });
        silver.chain(gold).collect()
    }
}

pub fn silver_name(table: &str) -> String {
    format!("silver.{table}")
}

pub fn gold_name(table: &str) -> String {
    format!("gold.{table}")
}

/// Full name of a pipeline's quarantine table.
pub fn quarantine_name(pipeline: &str) -> String {
    format!("quarantine.{pipeline}")
}

impl AppendPlan {
    fn new(silver: &Silver, inputs: &[InputPlan], number: u8) -> Result<Self> {
        let mut feeding = inputs.iter().filter(|input| input.into == silver.name);
        let Some(first) = feeding.next() else {
            return Err(Error::Declaration(format!("no input goes into silver table `{}`", silver.name)));
        };
        let input_schema = first.schema();
        for input in feeding {
            same_columns(&silver.name, first, &input_schema, input)?;
        }
        let is_upsert = silver.mode == SilverMode::Upsert;
        let mut fields: Vec<Field> = input_schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        if !is_upsert {
            fields.push(Field::new(PARTITION, DataType::Int32, true));
            fields.push(Field::new(OFFSET, DataType::Int64, true));
        }
        Ok(Self {
            name: silver.name.clone(),
            number,
            schema: Arc::new(Schema::new(fields)),
            input_schema,
            is_upsert,
            time: silver.time.clone(),
        })
    }
}

fn same_columns(table: &str, first: &InputPlan, expected: &SchemaRef, input: &InputPlan) -> Result<()> {
    let found = input.schema();
    if found.fields() == expected.fields() {
        return Ok(());
    }
    let list = |schema: &SchemaRef| {
        schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect::<Vec<_>>()
            .join(", ")
    };
    Err(Error::Declaration(format!(
        "inputs `{}` and `{}` go into `{table}` and must give the same columns in the same order: expected {}; found {}",
        first.name,
        input.name,
        list(expected),
        list(&found)
    )))
}

fn quarantine_spec(pipeline: &str) -> TableSpec {
    TableSpec {
        name: quarantine_name(pipeline),
        schema: quarantine_schema(),
        partition_by: Vec::new(),
        stats_columns: vec![OFFSET[1..].to_owned()],
        append_only: false,
    }
}

/// The schema of every quarantine table (spec S4).
pub fn quarantine_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("raw", DataType::Binary, true),
        text("stage"),
        text("rules"),
        text("message"),
        text("ce_type"),
        text("ce_source"),
        text("ce_id"),
        text("publisher"),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        text("pipeline_version"),
        Field::new("quarantined_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        text("state"),
    ]))
}

/// Changes with the declaration, and with the version of the code that reads it.
fn fingerprint(pipeline: &Pipeline) -> String {
    let mut plain = pipeline.clone();
    plain.line = 0;
    plain.inputs.iter_mut().for_each(|input| input.line = 0);
    plain.silver.iter_mut().for_each(|silver| silver.line = 0);
    plain.gold.iter_mut().for_each(|gold| gold.line = 0);
    plain.description.clear();
    let text = format!("{STATE_VERSION} datafusion {STATE_LAYOUT} {plain:?}");
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

/// Raised when stored state changes its meaning: the tables are then rebuilt instead of misread.
const STATE_VERSION: u32 = 2;

/// Whose layout the stored state of accumulators has. It is no public contract of DataFusion's, and functions may give
/// other values after an upgrade.
const STATE_LAYOUT: &str = karat_lake::datafusion::DATAFUSION_VERSION;

/// Plans every pipeline and reports what cannot work, each with the line of its table.
pub async fn problems(pipelines: &Pipelines) -> Vec<Problem> {
    let mut problems = Vec::new();
    for pipeline in &pipelines.pipelines {
        if let Err(error) = PipelinePlan::new(pipeline).await {
            problems.push(Problem { line: line_of(pipeline, &error.to_string()), message: error.to_string() });
        }
    }
    problems
}

/// The line of the first part of the pipeline that the message names.
fn line_of(pipeline: &Pipeline, message: &str) -> usize {
    let names = |name: &str| message.contains(&format!("`{name}`"));
    let gold = pipeline.gold.iter().find(|gold| names(&gold.name)).map(|gold| gold.line);
    let input = pipeline.inputs.iter().find(|input| names(&input.name)).map(|input| input.line);
    let silver = pipeline.silver.iter().find(|silver| names(&silver.name)).map(|silver| silver.line);
    gold.or(input).or(silver).unwrap_or(pipeline.line)
}
