//! `GET /summary` and its weekly and monthly forms.

use serde_json::{Value, json};

use crate::support::{Run, TestApp, run};

fn runs() -> Vec<Run> {
    vec![
        run("1", "billing", "load", "2026-01-30T23:30:00Z"),
        Run { status: "failed".into(), ..run("2", "billing", "load", "2026-01-31T10:00:00Z") },
        Run { parent: Some("1".into()), ..run("3", "billing", "sync", "2026-01-31T11:00:00Z") },
        Run { status: "running".into(), duration_us: None, ..run("4", "crm", "load", "2026-02-01T00:10:00Z") },
    ]
}

#[tokio::test]
async fn days_have_every_field_and_agree_with_weeks_and_months() {
    let app = TestApp::start().await;
    app.publish(&runs(), 4).await;
    let range = "from=2026-01-26&to=2026-02-01";
    let days = app.get(&format!("/api/v1/summary?{range}")).await;
    assert_eq!(days.status, 200, "{}", days.text);
    assert_eq!(days.column("/data/buckets", "bucket"), ["2026-01-30", "2026-01-31", "2026-02-01"]);
    assert_eq!(
        days.at("/data/buckets/1"),
        &json!({
            "bucket": "2026-01-31", "bucket_start": "2026-01-31",
            "start": "2026-01-31T00:00:00+00:00", "end": "2026-02-01T00:00:00+00:00",
            "runs": 2, "completed": 1, "failed": 1, "aborted": 0, "running": 0, "success_rate": 0.5, "jobs": 2,
            "records_read": 20, "records_written": 0, "records_failed": 0, "bytes_written": 0,
            "avg_duration_ms": 60_000.0, "p95_duration_ms": 60_000.0, "revision": 0, "revised_at": null,
        })
    );
    assert_eq!(days.at("/data/buckets/2/success_rate"), &Value::Null);
    assert_eq!((days.at("/data/totals/runs"), days.at("/data/totals/jobs")), (&4.into(), &3.into()));
    let weeks = app.get(&format!("/api/v1/summary/weekly?{range}")).await;
    assert_eq!(weeks.column("/data/buckets", "bucket"), ["2026-W05"]);
    assert_eq!(weeks.text_at("/data/buckets/0/bucket_start"), "2026-01-26");
    let sundays = app.get(&format!("/api/v1/summary/weekly?{range}&week_start=sunday")).await;
    assert_eq!(sundays.column("/data/buckets", "bucket"), ["2026-01-25", "2026-02-01"]);
    let months = app.get(&format!("/api/v1/summary/monthly?{range}")).await;
    assert_eq!(months.column("/data/buckets", "bucket"), ["2026-01", "2026-02"]);
    assert_eq!(months.text_at("/data/buckets/0/end"), "2026-02-01T00:00:00+00:00");
    for other in [weeks, sundays, months] {
        assert_eq!(other.at("/data/totals"), days.at("/data/totals"));
    }
}

#[tokio::test]
async fn days_are_those_of_the_asked_zone() {
    let app = TestApp::start().await;
    app.publish(&runs(), 4).await;
    let berlin = app.get("/api/v1/summary?from=2026-01-31&to=2026-01-31&tz=Europe/Berlin").await;
    assert_eq!(berlin.at("/data/buckets/0/runs"), 3, "{}", berlin.text);
    assert_eq!(berlin.text_at("/data/buckets/0/start"), "2026-01-31T00:00:00+01:00");
    let kolkata = app.get("/api/v1/summary?from=2026-02-01&to=2026-02-01&tz=Asia%2FKolkata").await;
    assert_eq!(kolkata.text_at("/data/buckets/0/end"), "2026-02-02T00:00:00+05:30");
    let honolulu = app.get("/api/v1/summary?from=2026-01-31&to=2026-01-31&tz=Pacific/Honolulu").await;
    assert_eq!(honolulu.at("/data/totals/runs"), 3);
}

