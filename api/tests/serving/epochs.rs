//! Freshness, ETags and the switch from one epoch to the next.

use serde_json::Value;

use crate::support::{Run, TestApp, run};

const SUMMARY: &str = "/api/v1/summary?from=2026-01-01&to=2026-01-31";

fn many(count: usize) -> Vec<Run> {
    (0..count).map(|n| run(&format!("run {n}"), "s", &format!("job {}", n % 7), "2026-01-05T10:00:00Z")).collect()
}

#[tokio::test]
async fn an_etag_holds_until_the_epoch_the_question_or_the_caller_changes() {
    let app = TestApp::start().await;
    app.publish(&many(3), 3).await;
    let first = app.get(SUMMARY).await;
    let etag = first.headers["etag"].clone();
    assert!(etag.starts_with('"'), "strong: {etag}");
    assert_eq!(first.headers["cache-control"], "private, no-cache");
    assert_eq!(first.headers["karat-as-of"], "2026-01-05T10:00:00Z");
    assert!(first.headers["last-modified"].ends_with("GMT"));
    assert_eq!(app.get(SUMMARY).await.text, first.text, "a cached body keeps its timestamp");

    let again = async |token: &str, path: &str, sent: &str| app.get_as(token, path, &[("if-none-match", sent)]).await;
    let known = again(&app.admin, SUMMARY, &etag).await;
    assert_eq!((known.status, known.text.as_str(), &known.headers["etag"]), (304, "", &etag));
    assert_eq!(again(&app.admin, SUMMARY, &format!("\"x\", W/{etag}")).await.status, 304);
    assert_eq!(again(&app.admin, SUMMARY, "\"x\"").await.status, 200);
    assert_eq!(again(&app.admin, &format!("{SUMMARY}&fill=true"), &etag).await.status, 200);
    assert_eq!(again(&app.user, SUMMARY, &etag).await.status, 200);
    app.publish(&many(4), 4).await;
    let next = again(&app.admin, SUMMARY, &etag).await;
    assert_eq!((next.status, next.at("/data/totals/runs")), (200, &4.into()));
}

#[tokio::test]
async fn data_is_partial_while_the_log_is_ahead() {
    let app = TestApp::start().await;
    app.publish(&many(3), 3).await;
    app.log_ends_at(3);
    let complete = app.get(SUMMARY).await;
    assert_eq!(complete.text_at("/data/data_state"), "complete");
    app.log_ends_at(5);
    let partial = app.get_as(&app.admin, SUMMARY, &[("if-none-match", &complete.headers["etag"])]).await;
    assert_eq!(partial.text_at("/data/data_state"), "partial");
    let status = app.get("/api/v1/sync-status").await;
    assert_eq!(status.at("/data/pipelines/0/lag_records"), 2);
}

#[tokio::test]
async fn a_reader_never_sees_two_epochs_in_one_answer() {
    let app = TestApp::start().await;
    app.publish(&many(1), 1).await;
    let reads = async {
        let mut seen = Vec::new();
        while seen.last() != Some(&6) {
            let reply = app.get(SUMMARY).await;
            let epoch = reply.at("/data/epoch").as_i64().unwrap();
            // Epoch n has n runs, in every figure.
            assert_eq!(reply.at("/data/totals/runs"), epoch, "{}", reply.text);
            assert_eq!(reply.at("/data/buckets/0/completed"), epoch);
            assert_eq!(reply.at("/data/totals/records_read"), (epoch * 10));
            seen.push(epoch);
        }
        assert!(seen.is_sorted(), "{seen:?}");
    };
    let writes = async {
        for count in 2..=6 {
            app.publish(&many(count), count as i64).await;
        }
    };
    tokio::join!(reads, writes);
}

#[tokio::test]
async fn a_cursor_stays_in_its_epoch_and_expires_with_it() {
    let app = TestApp::start().await;
    app.publish(&many(5), 5).await;
    let pages =
        ["/api/v1/runs?limit=2".to_owned(), "/api/v1/jobs?limit=2".to_owned(), format!("{SUMMARY}&fill=true&limit=2")];
    let mut cursors = Vec::new();
    for path in &pages {
        let first = app.get(path).await;
        assert_eq!(first.status, 200, "{}", first.text);
        cursors.push(format!("{path}&cursor={}", first.text_at("/data/next_cursor")));
    }
    app.publish(&many(9), 9).await;
    for next in &cursors {
        assert_eq!(app.get(next).await.at("/data/epoch"), 1);
    }
    // Beyond those that are held in memory, and cleaned up.
    for count in 10..16 {
        app.publish(&many(count), count as i64).await;
        let _ = app.get("/api/v1/runs?limit=2").await;
    }
    assert_eq!(app.get(&cursors[0]).await.at("/data/epoch"), 1, "loaded again");
    for count in 16..22 {
        app.publish(&many(count), count as i64).await;
        let _ = app.get("/api/v1/runs?limit=2").await;
    }
    app.forget_epochs_before(10).await;
    for next in &cursors {
        let gone = app.get(next).await;
        assert_eq!((gone.status, gone.at("/code")), (410, &Value::from("cursor_expired")), "{}", gone.text);
    }
}

#[tokio::test]
async fn a_cursor_whose_files_were_cleaned_up_has_expired_whoever_finds_it_out() {
    let app = TestApp::start().await;
    app.publish(&many(15), 15).await;
    let rows = "/api/v1/tables/gold.summary_state/rows";
    let version = app.get("/api/v1/tables/gold.summary_state").await.at("/data/table/version").as_u64().unwrap();
    app.publish(&many(16), 16).await;
    let paths = ["/api/v1/runs", "/api/v1/jobs/s/job%200/runs", rows];
    let mut cursors = Vec::new();
    for path in paths {
        let first = app.get(&format!("{path}?limit=1")).await;
        assert_eq!(first.status, 200, "{}", first.text);
        cursors.push(format!("{path}?limit=1&cursor={}", first.text_at("/data/next_cursor")));
    }
    app.publish(&many(17), 17).await;
    for table in ["silver.runs", "gold.summary_state"] {
        app.clean(table).await;
    }
    // Versions that are open, with files whose footers were read, and one that nobody has asked for before.
    cursors.push(format!("{rows}?as_of_version={version}"));
    for asked in &cursors {
        let gone = app.get(asked).await;
        assert_eq!((gone.status, gone.at("/code")), (410, &Value::from("cursor_expired")), "{asked}: {}", gone.text);
    }
    for path in paths {
        assert_eq!(app.get(path).await.status, 200, "{path}: the newest files stay");
    }
}
