//! `POST /query`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    profits::profit,
    support::{Reply, Run, TestApp, run},
};

/// Enough on a busy machine for what takes a moment; nothing waits this long when all is well.
const LONGEST: Duration = Duration::from_secs(60);

/// Goes through far more rows than there is time for, and keeps few of them.
pub fn endless() -> String {
    let nest = |inner: String, _| {
        format!("SELECT a.events + b.events AS events FROM silver.runs a, ({inner} LIMIT 9000000000000) b")
    };
    let inner = (0..5).fold("SELECT events FROM silver.runs".to_owned(), nest);
    format!("SELECT sum(events) AS s FROM ({inner})")
}

pub fn runs(count: usize) -> Vec<Run> {
    (0..count).map(|n| run(&format!("r{n:03}"), "crm", &format!("job {}", n % 3), "2026-01-05T10:00:00Z")).collect()
}

/// The rows of the audit log about questions, newest first: details and outcome.
pub async fn notes(app: &TestApp) -> Vec<(Value, String)> {
    let reply = app.get("/api/v1/admin/audit?action=query_run&limit=500").await;
    let rows = reply.at("/data/rows").as_array().unwrap().clone();
    rows.iter()
        .map(|row| {
            let details = serde_json::from_str(row["details"].as_str().unwrap()).unwrap();
            (details, row["outcome"].as_str().unwrap().to_owned())
        })
        .collect()
}

fn code(reply: &Reply) -> (u16, &str) {
    (reply.status, reply.text_at("/code"))
}

