use karat_lake::arrow::array::{Array, AsArray};
use karat_schemas::pipelines::ColumnType;

use super::*;

fn column(name: &str, path: &str, column_type: ColumnType) -> Column {
    Column { name: name.into(), path: Some(path.into()), column_type, required: false, coerce: false }
}

fn decode(columns: &[Column], payloads: &[&str]) -> Decoded {
    Decoder::new(columns, true).decode(payloads.iter().map(|payload| payload.as_bytes())).unwrap()
}

#[test]
fn a_bad_record_fails_alone() {
    let columns = [column("id", "id", ColumnType::String), column("n", "deep.n", ColumnType::Int64)];
    let payloads = [
        r#"{"id":"a","deep":{"n":1}}"#,
        r#"{"id":7,"deep":{"n":1}}"#,
        r#"{"id":"b","deep":{"n":1.5}}"#,
        r#"{"id":"c","deep":{"n":2}"#,
        r#"{"id":"d","deep":[]}"#,
        r#"{"id":"e","id":"e"}"#,
        r#"[1]"#,
        "",
        r#"{"id":"f","deep":null} trailing"#,
        r#"{"deep":{"n":3},"id":"g"}"#,
    ];
    let decoded = decode(&columns, &payloads);
    let codes: Vec<(usize, &str)> = decoded.failures.iter().map(|failure| (failure.row, failure.code)).collect();
    assert_eq!(
        codes,
        [
            (1, "wrong_type"),
            (2, "inexact_value"),
            (3, "invalid_json"),
            (4, "wrong_type"),
            (5, "duplicate_key"),
            (6, "wrong_type"),
            (7, "invalid_json"),
            (8, "invalid_json")
        ]
    );
    let ids = decoded.rows.column_by_name("id").unwrap().as_string::<i32>().iter().flatten().collect::<Vec<_>>();
    assert_eq!(ids, ["a", "g"]);
    assert!(decoded.failures[1].message.starts_with("`deep.n`"), "{}", decoded.failures[1].message);
}

#[test]
fn unknown_fields_are_kept_under_their_path() {
    let columns = [column("id", "a.id", ColumnType::String)];
    let decoded = decode(&columns, &[r#"{"a":{"id":"x","more":[1, 2]},"z":null}"#, r#"{"a":{"id":"y"}}"#]);
    let rescued = decoded.rows.column_by_name(RESCUED).unwrap().as_string::<i32>();
    assert_eq!(rescued.value(0), r#"{"a.more":[1, 2],"z":null}"#);
    assert!(rescued.is_null(1));
}

#[test]
fn a_required_value_that_is_null_or_missing_is_named() {
    let mut id = column("id", "id", ColumnType::String);
    id.required = true;
    let decoded = decode(&[id], &["{}", r#"{"id":null}"#, r#"{"id":"x"}"#]);
    assert_eq!(decoded.failures.iter().map(|failure| failure.code).collect::<Vec<_>>(), ["missing_value"; 2]);
    assert_eq!(decoded.rows.num_rows(), 1);
}

#[test]
fn json_columns_keep_the_text_of_the_value() {
    let columns = [column("j", "j", ColumnType::Json)];
    let decoded = decode(&columns, &[r#"{"j": {"a": [1, {"b": "}"}]} }"#]);
    assert_eq!(decoded.rows.column(0).as_string::<i32>().value(0), r#"{"a": [1, {"b": "}"}]}"#);
}

#[test]
fn nesting_without_end_is_a_failure_not_a_crash() {
    let deep = format!("{}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    let decoded = decode(&[column("id", "id", ColumnType::String)], &[&deep]);
    assert_eq!(decoded.failures[0].code, "invalid_json");
}
