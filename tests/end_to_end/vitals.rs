//! The figures of a user as the real pipeline makes them, against a count over what was published.

use std::collections::BTreeSet;

use chrono::{DateTime, Days, NaiveDate, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::{
    client::Client,
    process::{Folder, PASSWORD},
    wait::until,
};

/// How many days ago, status, seconds, records written.
const RUNS: [(u64, &str, i64, i64); 12] = [
    (0, "failed", 5, 0),
    (1, "completed", 10, 100),
    (1, "completed", 20, 250),
    (2, "completed", 7, 30),
    (2, "aborted", 1, 2),
    (6, "completed", 60, 1_000),
    (7, "completed", 61, 2_000),
    (29, "completed", 90, 7),
    (30, "failed", 91, 8),
    (89, "completed", 120, 9),
    (90, "completed", 121, 10),
    (400, "completed", 3_600, 11),
];

fn event(number: usize, (back, status, seconds, written): (u64, &str, i64, i64), today: NaiveDate) -> Value {
    let id = format!("vital-{number}");
    let started = (today - Days::new(back)).and_hms_opt(0, 0, number as u32 % 60).unwrap().and_utc();
    let finished = started + TimeDelta::seconds(seconds);
    let text = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    json!({
        "specversion": "1.0", "id": id, "source": "/vitals", "type": "etl.run.finished",
        "data": {"run_id": id, "source": format!("s{}", number % 3), "job": "load", "status": status,
                 "started_at": text(started), "finished_at": text(finished),
                 "records_written": written},
    })
}

#[tokio::test]
async fn vitals_of_the_real_pipeline_are_those_of_a_count_over_what_was_published() {
    let folder = Folder::new();
    let key = folder.account("the_owner", "user").await;
    let other_key = folder.account("the_other", "user").await;
    let mut karat = folder.start("up", &["up", "--listen", "127.0.0.1:0", "--without-limits"]);
    let url = karat.url().await;
    let today = Utc::now().date_naive();
    let events: Vec<Value> = RUNS.into_iter().enumerate().map(|(at, run)| event(at, run, today)).collect();
    Client::new(&url, &key).arrive(&events, "gold").await;
    let others = [event(500, (0, "completed", 9, 5), today)];
    Client::new(&url, &other_key).arrive(&others, "gold").await;

    let owner = Client::log_in(&url, "the_owner", PASSWORD).await;
    let vitals = until("every run is served", async || {
        let vitals = owner.data("/api/v1/user-vitals").await;
        (vitals["windows"][2]["runs"].as_u64() >= Some(9) && vitals["data_state"] == "complete").then_some(vitals)
    })
    .await;
    // Midnight may have come since the events were made.
    let last: NaiveDate = vitals["windows"][0]["to"].as_str().unwrap().parse().unwrap();
    let passed = (last - today).num_days().unsigned_abs();
    for (window, num_days) in vitals["windows"].as_array().unwrap().iter().zip([7, 30, 90]) {
        let within: Vec<_> = RUNS.iter().filter(|run| run.0 + passed < num_days).collect();
        let count = |status: &str| within.iter().filter(|run| run.1 == status).count();
        let seconds: i64 = within.iter().map(|run| run.2).sum();
        let expected = json!({
            "days": num_days,
            "runs": within.len(),
            "completed": count("completed"),
            "failed": count("failed"),
            "aborted": count("aborted"),
            "running": 0,
            "records_written": within.iter().map(|run| run.3).sum::<i64>(),
            "active_days": within.iter().map(|run| run.0).collect::<BTreeSet<_>>().len(),
        });
        for (name, expected) in expected.as_object().unwrap() {
            assert_eq!(&window[name], expected, "{name} of {num_days} days: {vitals}");
        }
        let rate = window["success_rate"].as_f64().unwrap();
        assert!((rate - count("completed") as f64 / within.len() as f64).abs() < 1e-9, "{rate}");
        let mean = window["avg_duration_ms"].as_f64().unwrap();
        assert!((mean - seconds as f64 * 1_000.0 / within.len() as f64).abs() < 1e-3, "{mean}");
    }
    // Yesterday and the day before; today has none that completed.
    assert_eq!(vitals["streak_days"], if passed == 0 { 2 } else { 0 }, "{vitals}");
    assert_eq!(vitals["last_activity"], today.to_string());
    let me = owner.data("/api/v1/users/me").await;
    assert_eq!((&vitals["exp"], &vitals["level"]), (&me["exp"], &me["level"]));
    karat.stop().await;
}