#[tokio::test]
async fn a_question_is_answered_from_the_epoch_and_leaves_a_row() {
    let app = TestApp::start().await;
    app.publish(&runs(10), 1).await;
    let sql = "WITH counted AS (SELECT job, count(*) AS runs FROM silver.runs GROUP BY job) \
               SELECT job, runs FROM counted ORDER BY job;";
    let reply = app.ask(sql).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.at("/data/rows"), &json!([["job 0", 4], ["job 1", 3], ["job 2", 3]]));
    assert_eq!(reply.at("/data/columns/1"), &json!({"name": "runs", "type": "int64"}));
    assert_eq!((reply.at("/data/epoch"), reply.at("/data/is_truncated")), (&json!(1), &json!(false)));
    assert_eq!(reply.headers["cache-control"], "no-store");
    let exact = app.ask("SELECT CAST('12345678901234567.89' AS DECIMAL(20, 2)) AS d, 9007199254740993 AS n").await;
    assert!(exact.text.contains(r#"[["12345678901234567.89",9007199254740993]]"#), "{}", exact.text);
    let few = app.ask_as(&app.admin, &json!({"sql": "SELECT run_id FROM silver.runs ORDER BY 1", "limit": 2})).await;
    assert_eq!(few.at("/data/rows"), &json!([["r000"], ["r001"]]));
    assert_eq!(few.at("/data/is_truncated"), &json!(true));

    assert_eq!(code(&app.ask("SELECT nothing FROM silver.runs").await), (400, "sql_refused"));
    assert_eq!(code(&app.ask("SELECT 1 / 0").await), (422, "query_failed"));
    let (details, outcomes): (Vec<_>, Vec<_>) = notes(&app).await.into_iter().unzip();
    assert_eq!(outcomes, ["denied", "denied", "success", "success", "success"]);
    assert_eq!(details[4], json!({"sql": sql, "is_cut": false, "ended": "answered", "rows": 3}));
    assert_eq!(details[0]["ended"], "query_failed");
}

#[tokio::test]
async fn a_question_over_two_pipelines_takes_one_epoch_of_each_and_names_both() {
    let app = TestApp::start().await;
    app.publish(&runs(3), 3).await;
    app.publish(&runs(4), 4).await;
    app.publish_profits(&[profit("alder", 2025, 1, 100), profit("dune", 2025, 1, 200)], 2).await;
    let both = app
        .ask(
            "SELECT a.n AS runs, b.n AS profits FROM (SELECT count(*) AS n FROM silver.runs) a, \
             (SELECT count(*) AS n FROM gold.profits) b",
        )
        .await;
    assert_eq!(both.at("/data/rows"), &json!([[4, 2]]), "{}", both.text);
    assert_eq!(both.column("/data/epochs", "pipeline"), ["etl_runs", "finance"]);
    assert_eq!(both.column("/data/epochs", "epoch"), [2, 1]);
    assert_eq!(both.at("/data/epoch"), 1, "of the pipeline whose newest event is the oldest");
    for (sql, pipeline, epoch) in [
        ("SELECT company FROM gold.profits", "finance", 1),
        ("SELECT count(*) FROM silver.runs", "etl_runs", 2),
        ("SELECT 1", "etl_runs", 2),
    ] {
        let reply = app.ask(sql).await;
        assert_eq!(reply.column("/data/epochs", "pipeline"), [pipeline], "{sql}: {}", reply.text);
        assert_eq!(reply.at("/data/epoch"), epoch, "{sql}");
    }
}

#[tokio::test]
async fn mistakes_are_told_in_words_that_help_and_tell_nothing_of_the_inside() {
    let app = TestApp::start().await;
    app.publish(&runs(1), 1).await;
    for (sql, status, words) in [
        ("SELECT run_idd FROM silver.runs", 400, "no column `run_idd`"),
        ("SELECT * FROM gold.nothing", 400, "`gold.summary_state`"),
        ("SELECT * FROM runs", 400, "no table"),
        ("SELECT nonsense(1)", 400, "no function `nonsense`"),
        ("SELECT (1 2)", 400, "line 1, column"),
        ("SELECT CAST(job AS BIGINT) FROM silver.runs", 422, "no value"),
    ] {
        let reply = app.ask(sql).await;
        assert_eq!(reply.status, status, "{sql}: {}", reply.text);
        assert!(reply.text_at("/message").contains(words), "{sql}: {}", reply.text);
        for inside in ["parquet", "DataFusion", "Arrow", "sqlparser", "/tmp", "src/"] {
            assert!(!reply.text.contains(inside), "{sql}: {}", reply.text);
        }
    }
    for body in [json!({"sql": "SELECT 1", "limit": 0}), json!({"sql": "SELECT 1", "limit": 10_001}), json!({})] {
        assert_eq!(app.ask_as(&app.admin, &body).await.status, 422, "{body}");
    }
    let refused = app.ask_as(&app.user, &json!({"sql": "SELECT 1"})).await;
    assert_eq!(code(&refused), (403, "forbidden"));
}

#[tokio::test]
async fn security_62_nothing_but_one_select_over_the_tables_is_answered() {
    let app = TestApp::start().await;
    app.publish(&runs(3), 1).await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv").display().to_string();
    let files = |sql: &str| sql.replace("OUT", &out);
    for sql in [
        "DROP TABLE silver.runs",
        "CREATE TABLE gold.t AS SELECT 1",
        "CREATE VIEW gold.v AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY silver.runs TO 'OUT'",
        "COPY (SELECT 1) TO 'OUT' STORED AS CSV",
        "INSERT INTO silver.runs SELECT * FROM silver.runs",
        "UPDATE silver.runs SET job = 'x'",
        "DELETE FROM silver.runs",
        "SET datafusion.execution.batch_size = 1",
        "SHOW TABLES",
        "SHOW ALL",
        "DESCRIBE silver.runs",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT * FROM silver.runs",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "BEGIN",
        "SELECT 1; DROP TABLE silver.runs",
        "SELECT 1; SELECT 2",
        "SELECT 1; -- x\n COPY silver.runs TO 'OUT'",
        "WITH d AS (DELETE FROM silver.runs RETURNING *) SELECT * FROM d",
        "WITH d AS (INSERT INTO silver.runs SELECT 1) SELECT * FROM d",
        "WITH d AS (SELECT 1) INSERT INTO silver.runs SELECT * FROM d",
        "/* SELECT */ DROP TABLE silver.runs",
        "SELECT * INTO gold.t FROM silver.runs",
        "SELECT * FROM silver.runs FOR UPDATE",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT * FROM range(1, 10)",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM 'http://127.0.0.1/'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.df_settings",
        "SELECT * FROM users",
        "SELECT * FROM public.users",
        "SELECT * FROM _karat.event_log",
        "SELECT * FROM datafusion.silver.runs",
        "SELECT (SELECT count(*) FROM public.users)",
        "SELECT 1 WHERE EXISTS (SELECT * FROM '/etc/passwd')",
        "SELECT repeat('x', 2000000000)",
        "SELECT @@version",
    ] {
        let reply = app.ask(&files(sql)).await;
        assert_eq!(reply.status, 400, "{sql}: {}", reply.text);
        assert!(reply.text_at("/code").starts_with("sql_"), "{sql}: {}", reply.text);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
    let still = app.ask("SELECT count(*) FROM silver.runs").await;
    assert_eq!(still.at("/data/rows"), &json!([[3]]), "{}", still.text);
}

#[tokio::test]
async fn security_63_deep_questions_are_refused_or_answered_and_the_process_lives() {
    let app = TestApp::start().await;
    app.publish(&runs(3), 1).await;
    let doubled = |count: usize| {
        let parts: Vec<_> =
            (1..=count).map(|n| format!("t{n} AS (SELECT a.x FROM t{} a, t{} b)", n - 1, n - 1)).collect();
        format!("WITH t0 AS (SELECT 1 AS x), {} SELECT count(*) FROM t{count}", parts.join(", "))
    };
    // What the planner would write out as a million columns.
    let sums = |count: usize| {
        let sum = vec!["x"; 100].join("+");
        let parts: Vec<_> = (1..=count).map(|n| format!("t{n} AS (SELECT {sum} AS x FROM t{})", n - 1)).collect();
        format!(
            "WITH t0 AS (SELECT events AS x FROM silver.runs), {} SELECT x FROM t{count} WHERE x > 0",
            parts.join(", ")
        )
    };
    let below = format!("SELECT 1 AS one WHERE EXISTS ({})", sums(3));
    for (name, sql) in [
        ("sums of sums", sums(3)),
        ("sums of sums in a condition", below),
        ("a sum of 2,000", format!("SELECT 1{}", "+1".repeat(2_000))),
        ("a sum of 2,000 columns", format!("SELECT events{} FROM silver.runs", "+events".repeat(2_000))),
        ("2,000 alternatives", format!("SELECT 1 FROM silver.runs WHERE false{}", " OR job='x'".repeat(1_700))),
        ("500 brackets", format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500))),
        ("500 queries", format!("SELECT * FROM {}SELECT 1{}", "(".repeat(500), ")".repeat(500))),
        ("500 denials", format!("SELECT {}true", "NOT ".repeat(500))),
        ("1,000 tables", format!("SELECT 1 FROM silver.runs{}", ", silver.runs".repeat(1_000))),
        ("doubling", doubled(14)),
        ("a long text", format!("SELECT '{}'", "x".repeat(20_000))),
    ] {
        let reply = app.ask(&sql).await;
        assert_eq!(code(&reply), (400, "sql_too_large"), "{name}: {}", reply.text);
    }
    for (name, sql) in [
        ("a sum of sums", sums(1)),
        ("as deep as may be", format!("SELECT max(events{}) FROM silver.runs", "+events".repeat(240))),
        ("alternatives", format!("SELECT count(*) FROM silver.runs WHERE job='x'{}", " OR events=1".repeat(120))),
        ("a long list", format!("SELECT count(*) FROM silver.runs WHERE events IN ({})", vec!["1"; 4_000].join(","))),
    ] {
        let reply = app.ask(&sql).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
    }
    // The parser may find it too deep, which is an answer as well.
    let brackets = app.ask(&format!("SELECT {}1{}", "(".repeat(30), ")".repeat(30))).await;
    assert!([200, 400].contains(&brackets.status), "{}", brackets.text);
    assert_eq!(app.ask("SELECT 1").await.status, 200);
}

