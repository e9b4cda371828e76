//! From JSON bytes to Arrow columns, strictly (spec S1).
//!
//! A value that reading would change is a failure of its record, not a silent conversion: 1.5 as an integer, text as a
//! number, a decimal digit too many, a key given twice. A failing record is reported with its place and reason; its
//! neighbours continue. The reader walks each payload once, over an iterative parser, into column builders; numbers
//! are read from their own text, so integers and decimals are exact.
//!
//! Unknown fields of the objects that are walked can be kept as one JSON object, keyed by their dotted path.

mod builder;
pub mod hash;
mod number;
mod time;
mod tree;

use std::sync::Arc;

use jiter::{Jiter, Peek};
use karat_lake::arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringBuilder, UInt32Array},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use karat_schemas::pipelines::Column;

pub(crate) use self::builder::data_type;
use self::{builder::ColumnBuilder, tree::Tree};
use crate::Result;

/// Name of the column that holds unknown fields.
pub const RESCUED: &str = "_rescued";
/// Name of the column that holds the row's index in the batch that was decoded.
pub const ROW: &str = "_row";

/// Reads payloads of one declared shape.
pub struct Decoder {
    tree: Tree,
    columns: Vec<Column>,
    schema: SchemaRef,
    keeps_unknown: bool,
}

/// Why a record cannot become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Index of the payload.
    pub row: usize,
    /// Stable: `invalid_json`, `invalid_utf8`, `wrong_type`, `inexact_value`, `missing_value`, `duplicate_key`.
    pub code: &'static str,
    /// What, where, expected, found.
    pub message: String,
}

/// The rows that could be read, and the records that could not.
pub struct Decoded {
    /// The declared columns, `_rescued` when unknown fields are kept, and `_row`.
    pub rows: RecordBatch,
    pub failures: Vec<Failure>,
    /// One a payload: its [`hash::content`]; none where the walk did not come to its end.
    pub contents: Vec<Option<u128>>,
}

/// A failure before it knows its row.
pub(crate) struct Fault {
    code: &'static str,
    message: String,
}

impl Fault {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<jiter::JiterError> for Fault {
    fn from(error: jiter::JiterError) -> Self {
        Self::new("invalid_json", format!("byte {}: {}", error.index, error.error_type))
    }
}

impl Decoder {
    pub fn new(columns: &[Column], keeps_unknown: bool) -> Self {
        let mut fields: Vec<Field> = columns
            .iter()
            .map(|column| Field::new(&column.name, builder::data_type(column.column_type), true))
            .collect();
        if keeps_unknown {
            fields.push(Field::new(RESCUED, DataType::Utf8, true));
        }
        fields.push(Field::new(ROW, DataType::UInt32, false));
        Self {
            tree: Tree::new(columns),
            columns: columns.to_vec(),
            schema: Arc::new(Schema::new(fields)),
            keeps_unknown,
        }
    }

    /// Schema of [`Decoded::rows`].
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads every payload; its index among `payloads` is its row.
    pub fn decode<'p>(&self, payloads: impl Iterator<Item = &'p [u8]>) -> Result<Decoded> {
        let rows = payloads.size_hint().0;
        let mut reading = Reading {
            decoder: self,
            builders: self.columns.iter().map(|column| ColumnBuilder::new(column, rows)).collect(),
            rescued: StringBuilder::new(),
            unknown: String::new(),
            path: String::new(),
            seen_in: vec![0; self.tree.len()],
            next: vec![0; self.tree.len()],
            unknown_keys: Vec::new(),
            record: 0,
        };
        let (mut failures, mut is_good, mut contents) =
            (Vec::new(), Vec::with_capacity(rows), Vec::with_capacity(rows));
        for (row, payload) in payloads.enumerate() {
            let content = reading.record(payload);
            let (content, outcome) = match content {
                Ok(content) => (content, Ok(())),
                Err(fault) => (None, Err(fault)),
            };
            contents.push(content);
            let outcome = reading.end_row(row, outcome);
            is_good.push(outcome.is_ok());
            if let Err(Fault { code, message }) = outcome {
                failures.push(Failure { row, code, message });
            }
        }
        Ok(Decoded { rows: reading.finish(&is_good, failures.is_empty())?, failures, contents })
    }
}

