//! What a step tells the figures and the traces of the process, once an epoch covers it.

use std::time::{Duration, Instant};

use karat_lake::arrow::{
    array::{ArrayRef, AsArray},
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

    /// The counts of the step, and how long each of its records with a time took from the log to here.
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
        metrics().reached_gold(pipeline, took_us(&self.arrivals, clock::now_us()));
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

/// What each record took until `now_us`, in microseconds. Those of a topic whose broker keeps no times have none, or 1970.
fn took_us(arrivals: &ArrayRef, now_us: i64) -> impl Iterator<Item = i64> {
    let arrivals = arrivals.as_primitive_opt::<TimestampMicrosecondType>();
    let known =
        arrivals.into_iter().flat_map(|arrivals| arrivals.iter()).flatten().filter(|arrival_us| *arrival_us > 0);
    known.map(move |arrival_us| now_us - arrival_us)
}

/// The commits of a layer, which are made at the same time.
fn together(layer: &'static str, commits: &[TimedCommit]) -> Option<Part> {
    let of_layer = || commits.iter().filter(|commit| commit.layer == layer);
    let began = of_layer().map(|commit| commit.began).min()?;
    let ended = of_layer().map(|commit| commit.began + commit.took).max()?;
    Some(Part { name: layer, began, took: ended.saturating_duration_since(began).max(Duration::from_micros(1)) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::arrow::array::{Int64Array, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn records_without_a_time_of_the_log_took_none_that_is_known() {
        let arrivals = TimestampMicrosecondArray::from(vec![Some(900), None, Some(0), Some(700), Some(-1_000)]);
        let arrivals: ArrayRef = Arc::new(arrivals.with_timezone("UTC"));
        assert_eq!(took_us(&arrivals, 1_000).collect::<Vec<_>>(), [100, 300]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert_eq!(took_us(&numbers, 1_000).count(), 0);
    }
}
