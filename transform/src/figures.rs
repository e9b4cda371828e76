//! What a step tells the figures and the traces of the process, once an epoch covers it.

use std::time::{Duration, Instant};

use karat_lake::arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::TimestampMicrosecondType,
};
use karat_schemas::{clock, trace::Traces};
use karat_telemetry::{metrics, spans::Value};

use crate::{
    Result,
    batches::column,
    plan::silver_name,
    step::{StepCounts, StepOutput},
    tables::TimedCommit,
    traces::{self, Part},
};

/// Layers of a step that have a span of their own.
const LAYERS: [&str; 3] = ["silver", "gold", "quarantine"];

/// Taken before the tables commit.
pub(crate) struct StepFigures {
    traces: Traces,
    arrivals: ArrayRef,
    stages: ArrayRef,
}

impl StepFigures {
    pub(crate) fn of(output: &StepOutput) -> Result<Self> {
        let stages = column(&output.quarantine, "stage")?.clone();
        Ok(Self { traces: output.traces.clone(), arrivals: output.arrivals.clone(), stages })
    }

    /// The counts of the step, and how long each of its records took from the log to here.
    pub(crate) fn count(&self, pipeline: &str, counts: &StepCounts) {
        let outcomes = [
            ("silver", counts.silver),
            ("duplicate", counts.duplicates),
            ("quarantined", counts.quarantined),
            ("dropped", counts.dropped),
        ];
        let tables: Vec<(String, &str, u64)> =
            counts.rules.iter().map(|((table, rule), rows)| (silver_name(table), rule.as_str(), *rows)).collect();
        let rules = tables.iter().map(|(table, rule, rows)| (table.as_str(), *rule, *rows));
        let stages = self.stages.as_string_opt::<i32>();
        metrics().stepped(pipeline, outcomes, rules, stages.into_iter().flatten().flatten());
        if let Some(arrivals) = self.arrivals.as_primitive_opt::<TimestampMicrosecondType>() {
            let now_us = clock::now_us();
            // A record without a time took none that is known: it is counted, so that the count is that of the records.
            let took_us =
                (0..arrivals.len()).map(|row| if arrivals.is_null(row) { 0 } else { now_us - arrivals.value(row) });
            metrics().reached_gold(pipeline, took_us);
        }
    }

    /// A span of the step in each of its traces.
    pub(crate) fn trace(&self, pipeline: &str, epoch: u64, began: Instant, commits: &[TimedCommit], written: Part) {
        let mut parts: Vec<Part> = LAYERS.into_iter().filter_map(|layer| together(layer, commits)).collect();
        parts.push(written);
        let whole = Part { name: "step", began, took: began.elapsed() };
        let attributes = [("karat.pipeline", Value::Text(pipeline.to_owned())), ("karat.epoch", Value::Number(epoch))];
        traces::record(&self.traces, &whole, &parts, &attributes);
    }
}

/// The commits of a layer, which are made at the same time.
fn together(layer: &'static str, commits: &[TimedCommit]) -> Option<Part> {
    let of_layer = || commits.iter().filter(|commit| commit.layer == layer);
    let began = of_layer().map(|commit| commit.began).min()?;
    let ended = of_layer().map(|commit| commit.began + commit.took).max()?;
    Some(Part { name: layer, began, took: ended.saturating_duration_since(began).max(Duration::from_micros(1)) })
}
