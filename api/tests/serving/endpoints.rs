//! Declared endpoints: values are data, the caller is the credential, and answers are of one epoch.

use karat_schemas::pipelines::BUILT_IN;
use serde_json::{Value, json};

use crate::support::{Run, TestApp, run};

const FAILING: &str = "/api/v1/data/failing_jobs";

/// Beside the endpoint that ships: one with a parameter of every type, and one of everybody's rows.
fn declaration() -> String {
    let own = r#"
[[pipeline.endpoint]]
name = "typed"
description = "Ends nothing: </script>"
parameters = [
  { name = "job", type = "text", required = true },
  { name = "least", type = "int", default = 0, min = 0 },
  { name = "share", type = "decimal", default = "1.5" },
  { name = "day", type = "date" },
  { name = "before", type = "timestamp" },
  { name = "top", type = "bool", default = true },
  { name = "kind", type = "text", values = ["a", "b"] },
]
order = ["total desc"]
sql = """
SELECT source, job, sum(runs) AS total, :share AS share, :day AS day, :kind AS kind
FROM summary_state
WHERE user_id = :caller AND job = :job AND is_top_level = :top AND (:before IS NULL OR bucket_start < :before)
GROUP BY source, job
HAVING sum(runs) >= :least
"""

[[pipeline.endpoint]]
name = "users"
rows = "all"
roles = ["moderator", "admin"]
parameters = [{ name = "by", type = "int", default = 1 }]
sql = "SELECT user_id, sum(runs) / :by AS runs FROM summary_state GROUP BY user_id"

[[pipeline.endpoint]]
name = "numbers"
rows = "all"
roles = ["admin"]
parameters = [{ name = "written", type = "text", required = true }]
sql = "SELECT job, CAST(:written AS BIGINT) AS number FROM summary_state"

[[pipeline.endpoint]]
name = "long"
rows = "all"
roles = ["admin"]
parameters = [{ name = "times", type = "int", required = true, min = 1 }]
sql = "SELECT source, job, repeat(job, CAST(:times AS BIGINT)) AS words FROM summary_state"
"#;
    let mark = "[[pipeline]]\nname = \"finance\"";
    assert!(BUILT_IN.contains(mark));
    BUILT_IN.replace(mark, &format!("{own}\n{mark}"))
}

fn failed(user: &str, n: usize) -> Run {
    let (source, job) = (["crm", "erp"][n % 2], format!("job {}", n % 5));
    Run {
        user: Some(user.to_owned()),
        status: "failed".to_owned(),
        ..run(&format!("{user} {n}"), source, &job, &format!("2026-01-{:02}T10:00:00Z", n % 20 + 1))
    }
}

/// Thirty failed runs of the user and ten of somebody else.
async fn with_runs() -> TestApp {
    let app = TestApp::start_with_endpoints(&declaration()).await;
    let mine = app.user_id.clone();
    let runs: Vec<Run> = (0..30).map(|n| failed(&mine, n)).chain((0..10).map(|n| failed("somebody", n))).collect();
    app.publish(&runs, 40).await;
    app
}

fn coded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn the_endpoint_that_ships_counts_the_failures_of_the_caller() {
    let app = with_runs().await;
    let all = app.get_as_user(FAILING).await;
    assert_eq!((all.status, all.text_at("/status")), (200, "success"), "{}", all.text);
    // Ten pairs of source and job, three failures each.
    assert_eq!(all.column("/data/rows", "failures"), vec![json!(3); 10]);
    assert_eq!(
        all.at("/data/rows/0"),
        &json!({"source": "crm", "job": "job 0", "failures": 3, "runs": 3, "last_bucket_start": "2026-01-11T10:00:00Z"})
    );
    assert_eq!((all.at("/data/epoch"), all.at("/data/next_cursor")), (&1.into(), &Value::Null));
    // The newest event is of January 20.
    let last = app.get_as_user(&format!("{FAILING}?days=1&source=erp")).await;
    assert_eq!(last.column("/data/rows", "job"), ["job 4"], "{}", last.text);
    assert_eq!(last.at("/data/rows/0/failures"), 1);
}

#[tokio::test]
async fn nobody_sees_rows_of_another_whatever_the_query_string_says() {
    let app = with_runs().await;
    let own = app.get_as_user(FAILING).await;
    assert_eq!(app.get(FAILING).await.at("/data/rows"), &json!([]), "an admin has no runs, and asks as an admin");
    for name in ["caller", ":caller", "user_id", "$caller", "as_of", "user"] {
        let refused = app.get_as_user(&format!("{FAILING}?{}=somebody", coded(name))).await;
        assert_eq!((refused.status, refused.text_at("/code")), (422, "validation_error"), "{name}: {}", refused.text);
    }
    // A tag or an answer that is kept is of its caller too.
    let headers = [("if-none-match", own.headers["etag"].as_str())];
    assert_eq!(app.get_as(&app.user, FAILING, &headers).await.status, 304);
    assert_eq!(app.get_as(&app.admin, FAILING, &headers).await.at("/data/rows"), &json!([]));
    assert_eq!(app.send("GET", FAILING, &[], "").await.status, 401);
}

