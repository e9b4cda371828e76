//! What hostile parameters of the rows of a table get: an answer in which they are values, or a line that names them.

use crate::support::{TestApp, run};

const ROWS: &str = "/api/v1/tables/gold.summary_state/rows";

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn app() -> TestApp {
    let app = TestApp::start().await;
    let runs =
        [run("r1", "crm", "load", "2026-01-05T10:00:00Z"), run("r2", "' OR 1=1 --", "load", "2026-01-06T10:00:00Z")];
    app.publish(&runs, 1).await;
    app
}

#[tokio::test]
async fn security_61_a_value_is_a_value_and_a_column_is_one_of_the_table() {
    let app = app().await;
    let named = app.get(&format!("{ROWS}?source={}", encoded("' OR 1=1 --"))).await;
    assert_eq!(named.column("/data/rows", "runs"), [1], "a row that is called so is found by it: {}", named.text);
    for value in [
        "\";",
        "/*",
        "x' OR '1'='1",
        "\"x\"; SELECT",
        "/**/UNION SELECT 1",
        "$1",
        "?",
        "{}",
        "%_%_%",
        "(a+)+$",
        "a{1000}{1000}",
        "\u{0}",
        "%00",
        "\u{202e}",
        "source",
        "NULL",
    ] {
        for operator in ["", "[in]", "[eq]"] {
            let reply = app.get(&format!("{ROWS}?source{operator}={}", encoded(value))).await;
            assert_eq!(reply.status, 200, "{value}: {}", reply.text);
            assert_eq!(reply.at("/data/rows"), &serde_json::json!([]), "{value}{operator}");
        }
        let others = app.get(&format!("{ROWS}?source[ne]={}", encoded(value))).await;
        assert_eq!(others.column("/data/rows", "runs").len(), 2, "{value}: {}", others.text);
    }
    for (name, value) in [
        ("password_hash", "1"),
        ("SOURCE", "crm"),
        ("source\"", "crm"),
        ("\"source\"", "crm"),
        ("gold.summary_state.source", "crm"),
        ("1=1 OR source", "crm"),
        ("source[like]", "%"),
        ("source[]", "crm"),
        ("source[GT]", "crm"),
        ("[eq]", "crm"),
        ("", "crm"),
        ("filter", "x' OR '1'='1"),
        ("format", "../../x"),
        ("table", "'/etc/passwd'"),
        ("order", "password_hash"),
        ("order", "source;drop"),
        ("order", "(SELECT 1)"),
        ("order", "--source"),
        ("order", "\"source\""),
        ("columns", "*"),
        ("columns", "source,password_hash"),
        ("columns", "count(*)"),
        ("columns", ""),
        ("runs", "abc"),
        ("runs", "1 OR 1=1"),
        ("bucket_start", "now()"),
        ("is_top_level[gt]", "true"),
        ("duration_histogram_us", "AA=="),
    ] {
        let reply = app.get(&format!("{ROWS}?{}={}", encoded(name), encoded(value))).await;
        assert_eq!((reply.status, reply.text_at("/code")), (422, "validation_error"), "{name}={value}: {}", reply.text);
        let line = reply.text_at("/details/0");
        assert!(line.starts_with(&format!("`{}`: expected ", name.replace('`', "?"))), "{name}: {line}");
    }
    for table in ["information_schema.tables", "'/etc/passwd'", "gold.summary_state;drop", "../accounts.db", "gold.*"] {
        let reply = app.get(&format!("/api/v1/tables/{}/rows", encoded(table))).await;
        assert_eq!(reply.status, 404, "{table}: {}", reply.text);
    }
}

#[tokio::test]
async fn security_64_numbers_counts_and_lengths_have_bounds_and_a_cursor_is_ours() {
    let app = app().await;
    let page = app.get(&format!("{ROWS}?limit=1")).await;
    let cursor = page.text_at("/data/next_cursor").to_owned();
    let flipped: String = cursor.chars().enumerate().map(|(at, c)| if at == 3 && c != 'A' { 'A' } else { c }).collect();
    let of_runs = app.get("/api/v1/runs?limit=1").await.text_at("/data/next_cursor").to_owned();
    let long = "x".repeat(501);
    let values = vec!["1"; 101].join(",");
    let names = vec!["source"; 100].join(",");
    let many = (0..65).map(|n| format!("c{n}=1")).collect::<Vec<_>>().join("&");
    let cases = [
        ("limit", "limit=-1".to_owned()),
        ("limit", "limit=0".to_owned()),
        ("limit", "limit=9223372036854775808".to_owned()),
        ("limit", "limit=1e3".to_owned()),
        ("limit", "limit=%2010".to_owned()),
        ("limit", "limit=10001".to_owned()),
        ("limit", "limit=1&limit=9".to_owned()),
        ("limit[]", "limit[]=1".to_owned()),
        ("offset", "offset=1000000000000".to_owned()),
        ("as_of_version", "as_of_version=-1".to_owned()),
        ("as_of_version", "as_of_version=999999999999999999999".to_owned()),
        ("as_of_version", "as_of_version=1000000".to_owned()),
        ("order", format!("order={names}")),
        ("columns", format!("columns={names}")),
        ("source", format!("source={long}")),
        ("runs[in]", format!("runs[in]={values}")),
        ("source[in]", format!("source[in]={}", "x,".repeat(2_001))),
        ("query", many),
        ("bucket_start", "bucket_start=0000-00-00".to_owned()),
        ("bucket_start[gte]", "bucket_start[gte]=9999999".to_owned()),
        ("runs", "runs=9223372036854775808".to_owned()),
        ("runs", "runs=NaN".to_owned()),
    ];
    for (name, query) in cases {
        let reply = app.get(&format!("{ROWS}?{query}")).await;
        assert_eq!((reply.status, reply.text_at("/code")), (422, "validation_error"), "{query}: {}", reply.text);
        let line = format!("`{name}`: expected ");
        let details = reply.at("/details").as_array().unwrap();
        assert!(details.iter().any(|found| found.as_str().unwrap().starts_with(&line)), "{query}: {}", reply.text);
    }
    for wrong in [flipped.as_str(), of_runs.as_str(), "x", "e30", &cursor[1..]] {
        let reply = app.get(&format!("{ROWS}?limit=1&cursor={wrong}")).await;
        assert_eq!(reply.status, 422, "{wrong}: {}", reply.text);
        assert!(reply.text_at("/details/0").starts_with("`cursor`: "), "{}", reply.text);
    }
    let of_admin = format!("{ROWS}?limit=1&cursor={cursor}");
    assert_eq!(app.get(&of_admin).await.status, 200);
    assert_eq!(app.get_as_user(&of_admin).await.status, 422, "a cursor is for who got it");
}

#[tokio::test]
async fn security_61_what_is_not_text_is_answered_and_never_a_fault() {
    let app = app().await;
    for query in
        ["source=%FF%FE", "source=%zz", "source=%C0%AE", "source=%252e", "source", "=", "&&&", "source=a%26runs=1"]
    {
        let reply = app.get(&format!("{ROWS}?{query}")).await;
        assert!(matches!(reply.status, 200 | 400 | 422), "{query}: {} {}", reply.status, reply.text);
    }
    let ranges = format!("bytes={}", vec!["0-0"; 300].join(","));
    for (name, value) in [("range", ranges.as_str()), ("accept", "*/*;q=0.1"), ("if-none-match", "\"stale\", W/\"x\"")]
    {
        let reply = app.get_as(&app.admin, ROWS, &[(name, value)]).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text);
    }
}
