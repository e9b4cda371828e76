//! Columns and values as PostgreSQL writes them, from those of `POST /query`, whose types and digits they keep: `string`, `binary`,
//! `bool`, `int64`, `uint64` (as `numeric`, for it is wider), `float64`, `decimal`, `date`, `timestamp` (which is in UTC), and text
//! for lists and all else.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, BytesMut};
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use serde_json::value::RawValue;

use super::{
    channel::{Broken, Fields, message, text},
    refusal::Refusal,
};

/// A type of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int8,
    Float8,
    /// Digits, and those of them behind the point, where that is known.
    Numeric(Option<(u8, u8)>),
    Text,
    Bytes,
    Date,
    Time,
}

impl Kind {
    /// By the word of `POST /query`.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "bool" => Self::Bool,
            "int64" => Self::Int8,
            "float64" => Self::Float8,
            "uint64" => Self::Numeric(None),
            "binary" => Self::Bytes,
            "date" => Self::Date,
            "timestamp" => Self::Time,
            word => match word.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
                Some(digits) => Self::Numeric(precision(digits)),
                None => Self::Text,
            },
        }
    }

    fn oid(self) -> i32 {
        match self {
            Self::Bool => 16,
            Self::Bytes => 17,
            Self::Int8 => 20,
            Self::Text => 25,
            Self::Float8 => 701,
            Self::Date => 1082,
            Self::Time => 1184,
            Self::Numeric(_) => 1700,
        }
    }

    /// Bytes of a value, -1 when that depends on it.
    fn size(self) -> i16 {
        match self {
            Self::Bool => 1,
            Self::Date => 4,
            Self::Int8 | Self::Float8 | Self::Time => 8,
            Self::Bytes | Self::Text | Self::Numeric(_) => -1,
        }
    }

    fn modifier(self) -> i32 {
        match self {
            Self::Numeric(Some((digits, behind))) => ((i32::from(digits) << 16) | i32::from(behind)) + 4,
            _ => -1,
        }
    }
}

fn precision(digits: &str) -> Option<(u8, u8)> {
    let (digits, behind) = digits.split_once(',')?;
    Some((digits.parse().ok()?, behind.parse().ok()?))
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// Which columns are sent in binary form: none, all, or each by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Formats(Vec<bool>);

impl Formats {
    /// As they stand in a message.
    pub(super) fn read(fields: &mut Fields) -> Result<Self, Broken> {
        let count = fields.int16()?;
        let mut formats = Vec::new();
        for _ in 0..count {
            formats.push(match fields.int16()? {
                0 => false,
                1 => true,
                _ => return Err(Broken::Malformed("the form of a column is neither text nor binary")),
            });
        }
        Ok(Self(formats))
    }

    /// Refuses to be for other columns than those of an answer.
    pub(super) fn check(&self, columns: usize) -> Result<(), Refusal> {
        if self.0.len() <= 1 || self.0.len() == columns {
            return Ok(());
        }
        Err(Refusal::new("08P01", format!("there are {columns} columns, and {} forms for them", self.0.len())))
    }

    fn is_binary(&self, at: usize) -> bool {
        match self.0[..] {
            [] => false,
            [all] => all,
            _ => self.0.get(at).copied().unwrap_or(false),
        }
    }
}

/// Writes what the columns are.
pub(super) fn put_columns(out: &mut BytesMut, columns: &[Column], formats: &Formats) {
    message(out, b'T', |out| {
        out.put_i16(i16::try_from(columns.len()).unwrap_or(i16::MAX));
        for (at, Column { name, kind }) in columns.iter().enumerate() {
            text(out, name);
            // Of no table that a client could look up.
            out.put_i32(0);
            out.put_i16(0);
            out.put_i32(kind.oid());
            out.put_i16(kind.size());
            out.put_i32(kind.modifier());
            out.put_i16(i16::from(formats.is_binary(at)));
        }
    });
}

/// Writes a row, which is a list of values in JSON.
///
/// # Errors
/// A value that is none of its column's type.
pub(super) fn put_row(
    out: &mut BytesMut,
    columns: &[Column],
    row: &RawValue,
    formats: &Formats,
) -> Result<(), Refusal> {
    let values: Vec<&RawValue> = serde_json::from_str(row.get()).map_err(Refusal::internal)?;
    let mut cells = Vec::with_capacity(values.len());
    for (at, (value, Column { name, kind })) in values.into_iter().zip(columns).enumerate() {
        let Some(plain) = plain(value)? else {
            cells.push(None);
            continue;
        };
        let written = if formats.is_binary(at) { in_binary(*kind, &plain) } else { in_text(*kind, plain) };
        let written = written.ok_or_else(|| Refusal::internal(format!("a value of `{name}` is no {kind:?}")))?;
        cells.push(Some(written));
    }
    message(out, b'D', |out| {
        out.put_i16(i16::try_from(cells.len()).unwrap_or(i16::MAX));
        for cell in cells {
            match cell {
                Some(bytes) => {
                    out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                    out.put_slice(&bytes);
                }
                None => out.put_i32(-1),
            }
        }
    });
    Ok(())
}

/// A value without the quotes of JSON; none for null.
fn plain(value: &RawValue) -> Result<Option<Cow<'_, str>>, Refusal> {
    Ok(match value.get() {
        "null" => None,
        quoted if quoted.starts_with('"') => Some(Cow::Owned(serde_json::from_str(quoted).map_err(Refusal::internal)?)),
        plain => Some(Cow::Borrowed(plain)),
    })
}