#[tokio::test]
async fn security_61_values_of_an_endpoint_are_data() {
    let app = with_runs().await;
    for odd in ["' OR 1=1 --", "\";", "/*", "%", "x' OR user_id = 'somebody", ":caller", "$1", "?", "crm\0"] {
        let reply = app.get_as_user(&format!("{FAILING}?source={}", coded(odd))).await;
        assert_eq!((reply.status, reply.at("/data/rows")), (200, &json!([])), "{odd}: {}", reply.text);
    }
    for (query, words) in [
        ("days=1%20OR%201%3D1", "`days`: expected a whole number from `1` to `365`, found `1 OR 1=1`"),
        ("days=0", "`days`: expected a whole number from `1` to `365`"),
        ("days=366", "`days`"),
        ("days=99999999999999999999", "`days`"),
        ("days=", "`days`: expected a whole number from `1` to `365`, found an empty value"),
        ("days=1&days=2", "`days`: expected it once"),
        ("days=1;drop", "`days`"),
        ("format=../../x", "`format`: expected one of `json`, `csv`, `ndjson`"),
        ("limit=10001", "`limit`"),
        ("cursor=e30", "`cursor`"),
        ("format=csv&limit=3", "`limit`: expected it with `format=json` alone"),
    ] {
        let refused = app.get_as_user(&format!("{FAILING}?{query}")).await;
        assert_eq!((refused.status, refused.text_at("/code")), (422, "validation_error"), "{query}: {}", refused.text);
        assert!(refused.text_at("/details/0").contains(words), "{query}: {}", refused.text);
    }
    let odd = failed(&app.user_id, 0);
    app.publish(&[Run { source: "' OR 1=1 --".to_owned(), ..odd }], 41).await;
    let found = app.get_as_user(&format!("{FAILING}?source={}", coded("' OR 1=1 --"))).await;
    assert_eq!(found.column("/data/rows", "source"), ["' OR 1=1 --"]);
}

#[tokio::test]
async fn every_type_is_bound_as_it_is() {
    let app = with_runs().await;
    let path = "/api/v1/data/typed";
    let asked = "job=job%201&share=0.1&day=2026-02-28&before=2026-01-13T00:00:00Z&kind=a";
    let reply = app.get_as_user(&format!("{path}?{asked}")).await;
    assert_eq!(
        reply.at("/data/rows"),
        &json!([
            {"source": "erp", "job": "job 1", "total": 3, "share": "0.1000000000", "day": "2026-02-28", "kind": "a"},
            {"source": "crm", "job": "job 1", "total": 2, "share": "0.1000000000", "day": "2026-02-28", "kind": "a"},
        ]),
        "{}",
        reply.text
    );
    let least = app.get_as_user(&format!("{path}?{asked}&least=3")).await;
    assert_eq!(least.column("/data/rows", "source"), ["erp"]);
    let absent = app.get_as_user(&format!("{path}?job=job%201")).await;
    assert_eq!((absent.at("/data/rows/0/day"), absent.text_at("/data/rows/0/share")), (&Value::Null, "1.5000000000"));
    assert_eq!(app.get_as_user(&format!("{path}?job=job%201&top=false")).await.at("/data/rows"), &json!([]));
    for (query, words) in [
        ("", "`job`: expected text of at most 500 characters, found nothing"),
        ("job=x&share=1e3", "`share`: expected a decimal"),
        ("job=x&day=2026-02-30", "`day`: expected a date"),
        ("job=x&before=2026-02-28", "`before`: expected a time"),
        ("job=x&top=1", "`top`: expected `true` or `false`"),
        ("job=x&kind=c", "`kind`: expected one of `a`, `b`"),
    ] {
        let refused = app.get_as_user(&format!("{path}?{query}")).await;
        assert_eq!(refused.status, 422, "{query}: {}", refused.text);
        assert!(refused.text_at("/details/0").contains(words), "{query}: {}", refused.text);
    }
}

