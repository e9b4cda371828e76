//! A pipeline, planned: every SQL compiled, every reference resolved.
//!
//! Building a [`PipelinePlan`] is what `karat validate` does beyond reading the file; a pipeline that plans, runs. A part
//! that cannot be planned does not keep the others from being looked at: see [`problems()`].

mod problems;

use std::{collections::HashSet, sync::Arc, time::Duration};

use karat_lake::{
    TableSpec,
    arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use karat_schemas::pipelines::{Gold, Pipeline, Silver, SilverMode};

pub(crate) use self::problems::Flaws;
pub use self::problems::{gold_schemas, problems};
use crate::{
    Error, Result,
    gold::{
        choose::{GoldPlan, Source, names_table},
        merge::Coarser,
    },
    publish::PublishedTable,
    reference::{self, ReferenceRows},
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
    /// The table of finer groups whose changes give those of this one, by its place, and how.
    pub finer: Option<(usize, Coarser)>,
    bucket: Option<String>,
}

impl PipelinePlan {
    pub async fn new(pipeline: &Pipeline) -> Result<Self> {
        let (plan, flaws) = Self::attempt(pipeline, &HashSet::new()).await;
        flaws.none().map(|()| plan)
    }

    /// Plans what can be planned, and says what is wrong with the rest. `left_out` are names that the declaration may
    /// use and does not have here.
    async fn attempt(pipeline: &Pipeline, left_out: &HashSet<String>) -> (Self, Flaws) {
        let mut flaws = Flaws::default();
        let shaping = Shaping::attempt(pipeline, &mut flaws).await;
        let (mut appends, mut folds) = (Vec::new(), Vec::new());
        for silver in pipeline.silver.iter().filter(|silver| silver.mode != SilverMode::Fold) {
            let Some(append) = AppendPlan::new(silver, shaping.inputs(), appends.len(), &mut flaws) else { continue };
            if silver.mode == SilverMode::Upsert {
                folds.extend(flaws.take(silver.line, FoldPlan::new(silver, &append.input_schema).await));
            }
            appends.push(append);
        }
        for silver in pipeline.silver.iter().filter(|silver| silver.mode == SilverMode::Fold) {
            match appends.iter().find(|append| Some(&append.name) == silver.from.as_ref()) {
                Some(from) => folds.extend(flaws.take(silver.line, FoldPlan::new(silver, &from.schema).await)),
                None => flaws.follow_up(silver.line, format!("silver table `{}` folds an unknown table", silver.name)),
            }
        }
        let mut golds = Vec::new();
        let is_planned = |table: &str| {
            appends.iter().any(|append| !append.is_upsert && append.name == table)
                || folds.iter().any(|fold| fold.name == table)
        };
        // The file of each was read when it was loaded: what is wrong with one is said there, with its own line.
        let (mut references, mut unplanned): (Vec<ReferenceRows>, Vec<&String>) = (Vec::new(), Vec::new());
        for reference in &pipeline.references {
            match flaws.take(reference.line, reference::table(reference, &references).await) {
                Some(rows) => references.push(rows),
                None => unplanned.push(&reference.name),
            }
        }
        let missing = pipeline.silver.iter().map(|silver| &silver.name).filter(|name| !is_planned(name));
        let missing: Vec<&String> = missing.chain(left_out).chain(unplanned).collect();
        for gold in &pipeline.gold {
            match Self::gold(gold, &appends, &folds, &references).await {
                Err(error) if missing.iter().any(|table| names_table(&gold.sql, table)) => {
                    flaws.follow_up(gold.line, error.to_string());
                }
                planned => golds.extend(flaws.take(gold.line, planned)),
            }
        }
        flaws.take(pipeline.line, find_finer(&mut golds));
        let fingerprint = fingerprint(pipeline);
        let (name, topic) = (pipeline.name.clone(), pipeline.topic.clone());
        (Self { name, topic, shaping, appends, folds, golds, fingerprint }, flaws)
    }

    async fn gold(
        gold: &Gold,
        appends: &[AppendPlan],
        folds: &[FoldPlan],
        references: &[ReferenceRows],
    ) -> Result<NamedGold> {
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
        let (plan, source) = GoldPlan::new(gold, &sources, references).await?;
        let bucket = gold.bucket.as_ref().map(|bucket| bucket.column.clone());
        Ok(NamedGold { name: gold.name.clone(), source, plan, finer: None, bucket })
    }

    /// Every keyspace that the state store needs.
    pub fn keyspaces(&self) -> Vec<String> {
        let mut names = Vec::new();
        for fold in &self.folds {
            names.push(FoldPlan::keyspace(&fold.name));
            names.push(PublishedTable::keyspace(&silver_name(&fold.name)));
            names.push(PublishedTable::waiting_keyspace(&silver_name(&fold.name)));
        }
        for gold in &self.golds {
            names.push(GoldPlan::keyspace(&gold.name));
            names.push(PublishedTable::keyspace(&gold_name(&gold.name)));
            names.push(PublishedTable::waiting_keyspace(&gold_name(&gold.name)));
        }
        names
    }

    /// How far the files of each keyed silver table may be behind.
    pub fn publish_within(&self) -> impl Iterator<Item = (String, Duration)> {
        self.folds.iter().map(|fold| (silver_name(&fold.name), fold.publish_within))
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

/// Finds for each gold table one of finer groups that gives its changes. The finer one is never found one itself, so that
/// changes are put together once.
fn find_finer(golds: &mut [NamedGold]) -> Result<()> {
    let mut is_finer = vec![false; golds.len()];
    for index in 0..golds.len() {
        if is_finer[index] {
            continue;
        }
        for other in (0..golds.len()).filter(|other| *other != index) {
            if golds[other].finer.is_some() {
                continue;
            }
            let Some(coarser) = golds[index].plan.coarser_than(&golds[other].plan)? else { continue };
            (golds[index].finer, is_finer[other]) = (Some((other, coarser)), true);
            break;
        }
    }
    Ok(())
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
    /// None when there is nothing to go on: then the flaw is in `flaws`.
    fn new(silver: &Silver, inputs: &[InputPlan], number: usize, flaws: &mut Flaws) -> Option<Self> {
        let too_many = |_| Error::Declaration("more than 255 silver tables".to_owned());
        let number = flaws.take(silver.line, u8::try_from(number).map_err(too_many))?;
        let mut feeding = inputs.iter().filter(|input| input.into == silver.name);
        let Some(first) = feeding.next() else {
            flaws.follow_up(silver.line, format!("no input goes into silver table `{}`", silver.name));
            return None;
        };
        let input_schema = first.schema();
        for input in feeding {
            flaws.take(silver.line, same_columns(&silver.name, first, &input_schema, input));
        }
        let is_upsert = silver.mode == SilverMode::Upsert;
        let mut fields: Vec<Field> = input_schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        if !is_upsert {
            fields.push(Field::new(PARTITION, DataType::Int32, true));
            fields.push(Field::new(OFFSET, DataType::Int64, true));
        }
        let (name, time) = (silver.name.clone(), silver.time.clone());
        Some(Self { name, number, schema: Arc::new(Schema::new(fields)), input_schema, is_upsert, time })
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
        text("receipt"),
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
    plain.silver.iter_mut().for_each(|silver| (silver.line, silver.publish_within) = (0, None));
    plain.gold.iter_mut().for_each(|gold| (gold.line, gold.fresh_within) = (0, None));
    plain.description.clear();
    let text =
        format!("{STATE_VERSION} datafusion {STATE_LAYOUT} {plain:?} {}", reference::fingerprint(&plain.references));
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

/// The first 60 bits of a fingerprint, as commits carry it.
pub(crate) fn declaration_number(fingerprint: &str) -> i64 {
    let digits = fingerprint.get(..15).unwrap_or(fingerprint);
    i64::from_str_radix(digits, 16).unwrap_or_default()
}

/// Raised when stored state changes its meaning: the tables are then rebuilt instead of misread.
const STATE_VERSION: u32 = 7;

/// Whose layout the stored state of accumulators has. It is no public contract of DataFusion's, and functions may give
/// other values after an upgrade.
const STATE_LAYOUT: &str = karat_lake::datafusion::DATAFUSION_VERSION;

#[cfg(test)]
mod tests {
    use karat_schemas::pipelines::{BUILT_IN, parse};

    use super::*;

    #[test]
    fn what_changes_no_row_changes_no_fingerprint() {
        let of = |text: &str| fingerprint(&parse(text).unwrap().pipelines[0]);
        let gold = "name = \"daily_summary\"\n";
        let promised = BUILT_IN.replace(gold, &format!("{gold}fresh_within = \"5m\"\n"));
        assert_ne!(promised, BUILT_IN);
        assert_eq!(of(&promised), of(BUILT_IN));
        assert_eq!(of(&format!("# a comment\n{BUILT_IN}")), of(BUILT_IN));
        assert_ne!(of(&BUILT_IN.replace("count(DISTINCT job)", "count(job)")), of(BUILT_IN));
    }
}
