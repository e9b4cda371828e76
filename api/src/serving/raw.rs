//! [`Raw`]: a query parameter that is documented with its kind and arrives as the text that was sent.
//!
//! The framework stops at the first parameter that it cannot read. Reading the text ourselves
//! ([`params`](super::params)) names every problem of a request at once, each with what was expected and found.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref};

use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseFromParameter, ParseResult, Type},
};
use serde_json::Value;

/// What a parameter means, for the OpenAPI document.
pub trait Kind: Send + Sync + 'static {
    const NAME: &'static str;
    fn schema() -> MetaSchema;
}

/// The text of a parameter of kind `K`.
pub struct Raw<K>(pub String, PhantomData<K>);

impl<K> Deref for Raw<K> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<K> fmt::Debug for Raw<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Kind> Type for Raw<K> {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        K::NAME.into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(K::schema()))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl<K: Kind> ParseFromParameter for Raw<K> {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self(value.to_owned(), PhantomData))
    }
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident: $ty:literal, $example:expr, |$schema:ident| $refine:expr;)+) => {$(
        $(#[$meta])*
        pub struct $name;

        impl Kind for $name {
            const NAME: &'static str = stringify!($name);

            fn schema() -> MetaSchema {
                let mut $schema = MetaSchema::new($ty);
                $schema.example = Some($example);
                $refine;
                $schema
            }
        }
    )+};
}

fn items(words: &[&str]) -> Vec<Value> {
    words.iter().map(|word| Value::from(*word)).collect()
}

kinds! {
    /// A date.
    DateText: "string", "2026-01-31".into(), |schema| schema.format = Some("date");
    /// An IANA time zone.
    ZoneText: "string", "Europe/Berlin".into(), |schema| schema.default = Some("UTC".into());
    /// A name, taken as it is.
    NameText: "string", "billing".into(), |schema| schema.max_length = Some(super::params::MAX_VALUE_CHARS);
    /// The id of a user.
    UserText: "string", "0197b3a2-5c1e-7d40-8a77-2f6f0c1f9d11".into(),
        |schema| schema.max_length = Some(super::params::MAX_VALUE_CHARS);
    /// What buckets are split by.
    GroupText: "string", "source".into(), |schema| schema.enum_items = items(&["source", "job", "none"]);
    /// The length of a bucket.
    GrainText: "string", "day".into(),
        |schema| schema.enum_items = items(&["hour", "day", "week", "month", "quarter", "year"]);
    /// The first day of a week.
    WeekText: "string", "monday".into(), |schema| schema.enum_items = items(&["monday", "sunday"]);
    /// Only runs without a parent.
    ParentText: "string", "none".into(), |schema| schema.enum_items = items(&["none"]);
    /// The status of a run.
    StatusText: "string", "failed".into(),
        |schema| schema.enum_items = items(&["completed", "failed", "aborted", "running"]);
    /// Yes or no.
    FlagText: "boolean", true.into(), |schema| schema.default = Some(false.into());
    /// The form of a file.
    FormatText: "string", "csv".into(), |schema| {
        schema.enum_items = items(&["csv", "ndjson", "parquet", "arrow", "xlsx"]);
        schema.default = Some("csv".into());
    };
    /// Rows of a page.
    LimitText: "integer", 100.into(), |schema| {
        schema.minimum = Some(1.0);
        schema.maximum = Some(f64::from(super::params::MAX_LIMIT));
    };
    /// Columns of the answer.
    ColumnsText: "string", "source,runs".into(),
        |schema| schema.max_length = Some(super::params::MAX_VALUE_CHARS);
    /// What rows are ordered by.
    OrderText: "string", "-bucket_start,source".into(),
        |schema| schema.max_length = Some(super::params::MAX_VALUE_CHARS);
    /// A version of a table.
    VersionText: "integer", 41.into(), |schema| schema.minimum = Some(0.0);
    /// The form of a chart.
    ChartText: "string", "line".into(), |schema| schema.enum_items = items(&["line", "bar", "pie"]);
    /// Whose figures a chart shows.
    FiguresText: "string", "runs".into(), |schema| {
        schema.enum_items = items(&["runs", "profits"]);
        schema.default = Some("runs".into());
    };
    /// A ticket, which works once.
    TicketText: "string", "from `POST /auth/ws-ticket`".into(),
        |schema| schema.max_length = Some(super::params::MAX_VALUE_CHARS);
    /// The id of an event.
    EventIdText: "string", "412".into(), |schema| schema.pattern = Some("^[0-9]+([.][0-9]+)?$".into());
    /// A year.
    YearText: "integer", 2026.into(), |schema| {
        schema.minimum = Some(1.0);
        schema.maximum = Some(9_999.0);
    };
    /// The number of a page.
    PageText: "integer", 1.into(), |schema| {
        schema.minimum = Some(1.0);
        schema.maximum = Some(f64::from(super::params::MAX_PAGE));
        schema.default = Some(1.into());
    };
    /// Rows of a numbered page.
    SizeText: "integer", 50.into(), |schema| {
        schema.minimum = Some(1.0);
        schema.maximum = Some(f64::from(super::params::MAX_SIZE));
    };
    /// Where the next page begins.
    CursorText: "string", "eyJlcG9jaCI6NDEyfQ".into(), |schema| {
        schema.max_length = Some(super::cursor::MAX_CURSOR_CHARS);
        schema.pattern = Some("^[A-Za-z0-9_-]+$".into());
    };
}
