//! JSON access for silver SQL.

use std::sync::Arc;

use karat_lake::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array, StringArray},
        datatypes::{DataType, Int64Type},
    },
    datafusion::{
        error::Result,
        logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
    },
};
use serde_json::{Map, Value};

pub(super) fn all() -> Vec<ScalarUDF> {
    let text = DataType::Utf8;
    let function = |name: &str, inputs: Vec<DataType>, output: DataType, body: Body| {
        create_udf(
            name,
            inputs,
            output,
            Volatility::Immutable,
            Arc::new(move |args: &[ColumnarValue]| call(args, body)),
        )
    };
    vec![
        function("json_text", vec![text.clone(), text.clone()], text.clone(), json_text),
        function("json_int", vec![text.clone(), text.clone()], DataType::Int64, json_int),
        function("json_numbers_by_key", vec![text.clone(), text.clone(), text.clone()], text.clone(), numbers_by_key),
        function("json_number", vec![text.clone(), DataType::Int64], text, json_number),
    ]
}

type Body = fn(&[ArrayRef]) -> ArrayRef;

fn call(args: &[ColumnarValue], body: Body) -> Result<ColumnarValue> {
    Ok(ColumnarValue::Array(body(&ColumnarValue::values_to_arrays(args)?)))
}

fn json_text(args: &[ArrayRef]) -> ArrayRef {
    let found = by_row(args, |json, path| match at(json, path)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    });
    Arc::new(found.into_iter().collect::<StringArray>())
}

fn json_int(args: &[ArrayRef]) -> ArrayRef {
    Arc::new(by_row(args, |json, path| at(json, path)?.as_i64()).into_iter().collect::<Int64Array>())
}

fn by_row<T>(args: &[ArrayRef], find: impl Fn(&Value, &str) -> Option<T>) -> Vec<Option<T>> {
    let (json, path) = (args[0].as_string::<i32>(), args[1].as_string::<i32>());
    let cell = |row| {
        let value: Value = serde_json::from_str(text(json, row)?).ok()?;
        find(&value, text(path, row)?)
    };
    (0..json.len()).map(cell).collect()
}

/// Items without a number at the path are left out, and negative numbers, which count nothing; an empty result is NULL.
fn numbers_by_key(args: &[ArrayRef]) -> ArrayRef {
    let (list, keys, path) = (args[0].as_string::<i32>(), args[1].as_string::<i32>(), args[2].as_string::<i32>());
    let cell = |row| {
        let items: Vec<Value> = serde_json::from_str(text(list, row)?).ok()?;
        let (keys, path) = (text(keys, row)?, text(path, row)?);
        let mut numbers = Map::new();
        for item in &items {
            let Some(number) = at(item, path).and_then(Value::as_i64).filter(|number| *number >= 0) else { continue };
            let names: Vec<&str> = keys.split(',').filter_map(|key| at(item, key.trim())?.as_str()).collect();
            numbers.insert(names.join("\u{1f}"), number.into());
        }
        (!numbers.is_empty()).then(|| Value::Object(numbers).to_string())
    };
    Arc::new((0..list.len()).map(cell).collect::<StringArray>())
}

fn json_number(args: &[ArrayRef]) -> ArrayRef {
    let (name, number) = (args[0].as_string::<i32>(), args[1].as_primitive::<Int64Type>());
    let cell = |row| {
        let name = text(name, row)?;
        let value = number.is_valid(row).then(|| number.value(row))?;
        Some(Value::Object(Map::from_iter([(name.to_owned(), value.into())])).to_string())
    };
    Arc::new((0..number.len()).map(cell).collect::<StringArray>())
}

fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

fn text(array: &StringArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}
