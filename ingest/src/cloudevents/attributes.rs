//! The context attributes of one event, collected one by one and then checked as a whole.

use chrono::DateTime;
use karat_schemas::json::{self, Node};

use crate::{
    event::{Code, Rejection},
    limits::{MAX_ATTRIBUTE_BYTES, MAX_EXTENSIONS},
};

/// Attributes as far as they have been read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    specversion: Option<String>,
    time: Option<String>,
    subject: Option<String>,
    content_type: Option<String>,
    data_schema: Option<String>,
    extensions: Vec<(String, String)>,
}

/// Attributes that are complete and valid.
#[derive(Debug)]
pub(super) struct Attributes {
    pub id: String,
    pub source: String,
    pub event_type: String,
    pub time: Option<String>,
    pub subject: Option<String>,
    pub content_type: Option<String>,
    pub data_schema: Option<String>,
    pub extensions: Vec<(String, String)>,
}

impl Draft {
    /// Takes one attribute of the JSON form; null means that it is not set.
    pub fn set_json(&mut self, index: usize, name: &str, value: Node<'_>) -> Result<(), Rejection> {
        let kind = value.kind();
        let is_core = self.core(name).is_some();
        let text = match value {
            Node::Null => return Ok(()),
            Node::Text(text) => text.into_owned(),
            Node::Bool(value) if !is_core => value.to_string(),
            // CloudEvents knows integers of 32 bits only.
            Node::Number(digits) if !is_core && digits.parse::<i32>().is_ok() => digits.to_owned(),
            _ if is_core => return Err(invalid(index, name, format!("expected text, found {kind}"))),
            _ => {
                let message = format!("expected text, a boolean or a 32-bit integer, found {kind}");
                return Err(invalid(index, name, message));
            }
        };
        self.set(index, name, text)
    }

    /// Takes one attribute. An empty value means that it is not set.
    pub fn set(&mut self, index: usize, name: &str, value: String) -> Result<(), Rejection> {
        if let Some(problem) = problem_with(&value) {
            return Err(invalid(index, name, problem));
        }
        if let Some(place) = self.core(name) {
            *place = Some(value).filter(|value| !value.is_empty());
            return Ok(());
        }
        if !is_extension_name(name) {
            let message =
                "not an attribute: names are 1 to 64 lower-case letters and digits, and data belongs in `data`";
            return Err(invalid(index, name, message));
        }
        if self.extensions.len() == MAX_EXTENSIONS {
            return Err(invalid(index, name, format!("more than {MAX_EXTENSIONS} extension attributes")));
        }
        self.extensions.push((name.to_owned(), value));
        Ok(())
    }

    /// Checks what CloudEvents asks of the whole.
    pub fn finish(self, index: usize) -> Result<Attributes, Rejection> {
        let required = |name: &str, value: Option<String>| {
            value.ok_or_else(|| {
                let message = format!("the required attribute `{name}` is missing or empty");
                Rejection::new(index, Code::MissingAttribute, format!("/{name}"), message)
            })
        };
        let specversion = required("specversion", self.specversion)?;
        if specversion != "1.0" {
            let found = specversion.escape_debug();
            return Err(invalid(index, "specversion", format!("expected `1.0`, found `{found}`")));
        }
        if let Some(time) = self.time.as_deref().filter(|time| DateTime::parse_from_rfc3339(time).is_err()) {
            let found = time.escape_debug();
            let message = format!("expected an RFC 3339 time such as `2026-01-31T10:00:00Z`, found `{found}`");
            return Err(invalid(index, "time", message));
        }
        Ok(Attributes {
            id: required("id", self.id)?,
            source: required("source", self.source)?,
            event_type: required("type", self.event_type)?,
            time: self.time,
            subject: self.subject,
            content_type: self.content_type,
            data_schema: self.data_schema,
            extensions: self.extensions,
        })
    }

    fn core(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "specversion" => &mut self.specversion,
            "time" => &mut self.time,
            "subject" => &mut self.subject,
            "datacontenttype" => &mut self.content_type,
            "dataschema" => &mut self.data_schema,
            _ => return None,
        })
    }
}

impl Attributes {
    /// Whether the data is JSON, which is also what it is when nothing is said.
    pub fn is_json(&self) -> bool {
        self.content_type.as_deref().is_none_or(is_json)
    }

    /// Who decides the partition: partition key, else run id, else subject, else id (decision 19).
    pub fn key(&self, run_id: Option<&str>) -> String {
        let partition_key = self.extensions.iter().find(|(name, _)| name == "partitionkey").map(|(_, value)| &**value);
        let wanted = [partition_key, run_id, self.subject.as_deref()];
        let key = wanted.into_iter().flatten().find(|key| !key.is_empty());
        key.unwrap_or(&self.id).to_owned()
    }
}

pub(super) fn invalid(index: usize, name: &str, message: impl Into<String>) -> Rejection {
    Rejection::new(index, Code::InvalidAttribute, format!("/{}", json::escaped(name)), message)
}

/// What is wrong with a value that will travel as a header, if anything.
pub(crate) fn problem_with(value: &str) -> Option<String> {
    if value.len() > MAX_ATTRIBUTE_BYTES {
        return Some(format!("{} bytes long, and at most {MAX_ATTRIBUTE_BYTES} are allowed", value.len()));
    }
    value.contains(char::is_control).then(|| "control characters are not allowed".to_owned())
}

fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.is_empty() || media.ends_with("/json") || media.ends_with("+json")
}

fn is_extension_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}