#[tokio::test]
async fn security_64_a_question_has_a_deadline_its_memory_and_a_size_of_its_answer() {
    let deadline = Duration::from_millis(700);
    let app = TestApp::start_with(|settings| settings.serving.sql.deadline = deadline).await;
    app.publish(&runs(100), 1).await;
    let started = Instant::now();
    assert_eq!(code(&app.ask(&endless()).await), (504, "deadline_exceeded"));
    assert!(started.elapsed() < LONGEST, "{:?}", started.elapsed());

    let app = TestApp::start_with(|settings| settings.serving.sql.answer_bytes = 200).await;
    app.publish(&runs(100), 1).await;
    let large = app.ask("SELECT run_id FROM silver.runs").await;
    assert_eq!(large.at("/data/is_truncated"), &json!(true), "{}", large.text);
    assert!(large.at("/data/rows").as_array().unwrap().len() < 40, "{}", large.text);

    let small = TestApp::start_with(|settings| settings.serving.sql.memory_bytes = 1 << 20).await;
    small.publish(&runs(200), 1).await;
    let sorted = "SELECT a.run_id || b.run_id || c.run_id AS k FROM silver.runs a, silver.runs b, silver.runs c \
                  ORDER BY k OFFSET 2000000";
    let reply = small.ask(sorted).await;
    assert_eq!(code(&reply), (422, "query_too_large"), "{}", reply.text);
}

