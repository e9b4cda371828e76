//! `[[pipeline.endpoint]]`: a documented route that answers SQL over the gold tables of its pipeline (spec V9).
//!
//! What a request gives is read here, by type and bounds, into a [`ParameterValue`]; SQL only ever meets such a value.

use std::fmt;

use chrono::{DateTime, NaiveDate, Timelike};
use serde::Deserialize;

/// A declared route, `GET /data/<name>`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub name: String,
    /// For the reference.
    #[serde(default)]
    pub description: String,
    /// One `SELECT` over the gold tables of the pipeline, with `:name` for parameters.
    pub sql: String,
    #[serde(default)]
    pub rows: Rows,
    /// Who may ask for everybody's rows.
    #[serde(default)]
    pub roles: Vec<String>,
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// The order of the answer; columns that are not named follow, so that no two different rows are equal in it.
    #[serde(default)]
    pub order: Vec<Order>,
    /// Name of the pipeline that it belongs to.
    #[serde(skip)]
    pub pipeline: String,
    #[serde(skip)]
    pub line: usize,
}

/// Whose rows an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// The caller's: each table is read under `user_id = :caller`.
    #[default]
    Own,
    /// Everybody's, for the roles that are named.
    All,
}

/// A column of the order, such as `failed desc`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Order {
    pub column: String,
    pub is_descending: bool,
}

impl TryFrom<String> for Order {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (column, is_descending) = match words[..] {
            [column] | [column, "asc"] => (column, false),
            [column, "desc"] => (column, true),
            _ => return Err(format!("`{text}` is no order: expected a column, and `asc` or `desc` behind it")),
        };
        Ok(Self { column: column.to_owned(), is_descending })
    }
}

/// A parameter of the query string.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    pub name: String,
    #[serde(rename = "type")]
    pub parameter_type: ParameterType,
    /// For the reference.
    #[serde(default)]
    pub description: String,
    /// A request without it is refused.
    #[serde(default)]
    pub required: bool,
    /// Its value in a request without it; NULL when there is none.
    pub default: Option<Written>,
    pub min: Option<Written>,
    pub max: Option<Written>,
    /// The only values that are taken.
    #[serde(default)]
    pub values: Vec<Written>,
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParameterType {
    Text,
    /// A whole number of 64 bits.
    Int,
    /// At most 28 digits before the point and [`DECIMAL_SCALE`] behind it.
    Decimal,
    /// `YYYY-MM-DD`.
    Date,
    /// RFC 3339, at most microseconds.
    Timestamp,
    Bool,
}

/// A value in the file, as it would stand in a query string: text, a whole number, `true` or `false`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Plain")]
pub struct Written(pub String);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a value is text, a whole number, `true` or `false`; a decimal or a time is written as text"
)]
enum Plain {
    Bool(bool),
    Int(i64),
    Text(String),
}

impl From<Plain> for Written {
    fn from(plain: Plain) -> Self {
        Self(match plain {
            Plain::Bool(value) => value.to_string(),
            Plain::Int(value) => value.to_string(),
            Plain::Text(text) => text,
        })
    }
}

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
pub enum ParameterValue {
    Text(String),
    Int(i64),
    /// In units of the last of [`DECIMAL_SCALE`] digits.
    Decimal(i128),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970 UTC.
    Timestamp(i64),
    Bool(bool),
}

/// Digits behind the point of a decimal.
pub const DECIMAL_SCALE: i8 = 10;
const DECIMAL_WHOLE_DIGITS: usize = 28;
/// Longer texts are no names.
pub const MAX_TEXT_CHARS: usize = 500;

/// Routes that are there in any case, below the prefix of the endpoints.
const RESERVED_NAMES: [&str; 2] = ["upload", "uploads"];

/// What a query string or SQL has under another meaning.
const RESERVED: [&str; 5] = ["caller", "as_of", "limit", "cursor", "format"];

impl ParameterType {
    /// The value that `text` writes; none when it writes none of this type.
    pub fn read(self, text: &str) -> Option<ParameterValue> {
        Some(match self {
            Self::Text => {
                let is_short = text.chars().count() <= MAX_TEXT_CHARS;
                ParameterValue::Text(is_short.then(|| text.to_owned())?)
            }
            Self::Int if text.starts_with('+') => return None,
            Self::Int => ParameterValue::Int(text.parse().ok()?),
            Self::Decimal => ParameterValue::Decimal(decimal(text)?),
            Self::Date => {
                let is_plain = text.len() == "2026-01-31".len() && text.starts_with(|c: char| c.is_ascii_digit());
                let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| is_plain)?;
                ParameterValue::Date(i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()?)
            }
            Self::Timestamp => {
                let time = DateTime::parse_from_rfc3339(text).ok().filter(|time| time.nanosecond() % 1_000 == 0)?;
                ParameterValue::Timestamp(time.timestamp_micros())
            }
            Self::Bool => ParameterValue::Bool(text.parse().ok()?),
        })
    }
}

