//! `GET /user-vitals`: against a count over the runs, and who may ask for whose.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};

use crate::support::{Reply, Run, TestApp};

const DAY_US: i64 = 86_400_000_000;
const PATH: &str = "/api/v1/user-vitals";

fn today() -> i64 {
    Utc::now().timestamp_micros().div_euclid(DAY_US)
}

fn date_of(day: i64) -> String {
    DateTime::from_timestamp_micros(day * DAY_US).unwrap().date_naive().to_string()
}

/// The day, counted from 1970, that the windows of an answer end on: it may be the one after [`today`] by now.
fn last_day(reply: &Reply) -> i64 {
    let date: NaiveDate = reply.text_at("/data/windows/0/to").parse().unwrap();
    (date - NaiveDate::default()).num_days()
}

/// Runs of a user, of somebody else and of nobody, on the last hundred days.
fn runs(user: &str) -> Vec<Run> {
    let today = today();
    let run = |n: i64| {
        let status = ["completed", "completed", "failed", "aborted", "running"][(n / 3 % 5) as usize];
        let user = [Some(user), Some("somebody"), None][(n % 3) as usize];
        Run {
            id: format!("r{n}"),
            source: format!("s{}", n % 4),
            job: format!("j{}", n % 5),
            user: user.map(str::to_owned),
            parent: (n % 7 == 0).then(|| "p".to_owned()),
            status: status.to_owned(),
            started_at_us: (today - n * n % 101) * DAY_US + n * 977 % 1_440 * 60_000_000,
            duration_us: (status != "running").then_some(n * 1_000_003),
            records_read: n,
            error: None,
        }
    };
    // Three days in a row, the last of which is yesterday.
    let streak = (1..=3).map(|back| Run {
        user: Some(user.to_owned()),
        status: "completed".to_owned(),
        started_at_us: (today - back) * DAY_US,
        ..run(500 + back)
    });
    (0..450).map(&run).chain(streak).collect()
}

fn day_of(run: &Run) -> i64 {
    run.started_at_us.div_euclid(DAY_US)
}

/// A window by counting.
fn counted(runs: &[&Run], last: i64, num_days: i64) -> Value {
    let first = last - num_days + 1;
    let within: Vec<&&Run> = runs.iter().filter(|run| (first..=last).contains(&day_of(run))).collect();
    let count = |status: &str| within.iter().filter(|run| run.status == status).count();
    let [completed, failed, aborted] = ["completed", "failed", "aborted"].map(count);
    let finished = completed + failed + aborted;
    let mut durations: Vec<i64> = within.iter().filter_map(|run| run.duration_us).collect();
    durations.sort_unstable();
    let mean = durations.iter().sum::<i64>() as f64 / durations.len() as f64 / 1000.0;
    let p95 = durations.get((durations.len() * 95).div_ceil(100).saturating_sub(1));
    json!({
        "days": num_days,
        "from": date_of(first),
        "to": date_of(last),
        "active_days": within.iter().map(|run| day_of(run)).collect::<BTreeSet<_>>().len(),
        "runs": within.len(),
        "completed": completed,
        "failed": failed,
        "aborted": aborted,
        "running": count("running"),
        "success_rate": (finished > 0).then(|| completed as f64 / finished as f64),
        "jobs": within.iter().map(|run| (&run.source, &run.job)).collect::<BTreeSet<_>>().len(),
        "records_read": within.iter().map(|run| run.records_read).sum::<i64>(),
        "avg_duration_ms": p95.map(|_| mean),
        "p95_duration_ms": p95.map(|us| *us as f64 / 1000.0),
    })
}

fn assert_same(found: &Value, expected: &Value) {
    for (name, expected) in expected.as_object().unwrap() {
        let found = &found[name];
        match (found.as_f64(), expected.as_f64()) {
            (Some(one), Some(other)) => {
                assert!((one - other).abs() < 1e-6 * other.abs().max(1.0), "{name}: {one} {other}")
            }
            _ => assert_eq!(found, expected, "{name}"),
        }
    }
}