#[tokio::test]
async fn pages_of_an_endpoint_are_of_one_epoch_and_join_to_the_whole() {
    let app = with_runs().await;
    let whole = app.get_as_user(FAILING).await;
    let (mut rows, mut cursor, mut num_pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = app.get_as_user(&format!("{FAILING}?limit=3{cursor}")).await;
        assert_eq!((page.status, page.at("/data/epoch")), (200, &1.into()), "{}", page.text);
        rows.extend(page.at("/data/rows").as_array().unwrap().clone());
        num_pages += 1;
        match page.at("/data/next_cursor") {
            Value::Null => break,
            next => cursor = format!("&cursor={}", next.as_str().unwrap()),
        }
        if num_pages == 1 {
            let others = app.get(&format!("{FAILING}?limit=3{cursor}")).await;
            assert_eq!(others.status, 422, "a cursor is of its caller: {}", others.text);
            let question = app.get_as_user(&format!("{FAILING}?days=3&limit=3{cursor}")).await;
            assert_eq!(question.status, 422, "and of its question: {}", question.text);
            app.publish(&[failed(&app.user_id, 1)], 41).await;
        }
    }
    assert_eq!((num_pages, &Value::from(rows)), (4, whole.at("/data/rows")));
    let etag = whole.headers["etag"].as_str();
    let next = app.get_as(&app.user, FAILING, &[("if-none-match", etag)]).await;
    assert_eq!((next.status, next.column("/data/rows", "failures")), (200, vec![json!(1)]), "{}", next.text);
}

#[tokio::test]
async fn a_file_has_all_rows() {
    let app = with_runs().await;
    let csv = app.get_as_user(&format!("{FAILING}?format=csv&source=crm")).await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8");
    assert!(csv.headers["content-disposition"].contains("failing_jobs-of-epoch-1.csv"), "{:?}", csv.headers);
    let lines: Vec<&str> = csv.text.split("\r\n").collect();
    assert_eq!(lines[0], "source,job,failures,runs,last_bucket_start");
    assert_eq!(lines[1], "crm,job 0,3,3,2026-01-11T10:00:00Z");
    assert_eq!((lines.len(), lines[6]), (7, ""), "{}", csv.text);
    let ndjson = app.get_as_user(&format!("{FAILING}?format=ndjson")).await;
    let rows: Vec<Value> = ndjson.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&Value::from(rows), app.get_as_user(FAILING).await.at("/data/rows"));
    assert_ne!(csv.headers["etag"], ndjson.headers["etag"]);
    let headers = [("if-none-match", csv.headers["etag"].as_str())];
    assert_eq!(app.get_as(&app.user, &format!("{FAILING}?format=csv&source=crm"), &headers).await.status, 304);
    assert_eq!(app.get_as(&app.admin, &format!("{FAILING}?format=csv&source=crm"), &headers).await.status, 200);
}

#[tokio::test]
async fn a_file_whose_rows_take_too_much_memory_is_refused_before_it_begins() {
    let app = with_runs().await;
    let path = "/api/v1/data/long?format=ndjson&times=";
    let small = app.get(&format!("{path}3")).await;
    // Thirty rows: two runs of a job in the same quarter of an hour are one.
    assert_eq!((small.status, small.text.lines().count()), (200, 30), "{}", small.text);
    assert!(small.text.contains("\"job 1job 1job 1\""), "{}", small.text);
    // 30 of 5 times 250,000 bytes.
    let large = app.get(&format!("{path}250000")).await;
    assert!(large.text.len() < 10_000, "{} bytes were answered with {}", large.text.len(), large.status);
    assert_eq!((large.status, large.text_at("/code")), (422, "file_too_large"));
    assert!(large.text_at("/message").contains("more than 32 MiB"), "{}", large.text);
    let page = app.get("/api/v1/data/long?limit=2&times=250000").await;
    assert_eq!((page.status, page.column("/data/rows", "job").len()), (200, 2), "in pages it is answered");
}

#[tokio::test]
async fn the_next_page_of_an_endpoint_whose_files_were_cleaned_up_has_expired() {
    let app = with_runs().await;
    let first = app.get_as_user(&format!("{FAILING}?limit=3")).await;
    let next = format!("{FAILING}?limit=3&cursor={}", first.text_at("/data/next_cursor"));
    app.publish(&[failed(&app.user_id, 1)], 41).await;
    app.clean("gold.summary_state").await;
    let gone = app.get_as_user(&next).await;
    assert_eq!((gone.status, gone.text_at("/code")), (410, "cursor_expired"), "{}", gone.text);
    let newest = app.get_as_user(FAILING).await;
    assert_eq!(newest.column("/data/rows", "failures"), [1], "{}", newest.text);
}

