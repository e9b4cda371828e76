//! Declared routes in the OpenAPI document. Theirs is known when the pipelines are read, and not when the code is written,
//! so they are put into the finished text, with the errors and the credentials of the routes beside them.

use std::sync::Arc;

use karat_http::ApiError;
use karat_lake::arrow::datatypes::Field;
use karat_schemas::pipelines::{MAX_TEXT_CHARS, Parameter, ParameterType, Rows, Written};
use serde_json::{Map, Value, json};

use super::{
    PREFIX, PlannedEndpoint,
    kinds::{Kind, kind_of},
};
use crate::{
    export::Format,
    serving::params::{DEFAULT_LIMIT, MAX_LIMIT},
};

/// A route with the same errors, freshness and credentials.
const LIKE: &str = "/paths/~1runs/get";
const TAG: &str = "Declared";

/// The document with a route for each endpoint.
///
/// # Errors
/// When the document is not as expected.
pub(crate) fn with_endpoints(document: String, endpoints: &[Arc<PlannedEndpoint>]) -> Result<String, ApiError> {
    if endpoints.is_empty() {
        return Ok(document);
    }
    let mut document: Value = serde_json::from_str(&document).map_err(ApiError::internal)?;
    let missing = || ApiError::internal("the document has no operation to take the errors of endpoints from");
    let like = document.pointer(LIKE).cloned().ok_or_else(missing)?;
    for endpoint in endpoints {
        let path = format!("{PREFIX}/{}", endpoint.name());
        document["paths"][path] = json!({ "get": operation(endpoint, &like) });
    }
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.push(json!({"name": TAG, "description": "Routes that the pipelines of this instance declare."}));
    }
    let text = serde_json::to_string_pretty(&document).map_err(ApiError::internal)?;
    // The reference pages have the text in a script, which nobody's description may end.
    Ok(text.replace("</", "<\\/"))
}

fn operation(endpoint: &PlannedEndpoint, like: &Value) -> Value {
    let declared = &endpoint.declared;
    let whose = match declared.rows {
        Rows::Own => "Answers rows of the caller alone.".to_owned(),
        Rows::All => format!("Answers everybody's rows, for the roles {}.", declared.roles.join(", ")),
    };
    let mut parameters: Vec<Value> = declared.parameters.iter().map(parameter).collect();
    parameters.extend(paging());
    let mut responses = like["responses"].clone();
    responses["200"]["description"] = json!("The rows.");
    responses["200"]["content"] = json!({
        "application/json; charset=utf-8": {"schema": answer(endpoint)},
    });
    for format in [Format::Csv, Format::Ndjson] {
        responses["200"]["content"][format.media_type()] = json!({"schema": {"type": "string"}});
    }
    responses["501"] = json!({
        "description": "This is not available here.",
        "content": responses["422"]["content"],
    });
    json!({
        "tags": [TAG],
        "summary": title(&declared.name),
        "description": format!("{} {whose}", declared.description).trim(),
        "operationId": format!("data_{}", declared.name),
        "parameters": parameters,
        "responses": responses,
        "security": like["security"],
    })
}

/// `failing_jobs` as people write it.
fn title(name: &str) -> String {
    let words = name.replace('_', " ");
    let (first, rest) = words.split_at(words.len().min(1));
    format!("{}{rest}", first.to_uppercase())
}

fn parameter(declared: &Parameter) -> Value {
    let kind = declared.parameter_type;
    let mut schema = Map::new();
    let (name, format) = match kind {
        ParameterType::Text => ("string", None),
        ParameterType::Int => ("integer", Some("int64")),
        ParameterType::Decimal => ("string", Some("decimal")),
        ParameterType::Date => ("string", Some("date")),
        ParameterType::Timestamp => ("string", Some("date-time")),
        ParameterType::Bool => ("boolean", None),
    };
    schema.insert("type".to_owned(), json!(name));
    if let Some(format) = format {
        schema.insert("format".to_owned(), json!(format));
    }
    if kind == ParameterType::Text {
        schema.insert("maxLength".to_owned(), json!(MAX_TEXT_CHARS));
    }
    let shown = |written: &Written| shown(kind, written);
    if let Some(default) = &declared.default {
        schema.insert("default".to_owned(), shown(default));
    }
    if kind == ParameterType::Int {
        for (key, bound) in [("minimum", &declared.min), ("maximum", &declared.max)] {
            if let Some(bound) = bound {
                schema.insert(key.to_owned(), shown(bound));
            }
        }
    }
    if !declared.values.is_empty() {
        schema.insert("enum".to_owned(), declared.values.iter().map(shown).collect());
    }
    let description = format!("{} Expected: {}.", declared.description, declared.expected());
    json!({
        "name": declared.name,
        "in": "query",
        "required": declared.required,
        "description": description.trim(),
        "schema": schema,
    })
}

fn shown(kind: ParameterType, written: &Written) -> Value {
    let text = &written.0;
    match kind {
        ParameterType::Int => text.parse::<i64>().map_or_else(|_| json!(text), Value::from),
        ParameterType::Bool => json!(text == "true"),
        _ => json!(text),
    }
}

fn paging() -> [Value; 3] {
    let of = |name: &str, description: String, schema: Value| {
        let mut parameter = json!({"name": name, "in": "query", "required": false, "schema": schema});
        parameter["description"] = json!(description);
        parameter
    };
    [
        of(
            "limit",
            format!("Rows of a page. Default: {DEFAULT_LIMIT}."),
            json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
        ),
        of("cursor", "From `next_cursor` of the page before.".to_owned(), json!({"type": "string"})),
        of(
            "format",
            "As a file the answer has all rows and no pages.".to_owned(),
            json!({"type": "string", "enum": ["json", "csv", "ndjson"], "default": "json"}),
        ),
    ]
}

/// The envelope around a page of rows.
fn answer(endpoint: &PlannedEndpoint) -> Value {
    let columns: Map<String, Value> =
        endpoint.schema.fields().iter().map(|field| (field.name().clone(), column(field))).collect();
    let data = json!({
        "type": "object",
        "required": ["epoch", "data_state", "rows"],
        "properties": {
            "epoch": {"type": "integer", "format": "uint64"},
            "as_of": {"type": "string", "format": "date-time", "nullable": true},
            "data_state": {"$ref": "#/components/schemas/DataState"},
            "rows": {"type": "array", "items": {"type": "object", "properties": columns}},
            "next_cursor": {"type": "string", "nullable": true},
        },
    });
    json!({
        "type": "object",
        "required": ["status", "data", "message", "timestamp"],
        "properties": {
            "status": {"type": "string", "enum": ["success"]},
            "data": data,
            "message": {"type": "string"},
            "timestamp": {"type": "string", "format": "date-time"},
        },
    })
}

fn column(field: &Field) -> Value {
    let (name, format) = match kind_of(field.data_type()) {
        Some(Kind::Int) => ("integer", "int64"),
        Some(Kind::Float) => ("number", "double"),
        Some(Kind::Bool) => return json!({"type": "boolean", "nullable": true}),
        Some(Kind::Date) => ("string", "date"),
        Some(Kind::Timestamp) => ("string", "date-time"),
        Some(Kind::Decimal) => ("string", "decimal"),
        Some(Kind::Text) | None => return json!({"type": "string", "nullable": true}),
    };
    json!({"type": name, "format": format, "nullable": true})
}