#[tokio::test]
async fn security_64_no_function_makes_a_value_that_its_question_has_no_memory_for() {
    let app = TestApp::start().await;
    app.publish(&runs(100), 1).await;
    let larger = |inner: &str| format!("replace({inner}, 'a', '{}')", "a".repeat(1_000));
    // Each query joins ten values of the one below.
    let nested = |join: fn(Vec<&str>) -> String| {
        let of = |below: &str| format!("(SELECT {} AS x FROM {below} t)", join(vec!["x"; 10]));
        let long = format!("(SELECT replace(run_id, 'r', '{}') AS x FROM silver.runs)", "x".repeat(1_000));
        format!("SELECT max(length(x)) AS n FROM {} t", of(&of(&of(&long))))
    };
    let encoded = (0..20).fold("run_id".to_owned(), |inner, _| format!("encode({inner}, 'hex')"));
    let lists = "SELECT max(cardinality(array_concat(l, l, l, l, l, l, l, l))) FROM (SELECT array_concat(k, k, k, k) AS l \
                 FROM (SELECT [replace(run_id, 'r', 'LONG'), replace(job, 'o', 'LONG')] AS k FROM silver.runs) a) b";
    let structs = |of: &str| {
        let long = format!("(SELECT replace(run_id, 'r', '{}') AS x FROM silver.runs)", "x".repeat(1_000));
        let inner = (0..10).fold(long, |below, _| format!("(SELECT {of} AS x FROM {below} t)"));
        format!("SELECT x FROM {inner} t LIMIT 1")
    };
    for (name, sql) in [
        ("structs", structs("struct(x, x)")),
        ("structs with names", structs("named_struct('a', x, 'b', x)")),
        ("structs that are written out", structs("{'a': x, 'b': x}")),
        ("a constant", format!("SELECT {}", larger(&larger("'aaa'")))),
        ("a constant that is left out of the answer", format!("SELECT length({})", larger(&larger(&larger("'a'"))))),
        ("values of rows", format!("SELECT max({}) FROM silver.runs", larger(&larger("run_id || 'aaa'")))),
        (
            "what is found, many times",
            format!(
                "SELECT max(regexp_replace(regexp_replace(run_id, '.*', '{0}'), '.*', '{0}')) FROM silver.runs",
                "\\0".repeat(1_000)
            ),
        ),
        ("concat", nested(|values| format!("concat({})", values.join(", ")))),
        ("concat_ws", nested(|values| format!("concat_ws('----', {})", values.join(", ")))),
        ("||", nested(|values| values.join(" || "))),
        ("encode", format!("SELECT max({encoded}) FROM silver.runs")),
        ("a format", format!("SELECT max(to_char(started_at, '{}')) FROM silver.runs", "%c".repeat(8_000))),
        ("lists", lists.replace("LONG", &"x".repeat(2_000))),
        (
            "overlay",
            nested(|values| {
                values.iter().fold("x".to_owned(), |inner, x| format!("overlay({inner} PLACING {x} FROM 1 FOR 0)"))
            }),
        ),
        (
            "groups of a pattern",
            format!(
                "SELECT max(regexp_match(replace(run_id, 'r', '{}'), '{}.*{}')[1]) FROM silver.runs",
                "x".repeat(2_000),
                "(".repeat(200),
                ")".repeat(200)
            ),
        ),
    ] {
        let reply = app.ask(&sql).await;
        assert_eq!(code(&reply), (422, "query_too_large"), "{name}: {}", reply.text);
    }
    for sql in [
        "SELECT repeat('x', 1000000000)",
        "SELECT lpad('x', 1000000000, 'y')",
        "SELECT rpad(run_id, 1000000000) FROM silver.runs",
        "SELECT array_to_string([1, 2, 3], 'x')",
        "SELECT list_to_string(['x'], 'x')",
        "SELECT arrays_zip([1], [2, 3])",
        "SELECT approx_percentile_cont(0.5, 1000000000000) WITHIN GROUP (ORDER BY length(run_id)) FROM silver.runs",
        "SELECT approx_percentile_cont(length(run_id), 0.5, 1000000000000) FROM silver.runs",
    ] {
        assert_eq!(code(&app.ask(sql).await), (400, "sql_refused"), "{sql}");
    }
    for sql in [
        "SELECT CAST([length(run_id)] AS BIGINT[2000000000]) FROM silver.runs",
        "SELECT TRY_CAST([length(run_id)] AS BIGINT[2000000000]) FROM silver.runs",
        "SELECT arrow_cast([length(run_id)], 'FixedSizeList(2000000000, Int64)') FROM silver.runs",
        "SELECT count(*) FROM (SELECT arrow_cast(arrow_cast(run_id, 'Binary'), 'FixedSizeBinary(2000000000)') AS b FROM silver.runs)",
    ] {
        assert_eq!(code(&app.ask(sql).await), (400, "sql_too_large"), "{sql}");
    }
    let usual = "SELECT CAST(approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY length(run_id)) AS BIGINT) AS a, max(overlay(job PLACING 'x' FROM 1 FOR 4)) AS b, \
                 max(regexp_match(run_id, 'r0(.*)')[1]) AS c FROM silver.runs";
    let reply = app.ask(usual).await;
    assert_eq!(reply.at("/data/rows"), &json!([[4, "x2", "99"]]), "{}", reply.text);
    let small = "SELECT max(replace(run_id, 'r', 'run ')) AS a, max(concat(job, ' of ', source)) AS b, \
                 max(concat_ws('-', job, run_id)) AS c, max(job || '/' || run_id || 7) AS d, \
                 max(job || CAST(NULL AS VARCHAR)) AS e, max(regexp_replace(run_id, '[0-9]', '#', 'g')) AS f, \
                 max(encode(run_id, 'hex')) AS g, max(cardinality(array_append([job, run_id], 'x'))) AS h FROM silver.runs";
    let reply = app.ask(small).await;
    let expected = json!([["run 099", "job 2 of crm", "job 2-r098", "job 2/r0987", null, "r###", "72303939", 3]]);
    assert_eq!(reply.at("/data/rows"), &expected, "{}", reply.text);
    let named = app.ask("SELECT job || run_id FROM silver.runs LIMIT 1").await;
    assert!(named.text_at("/data/columns/0/name").contains(" || "), "{}", named.text);
}

