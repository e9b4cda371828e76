use karat_lake::arrow::array::{Array, AsArray};
use karat_schemas::pipelines::ColumnType;
use proptest::prelude::*;

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

/// Any JSON value: what is declared below, what is not, and everything nested in each other.
fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1000i64..1000).prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[a-z\"\\\\é\n]{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-f]", inner, 0..5)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_record_that_is_read_has_the_hash_of_its_content(
        fields in prop::collection::btree_map("[a-f]", any_value(), 0..6),
        is_wide in any::<bool>(),
    ) {
        let columns = [
            column("a", "a", ColumnType::String),
            column("b", "b", ColumnType::Int64),
            column("c", "c", ColumnType::Float64),
            column("d", "d.b", ColumnType::Json),
            column("e", "d.e.f", ColumnType::Bool),
            column("n", "f", ColumnType::Decimal { precision: 20, scale: 2 }),
        ];
        let coerced = columns.map(|column| Column { coerce: true, ..column });
        let payload = serde_json::Value::Object(fields.into_iter().collect());
        let payload = if is_wide { serde_json::to_string_pretty(&payload) } else { serde_json::to_string(&payload) };
        let payload = payload.unwrap();
        let decoded = decode(&coerced, &[&payload, &payload]);
        let expected = hash::content(payload.as_bytes());
        prop_assert!(decoded.contents.iter().flatten().all(|content| *content == expected), "{payload}");
        prop_assert!(decoded.contents[0].is_some() || decoded.failures.len() == 2, "{payload}");
    }
}

#[test]
fn numbers_of_every_form_have_the_hash_of_their_value() {
    let columns = [column("n", "n", ColumnType::Float64)];
    for number in
        ["0", "-0", "-0.0", "1", "1.0", "1e2", "1.5E-3", "123456789012345678", "1234567890123456789012", "1e300"]
    {
        let payload = format!(r#"{{"n":{number}}}"#);
        let contents = decode(&columns, &[&payload]).contents;
        let exact = [None, Some(hash::content(payload.as_bytes()))];
        assert!(exact.contains(&contents[0]), "{number}");
    }
}

#[test]
fn keys_in_another_order_or_given_twice_are_seen_record_by_record() {
    let columns = [column("a", "a", ColumnType::Int64), column("b", "x.b", ColumnType::Int64)];
    let payloads = [
        r#"{"a":1,"x":{"b":2},"y":1}"#,
        r#"{"x":{"z":0,"b":2},"y":1,"a":1}"#,
        r#"{"y":1,"y":2,"a":1}"#,
        r#"{"x":{"b":1,"b":1}}"#,
        r#"{"x":{"b":2},"a":1,"y":1}"#,
    ];
    let decoded = decode(&columns, &payloads);
    let codes: Vec<(usize, &str)> = decoded.failures.iter().map(|failure| (failure.row, failure.code)).collect();
    assert_eq!(codes, [(2, "duplicate_key"), (3, "duplicate_key")]);
    assert_eq!(decoded.contents[0], decoded.contents[4]);
    assert_eq!(decoded.rows.num_rows(), 3);
}
