//! `GET /tables`, one table, and its rows.

use std::collections::HashMap;

use karat_access::Role;
use karat_api::lakehouse::declared::DeclaredTable;
use karat_schemas::pipelines::{BUILT_IN, parse};
use serde_json::{Value, json};

use crate::{
    profits::profit,
    support::{Profit, Run, TestApp, run},
};

const ROWS: &str = "/api/v1/tables/gold.summary_state/rows";

/// A row of the summary each: other jobs on other days.
fn days(count: usize) -> Vec<Run> {
    (1..=count)
        .map(|n| run(&format!("r{n}"), "crm", &format!("job {n}"), &format!("2026-01-{n:02}T10:00:00Z")))
        .collect()
}

async fn column(app: &TestApp, query: &str, name: &str) -> Vec<Value> {
    let reply = app.get(&format!("{ROWS}?{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text);
    reply.column("/data/rows", name)
}

#[tokio::test]
async fn tables_are_told_with_their_sizes_columns_versions_and_declaration() {
    let pipelines = parse(BUILT_IN).unwrap();
    let declared = pipelines.pipelines.iter().flat_map(DeclaredTable::of).collect();
    let app = TestApp::start_with(|settings| settings.serving.tables = declared).await;
    app.publish(&days(2), 1).await;
    app.publish(&days(3), 2).await;
    let list = app.get("/api/v1/tables").await;
    let names = ["gold.summary_state", "gold.sync_status", "gold.user_days", "silver.runs"];
    assert_eq!(list.column("/data/tables", "table"), names, "{}", list.text);
    assert_eq!(list.column("/data/tables", "rows"), [3, 3, 3, 3]);
    assert!(list.column("/data/tables", "bytes").iter().all(|bytes| bytes.as_u64() > Some(0)), "{}", list.text);
    assert_eq!((list.at("/data/epoch"), &list.headers["karat-as-of"]), (&json!(2), &"2026-01-03T10:00:00Z".to_owned()));
    let known = app.get_as(&app.admin, "/api/v1/tables", &[("if-none-match", &list.headers["etag"])]).await;
    assert_eq!(known.status, 304);

    let one = app.get("/api/v1/tables/gold.sync_status").await;
    assert_eq!(one.status, 200, "{}", one.text);
    assert_eq!(one.at("/data/columns/0"), &json!({"name": "source", "type": "string", "description": null}));
    assert_eq!(one.at("/data/columns/2/type"), "timestamp");
    assert_eq!(one.at("/data/versions/0/version"), one.at("/data/table/version"));
    assert_eq!((one.at("/data/versions/0/files_added"), one.at("/data/versions/0/rows_added")), (&json!(1), &json!(3)));
    assert!(one.at("/data/versions").as_array().unwrap().len() >= 2, "{}", one.text);
    assert_eq!(one.at("/data/declared/key"), &json!(["source", "job"]));
    for none in ["gold.none", "none", "quarantine.etl_runs", "gold", "gold.", "gold.summary_state%2F..%2Fsync_status"] {
        assert_eq!(app.get(&format!("/api/v1/tables/{none}")).await.status, 404, "{none}");
    }
}

/// Profits of so many companies.
fn companies(count: usize) -> Vec<Profit> {
    (0..count).map(|n| profit(&format!("company {n}"), 2025, 1, 100)).collect()
}

#[tokio::test]
async fn tables_of_each_pipeline_are_told_with_the_epoch_of_their_own() {
    let app = TestApp::start().await;
    app.publish(&days(2), 2).await;
    app.publish(&days(3), 3).await;
    let runs_alone = app.get("/api/v1/tables").await;
    assert_eq!(runs_alone.column("/data/epochs", "pipeline"), ["etl_runs"]);
    app.publish_profits(&companies(4), 4).await;
    let list = app.get("/api/v1/tables").await;
    let names = ["gold.profits", "gold.summary_state", "gold.sync_status", "gold.user_days", "silver.runs"];
    assert_eq!(list.column("/data/tables", "table"), names, "{}", list.text);
    let pipelines = ["finance", "etl_runs", "etl_runs", "etl_runs", "etl_runs"];
    assert_eq!(list.column("/data/tables", "pipeline"), pipelines);
    let of = |pipeline: &str, epoch: u64, as_of: &str, state: &str| json!({"pipeline": pipeline, "epoch": epoch, "as_of": as_of, "data_state": state});
    let (runs, profits) = ("2026-01-03T10:00:00Z", "2026-01-05T09:00:00Z");
    assert_eq!(
        list.at("/data/epochs"),
        &json!([of("etl_runs", 2, runs, "complete"), of("finance", 1, profits, "complete")])
    );
    assert_eq!((list.at("/data/epoch"), list.text_at("/data/as_of")), (&json!(2), runs), "the oldest");
    assert_eq!(list.headers["karat-as-of"], runs);
    // Each of them changes the answer.
    let etag = list.headers["etag"].clone();
    let known = async || app.get_as(&app.admin, "/api/v1/tables", &[("if-none-match", &etag)]).await.status;
    assert_ne!(etag, runs_alone.headers["etag"]);
    assert_eq!(known().await, 304);
    app.log_ends_at(4);
    assert_eq!(known().await, 200);
    let behind = app.get("/api/v1/tables").await;
    assert_eq!(behind.column("/data/epochs", "data_state"), ["partial", "complete"]);
    assert_eq!(behind.text_at("/data/data_state"), "partial");
    app.publish(&days(6), 4).await;
    let list = app.get("/api/v1/tables").await;
    assert_eq!((list.at("/data/epoch"), list.text_at("/data/as_of")), (&json!(1), profits), "now that of the profits");
    assert_eq!(list.text_at("/data/data_state"), "complete");

    let one = app.get("/api/v1/tables/gold.profits").await;
    assert_eq!((one.at("/data/epoch"), one.text_at("/data/table/pipeline")), (&json!(1), "finance"), "{}", one.text);
    assert_eq!(one.headers["karat-as-of"], profits);
}

#[tokio::test]
async fn rows_of_another_pipeline_stay_at_its_epoch_and_runs_are_no_news_of_them() {
    const PROFITS: &str = "/api/v1/tables/gold.profits/rows?order=company";
    let app = TestApp::start().await;
    app.publish(&days(2), 2).await;
    app.publish(&days(3), 3).await;
    assert_eq!(app.get(PROFITS).await.status, 404, "before there are any");
    app.publish_profits(&companies(5), 5).await;
    let version = app.get("/api/v1/tables/gold.profits").await.at("/data/table/version").as_u64().unwrap();
    let first = app.get(&format!("{PROFITS}&limit=3")).await;
    assert_eq!((first.at("/data/epoch"), first.text_at("/data/pipeline")), (&json!(1), "finance"), "{}", first.text);
    assert_eq!(first.column("/data/rows", "company"), ["company 0", "company 1", "company 2"]);
    let next = format!("{PROFITS}&limit=3&cursor={}", first.text_at("/data/next_cursor"));

    app.publish(&days(4), 4).await;
    let again = [("if-none-match", first.headers["etag"].as_str())];
    assert_eq!(app.get_as(&app.admin, &format!("{PROFITS}&limit=3"), &again).await.status, 304);
    app.publish_profits(&companies(2), 6).await;
    assert_eq!(app.get_as(&app.admin, &format!("{PROFITS}&limit=3"), &again).await.status, 200);
    let second = app.get(&next).await;
    assert_eq!(second.column("/data/rows", "company"), ["company 3", "company 4"], "{}", second.text);
    assert_eq!((second.at("/data/epoch"), second.at("/data/version")), (&json!(1), &json!(version)));
    let old = app.get(&format!("{PROFITS}&as_of_version={version}")).await;
    assert_eq!((old.at("/data/epoch"), old.column("/data/rows", "company").len()), (&json!(2), 5), "{}", old.text);
    assert_eq!(app.get(PROFITS).await.column("/data/rows", "company").len(), 2);
}

#[tokio::test]
async fn rows_of_profits_are_seen_by_who_sees_the_profits() {
    const PROFITS: &str = "/api/v1/tables/gold.profits/rows?order=company";
    let granted = HashMap::from([(Role::User, vec!["/shared".to_owned()])]);
    let app = TestApp::start_with(|settings| settings.serving.granted_sources = granted).await;
    let mut profits = companies(4);
    profits[1].user = Some(app.user_id.clone());
    profits[2].user = Some("somebody".to_owned());
    profits[3].source = "/shared".to_owned();
    app.publish_profits(&profits, 4).await;
    let seen = app.get_as_user("/api/v1/profits").await.column("/data/profits", "company");
    assert_eq!(app.get_as_user(PROFITS).await.column("/data/rows", "company"), seen);
    assert_eq!(seen, ["company 1", "company 3"]);
    assert_eq!(app.get_as_user(&format!("{PROFITS}&user_id=somebody")).await.at("/data/rows"), &json!([]));
    assert_eq!(app.get(PROFITS).await.column("/data/rows", "company").len(), 4);
}

#[tokio::test]
async fn filters_order_and_columns_choose_rows() {
    let app = TestApp::start().await;
    let mut runs = days(5);
    runs.push(run("x", "erp", "job 1", "2026-01-02T10:00:00Z"));
    app.publish(&runs, 1).await;
    assert_eq!(column(&app, "source=erp", "job").await, ["job 1"]);
    assert_eq!(column(&app, "source[ne]=erp&order=-job&limit=2", "job").await, ["job 5", "job 4"]);
    assert_eq!(column(&app, "bucket_start[gte]=2026-01-04&order=job", "job").await, ["job 4", "job 5"]);
    assert_eq!(column(&app, "bucket_start[lt]=2026-01-01T10:00:01Z", "job").await, ["job 1"]);
    assert_eq!(column(&app, "job[in]=job%202,job%203&order=job", "job").await, ["job 2", "job 3"]);
    assert_eq!(column(&app, "runs[gt]=1", "job").await, Vec::<Value>::new());
    assert_eq!(column(&app, "is_top_level=true&source=erp", "is_top_level").await, [true]);
    let some = app.get(&format!("{ROWS}?columns=runs,source&source=erp")).await;
    assert_eq!(some.at("/data/rows"), &json!([{"runs": 1, "source": "erp"}]));
    let whole = app.get(&format!("{ROWS}?source=erp")).await;
    assert_eq!(whole.text_at("/data/rows/0/bucket_start"), "2026-01-02T10:00:00Z");
    assert_eq!(whole.at("/data/rows/0/user_id"), &Value::Null);
    assert_eq!(app.get("/api/v1/tables/silver.runs/rows").await.status, 404);
}

#[tokio::test]
async fn pages_join_to_the_whole_and_stay_at_their_version() {
    let app = TestApp::start().await;
    app.publish(&days(25), 1).await;
    // All are equal in what was asked for first: what tells them apart decides.
    for query in ["order=source", "order=-bucket_start", "columns=source,job&order=source", "source=crm"] {
        let whole = column(&app, query, "job").await;
        let (mut joined, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app.get(&format!("{ROWS}?{query}&limit=7{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.text);
            joined.extend(page.column("/data/rows", "job"));
            match page.at("/data/next_cursor") {
                Value::Null => break,
                next => cursor = format!("&cursor={}", next.as_str().unwrap()),
            }
        }
        assert_eq!((joined.len(), joined), (25, whole), "{query}");
    }
    let first = app.get(&format!("{ROWS}?limit=20")).await;
    let next = format!("{ROWS}?limit=20&cursor={}", first.text_at("/data/next_cursor"));
    app.publish(&days(2), 2).await;
    let second = app.get(&next).await;
    assert_eq!((second.at("/data/epoch"), second.column("/data/rows", "job").len()), (&json!(1), 5), "{}", second.text);
    assert_eq!(app.get(&format!("{next}&source=crm")).await.status, 422, "of another question");
    for count in 3..12 {
        app.publish(&days(count), count as i64).await;
        let _ = app.get(&format!("{ROWS}?limit=1")).await;
    }
    app.forget_epochs_before(8).await;
    let gone = app.get(&next).await;
    assert_eq!((gone.status, gone.text_at("/code")), (410, "cursor_expired"), "{}", gone.text);
}

#[tokio::test]
async fn an_older_version_is_read_as_it_was() {
    let app = TestApp::start().await;
    app.publish(&days(3), 1).await;
    let version = app.get("/api/v1/tables/gold.summary_state").await.at("/data/table/version").as_u64().unwrap();
    app.publish(&days(5), 2).await;
    let old = app.get(&format!("{ROWS}?as_of_version={version}")).await;
    assert_eq!(old.column("/data/rows", "job").len(), 3, "{}", old.text);
    assert_eq!((old.at("/data/version"), old.at("/data/as_of")), (&json!(version), &Value::Null));
    assert!(!old.headers.contains_key("karat-as-of"));
    assert_eq!(app.get(ROWS).await.column("/data/rows", "job").len(), 5);
    for (asked, status) in [(version + 1, 200), (version + 2, 422)] {
        assert_eq!(app.get(&format!("{ROWS}?as_of_version={asked}")).await.status, status, "{asked}");
    }
}

#[tokio::test]
async fn who_sees_own_rows_sees_those_of_tables_that_say_whose_they_are() {
    let granted = HashMap::from([(Role::Moderator, vec!["crm".to_owned()])]);
    let app = TestApp::start_with(|settings| settings.serving.granted_sources = granted).await;
    let mut runs = days(4);
    runs[1].user = Some(app.user_id.clone());
    runs[2].user = Some("somebody".to_owned());
    app.publish(&runs, 1).await;
    let list = app.get_as_user("/api/v1/tables").await;
    assert_eq!(list.column("/data/tables", "table"), ["gold.summary_state", "gold.user_days", "silver.runs"]);
    assert!(list.column("/data/tables", "rows").iter().all(Value::is_null), "{}", list.text);
    assert_eq!(app.get_as_user("/api/v1/tables/gold.sync_status").await.status, 404);
    for query in ["", "?user_id=somebody", "?user_id[ne]=x", "?user_id[in]=somebody,x"] {
        let reply = app.get_as_user(&format!("{ROWS}{query}")).await;
        let expected = if query.contains("somebody") { vec![] } else { vec![json!("job 2")] };
        assert_eq!(reply.column("/data/rows", "job"), expected, "{query}: {}", reply.text);
    }
    let refused = app.get_as_user("/api/v1/tables/gold.sync_status/rows").await;
    assert_eq!((refused.status, refused.text_at("/code")), (403, "forbidden"), "{}", refused.text);
    assert!(refused.text_at("/message").contains("user_id"), "{}", refused.text);
    assert_eq!(app.get("/api/v1/tables/gold.sync_status/rows").await.column("/data/rows", "job").len(), 4);
}

#[tokio::test]
async fn sources_that_are_granted_are_seen_whole_also_where_rows_are_nobodys_own() {
    let granted = HashMap::from([(Role::User, vec!["crm".to_owned()])]);
    let app = TestApp::start_with(|settings| settings.serving.granted_sources = granted).await;
    let mut runs = days(2);
    runs.push(run("x", "erp", "hidden", "2026-01-02T10:00:00Z"));
    app.publish(&runs, 1).await;
    for table in ["gold.sync_status", "gold.summary_state"] {
        let reply = app.get_as_user(&format!("/api/v1/tables/{table}/rows?order=job")).await;
        assert_eq!(reply.column("/data/rows", "job"), ["job 1", "job 2"], "{table}: {}", reply.text);
    }
}