#[tokio::test]
async fn security_64_as_many_questions_run_as_may_and_one_ends_when_its_client_leaves() {
    let app = TestApp::start_with(|settings| {
        settings.serving.sql.parallel = 1;
        settings.serving.sql.deadline = LONGEST * 10;
    })
    .await;
    app.publish(&runs(100), 1).await;
    // One of them runs when another question is refused: all others are answered at once.
    let mut clients = Vec::new();
    let busy = loop {
        clients.push(ask_and_go_on(&app, &endless()).await);
        let reply = app.ask("SELECT 1").await;
        if reply.status == 503 {
            break reply;
        }
        assert!(clients.len() < 500, "{}", reply.text);
    };
    assert_eq!((code(&busy), busy.headers["retry-after"].as_str()), ((503, "query_busy"), "1"));
    drop(clients);
    // Long before its own deadline.
    until("its turn is free again", async || (app.ask("SELECT 1").await.status == 200).then_some(())).await;
    until("a row tells of it", async || {
        notes(&app).await.iter().any(|(details, _)| details["ended"] == "cancelled").then_some(())
    })
    .await;
}

/// Asks without waiting for the answer.
async fn ask_and_go_on(app: &TestApp, sql: &str) -> TcpStream {
    let body = json!({"sql": sql}).to_string();
    let head = [
        "POST /api/v1/query HTTP/1.1".to_owned(),
        format!("host: {}", app.address),
        format!("authorization: Bearer {}", app.admin),
        "content-type: application/json".to_owned(),
        format!("content-length: {}", body.len()),
    ];
    let mut client = TcpStream::connect(app.address).await.unwrap();
    client.write_all(format!("{}\r\n\r\n{body}", head.join("\r\n")).as_bytes()).await.unwrap();
    client
}

/// Waits for a condition.
pub async fn until<T>(what: &str, condition: impl AsyncFn() -> Option<T>) -> T {
    let ends = Instant::now() + LONGEST;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < ends, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