#[tokio::test]
async fn filters_groups_and_filling_do_what_they_say() {
    let app = TestApp::start().await;
    app.publish(&runs(), 4).await;
    let total = async |query: &str| {
        let reply = app.get(&format!("/api/v1/summary?from=2026-01-01&to=2026-02-28&{query}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.at("/data/totals/runs").as_i64().unwrap()
    };
    assert_eq!(total("source=billing").await, 3);
    assert_eq!(total("job=load").await, 3);
    assert_eq!(total("source=billing&job=load").await, 2);
    assert_eq!(total("parent=none").await, 3);
    assert_eq!(total("source=nobody").await, 0);
    assert_eq!(total("source=%27%20OR%201%3D1%20--").await, 0);
    let grouped = app.get("/api/v1/summary/monthly?from=2026-01-01&to=2026-01-31&group_by=job").await;
    assert_eq!(grouped.column("/data/buckets", "job"), ["load", "sync"]);
    assert_eq!(grouped.column("/data/buckets", "source"), ["billing", "billing"]);
    let filled = app.get("/api/v1/summary?from=2026-01-29&to=2026-02-01&fill=true&group_by=source").await;
    assert_eq!(filled.column("/data/buckets", "runs"), [0, 0, 1, 0, 2, 0, 0, 1]);
}

#[tokio::test]
async fn the_default_is_the_last_thirty_days() {
    let app = TestApp::start().await;
    let today = || chrono::Utc::now().with_timezone(&chrono_tz::Pacific::Auckland).date_naive().to_string();
    let before = today();
    let reply = app.get("/api/v1/summary?fill=true&tz=Pacific/Auckland").await;
    assert_eq!(reply.at("/data/buckets").as_array().unwrap().len(), 30);
    // Midnight may come meanwhile.
    let last = reply.text_at("/data/buckets/29/bucket");
    assert!(last == before || last == today(), "{last}");
}

#[tokio::test]
async fn pages_join_to_the_whole() {
    let app = TestApp::start().await;
    app.publish(&runs(), 4).await;
    let path = "/api/v1/summary?from=2026-01-25&to=2026-02-03&fill=true";
    let whole = app.get(path).await;
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(&format!("{path}&limit=3{cursor}")).await;
        assert_eq!(page.at("/data/totals"), whole.at("/data/totals"));
        pages.extend(page.column("/data/buckets", "bucket"));
        match page.at("/data/next_cursor") {
            Value::Null => break,
            next => cursor = format!("&cursor={}", next.as_str().unwrap()),
        }
    }
    assert_eq!(pages, whole.column("/data/buckets", "bucket"));
    let other = app.get(&format!("/api/v1/summary?from=2026-01-25&to=2026-02-03&limit=3{cursor}")).await;
    assert_eq!(other.status, 422, "a cursor of another question: {}", other.text);
}

#[tokio::test]
async fn buckets_may_be_hours_quarters_or_years_too() {
    let app = TestApp::start().await;
    app.publish(&runs(), 4).await;
    let range = "from=2026-01-30&to=2026-02-01&tz=Asia/Kathmandu";
    let buckets = async |grain: &str| {
        let reply = app.get(&format!("/api/v1/summary?{range}&grain={grain}")).await;
        assert_eq!((reply.status, reply.at("/data/totals/runs")), (200, &4.into()), "{}", reply.text);
        reply
    };
    let hours = buckets("hour").await;
    let labels =
        ["2026-01-31T05:00+05:45", "2026-01-31T15:00+05:45", "2026-01-31T16:00+05:45", "2026-02-01T05:00+05:45"];
    assert_eq!(hours.column("/data/buckets", "bucket"), labels);
    assert_eq!(hours.text_at("/data/buckets/0/start"), "2026-01-31T05:00:00+05:45");
    assert_eq!(hours.text_at("/data/buckets/0/end"), "2026-01-31T06:00:00+05:45");
    assert_eq!(hours.text_at("/data/buckets/3/bucket_start"), "2026-02-01");
    for (grain, label, start, end) in [
        ("quarter", "2026-Q1", "2026-01-01T00:00:00+05:45", "2026-04-01T00:00:00+05:45"),
        ("year", "2026", "2026-01-01T00:00:00+05:45", "2027-01-01T00:00:00+05:45"),
    ] {
        let reply = buckets(grain).await;
        assert_eq!(reply.column("/data/buckets", "bucket"), [label]);
        assert_eq!((reply.text_at("/data/buckets/0/start"), reply.text_at("/data/buckets/0/end")), (start, end));
    }
    for (grain, path) in [("day", "/summary"), ("week", "/summary/weekly"), ("month", "/summary/monthly")] {
        let same = app.get(&format!("/api/v1{path}?{range}")).await;
        assert_eq!(buckets(grain).await.at("/data/buckets"), same.at("/data/buckets"));
    }
    for query in ["grain=hour&from=2025-01-01&to=2026-02-05", "grain=hour&from=1970-01-01", "grain=minute"] {
        let refused = app.get(&format!("/api/v1/summary?{query}")).await;
        assert_eq!(refused.status, 422, "{query}: {}", refused.text);
        assert!(refused.text_at("/details/0").starts_with("`grain`: expected"), "{}", refused.text);
    }
}