fn decimal(text: &str) -> Option<i128> {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let width = usize::from(DECIMAL_SCALE.unsigned_abs());
    if !are_digits(whole) || !are_digits(fraction) || whole.len() > DECIMAL_WHOLE_DIGITS || fraction.len() > width {
        return None;
    }
    let value: i128 = format!("{whole}{fraction:0<width$}").parse().ok()?;
    Some(if is_negative { -value } else { value })
}

impl fmt::Display for ParameterType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = DECIMAL_SCALE;
        match self {
            Self::Text => write!(out, "text of at most {MAX_TEXT_CHARS} characters"),
            Self::Int => out.write_str("a whole number"),
            Self::Decimal => write!(out, "a decimal like `-12.50`, with at most {width} digits behind the point"),
            Self::Date => out.write_str("a date like `2026-01-31`"),
            Self::Timestamp => out.write_str("a time like `2026-01-31T12:00:00Z`"),
            Self::Bool => out.write_str("`true` or `false`"),
        }
    }
}

impl Parameter {
    /// The value that `text` writes, when this parameter takes it.
    pub fn read(&self, text: &str) -> Option<ParameterValue> {
        let value = self.parameter_type.read(text)?;
        let bound = |written: &Option<Written>| written.as_ref().and_then(|bound| self.parameter_type.read(&bound.0));
        let is_within =
            bound(&self.min).is_none_or(|min| value >= min) && bound(&self.max).is_none_or(|max| value <= max);
        let is_listed = |listed: &Written| self.parameter_type.read(&listed.0).as_ref() == Some(&value);
        let is_taken = is_within && (self.values.is_empty() || self.values.iter().any(is_listed));
        is_taken.then_some(value)
    }

    /// What [`Self::read`] takes, in words.
    pub fn expected(&self) -> String {
        if !self.values.is_empty() {
            let values: Vec<String> = self.values.iter().map(|value| format!("`{}`", value.0)).collect();
            return format!("one of {}", values.join(", "));
        }
        let mut words = self.parameter_type.to_string();
        for (bound, word) in [(&self.min, "from"), (&self.max, "to")] {
            if let Some(bound) = bound {
                words.push_str(&format!(" {word} `{}`", bound.0));
            }
        }
        words
    }

    fn problem(&self) -> Option<String> {
        let kind = self.parameter_type;
        let is_unreadable = |bound: &Option<Written>| bound.as_ref().is_some_and(|bound| kind.read(&bound.0).is_none());
        let has_bounds = self.min.is_some() || self.max.is_some();
        let order = |bound: &Option<Written>| bound.as_ref().and_then(|bound| kind.read(&bound.0));
        if RESERVED.contains(&self.name.as_str()) {
            return Some(format!("has a name with another meaning; taken are `{}`", RESERVED.join("`, `")));
        }
        if self.required && self.default.is_some() {
            return Some("is required and has a default: remove one of them".to_owned());
        }
        for (name, bound) in [("min", &self.min), ("max", &self.max)] {
            if is_unreadable(bound) {
                return Some(format!("has a `{name}` that is not {kind}"));
            }
        }
        if has_bounds && matches!(kind, ParameterType::Text | ParameterType::Bool) {
            return Some("has `min` or `max`, which its type has no use for: list its `values`".to_owned());
        }
        if let (Some(min), Some(max)) = (order(&self.min), order(&self.max))
            && min > max
        {
            return Some("has a `min` above its `max`".to_owned());
        }
        if let Some(value) = self.values.iter().find(|value| kind.read(&value.0).is_none()) {
            return Some(format!("lists the value `{}`, which is not {kind}", value.0));
        }
        let default = self.default.as_ref().filter(|default| self.read(&default.0).is_none())?;
        Some(format!("has the default `{}`: expected {}", default.0, self.expected()))
    }
}

