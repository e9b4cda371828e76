//! `GET /summary/export` and `/runs/export`: the rows of these routes as files.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use karat_lake::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Run, TestApp, run};

const SUMMARY: &str = "/api/v1/summary/export?from=2026-01-01&to=2026-01-31";
const RUNS: &str = "/api/v1/runs/export";

fn runs(user: &str) -> Vec<Run> {
    let mine = Some(user.to_owned());
    vec![
        Run { user: mine.clone(), ..run("r1", "crm", "load", "2026-01-05T10:00:00Z") },
        Run {
            status: "failed".into(),
            error: Some("=HYPERLINK(\"http://evil\")".into()),
            ..run("r2", "crm", "load", "2026-01-05T11:00:00Z")
        },
        Run { user: mine, ..run("r3", "erp", "step", "2026-01-07T00:00:00Z") },
    ]
}

/// A connection on which the admin has asked.
async fn asked(app: &TestApp, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        app.address, app.admin
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Head and body of an answer in chunks.
fn parts(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let (mut rest, mut body) = (&answer[end + 4..], Vec::new());
    loop {
        let line = rest.windows(2).position(|bytes| bytes == b"\r\n").expect("the last chunk is missing");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return (head, body);
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

async fn whole(app: &TestApp, path: &str) -> (String, Vec<u8>) {
    let mut answer = Vec::new();
    asked(app, path).await.read_to_end(&mut answer).await.unwrap();
    parts(&answer)
}

fn ids(ndjson: &str) -> BTreeSet<String> {
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["run_id"].as_str().unwrap().to_owned();
    ndjson.lines().map(id).collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn a_file_of_the_summary_has_the_buckets_that_the_pages_have() {
    let app = TestApp::start().await;
    app.publish(&runs(&app.user_id), 3).await;
    for query in ["", "&group_by=source", "&group_by=job&fill=true", "&grain=week&tz=Europe/Berlin", "&grain=month"] {
        let page = app.get(&format!("{}{query}", SUMMARY.replace("/export", ""))).await;
        let buckets = page.at("/data/buckets").as_array().unwrap().clone();
        let file = app.get(&format!("{SUMMARY}{query}&format=ndjson")).await;
        assert_eq!(file.status, 200, "{}", file.text);
        let lines: Vec<Value> = file.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!lines.is_empty() && lines.len() == buckets.len(), "{query}: {}", file.text);
        for (line, bucket) in lines.iter().zip(&buckets) {
            for (name, value) in bucket.as_object().unwrap() {
                let is_local_time = ["start", "end"].contains(&name.as_str());
                assert!(is_local_time || &line[name] == value, "{query} {name}: {line} is not {bucket}");
            }
        }
    }
    let csv = app.get(&format!("{SUMMARY}&group_by=source")).await;
    let lines: Vec<&str> = csv.text.split("\r\n").collect();
    assert!(lines[0].starts_with("bucket,bucket_start,start,end,source,runs,completed,failed,"), "{}", csv.text);
    let first = "2026-01-05,2026-01-05,2026-01-05T00:00:00Z,2026-01-06T00:00:00Z,crm,2,1,1,0,0,0.5,";
    assert!(lines[1].starts_with(first), "{}", csv.text);
    assert_eq!((lines.len(), lines[3]), (4, ""), "{}", csv.text);
}

#[tokio::test]
async fn a_file_of_runs_has_every_run_that_the_caller_sees_and_no_formula() {
    let app = TestApp::start().await;
    app.publish(&runs(&app.user_id), 3).await;
    let ndjson = |query: &str| format!("{RUNS}?format=ndjson{query}");
    assert_eq!(ids(&app.get(&ndjson("")).await.text), set(&["r1", "r2", "r3"]));
    assert_eq!(ids(&app.get(&ndjson("&status=failed")).await.text), set(&["r2"]));
    assert_eq!(ids(&app.get(&ndjson("&from=2026-01-06")).await.text), set(&["r3"]));
    assert_eq!(ids(&app.get_as_user(&ndjson("")).await.text), set(&["r1", "r3"]));
    let buckets = app.get_as_user(&format!("{SUMMARY}&group_by=source&format=ndjson")).await;
    assert!(buckets.text.lines().all(|line| line.contains("\"runs\":1,")), "{}", buckets.text);

    let one = app.get(&ndjson("&source=erp")).await;
    let line: Value = serde_json::from_str(&one.text).unwrap();
    let page = app.get("/api/v1/runs?source=erp").await;
    assert_eq!(&line, page.at("/data/runs/0"));
    let csv = app.get(&format!("{RUNS}?status=failed")).await;
    assert!(csv.text.contains(",\"'=HYPERLINK(\"\"http://evil\"\")\","), "{}", csv.text);
}

#[tokio::test]
async fn each_format_has_its_media_type_and_name_and_is_the_file_that_it_says() {
    let app = TestApp::start().await;
    app.publish(&runs(&app.user_id), 3).await;
    for (format, media, ending, magic) in [
        ("csv", "text/csv; charset=utf-8", "csv", &b"bucket,"[..]),
        ("ndjson", "application/x-ndjson", "ndjson", &b"{\"bucket\":"[..]),
        ("parquet", "application/vnd.apache.parquet", "parquet", &b"PAR1"[..]),
        ("arrow", "application/vnd.apache.arrow.stream", "arrows", &b"\xff\xff\xff\xff"[..]),
        ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xlsx", &b"PK\x03\x04"[..]),
    ] {
        let (head, body) = whole(&app, &format!("{SUMMARY}&source=crm&format={format}")).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(head.contains(&format!("content-type: {media}\r\n")), "{head}");
        let name = format!("filename=\"summary-2026-01-01-2026-01-31-crm.{ending}\"");
        assert!(head.contains(&format!("content-disposition: attachment; {name}")), "{head}");
        assert!(head.contains("no-transform") && head.contains("nosniff"), "{head}");
        assert!(body.starts_with(magic), "{format}");
    }
    let (_, parquet) = whole(&app, &format!("{RUNS}?format=parquet")).await;
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(parquet)).unwrap().build().unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);
    let mark = app.get(&format!("{SUMMARY}&bom=true")).await;
    assert!(mark.text.starts_with("\u{feff}bucket,"), "{}", mark.text);
}

#[tokio::test]
async fn files_say_how_fresh_they_are_and_a_client_that_has_one_gets_304() {
    let app = TestApp::start().await;
    app.publish(&runs(&app.user_id), 3).await;
    for path in [SUMMARY.to_owned(), format!("{RUNS}?source=crm")] {
        let file = app.get(&path).await;
        assert_eq!(file.headers["karat-epoch"], "1");
        assert_eq!(file.headers["karat-data-state"], "complete");
        assert_eq!(file.headers["karat-as-of"], "2026-01-07T00:00:00Z");
        let tag = file.headers["etag"].clone();
        assert!(tag.starts_with("W/\""), "{tag}");
        let known = app.get_as(&app.admin, &path, &[("if-none-match", &tag)]).await;
        assert_eq!((known.status, known.text.as_str(), &known.headers["etag"]), (304, "", &tag));
        for other in [format!("{path}&format=ndjson"), format!("{path}&bom=true"), format!("{path}&job=load")] {
            assert_ne!(app.get(&other).await.headers["etag"], tag, "{other}");
        }
        let others = app.get_as(&app.user, &path, &[("if-none-match", &tag)]).await;
        assert_eq!(others.status, 200, "{path}");
    }
}

#[tokio::test]
async fn wrong_questions_for_files_are_errors_in_the_envelope() {
    let app = TestApp::start().await;
    for (query, words) in [
        (format!("{SUMMARY}&format=pdf"), "`format`: expected one of `csv`, `ndjson`, `parquet`, `arrow`, `xlsx`"),
        (format!("{SUMMARY}&limit=5"), "`limit`: expected one of"),
        (format!("{RUNS}?cursor=x"), "`cursor`: expected one of"),
        (format!("{RUNS}?bom=1"), "`bom`: expected one of `true`, `false`"),
    ] {
        let refused = app.get(&query).await;
        assert_eq!((refused.status, refused.text_at("/code")), (422, "validation_error"), "{}", refused.text);
        assert!(refused.text_at("/details/0").contains(words), "{}", refused.text);
    }
    let nothing_yet = app.get(RUNS).await;
    assert_eq!(nothing_yet.status, 200);
    assert!(nothing_yet.text.starts_with("source,run_id,job,") && nothing_yet.text.ends_with("events\r\n"));
}

/// More than the buffers between a server and a client hold.
fn many(user: &str) -> Vec<Run> {
    let error = Some("e".repeat(10_000));
    let of = |n: usize| Run {
        user: Some(user.to_owned()),
        error: error.clone(),
        ..run(&format!("one-{n}"), "big", "load", "2026-01-05T10:00:00Z")
    };
    (0..3000).map(of).collect()
}

/// An export that has begun and whose client reads no further.
async fn begun(app: &TestApp) -> (TcpStream, Vec<u8>) {
    let mut stream = asked(app, &format!("{RUNS}?format=ndjson")).await;
    let mut answer = vec![0; 4096];
    stream.read_exact(&mut answer).await.unwrap();
    (stream, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_half_way_gives_its_place_to_the_next() {
    let app = TestApp::start_with(|settings| settings.serving.exports.at_a_time = 1).await;
    app.publish(&many(&app.user_id), 1).await;
    let (stream, _) = begun(&app).await;
    let busy = app.get(&format!("{RUNS}?source=other")).await;
    assert_eq!((busy.status, busy.text_at("/code")), (503, "exports_busy"), "{}", busy.text);
    assert_eq!(busy.headers["retry-after"], "5");
    drop(stream);
    let served = async {
        while app.get(&format!("{RUNS}?source=other")).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), served).await.expect("the place was not given back in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_of_its_epoch_to_the_end() {
    let app = TestApp::start().await;
    app.publish(&many(&app.user_id), 1).await;
    let (mut stream, mut answer) = begun(&app).await;
    app.publish(&runs(&app.user_id), 2).await;
    stream.read_to_end(&mut answer).await.unwrap();
    let (head, body) = parts(&answer);
    assert!(head.contains("karat-epoch: 1\r\n"), "{head}");
    let found = ids(std::str::from_utf8(&body).unwrap());
    assert_eq!(found.len(), 3000);
    assert!(found.iter().all(|id| id.starts_with("one-")));
}