fn in_text(kind: Kind, plain: Cow<'_, str>) -> Option<Vec<u8>> {
    Some(match kind {
        Kind::Bool if plain == "true" => b"t".to_vec(),
        Kind::Bool => b"f".to_vec(),
        Kind::Bytes => {
            let bytes = STANDARD.decode(plain.as_bytes()).ok()?;
            let mut hex = String::with_capacity(2 + 2 * bytes.len());
            hex.push_str("\\x");
            let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
            bytes.iter().for_each(|byte| hex.extend([digit(byte >> 4), digit(byte & 0xf)]));
            hex.into_bytes()
        }
        Kind::Time => {
            let time = plain.parse::<DateTime<Utc>>().ok()?;
            in_era(time.year(), time.format("-%m-%d %H:%M:%S%.f+00"))
        }
        Kind::Date => {
            let date = plain.parse::<NaiveDate>().ok()?;
            in_era(date.year(), date.format("-%m-%d"))
        }
        // PostgreSQL keeps no text with a zero in it.
        Kind::Text => plain.replace('\0', "").into_bytes(),
        Kind::Int8 | Kind::Float8 | Kind::Numeric(_) => plain.into_owned().into_bytes(),
    })
}

/// A year and what follows it. PostgreSQL writes no signs: the year before 1 is `0001 BC`.
fn in_era(year: i32, rest: impl std::fmt::Display) -> Vec<u8> {
    let written = if year > 0 { format!("{year:04}{rest}") } else { format!("{:04}{rest} BC", 1 - year) };
    written.into_bytes()
}

fn in_binary(kind: Kind, plain: &str) -> Option<Vec<u8>> {
    // Where the calendar of PostgreSQL begins.
    let begin = NaiveDate::from_ymd_opt(2000, 1, 1)?;
    Some(match kind {
        Kind::Bool => vec![u8::from(plain == "true")],
        Kind::Int8 => plain.parse::<i64>().ok()?.to_be_bytes().to_vec(),
        Kind::Float8 => plain.parse::<f64>().ok()?.to_be_bytes().to_vec(),
        Kind::Numeric(_) => numeric(plain)?,
        Kind::Text => plain.replace('\0', "").into_bytes(),
        Kind::Bytes => STANDARD.decode(plain).ok()?,
        Kind::Date => {
            let days = plain.parse::<NaiveDate>().ok()?.signed_duration_since(begin).num_days();
            i32::try_from(days).ok()?.to_be_bytes().to_vec()
        }
        Kind::Time => {
            let time = plain.parse::<DateTime<Utc>>().ok()?;
            let begin_us = begin.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros();
            (time.timestamp_micros() - begin_us).to_be_bytes().to_vec()
        }
    })
}