#[tokio::test]
async fn vitals_are_those_of_a_count_over_the_runs() {
    let app = TestApp::start().await;
    let runs = runs(&app.user_id);
    app.publish(&runs, 450).await;
    let own = app.get_as_user(PATH).await;
    assert_eq!((own.status, own.text_at("/data/user_id")), (200, app.user_id.as_str()), "{}", own.text);
    for (path, user) in [
        (PATH.to_owned(), None),
        (format!("{PATH}?user_id={}", app.user_id), Some(app.user_id.as_str())),
        (format!("{PATH}?user_id=somebody"), Some("somebody")),
    ] {
        let reply = app.get(&path).await;
        let last = last_day(&reply);
        let of_user: Vec<&Run> = runs.iter().filter(|run| user.is_some() && run.user.as_deref() == user).collect();
        let windows = reply.at("/data/windows").as_array().unwrap();
        assert_eq!(windows.len(), 3);
        for (window, num_days) in windows.iter().zip([7, 30, 90]) {
            assert_same(window, &counted(&of_user, last, num_days));
        }
        let days = |status: Option<&str>| -> BTreeSet<i64> {
            let of_status = of_user.iter().filter(|run| status.is_none_or(|status| run.status == status));
            of_status.map(|run| day_of(run)).collect()
        };
        let (active, completed) = (days(None), days(Some("completed")));
        let begin = if completed.contains(&last) { last } else { last - 1 };
        let streak = (0..).take_while(|back| completed.contains(&(begin - back))).count();
        assert_eq!(reply.at("/data/streak_days"), &json!(streak), "{}", reply.text);
        assert_eq!(reply.at("/data/last_activity"), &json!(active.last().map(|day| date_of(*day))));
    }
    // The owner's own answer is the same, and level and experience are those of the profile.
    let (asked, profile) =
        (app.get(&format!("{PATH}?user_id={}", app.user_id)).await, app.get_as_user("/api/v1/users/me").await);
    if last_day(&asked) == last_day(&own) {
        assert_eq!(asked.at("/data/windows"), own.at("/data/windows"));
    }
    for figure in ["/data/exp", "/data/level"] {
        assert_eq!(own.at(figure), profile.at(figure), "{figure}");
    }
    assert!(own.at("/data/exp").as_u64() > Some(0), "{}", own.text);
}

#[tokio::test]
async fn a_user_without_runs_gets_zeros_and_nulls() {
    let app = TestApp::start().await;
    app.publish(&[], 0).await;
    for reply in [app.get_as_user(PATH).await, app.get(&format!("{PATH}?user_id=never-seen")).await] {
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_same(reply.at("/data/windows/2"), &counted(&[], last_day(&reply), 90));
        assert_eq!(reply.at("/data/windows/0/success_rate"), &Value::Null);
        let rest = ["streak_days", "last_activity", "exp", "level"].map(|name| reply.at("/data")[name].clone());
        assert_eq!(rest, [json!(0), Value::Null, json!(0), json!(1)]);
    }
}

#[tokio::test]
async fn only_who_sees_everybodys_data_asks_for_another_user() {
    let app = TestApp::start().await;
    app.publish(&runs(&app.user_id), 450).await;
    assert_eq!(app.get_as_user(&format!("{PATH}?user_id={}", app.user_id)).await.status, 200);
    // The same for somebody who is there and somebody who is not.
    for id in ["somebody", "never-seen"] {
        let refused = app.get_as_user(&format!("{PATH}?user_id={id}")).await;
        assert_eq!((refused.status, refused.text_at("/code")), (403, "forbidden"), "{id}");
    }
    let token = format!("Bearer {}", app.user);
    let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
    for (scope, status) in [("read", 200), ("publish:*", 403)] {
        let body = json!({"name": "k", "scopes": [scope]}).to_string();
        let made = app.send("POST", "/api/v1/api-keys", &headers, &body).await;
        let reply = app.get_as(made.text_at("/data/key"), PATH, &[]).await;
        assert_eq!(reply.status, status, "{scope}: {}", reply.text);
    }
}

#[tokio::test]
async fn an_answer_says_how_fresh_it_is_and_is_known_again_until_the_next_epoch() {
    let app = TestApp::start().await;
    let runs = runs(&app.user_id);
    let epoch = app.publish(&runs[..200], 200).await;
    let (one, two) = (app.get_as_user(PATH).await, app.get_as_user(PATH).await);
    // Unless midnight came between them.
    if last_day(&one) == last_day(&two) {
        assert_eq!(one.text, two.text);
        let known = [("if-none-match", one.headers["etag"].as_str())];
        let again = app.get_as(&app.user, PATH, &known).await;
        assert!(again.status == 304 || today() > last_day(&one), "{}", again.status);
    }
    assert_eq!((one.at("/data/epoch"), one.text_at("/data/data_state")), (&json!(epoch), "complete"));
    assert_eq!(one.text_at("/data/as_of"), one.headers["karat-as-of"]);
    assert_eq!(one.headers["cache-control"], "private, no-cache");
    app.publish(&runs, 450).await;
    let known = [("if-none-match", one.headers["etag"].as_str())];
    assert_eq!(app.get_as(&app.user, PATH, &known).await.status, 200);
    let other = app.get_as_user("/api/v1/user-vitals").await;
    assert_ne!(other.headers["etag"], one.headers["etag"]);
}
