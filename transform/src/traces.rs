//! Traces of the events of a step: from the headers that bronze keeps into commits, and as spans.
//!
//! They are read from the rows, so a step that reads files after a crash finds the same ones. No figure depends on them.

use std::time::{Duration, Instant};

use karat_lake::arrow::array::{Array, AsArray, RecordBatch};
use karat_schemas::{
    attributes::TRACEPARENT,
    trace::{TraceContext, Traces},
};
use karat_telemetry::{
    new_span_id,
    spans::{self, Kind, Span, Value},
};

/// The traces of bronze rows, from their other headers: a JSON object of texts.
pub(crate) fn of_bronze(rows: &RecordBatch) -> Traces {
    let mut traces = Traces::default();
    let Some(headers) = rows.column_by_name("headers").and_then(|column| column.as_string_opt::<i32>()) else {
        return traces;
    };
    if headers.null_count() == headers.len() {
        return traces;
    }
    // A quotation mark inside of a text is written with a backslash before it, so this is the name and nothing else.
    let name = format!("\"{TRACEPARENT}\":\"");
    let parents = headers.iter().flatten().filter_map(|text| {
        let (_, rest) = text.split_once(name.as_str())?;
        TraceContext::parse(rest.split_once('"')?.0)
    });
    parents.for_each(|context| traces.add(context));
    traces
}

/// A part of a step that is over, such as the commits of a layer.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
}

/// Makes a span of each trace for something that is over, with one for each of its parts.
pub(crate) fn record(traces: &Traces, whole: &Part, parts: &[Part], attributes: &[(&'static str, Value)]) {
    if !spans::is_on() {
        return;
    }
    for context in traces.contexts() {
        let own = context.at(new_span_id());
        let span = span_of(whole, own, context.span_id());
        spans::record(Span { kind: Kind::Consumer, attributes: attributes.to_vec(), ..span });
        for part in parts {
            spans::record(span_of(part, context.at(new_span_id()), own.span_id()));
        }
    }
}

fn span_of(part: &Part, context: TraceContext, parent: u64) -> Span {
    let since = part.began.elapsed();
    let span = Span::ending_now(context, Some(parent), part.name, Kind::Internal, since);
    // It began so long ago, and ended before now.
    Span { took: part.took, ..span }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use karat_lake::arrow::{
        array::{ArrayRef, StringArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn rows(headers: Vec<Option<&str>>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("headers", DataType::Utf8, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(headers)) as ArrayRef]).unwrap()
    }

    #[test]
    fn traces_are_found_in_headers_and_not_in_the_texts_of_others() {
        let good = r#"{"ce_x":"1","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#;
        let inside = serde_json::json!({"ce_x": good}).to_string();
        let traces = of_bronze(&rows(vec![
            None,
            Some(good),
            Some(good),
            Some(&inside),
            Some(r#"{"traceparent":"00-bad"}"#),
            Some(r#"{"traceparent":""#),
        ]));
        assert_eq!((traces.contexts().len(), traces.num_records()), (1, 2));
        assert_eq!(traces.contexts()[0].trace_id_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(of_bronze(&rows(vec![None, None])).is_empty());
    }
}
