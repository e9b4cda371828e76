//! Strict JSON: one reader for whatever is kept as it was sent, events and settings.
//!
//! Beyond RFC 8259 it refuses what readers disagree about: a key twice in one object, lone surrogates, nesting deeper
//! than [`MAX_DEPTH`]. Numbers stay text, so that no digit is lost on the way. Everything borrows from the input
//! where it can.

mod canonical;
mod schema;

use std::borrow::Cow;

use jiter::{Jiter, JiterError, Peek};
use serde_json::{Map, Number, Value};

pub use canonical::canonical;
pub use schema::Strict;

/// Deepest nesting of arrays and objects: far above what people send, far below what a stack holds.
pub const MAX_DEPTH: usize = 128;
/// Up to this many keys a scan finds a repeat faster than sorting does.
const SCANNED_KEYS: usize = 12;
/// Longest path of a fault, in bytes.
const MAX_PATH: usize = 200;

/// A JSON value that kept its numbers as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    Null,
    Bool(bool),
    /// The digits as written.
    Number(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Node<'a>>),
    /// In the order written, each key once.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// Why a text is not strict JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    /// JSON Pointer to the value that holds the fault, as far as it is known.
    pub path: String,
    pub message: String,
}

/// Which rule a text breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Not JSON, or a number that no reader has room for.
    InvalidJson,
    InvalidUtf8,
    /// One key twice in an object: readers would disagree about its value.
    DuplicateKey,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
}

/// Checks the encoding, which every reader here relies on.
pub fn text_of(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| Fault {
        kind: FaultKind::InvalidUtf8,
        path: String::new(),
        message: format!("byte {} is not UTF-8", error.valid_up_to() + 1),
    })
}

/// Reads a whole text as one value.
pub fn parse(text: &str) -> Result<Node<'_>, Fault> {
    let mut reader = Reader::new(text);
    let node = reader.value()?;
    reader.finish()?;
    Ok(node)
}

/// Leaves out a byte order mark: some editors write one, and it means nothing in UTF-8.
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Reads values from a text one after the other.
pub struct Reader<'a> {
    text: &'a str,
    jiter: Jiter<'a>,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, jiter: Jiter::new(text.as_bytes()), depth: 0 }
    }

    /// The next value.
    pub fn value(&mut self) -> Result<Node<'a>, Fault> {
        let peek = self.jiter.peek().map_err(|e| self.fault(&e))?;
        self.known_value(peek)
    }

    /// Reads an object and gives each key, with the reader standing before its value, to `field`. False when the next
    /// value is something else; nothing is read then.
    pub fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        if self.jiter.peek().map_err(|e| self.fault(&e))? != Peek::Object {
            return Ok(false);
        }
        self.enter()?;
        let text = self.text;
        let mut key = self.jiter.known_object().map(|key| key.map(|key| kept(text, key)));
        while let Some(name) = key.map_err(|e| self.fault(&e))? {
            field(self, name)?;
            key = self.jiter.next_key().map(|key| key.map(|key| kept(text, key)));
        }
        self.depth -= 1;
        Ok(true)
    }

    /// The next value together with the place of its text.
    pub fn value_and_range(&mut self) -> Result<(Node<'a>, std::ops::Range<usize>), Fault> {
        let peek = self.jiter.peek().map_err(|e| self.fault(&e))?;
        let start = self.jiter.current_index();
        let node = self.known_value(peek)?;
        Ok((node, start..self.jiter.current_index()))
    }

    /// Fails when anything but white space is left.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.jiter.finish().map_err(|e| self.fault(&e))
    }

    fn known_value(&mut self, peek: Peek) -> Result<Node<'a>, Fault> {
        match peek {
            Peek::Null => self.jiter.known_null().map(|()| Node::Null).map_err(|e| self.fault(&e)),
            Peek::True | Peek::False => self.jiter.known_bool(peek).map(Node::Bool).map_err(|e| self.fault(&e)),
            Peek::String => self.string().map(Node::Text),
            Peek::Array => self.array(),
            Peek::Object => self.object_node(),
            _ => self.number(peek),
        }
    }

    fn number(&mut self, peek: Peek) -> Result<Node<'a>, Fault> {
        let start = self.jiter.current_index();
        match self.jiter.known_number_bytes(peek) {
            Ok(_) => Ok(Node::Number(&self.text[start..self.jiter.current_index()])),
            Err(error) => Err(self.fault(&error)),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let text = self.text;
        let read = self.jiter.known_str().map(|string| kept(text, string));
        read.map_err(|e| self.fault(&e))
    }

    fn array(&mut self) -> Result<Node<'a>, Fault> {
        self.enter()?;
        let mut items = Vec::new();
        let mut next = self.jiter.known_array();
        while let Some(peek) = next.map_err(|e| self.fault(&e))? {
            items.push(self.known_value(peek).map_err(|fault| fault.under(&items.len().to_string()))?);
            next = self.jiter.array_step();
        }
        self.depth -= 1;
        Ok(Node::Array(items))
    }

    fn object_node(&mut self) -> Result<Node<'a>, Fault> {
        let mut fields: Vec<(Cow<'a, str>, Node<'a>)> = Vec::new();
        self.object(|reader, key| {
            let value = reader.value().map_err(|fault| fault.under(&key))?;
            if fields.len() < SCANNED_KEYS && fields.iter().any(|(known, _)| *known == key) {
                return Err(duplicate_key(&key));
            }
            fields.push((key, value));
            Ok(())
        })?;
        check_keys(&fields)?;
        Ok(Node::Object(fields))
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            return Ok(());
        }
        let message = format!("nested deeper than {MAX_DEPTH} levels");
        Err(Fault { kind: FaultKind::TooDeep, path: String::new(), message })
    }

    fn fault(&self, error: &JiterError) -> Fault {
        let place = self.jiter.error_position(error.index);
        let message = format!("{} at line {} column {}", error.error_type, place.line, place.column);
        Fault { kind: FaultKind::InvalidJson, path: String::new(), message }
    }
}