struct Reading<'d> {
    decoder: &'d Decoder,
    builders: Vec<ColumnBuilder>,
    rescued: StringBuilder,
    /// Unknown fields of the current record, as the inside of a JSON object.
    unknown: String,
    /// Dotted path of the object being walked, with a trailing dot.
    path: String,
    /// By node: the number of the last record that had it, to find keys that are given twice.
    seen_in: Vec<u64>,
    /// By node, a child or the object itself: the child that came after it the last time. Records of one producer have
    /// their keys in one order, so the guess is nearly always right.
    next: Vec<usize>,
    /// Hashes of the keys without a node in the objects being walked, to find those that are given twice.
    unknown_keys: Vec<u128>,
    /// Number of the record, from 1.
    record: u64,
}

impl Reading<'_> {
    /// Reads one record; gives the hash of its content, none when it is too deep for one.
    fn record(&mut self, payload: &[u8]) -> Result<Option<u128>, Fault> {
        self.unknown.clear();
        self.path.clear();
        self.unknown_keys.clear();
        self.record += 1;
        if let Err(error) = std::str::from_utf8(payload) {
            return Err(Fault::new("invalid_utf8", format!("byte {} is not UTF-8", error.valid_up_to())));
        }
        let mut json = Jiter::new(payload);
        let content = match json.peek()? {
            Peek::Object => self.object(&mut json, payload, 0, 0)?,
            other => {
                // Text that only begins like a value is no JSON at all.
                json.known_skip(other)?;
                json.finish()?;
                return Err(Fault::new("wrong_type", format!("expected an object, found {}", kind(other))));
            }
        };
        json.finish()?;
        Ok(content)
    }

    /// Walks one object, `depth` objects deep; `node` says which of its fields are wanted.
    fn object(
        &mut self,
        json: &mut Jiter<'_>,
        payload: &[u8],
        node: usize,
        depth: usize,
    ) -> Result<Option<u128>, Fault> {
        let tree = &self.decoder.tree;
        let first_unknown = self.unknown_keys.len();
        let (mut hash, mut is_hashed) = (hash::Object::new(), true);
        let mut before = node;
        let mut key = json.known_object()?;
        while let Some(name) = key {
            let guess = self.next[before];
            let child = if guess != 0 && tree.node(guess).name == name { Some(guess) } else { tree.child(node, name) };
            let (name_hash, value_hash) = match child {
                Some(child) => {
                    if self.seen_in[child] == self.record {
                        return Err(self.given_twice(name));
                    }
                    self.seen_in[child] = self.record;
                    self.next[before] = child;
                    before = child;
                    (tree.node(child).hash, self.field(json, payload, child, depth + 1)?)
                }
                None => {
                    let name_hash = hash::name(name);
                    if self.unknown_keys[first_unknown..].contains(&name_hash) {
                        return Err(self.given_twice(name));
                    }
                    self.unknown_keys.push(name_hash);
                    let kept_name = self.decoder.keeps_unknown.then(|| format!("{}{name}", self.path));
                    (name_hash, self.unknown_field(json, payload, kept_name, depth + 1)?)
                }
            };
            match value_hash {
                Some(value_hash) => hash.add(name_hash, value_hash),
                None => is_hashed = false,
            }
            key = json.next_key()?;
        }
        self.unknown_keys.truncate(first_unknown);
        Ok(is_hashed.then(|| hash.finish()))
    }

    fn given_twice(&self, name: &str) -> Fault {
        Fault::new("duplicate_key", format!("`{}{name}` is given twice", self.path))
    }

    fn field(
        &mut self,
        json: &mut Jiter<'_>,
        payload: &[u8],
        child: usize,
        depth: usize,
    ) -> Result<Option<u128>, Fault> {
        let decoder = self.decoder;
        let node = decoder.tree.node(child);
        let peek = json.peek()?;
        if let Some(index) = node.column {
            let column = &decoder.columns[index];
            let place = || column.path.as_deref().unwrap_or(&column.name).to_owned();
            return self.builders[index].append(json, payload, peek, depth).map_err(|fault| Fault {
                message: if fault.code == "invalid_json" {
                    fault.message
                } else {
                    format!("`{}`: {}", place(), fault.message)
                },
                code: fault.code,
            });
        }
        match peek {
            Peek::Object => {
                let length = self.path.len();
                self.path.push_str(&node.name);
                self.path.push('.');
                let hash = self.object(json, payload, child, depth)?;
                self.path.truncate(length);
                Ok(hash)
            }
            Peek::Null => {
                json.known_null()?;
                Ok(Some(hash::NULL))
            }
            other => {
                let message = format!("`{}{}`: expected an object, found {}", self.path, node.name, kind(other));
                Err(Fault::new("wrong_type", message))
            }
        }
    }

    fn unknown_field(
        &mut self,
        json: &mut Jiter<'_>,
        payload: &[u8],
        name: Option<String>,
        depth: usize,
    ) -> Result<Option<u128>, Fault> {
        let peek = json.peek()?;
        let start = json.current_index();
        json.known_skip(peek)?;
        let value = &payload[start..json.current_index()];
        if let Some(name) = name {
            let separator = if self.unknown.is_empty() { "" } else { "," };
            let value = std::str::from_utf8(value).unwrap_or("null");
            self.unknown.push_str(separator);
            self.unknown.push_str(&serde_json::Value::String(name).to_string());
            self.unknown.push(':');
            self.unknown.push_str(value.trim_ascii());
        }
        Ok(hash::part(value, depth))
    }

    /// Fills what the record did not give, so that every column has `row + 1` values.
    fn end_row(&mut self, row: usize, outcome: Result<(), Fault>) -> Result<(), Fault> {
        let mut outcome = outcome;
        for (builder, column) in self.builders.iter_mut().zip(&self.decoder.columns) {
            if builder.len() == row {
                builder.append_null();
            }
            if column.required && outcome.is_ok() && builder.is_last_null() {
                let place = column.path.as_deref().unwrap_or(&column.name);
                outcome = Err(Fault::new("missing_value", format!("`{place}` is required and missing or null")));
            }
        }
        if self.decoder.keeps_unknown {
            let unknown = (!self.unknown.is_empty()).then(|| format!("{{{}}}", self.unknown));
            self.rescued.append_option(unknown);
        }
        outcome
    }

    fn finish(mut self, is_good: &[bool], all_good: bool) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        for builder in &mut self.builders {
            columns.push(builder.finish()?);
        }
        if self.decoder.keeps_unknown {
            columns.push(Arc::new(self.rescued.finish()));
        }
        columns.push(Arc::new((0..is_good.len()).map(|row| u32::try_from(row).ok()).collect::<UInt32Array>()));
        let options = RecordBatchOptions::new().with_row_count(Some(is_good.len()));
        let rows = RecordBatch::try_new_with_options(self.decoder.schema.clone(), columns, &options)?;
        if all_good {
            return Ok(rows);
        }
        Ok(filter_record_batch(&rows, &BooleanArray::from(is_good.to_vec()))?)
    }
}

/// What a JSON value is, in words.
pub(crate) fn kind(peek: Peek) -> &'static str {
    match peek {
        Peek::Null => "null",
        Peek::True | Peek::False => "a boolean",
        Peek::String => "text",
        Peek::Array => "a list",
        Peek::Object => "an object",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests;
