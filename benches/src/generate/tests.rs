use std::collections::HashSet;

use serde_json::Value;

use super::*;

fn small() -> Plan {
    Plan { count: 5_000, duplicates: 0.1, bad: 0.05, out_of_order: 0.1, delay: 50, ..Plan::default() }
}

fn lines(plan: &Plan) -> (Vec<String>, Truth) {
    let mut generator = Generator::new(plan.clone());
    let lines = generator.by_ref().collect();
    (lines, generator.truth().clone())
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    assert_eq!(lines(&small()), lines(&small()));
    assert_ne!(lines(&small()).0, lines(&Plan { seed: 2, ..small() }).0);
}

#[test]
fn the_bytes_of_a_seed_never_change() {
    let first = Generator::new(Plan { count: 1, ..Plan::default() }).next().unwrap();
    assert_eq!(first, include_str!("first_event.json").trim_end());
}

#[test]
fn the_truth_agrees_with_the_lines() {
    let (lines, truth) = lines(&small());
    let mut kinds = truth.bad_kinds.values().copied().collect::<Vec<_>>();
    kinds.sort_unstable();
    assert_eq!(kinds.len(), 7);
    assert!(kinds[6] - kinds[0] <= 1, "{kinds:?}");
    assert_eq!(lines.len() as u64, truth.lines);
    assert_eq!(truth.lines, truth.events + truth.duplicates + truth.bad);
    assert_eq!(truth.events, truth.completed + truth.failed + truth.aborted);
    let distinct: HashSet<&String> = lines.iter().collect();
    assert_eq!(distinct.len() as u64, truth.events + truth.bad);
    let broken = lines.iter().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert_eq!(broken as u64, truth.bad_kinds["truncated"]);
    assert!(truth.duplicates > 300 && truth.out_of_order > 300, "{truth:?}");
}

#[test]
fn sums_of_the_truth_are_those_of_the_distinct_good_events() {
    let (lines, truth) = lines(&Plan { bad: 0.0, ..small() });
    let distinct: HashSet<String> = lines.into_iter().collect();
    let sum = |name: &str| -> u64 {
        let of = |line: &String| serde_json::from_str::<Value>(line).unwrap()["data"][name].as_u64().unwrap();
        distinct.iter().map(of).sum()
    };
    assert_eq!(sum("records_read"), truth.records_read);
    assert_eq!(sum("records_written"), truth.records_written);
    assert_eq!(sum("bytes_written"), truth.bytes_written);
}

#[test]
fn good_events_keep_the_contract_and_bad_ones_break_it_or_a_rule() {
    let pipelines = karat_schemas::pipelines::parse(karat_schemas::pipelines::BUILT_IN).unwrap();
    let contracts = karat_schemas::events::Contracts::compile(&pipelines, |_| Err("none".to_owned()));
    let Ok(contracts) = contracts else { panic!("the built-in contracts do not compile") };
    let contract = contracts.get("etl.run.finished").unwrap();
    let (lines, truth) = lines(&small());
    let distinct: HashSet<&String> = lines.iter().collect();
    let good = distinct.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_good = |event: &Value| {
        let data = event["data"].to_string();
        contract.violations(&karat_schemas::json::parse(&data).unwrap()).is_empty()
    };
    let good = good.filter(is_good).count() as u64;
    // A finish before the start is a rule between two fields, which the silver table checks.
    assert_eq!(good, truth.events + truth.bad_kinds["finish_before_start"]);
}

#[test]
fn late_events_come_within_their_delay_and_none_is_lost() {
    let plan = Plan { duplicates: 0.0, bad: 0.0, ..small() };
    let (late, _) = lines(&plan);
    let times: Vec<String> = late
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["data"]["started_at"].as_str().unwrap().to_owned())
        .collect();
    let mut sorted = times.clone();
    sorted.sort();
    assert_ne!(times, sorted);
    let place = |time: &String| sorted.partition_point(|other| other < time);
    let furthest = times.iter().enumerate().map(|(index, time)| place(time).abs_diff(index)).max().unwrap();
    assert!(furthest <= 50, "{furthest}");
}

#[test]
fn plain_lines_of_the_comparison_have_its_fields() {
    let plan = Plan { count: 1, shape: Shape::EtlRun, with_envelope: false, ..Plan::default() };
    let line: Value = serde_json::from_str(&Generator::new(plan).next().unwrap()).unwrap();
    let names: Vec<&String> = line.as_object().unwrap().keys().collect();
    for name in ["event_id", "source", "user_id", "entity", "status", "records_read", "bytes", "started_at", "error"] {
        assert!(names.iter().any(|found| *found == name), "{name} is missing in {names:?}");
    }
}