/// A string that was read from `text`: a part of it, or a copy when there were escapes, which are undone elsewhere.
fn kept<'a>(text: &'a str, string: &str) -> Cow<'a, str> {
    let start = (string.as_ptr() as usize).checked_sub(text.as_ptr() as usize);
    let part = start.and_then(|start| text.get(start..start.checked_add(string.len())?));
    part.map_or_else(|| Cow::Owned(string.to_owned()), Cow::Borrowed)
}

impl Fault {
    /// The same fault seen from the value around it.
    pub fn under(mut self, key: &str) -> Self {
        self.path.insert_str(0, &format!("/{}", escaped(key)));
        // The outer steps find the place; keeping all of them would cost the square of the depth.
        if self.path.len() > MAX_PATH
            && let Some(end) = self.path[..self.path.floor_char_boundary(MAX_PATH)].rfind('/')
        {
            self.path.truncate(end.max(1));
        }
        self
    }
}

impl Node<'_> {
    /// The value of `key`, when this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) => fields.iter().find_map(|(name, value)| (name == key).then_some(value)),
            _ => None,
        }
    }

    /// The text, when this is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// How deep arrays and objects are nested in it: 0 for a value that is neither.
    pub fn depth(&self) -> usize {
        let deepest = match self {
            Self::Array(items) => items.iter().map(Self::depth).max(),
            Self::Object(fields) => fields.iter().map(|(_, value)| value.depth()).max(),
            _ => return 0,
        };
        deepest.unwrap_or(0) + 1
    }

    /// The form that others read. Numbers beyond its reach become the nearest it has.
    pub fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Number(digits) => number_of(digits).map_or(Value::Null, Value::Number),
            Self::Text(text) => Value::String(text.into_owned()),
            Self::Array(items) => Value::Array(items.into_iter().map(Node::into_value).collect()),
            Self::Object(fields) => {
                let fields = fields.into_iter().map(|(key, value)| (key.into_owned(), value.into_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }
}

/// A key as a step of a JSON Pointer.
pub fn escaped(key: &str) -> Cow<'_, str> {
    if key.contains(['~', '/']) { Cow::Owned(key.replace('~', "~0").replace('/', "~1")) } else { Cow::Borrowed(key) }
}

