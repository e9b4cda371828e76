//! `fsck`: names damaged files of every table, and repairs what they held.
//!
//! - A checkpoint of a log goes: the one before and the commits since say the same.
//! - A table of a pipeline is made again from bronze, by the pipeline's own rebuild, which takes the place also of a
//!   table that does not open.
//! - The checkpoint of a pipeline's state goes: it is written anew.
//! - The manifest of an epoch goes; when it is the newest, its pipeline is rebuilt, which writes the next.
//! - The event log keeps what can be read of it.
//! - Bronze ([`bronze`]) gets its rows back from files that lost their commit, and from the log by their offsets. What
//!   neither holds is named as lost.

pub mod bronze;
pub mod epochs;

use std::collections::BTreeMap;

use karat_lake::{
    Lake, TableSpec,
    epochs::Epochs as Manifests,
    fsck::{Fault, Needs, Part, discard_checkpoint, inspect, keep_readable, set_aside},
};
use karat_schemas::pipelines::Pipelines;
use serde::Serialize;

use crate::{Result, bronze as rows_of_bronze, checkpoint, journal, plan::PipelinePlan};

/// What a table is made from, which says how it is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From the log of this topic.
    Topic(String),
    /// By this pipeline, from bronze.
    Pipeline(String),
    /// A copy of this pipeline's state.
    State(String),
    /// No table: the manifests of this pipeline's epochs.
    Epochs(String),
    /// Of what happened; made from nothing.
    EventLog,
}

/// A table that is looked at, or the epochs of a pipeline.
pub struct Target {
    pub spec: TableSpec,
    pub origin: Origin,
    needs: Needs,
    /// The largest position of each partition that something was made from; of bronze.
    pub(crate) reached: BTreeMap<u32, i64>,
}

/// One damaged file, for people.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub table: String,
    pub version: u64,
    /// Path below the table's folder.
    pub file: String,
    pub wrong: String,
    pub remedy: String,
    #[serde(skip)]
    pub fault: Fault,
}

/// Every table of the pipelines, of their topics and of the instance.
pub async fn targets(lake: &Lake, pipelines: &Pipelines) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    for topic in &pipelines.topics {
        let (spec, origin) = (rows_of_bronze::table_spec(&topic.name), Origin::Topic(topic.name.clone()));
        let needs = Needs { every_commit: true, from: None };
        targets.push(Target { spec, origin, needs, reached: BTreeMap::new() });
    }
    for pipeline in &pipelines.pipelines {
        let inspected = Manifests::of(lake, &pipeline.name)?.inspect().await?;
        // Older versions than the newest epoch's may be cleaned up: when it cannot be read, no version is asked for.
        let is_newest = inspected.newest == inspected.newest_readable.as_ref().map(|epoch| epoch.epoch);
        let mut epoch = inspected.newest_readable.unwrap_or_default();
        if !is_newest {
            epoch.tables.clear();
            epoch.bronze_version = 0;
        }
        targets.push(epochs::target(lake, &pipeline.name)?);
        let plan = PipelinePlan::new(pipeline).await?;
        let keyed = plan.keyed_specs().into_iter().map(|(spec, _)| spec);
        for spec in plan.append_specs().into_iter().chain(keyed) {
            let needs = Needs { every_commit: false, from: epoch.tables.get(&spec.name).copied() };
            let origin = Origin::Pipeline(pipeline.name.clone());
            targets.push(Target { spec, origin, needs, reached: BTreeMap::new() });
        }
        let spec = checkpoint::spec_of(&pipeline.name);
        let origin = Origin::State(pipeline.name.clone());
        targets.push(Target { spec, origin, needs: Needs::default(), reached: BTreeMap::new() });
        let of_topic = targets.iter_mut().find(|target| target.origin == Origin::Topic(pipeline.topic.clone()));
        if let Some(bronze) = of_topic {
            bronze.needs.from = bronze.needs.from.max(Some(epoch.bronze_version).filter(|version| *version > 0));
            for (partition, offset) in epoch.covers() {
                let reached = bronze.reached.entry(partition).or_insert(offset);
                *reached = (*reached).max(offset);
            }
        }
    }
    let (spec, needs) = (journal::table_spec(), Needs::default());
    targets.push(Target { spec, origin: Origin::EventLog, needs, reached: BTreeMap::new() });
    Ok(targets)
}

impl Target {
    /// Looks through the table. A finding is one only if it is there twice: files come and go while a worker runs.
    pub async fn inspect(&self, lake: &Lake) -> Result<Vec<Finding>> {
        let first = self.faults(lake).await?;
        if first.is_empty() {
            return Ok(Vec::new());
        }
        let again = self.faults(lake).await?;
        Ok(first.into_iter().filter(|fault| again.contains(fault)).map(|fault| self.finding(fault)).collect())
    }

    async fn faults(&self, lake: &Lake) -> Result<Vec<Fault>> {
        match &self.origin {
            Origin::Epochs(pipeline) => epochs::faults(lake, pipeline).await,
            _ => Ok(inspect(lake, &self.spec, &self.needs).await?.faults),
        }
    }

    fn finding(&self, fault: Fault) -> Finding {
        Finding {
            table: self.spec.name.clone(),
            version: fault.version,
            file: fault.file.clone(),
            wrong: fault.wrong.clone(),
            remedy: self.remedy(fault.part),
            fault,
        }
    }

    fn remedy(&self, part: Part) -> String {
        match (&self.origin, part) {
            (_, Part::LogCheckpoint) => "goes; the one before and the commits since say the same".to_owned(),
            (Origin::Topic(topic), Part::Commit) => {
                format!("its rows are read again from files without a commit, and from the log of topic `{topic}`")
            }
            (Origin::Topic(topic), _) => format!("its rows are read again from the log of topic `{topic}`"),
            (Origin::Pipeline(pipeline), _) => format!("rebuilt from bronze: `karat replay start {pipeline} --all`"),
            (Origin::State(_), _) => "goes; the worker writes it anew".to_owned(),
            (Origin::Epochs(pipeline), _) => {
                format!("goes; when it is the newest, `{pipeline}` is rebuilt from bronze, which writes the next")
            }
            (Origin::EventLog, _) => "what can be read of it is kept; nothing is made from it".to_owned(),
        }
    }
}

/// Repairs a table that stands for itself: its findings say what. Tables of pipelines are left: a rebuild makes them.
/// Whoever calls this has the data folder to himself.
pub async fn repair_alone(lake: &Lake, target: &Target, findings: &[Finding]) -> Result<()> {
    for finding in findings.iter().filter(|finding| finding.fault.part == Part::LogCheckpoint) {
        discard_checkpoint(lake, &target.spec.name, &finding.file).await?;
    }
    let is_more = findings.iter().any(|finding| finding.fault.part != Part::LogCheckpoint);
    match &target.origin {
        Origin::State(_) if is_more => Ok(set_aside(lake, &target.spec.name).await?),
        Origin::EventLog if is_more => Ok(keep_readable(lake, &target.spec).await?),
        _ => Ok(()),
    }
}