/// A number in groups of four digits: how many, the place of the first, the sign, the digits behind the point, the groups.
fn numeric(plain: &str) -> Option<Vec<u8>> {
    let (is_negative, digits) = plain.strip_prefix('-').map_or((false, plain), |digits| (true, digits));
    let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(behind.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let zeros = |digits: &str| "0".repeat((4 - digits.len() % 4) % 4);
    let (before, after) = (zeros(whole), zeros(behind));
    let places = (before.len() + whole.len()) / 4;
    let padded = [before.as_str(), whole, behind, after.as_str()].concat();
    let group = |digits: &[u8]| digits.iter().fold(0_i16, |group, digit| group * 10 + i16::from(digit - b'0'));
    let groups: Vec<i16> = padded.as_bytes().chunks(4).map(group).collect();
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let kept = groups.get(first..last).unwrap_or_default();
    let weight = if kept.is_empty() { 0 } else { i16::try_from(places).ok()? - 1 - i16::try_from(first).ok()? };
    let mut out = Vec::with_capacity(8 + 2 * kept.len());
    out.put_i16(i16::try_from(kept.len()).ok()?);
    out.put_i16(weight);
    out.put_u16(if is_negative && !kept.is_empty() { 0x4000 } else { 0 });
    out.put_i16(i16::try_from(behind.len()).ok()?);
    kept.iter().for_each(|group| out.put_i16(*group));
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(word: &str, plain: &str) -> String {
        String::from_utf8(in_text(Kind::of(word), Cow::Borrowed(plain)).unwrap()).unwrap()
    }

    #[test]
    fn values_are_shown_as_postgresql_shows_them_without_losing_a_digit() {
        for (word, plain, expected) in [
            ("bool", "true", "t"),
            ("bool", "false", "f"),
            ("int64", "9007199254740993", "9007199254740993"),
            ("uint64", "18446744073709551615", "18446744073709551615"),
            ("float64", "0.5", "0.5"),
            ("decimal(38,2)", "123456789012345678.90", "123456789012345678.90"),
            ("string", "a\"\n\u{0}b", "a\"\nb"),
            ("binary", "AP8=", "\\x00ff"),
            ("date", "1969-12-31", "1969-12-31"),
            ("timestamp", "1970-01-01T00:00:01.500Z", "1970-01-01 00:00:01.500+00"),
            ("timestamp", "2026-08-01T10:00:00Z", "2026-08-01 10:00:00+00"),
            ("date", "+10000-01-01", "10000-01-01"),
            ("date", "-0043-03-15", "0044-03-15 BC"),
            ("timestamp", "+10000-01-01T00:00:00Z", "10000-01-01 00:00:00+00"),
            ("timestamp", "0000-12-31T23:59:59Z", "0001-12-31 23:59:59+00 BC"),
            ("list of string", "[a, b]", "[a, b]"),
        ] {
            assert_eq!(shown(word, plain), expected, "{word}");
        }
    }

    #[test]
    fn values_in_binary_form_are_those_of_postgresql() {
        let binary = |word: &str, plain: &str| in_binary(Kind::of(word), plain).unwrap();
        assert_eq!(binary("bool", "true"), [1]);
        assert_eq!(binary("int64", "-2"), (-2_i64).to_be_bytes());
        assert_eq!(binary("float64", "0.5"), 0.5_f64.to_be_bytes());
        assert_eq!(binary("date", "1999-12-31"), (-1_i32).to_be_bytes());
        assert_eq!(binary("timestamp", "2000-01-01T00:00:01.5Z"), 1_500_000_i64.to_be_bytes());
        assert_eq!(binary("timestamp", "+10000-01-01T00:00:00Z"), 252_455_616_000_000_000_i64.to_be_bytes());
        assert_eq!(binary("binary", "AP8="), [0, 0xff]);
        assert_eq!(in_binary(Kind::Int8, "x"), None);
    }

    #[test]
    fn numbers_are_cut_into_groups_of_four_digits() {
        let groups = |plain: &str| {
            let bytes = numeric(plain).unwrap();
            bytes.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>()
        };
        assert_eq!(groups("12345.678"), [3, 1, 0, 3, 1, 2345, 6780]);
        assert_eq!(groups("-0.05"), [1, -1, 0x4000, 2, 500]);
        assert_eq!(groups("0.00"), [0, 0, 0, 2]);
        assert_eq!(groups("10000"), [1, 1, 0, 0, 1]);
        assert_eq!(groups("0.00001"), [1, -2, 0, 5, 1000]);
        for bad in ["", "-", "1e3", "NaN", ".5"] {
            assert_eq!(numeric(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_row_is_written_with_the_length_of_each_value_and_nulls() {
        let columns = ["int64", "string"].map(|word| Column { name: word.to_owned(), kind: Kind::of(word) });
        let row = RawValue::from_string("[null,\"x\"]".to_owned()).unwrap();
        let mut out = BytesMut::new();
        put_row(&mut out, &columns, &row, &Formats::default()).unwrap();
        assert_eq!(&out[..], b"D\0\0\0\x0f\0\x02\xff\xff\xff\xff\0\0\0\x01x");
        let mut out = BytesMut::new();
        put_columns(&mut out, &columns[..1], &Formats(vec![true]));
        let expected = b"T\0\0\0\x1e\0\x01int64\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\x01";
        assert_eq!(&out[..], expected);
    }

    #[test]
    fn decimals_tell_their_digits() {
        assert_eq!(Kind::of("decimal(18,2)").modifier(), ((18 << 16) | 2) + 4);
        assert_eq!(Kind::of("decimal(38,-2)"), Kind::Numeric(None));
        assert_eq!(Kind::of("uint64").modifier(), -1);
    }
}
