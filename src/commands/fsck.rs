//! `karat table fsck`: names damage, and repairs it where a running instance does not stand in the way.
//!
//! Rebuilds go through the running instance, which serves everything else meanwhile. Bronze and the tables in `_karat`
//! are held open by whoever writes them, so they are repaired while nothing runs.

use std::{collections::BTreeSet, process::ExitCode};

use karat_lake::{Lake, fsck::Part};
use karat_transform::fsck::{Finding, Origin, Target, bronze, epochs, repair_alone, targets};
use serde::Serialize;

use super::replay;
use crate::{
    cli::{Format, InstanceArgs},
    failure::{FAILED, Failure, Result},
    instance::{Instance, Note},
};

/// What was found, and what a repair could not bring back.
#[derive(Default, Serialize)]
struct Report {
    damaged: Vec<Finding>,
    lost: Vec<Lost>,
}

/// Records of bronze that are in no file and no longer in the log.
#[derive(Serialize)]
struct Lost {
    table: String,
    partition: u32,
    first_offset: i64,
    last_offset: i64,
}

pub async fn run(only: Option<&str>, repair: bool, arguments: &InstanceArgs, format: Format) -> Result<ExitCode> {
    let instance = Instance::new(arguments)?;
    let lake = instance.lake()?;
    let targets = targets(&lake, &instance.pipelines).await?;
    let chosen: Vec<&Target> =
        targets.iter().filter(|target| only.is_none_or(|only| only == target.spec.name)).collect();
    if chosen.is_empty() {
        let only = only.unwrap_or_default();
        return Err(Failure::usage(format!("there is no table `{only}`: `karat table ls` lists them")));
    }
    let found = look(&lake, &chosen).await?;
    let mut report = Report::default();
    if !repair {
        report.damaged = found.into_iter().flat_map(|(_, findings)| findings).collect();
        return show(&report, format);
    }
    let running = instance.running().await;
    // Held to the end: nothing starts meanwhile.
    let _lock = match &running {
        None if !found.is_empty() => Some(instance.lock()?),
        _ => None,
    };
    found.iter().flat_map(|(_, findings)| findings).for_each(|finding| {
        super::note(&format!("{} {}: {}", finding.table, finding.file, finding.wrong));
    });
    repair_all(&instance, &lake, &found, running.as_ref(), &mut report.lost).await?;
    // Their needs changed with what was repaired.
    let targets = karat_transform::fsck::targets(&lake, &instance.pipelines).await?;
    let again = targets.iter().filter(|target| found.iter().any(|(damaged, _)| damaged.spec.name == target.spec.name));
    report.damaged = look(&lake, &again.collect::<Vec<_>>()).await?.into_iter().flat_map(|(_, left)| left).collect();
    show(&report, format)
}

/// The tables with findings.
async fn look<'t>(lake: &Lake, targets: &[&'t Target]) -> Result<Vec<(&'t Target, Vec<Finding>)>> {
    let mut found = Vec::new();
    for target in targets {
        let findings = target.inspect(lake).await?;
        if !findings.is_empty() {
            found.push((*target, findings));
        }
    }
    Ok(found)
}

async fn repair_all(
    instance: &Instance,
    lake: &Lake,
    found: &[(&Target, Vec<Finding>)],
    running: Option<&Note>,
    lost: &mut Vec<Lost>,
) -> Result<()> {
    let mut rebuilds = BTreeSet::new();
    let mut held_open = Vec::new();
    for (target, findings) in found {
        let is_more = findings.iter().any(|finding| finding.fault.part != Part::LogCheckpoint);
        match &target.origin {
            Origin::Topic(_) | Origin::State(_) | Origin::EventLog if is_more && running.is_some() => {
                held_open.push(target.spec.name.clone());
                continue;
            }
            Origin::Topic(topic) if is_more => {
                repair_alone(lake, target, findings).await?;
                lost.extend(repair_bronze(instance, lake, target, topic, findings).await?);
                let of_topic = instance.pipelines.pipelines.iter().filter(|pipeline| pipeline.topic == *topic);
                rebuilds.extend(of_topic.map(|pipeline| pipeline.name.clone()));
            }
            Origin::Pipeline(pipeline) => {
                repair_alone(lake, target, findings).await?;
                // Without its checkpoint, a log whose beginning is cleaned up may say too little.
                if is_more || !target.inspect(lake).await?.is_empty() {
                    rebuilds.insert(pipeline.clone());
                }
            }
            Origin::Epochs(pipeline) => {
                if epochs::remove(lake, pipeline, findings).await? {
                    rebuilds.insert(pipeline.clone());
                }
            }
            _ => repair_alone(lake, target, findings).await?,
        }
    }
    for pipeline in rebuilds {
        super::note(&format!("{pipeline}: silver and gold are rebuilt from bronze"));
        match running {
            Some(note) => replay::order(instance, &pipeline, note).await?,
            None => replay::on_the_folder(instance, &pipeline).await?,
        }
    }
    if held_open.is_empty() {
        return Ok(());
    }
    let tables = held_open.join("`, `");
    Err(Failure::configuration(format!("the running karat writes `{tables}`: stop it, and run this command again")))
}

async fn repair_bronze(
    instance: &Instance,
    lake: &Lake,
    target: &Target,
    topic: &str,
    findings: &[Finding],
) -> Result<Vec<Lost>> {
    let repaired = bronze::repair(lake, target, topic, findings, instance.log().await?).await?;
    let (table, rows, versions) = (&target.spec.name, repaired.rows, repaired.versions.len());
    super::note(&format!("{table}: {versions} versions are written anew, with {rows} rows read again"));
    let lost = repaired.lost.into_iter().map(|(partition, first_offset, last_offset)| Lost {
        table: table.clone(),
        partition,
        first_offset,
        last_offset,
    });
    Ok(lost.collect())
}

fn show(report: &Report, format: Format) -> Result<ExitCode> {
    let is_whole = report.damaged.is_empty() && report.lost.is_empty();
    if format == Format::Json {
        super::print_json(report)?;
    } else if !report.damaged.is_empty() {
        let cells = report.damaged.iter().map(|finding| {
            let Finding { table, version, file, wrong, remedy, .. } = finding;
            vec![table.clone(), version.to_string(), file.clone(), wrong.clone(), remedy.clone()]
        });
        super::print_table(&["TABLE", "VERSION", "FILE", "WRONG", "WHAT HELPS"], &cells.collect::<Vec<_>>());
    } else if is_whole {
        super::print("nothing is damaged");
    }
    for Lost { table, partition, first_offset, last_offset } in &report.lost {
        super::note(&format!(
            "{table}: the records of partition {partition} from offset {first_offset} to {last_offset} are lost: \
             they are in no file and no longer in the log"
        ));
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}