pub fn duplicate_key(key: &str) -> Fault {
    let message = format!("the key `{}` stands twice in one object", key.escape_debug());
    Fault { kind: FaultKind::DuplicateKey, path: format!("/{}", escaped(key)), message }
}

fn check_keys(fields: &[(Cow<'_, str>, Node<'_>)]) -> Result<(), Fault> {
    if fields.len() <= SCANNED_KEYS {
        return Ok(());
    }
    let mut keys: Vec<&str> = fields.iter().map(|(key, _)| key.as_ref()).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(duplicate_key(pair[0])),
        None => Ok(()),
    }
}

/// The nearest number that there is in the form of `serde_json`; none beyond the largest double.
fn number_of(digits: &str) -> Option<Number> {
    let whole = digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from));
    whole.ok().or_else(|| digits.parse().ok().and_then(Number::from_f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (FaultKind, String) {
        let fault = parse(text).unwrap_err();
        (fault.kind, fault.path)
    }

    #[test]
    fn numbers_keep_their_digits() {
        let text = r#"[9007199254740993, 123456789012345678901234567890, 1.50, -0, 1e400]"#;
        let Node::Array(items) = parse(text).unwrap() else { panic!("not an array") };
        let digits = ["9007199254740993", "123456789012345678901234567890", "1.50", "-0", "1e400"];
        assert_eq!(items, digits.map(Node::Number));
    }

    #[test]
    fn text_is_borrowed_until_an_escape_changes_it() {
        let Node::Array(items) = parse(r#"["plain é", "a\tb", "\ud83d\ude00", ""]"#).unwrap() else { panic!() };
        let owned: Vec<bool> = items.iter().map(|i| matches!(i, Node::Text(Cow::Owned(_)))).collect();
        assert_eq!(owned, [false, true, true, false]);
        assert_eq!(items[2].as_text(), Some("😀"));
        let Node::Object(fields) = parse(r#"{"plain é": 1, "a\tb": 2, "": 3}"#).unwrap() else { panic!() };
        let keys: Vec<_> = fields.iter().map(|(key, _)| (&**key, matches!(key, Cow::Owned(_)))).collect();
        assert_eq!(keys, [("plain é", false), ("a\tb", true), ("", false)]);
    }

    #[test]
    fn security_65_a_key_twice_is_refused_in_small_and_large_objects_with_its_place() {
        assert_eq!(refused(r#"{"a":{"b/c":1,"b/c":2}}"#), (FaultKind::DuplicateKey, "/a/b~1c".into()));
        let many: Vec<String> = (0..40).map(|n| format!("\"k{}\":0", n % 39)).collect();
        assert_eq!(refused(&format!("{{{}}}", many.join(","))), (FaultKind::DuplicateKey, "/k0".into()));
    }

    #[test]
    fn security_65_nesting_is_allowed_to_the_limit_and_no_deeper() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(refused(&nested(MAX_DEPTH + 1)).0, FaultKind::TooDeep);
        assert_eq!(refused(&"[".repeat(1_000_000)).0, FaultKind::TooDeep);
        assert_eq!(refused(&r#"{"a":"#.repeat(1_000_000)).0, FaultKind::TooDeep);
    }

    #[test]
    fn depth_counts_the_nesting_at_its_deepest() {
        for (text, depth) in [("1", 0), ("[]", 1), (r#"{"a":1,"b":[{}]}"#, 3), ("[[],[[1]],{}]", 3)] {
            assert_eq!(parse(text).unwrap().depth(), depth, "{text}");
        }
    }

    #[test]
    fn security_65_what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "01",
            "1.",
            ".5",
            "+1",
            "NaN",
            "Infinity",
            "-Infinity",
            "'a'",
            "nul",
            "\"\u{1}\"",
            r#""\ud800""#,
            r#""\x""#,
            "1 2",
            "{a:1}",
            "/* c */ 1",
            "-",
            "1e",
            "\u{feff}1",
        ] {
            assert_eq!(parse(text).unwrap_err().kind, FaultKind::InvalidJson, "{text:?}");
        }
    }
}
