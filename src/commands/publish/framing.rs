//! From a file's bytes to its records, one at a time: the lines of NDJSON, the items of a JSON array, or JSON values
//! one behind the other. Holds one record in memory, whatever the size of the file.

use std::io::{self, BufRead, Cursor, Read};

use karat_ingest::limits::MAX_EVENT_BYTES;
use serde::de::IgnoredAny;

/// One record of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Line for NDJSON, blank lines included; else the place in the file. Counted from 1.
    pub number: u64,
    /// `None` when the record is larger than an event may be.
    pub bytes: Option<Vec<u8>>,
}

/// Reads the records of one file.
pub(super) struct Frames {
    input: Box<dyn BufRead + Send>,
    shape: Shape,
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Lines,
    Array,
    Values,
    Finished,
}

impl Frames {
    /// Finds out what the file holds. `only_lines` is for files whose name says that they are NDJSON.
    pub fn open(mut input: Box<dyn BufRead + Send>, only_lines: bool) -> io::Result<Self> {
        skip_bom(&mut input)?;
        if only_lines {
            return Ok(Self { input, shape: Shape::Lines, number: 0 });
        }
        let mut head = Vec::new();
        let most = MAX_EVENT_BYTES as u64 + 2;
        while head.trim_ascii().is_empty() && input.by_ref().take(most).read_until(b'\n', &mut head)? > 0 {}
        let is_array = head.trim_ascii_start().first() == Some(&b'[');
        let is_whole_line = serde_json::from_slice::<IgnoredAny>(&head).is_ok();
        // The first bytes are read again, as part of the whole.
        let mut input: Box<dyn BufRead + Send> = Box::new(Cursor::new(head).chain(input));
        let shape = match (is_array, is_whole_line) {
            (true, _) => {
                io::BufRead::skip_until(&mut input, b'[')?;
                Shape::Array
            }
            (false, true) => Shape::Lines,
            (false, false) => Shape::Values,
        };
        Ok(Self { input, shape, number: 0 })
    }

    /// The next record.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        match self.shape {
            Shape::Lines => self.next_line(),
            Shape::Array | Shape::Values => self.next_value(),
            Shape::Finished => Ok(None),
        }
    }

    fn next_line(&mut self) -> io::Result<Option<Frame>> {
        // Room for the line end, so that a line at the limit is told from one above it.
        let most = MAX_EVENT_BYTES as u64 + 2;
        loop {
            let mut line = Vec::new();
            if self.input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            let is_cut = line.len() as u64 == most && line.last() != Some(&b'\n');
            if is_cut {
                self.input.skip_until(b'\n')?;
            }
            let text = line.trim_ascii();
            if is_cut || text.len() > MAX_EVENT_BYTES {
                return Ok(Some(Frame { number: self.number, bytes: None }));
            }
            if !text.is_empty() {
                return Ok(Some(Frame { number: self.number, bytes: Some(text.to_vec()) }));
            }
        }
    }

    fn next_value(&mut self) -> io::Result<Option<Frame>> {
        let mut value = Value::default();
        loop {
            let Some(byte) = self.byte()? else {
                self.shape = Shape::Finished;
                break;
            };
            let ends_array = byte == b']' && self.shape == Shape::Array && value.depth == 0 && !value.in_string;
            if ends_array {
                self.shape = Shape::Finished;
                break;
            }
            if value.push(byte) {
                break;
            }
        }
        if value.size == 0 {
            return Ok(None);
        }
        self.number += 1;
        let bytes = (value.size <= MAX_EVENT_BYTES).then_some(value.bytes);
        Ok(Some(Frame { number: self.number, bytes }))
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.input.fill_buf()?.first().copied();
        self.input.consume(usize::from(byte.is_some()));
        Ok(byte)
    }
}

/// A JSON value as far as its bytes have come.
#[derive(Default)]
struct Value {
    bytes: Vec<u8>,
    /// All its bytes, also those beyond the limit, which are not kept.
    size: usize,
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Value {
    /// Takes the next byte; true when the value is complete.
    fn push(&mut self, byte: u8) -> bool {
        let separates = byte.is_ascii_whitespace() || byte == b',';
        if separates && self.depth == 0 && !self.in_string {
            return self.size > 0;
        }
        self.size += 1;
        if self.size <= MAX_EVENT_BYTES {
            self.bytes.push(byte);
        }
        if self.in_string {
            let ends = byte == b'"' && !self.is_escaped;
            self.is_escaped = byte == b'\\' && !self.is_escaped;
            self.in_string = !ends;
            return ends && self.depth == 0;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

fn skip_bom(input: &mut dyn BufRead) -> io::Result<()> {
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &str, only_lines: bool) -> Vec<(u64, Option<String>)> {
        // A tiny buffer, so that every border is crossed.
        let input = io::BufReader::with_capacity(3, Cursor::new(text.as_bytes().to_vec()));
        let mut frames = Frames::open(Box::new(input), only_lines).unwrap();
        let mut found = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            found.push((frame.number, frame.bytes.map(|bytes| String::from_utf8(bytes).unwrap())));
        }
        found
    }

    fn texts(text: &str) -> Vec<String> {
        frames(text, false).into_iter().filter_map(|(_, text)| text).collect()
    }

    #[test]
    fn lines_are_numbered_with_the_blank_ones() {
        let found = frames("{\"a\":1}\r\n\n {\"b\":2} \n{broken\n{\"c\":3}", false);
        let expected = [(1, "{\"a\":1}"), (3, "{\"b\":2}"), (4, "{broken"), (5, "{\"c\":3}")];
        assert_eq!(found, expected.map(|(number, text)| (number, Some(text.to_owned()))));
    }

    #[test]
    fn a_broken_first_line_does_not_change_what_an_ndjson_file_is() {
        assert_eq!(frames("{broken\n{\"a\":1}\n", true).len(), 2);
    }

    #[test]
    fn items_of_an_array_are_found_whatever_stands_in_their_strings() {
        let text = "\n [ {\"a\":\"]},{\\\"\"} ,\n[1,[2]],\"x,]\" , 5,null]\n";
        assert_eq!(texts(text), ["{\"a\":\"]},{\\\"\"}", "[1,[2]]", "\"x,]\"", "5", "null"]);
        assert!(texts("[]").is_empty() && texts("[ ]").is_empty() && texts("").is_empty());
    }

    #[test]
    fn one_object_over_many_lines_is_one_record() {
        assert_eq!(texts("{\n  \"a\": 1\n}\n"), ["{\n  \"a\": 1\n}"]);
        assert_eq!(texts("{\n\"a\":1}\n{\n\"b\":2}").len(), 2);
    }

    #[test]
    fn a_record_over_the_limit_is_reported_and_the_next_is_read() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_EVENT_BYTES));
        let found = frames(&format!("{{}}\n{long}\n{{\"b\":1}}\n"), false);
        assert_eq!(found, [(1, Some("{}".into())), (2, None), (3, Some("{\"b\":1}".into()))]);
        let found = frames(&format!("[{{}},{long},{{\"b\":1}}]"), false);
        assert_eq!(found, [(1, Some("{}".into())), (2, None), (3, Some("{\"b\":1}".into()))]);
    }

    #[test]
    fn a_byte_order_mark_is_left_out() {
        assert_eq!(texts("\u{feff}{\"a\":1}"), ["{\"a\":1}"]);
    }
}