#[tokio::test]
async fn what_asks_a_pipeline_that_is_not_served_is_not_there_and_the_document_says_so() {
    let books = r#"
[[pipeline.endpoint]]
name = "books"
rows = "all"
roles = ["admin"]
sql = "SELECT job FROM summary_state"
"#;
    // It is one of the last pipeline, `finance`.
    let app = TestApp::start_with_runs_alone(&format!("{BUILT_IN}{books}")).await;
    let document = app.send("GET", "/openapi.json", &[], "").await;
    for (path, code, operation) in [
        ("/data/books", "not_served", "/paths/~1data~1books/get"),
        ("/data/books?format=csv", "not_served", "/paths/~1data~1books/get"),
        ("/profits", "not_declared", "/paths/~1profits/get"),
        ("/charts/line?source=profits", "not_declared", "/paths/~1charts~1{chart}/get"),
    ] {
        let refused = app.get(&format!("/api/v1{path}")).await;
        assert_eq!((refused.status, refused.text_at("/code")), (501, code), "{path}: {}", refused.text);
        let documented = document.at(&format!("{operation}/responses/501/content"));
        assert_eq!(documented, document.at("/paths/~1profits/get/responses/501/content"), "{path}");
    }
    for operation in ["/paths/~1profits/get", "/paths/~1runs~1export/get", "/paths/~1summary~1export/get"] {
        let responses = document.at(&format!("{operation}/responses"));
        assert!(responses.get("410").is_none(), "{operation}: it is of the newest epoch: {responses}");
    }
}

#[tokio::test]
async fn security_66_no_text_in_the_file_of_an_endpoint_is_a_formula() {
    let app = TestApp::start_with_endpoints(&declaration()).await;
    app.publish(&[Run { source: "=1+1".to_owned(), ..failed(&app.user_id, 0) }], 1).await;
    let csv = app.get_as_user(&format!("{FAILING}?format=csv")).await;
    assert!(csv.text.contains("\r\n'=1+1,job 0,1,"), "{}", csv.text);
}

#[tokio::test]
async fn everybodys_rows_are_for_the_declared_roles_and_a_figure_that_cannot_be_is_no_fault() {
    let app = with_runs().await;
    let users = app.get("/api/v1/data/users").await;
    assert_eq!(users.column("/data/rows", "runs").len(), 2, "{}", users.text);
    let refused = app.get_as_user("/api/v1/data/users").await;
    assert_eq!((refused.status, refused.text_at("/code")), (403, "forbidden"), "{}", refused.text);
    let by_zero = app.get("/api/v1/data/users?by=0").await;
    assert_eq!((by_zero.status, by_zero.text_at("/code")), (422, "not_computable"), "{}", by_zero.text);
    let number = app.get("/api/v1/data/numbers?written=7&limit=1").await;
    assert_eq!((number.status, number.column("/data/rows", "number")), (200, vec![json!(7)]), "{}", number.text);
    let none = app.get("/api/v1/data/numbers?written=seven").await;
    assert_eq!((none.status, none.text_at("/code")), (422, "not_computable"), "{}", none.text);
}

#[tokio::test]
async fn declared_routes_are_in_the_document_and_answer_methods_as_others_do() {
    let app = TestApp::start_with_endpoints(&declaration()).await;
    let document = app.send("GET", "/openapi.json", &[], "").await;
    let operation = document.at("/paths/~1data~1failing_jobs/get");
    assert_eq!(
        (&operation["operationId"], &operation["summary"]),
        (&json!("data_failing_jobs"), &json!("Failing jobs"))
    );
    let names: Vec<&str> =
        operation["parameters"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["days", "source", "limit", "cursor", "format"]);
    assert_eq!(operation["parameters"][0]["schema"]["maximum"], 365);
    let like = document.at("/paths/~1runs/get");
    for status in ["304", "400", "401", "403", "410", "422", "429", "503", "504"] {
        assert_eq!(operation["responses"][status], like["responses"][status], "{status}");
    }
    assert_eq!(operation["security"], like["security"]);
    let rows = "/content/application~1json; charset=utf-8/schema/properties/data/properties/rows/items/properties";
    let columns = operation["responses"]["200"].pointer(rows).unwrap();
    assert_eq!(columns["failures"], json!({"type": "integer", "format": "int64", "nullable": true}));
    for page in ["/docs/", "/swagger/"] {
        let shown = app.send("GET", page, &[], "").await;
        assert!(shown.text.contains("data_failing_jobs") && !shown.text.contains("Ends nothing: </script>"), "{page}");
    }
    let refused = app.send("DELETE", FAILING, &[], "").await;
    assert_eq!((refused.status, refused.headers["allow"].as_str()), (405, "GET, HEAD"));
    assert_eq!(app.get("/api/v1/data/nowhere").await.status, 404);
    // Before there are runs.
    assert_eq!(app.get_as_user(&FAILING.replace("/v1", "")).await.at("/data/rows"), &json!([]));
}