impl Endpoint {
    /// What is wrong with it, as far as that can be said without planning its SQL; names are checked apart.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if RESERVED_NAMES.contains(&self.name.as_str()) {
            problems.push("has the name of another route: give it another one".to_owned());
        }
        match self.rows {
            Rows::All if self.roles.is_empty() => {
                problems.push("has `rows = \"all\"`: name the `roles` that may ask".to_owned())
            }
            Rows::Own if !self.roles.is_empty() => {
                problems
                    .push("has `roles`, which are for `rows = \"all\"`: everybody may ask for the own rows".to_owned());
            }
            _ => {}
        }
        for parameter in &self.parameters {
            problems.extend(parameter.problem().map(|problem| format!("parameter `{}` {problem}", parameter.name)));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(text: &str) -> Parameter {
        toml::from_str(&format!("name = \"p\"\n{text}")).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn values_are_read_exactly_or_not_at_all() {
        use ParameterType::{Bool, Date, Decimal, Int, Text, Timestamp};
        use ParameterValue as V;
        let odd = "' OR 1=1 --";
        for (kind, text, expected) in [
            (Text, odd, Some(V::Text(odd.to_owned()))),
            (Text, "", Some(V::Text(String::new()))),
            (Int, "-7", Some(V::Int(-7))),
            (Int, "9223372036854775807", Some(V::Int(i64::MAX))),
            (Decimal, "0.1", Some(V::Decimal(1_000_000_000))),
            (Decimal, "-12", Some(V::Decimal(-120_000_000_000))),
            (Date, "1970-01-02", Some(V::Date(1))),
            (Timestamp, "1970-01-01T01:00:00+01:00", Some(V::Timestamp(0))),
            (Bool, "true", Some(V::Bool(true))),
            (Int, "9223372036854775808", None),
            (Int, "+1", None),
            (Int, "1 OR 1=1", None),
            (Decimal, "1e3", None),
            (Decimal, ".5", None),
            (Decimal, "0.00000000001", None),
            (Date, "2026-02-30", None),
            (Date, "+2026-1-31", None),
            (Timestamp, "2026-01-31", None),
            (Timestamp, "2026-01-31T00:00:00.1234567Z", None),
            (Bool, "1", None),
        ] {
            assert_eq!(kind.read(text), expected, "{kind:?} {text}");
        }
        let largest = format!("{}.{}", "9".repeat(28), "9".repeat(10));
        assert_eq!(Decimal.read(&largest), Some(V::Decimal(10_i128.pow(38) - 1)));
        assert_eq!(Text.read(&"x".repeat(MAX_TEXT_CHARS + 1)), None);
    }

    #[test]
    fn bounds_and_lists_hold_and_say_what_is_expected() {
        let days = parameter("type = \"int\"\ndefault = 30\nmin = 1\nmax = 365");
        assert_eq!((days.read("365"), days.read("366"), days.read("0")), (Some(ParameterValue::Int(365)), None, None));
        assert_eq!(days.expected(), "a whole number from `1` to `365`");
        let status = parameter("type = \"text\"\nvalues = [\"failed\", \"completed\"]");
        assert_eq!((status.read("failed").is_some(), status.read("FAILED").is_some()), (true, false));
        assert_eq!(status.expected(), "one of `failed`, `completed`");
        assert_eq!([days.problem(), status.problem()], [None, None]);
    }

    #[test]
    fn what_cannot_be_meant_is_a_problem_of_its_parameter() {
        for (text, words) in [
            ("type = \"int\"\ndefault = \"many\"", "default `many`: expected a whole number"),
            ("type = \"int\"\ndefault = 9\nmax = 8", "default `9`"),
            ("type = \"int\"\nmin = 2\nmax = 1", "`min` above its `max`"),
            ("type = \"date\"\nmin = \"yesterday\"", "`min` that is not a date"),
            ("type = \"text\"\nmin = \"a\"", "`min` or `max`"),
            ("type = \"int\"\nvalues = [1, \"two\"]", "the value `two`"),
            ("type = \"int\"\nrequired = true\ndefault = 1", "is required and has a default"),
        ] {
            let problem = parameter(text).problem().unwrap_or_default();
            assert!(problem.contains(words), "{text}: {problem}");
        }
        for name in RESERVED {
            let reserved = Parameter { name: name.to_owned(), ..parameter("type = \"text\"") };
            assert!(reserved.problem().unwrap_or_default().contains("another meaning"), "{name}");
        }
        assert!(toml::from_str::<Parameter>("name = \"p\"\ntype = \"decimal\"\ndefault = 0.1").is_err(), "a float");
    }

    #[test]
    fn an_order_is_a_column_and_a_direction() {
        let order = |text: &str| Order::try_from(text.to_owned()).map(|order| (order.column, order.is_descending));
        assert_eq!(order("failed desc"), Ok(("failed".to_owned(), true)));
        assert_eq!(order("job"), Ok(("job".to_owned(), false)));
        assert!(order("failed downwards").is_err() && order("").is_err());
    }
}
