//! Reads query parameters strictly: every problem of a request is one line that names the parameter, what was expected
//! and what was found; a parameter that the operation does not know is refused, since ignoring it would answer another
//! question than the one asked.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use chrono::{Datelike, NaiveDate};
use chrono_tz::Tz;
use karat_http::ApiError;
use poem::Request;
use url::form_urlencoded;

/// Rows of a page when the request does not say.
pub const DEFAULT_LIMIT: u32 = 1_000;
/// The most rows of a page.
pub const MAX_LIMIT: u32 = 10_000;
/// Rows of a numbered page when the request does not say.
pub const DEFAULT_SIZE: u32 = 50;
/// The most rows of a numbered page.
pub const MAX_SIZE: u32 = 1_000;
/// No number of a page is larger.
pub const MAX_PAGE: u32 = 1_000_000;
/// A numbered page ends within so many rows: those before it are sorted for it, each time. Cursors go on for as long as there are rows.
pub const MAX_PAGED_ROWS: u64 = 100_000;
/// Longer values are no names, and would be echoed.
pub const MAX_VALUE_CHARS: usize = 500;
/// Holds names, so it is longer than they are; whoever reads cursors has its own bound.
const CURSOR: &str = "cursor";

/// Collects what is wrong with the parameters of one request.
#[derive(Debug, Default)]
pub struct Params {
    problems: Vec<String>,
}

impl Params {
    /// Begins with the parameters that are unknown, repeated or too long.
    pub fn of(request: &Request, known: &[&str]) -> Self {
        let mut params = Self::default();
        let query = request.uri().query().unwrap_or_default();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*name) {
                params.add(&short(&name), &format!("one of {}", quoted(known)), "an unknown parameter");
            } else if seen.contains(&name) {
                params.add(&name, "it once", "it again");
            } else if name != CURSOR && value.chars().count() > MAX_VALUE_CHARS {
                params.add(&name, &format!("at most {MAX_VALUE_CHARS} characters"), "more");
            }
            seen.push(name);
        }
        params
    }

    /// Notes a problem.
    pub fn add(&mut self, name: &str, expected: &str, found: &str) {
        self.problems.push(format!("`{name}`: expected {expected}, found {found}"));
    }

    /// Ends with a 422 that has every problem.
    ///
    /// # Errors
    /// When there is one.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::validation(self.problems)) }
    }

    /// A calendar date such as `2026-01-31`.
    pub fn date(&mut self, name: &str, text: Option<&str>) -> Option<NaiveDate> {
        let text = text?;
        // Years beyond these have no data, and would make ranges of millions of days.
        let parsed =
            NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|date| (1970..=2199).contains(&date.year()));
        let date = parsed.filter(|_| text.len() == "2026-01-31".len());
        if date.is_none() {
            self.add(name, "a date like `2026-01-31` from 1970 to 2199", &found(text));
        }
        date
    }

    /// An IANA time zone; UTC when absent.
    pub fn zone(&mut self, name: &str, text: Option<&str>) -> Tz {
        let Some(text) = text else { return Tz::UTC };
        text.parse().unwrap_or_else(|_| {
            self.add(name, "an IANA time zone like `Europe/Berlin`", &found(text));
            Tz::UTC
        })
    }

    /// Rows of a page.
    pub fn limit(&mut self, text: Option<&str>) -> usize {
        self.number("limit", text, 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT) as usize
    }

    /// A whole number of a range, in digits alone.
    pub fn number<N>(&mut self, name: &str, text: Option<&str>, range: RangeInclusive<N>) -> Option<N>
    where
        N: FromStr + PartialOrd + Display,
    {
        let text = text?;
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = text.parse::<N>().ok().filter(|number| is_digits && range.contains(number));
        if parsed.is_none() {
            self.add(name, &format!("a whole number from {} to {}", range.start(), range.end()), &found(text));
        }
        parsed
    }

    /// Notes a numbered page that ends behind [`MAX_PAGED_ROWS`]; `instead` is what to do for rows behind them.
    pub fn within_reach(&mut self, page: u32, size: u32, instead: &str) {
        if u64::from(page) * u64::from(size) > MAX_PAGED_ROWS {
            let expected = format!("a page within the first {MAX_PAGED_ROWS} rows (for others, {instead})");
            self.add("page", &expected, &format!("page {page} of {size} rows each"));
        }
    }

    /// `true` or `false`; false when absent.
    pub fn flag(&mut self, name: &str, text: Option<&str>) -> bool {
        self.choice(name, text, &[("true", true), ("false", false)]).unwrap_or(false)
    }

    /// One of some words.
    pub fn choice<T: Copy>(&mut self, name: &str, text: Option<&str>, choices: &[(&str, T)]) -> Option<T> {
        let text = text?;
        let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let expected = if words.len() == 1 { quoted(&words) } else { format!("one of {}", quoted(&words)) };
            self.add(name, &expected, &found(text));
        }
        chosen
    }

    /// Notes when a range ends before it begins.
    pub fn in_order(&mut self, from: Option<NaiveDate>, to: Option<NaiveDate>) {
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            self.add("to", &format!("a date not before `from` (`{from}`)"), &format!("`{to}`"));
        }
    }
}

/// What was found, in words.
pub(crate) fn found(text: &str) -> String {
    if text.is_empty() { "an empty value".to_owned() } else { format!("`{}`", short(text)) }
}

/// The beginning of a value without characters that could forge a line.
pub(crate) fn short(text: &str) -> String {
    let kept: String = text.chars().take(60).map(|c| if c.is_control() || c == '`' { '?' } else { c }).collect();
    if kept.len() < text.len() && text.chars().count() > 60 { format!("{kept}...") } else { kept }
}

pub(crate) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(query: &str, read: impl FnOnce(&mut Params)) -> Vec<String> {
        let request = Request::builder().uri_str(format!("/x?{query}")).finish();
        let mut params = Params::of(&request, &["from", "to", "limit"]);
        read(&mut params);
        params.problems
    }

    #[test]
    fn every_problem_names_the_parameter_what_was_expected_and_what_was_found() {
        let found = problems("form=1&to=2&to=3", |params| {
            params.date("from", Some("31/01/2026"));
            params.zone("tz", Some("Mars/Olympus"));
            params.limit(Some("0"));
            params.number("as_of_version", Some("+1"), 0..=41_u64);
            params.choice("group_by", Some("user"), &[("source", 1), ("job", 2)]);
            params.flag("fill", Some("yes"));
            params.in_order("2026-02-01".parse().ok(), "2026-01-01".parse().ok());
        });
        assert_eq!(
            found,
            [
                "`form`: expected one of `from`, `to`, `limit`, found an unknown parameter",
                "`to`: expected it once, found it again",
                "`from`: expected a date like `2026-01-31` from 1970 to 2199, found `31/01/2026`",
                "`tz`: expected an IANA time zone like `Europe/Berlin`, found `Mars/Olympus`",
                "`limit`: expected a whole number from 1 to 10000, found `0`",
                "`as_of_version`: expected a whole number from 0 to 41, found `+1`",
                "`group_by`: expected one of `source`, `job`, found `user`",
                "`fill`: expected one of `true`, `false`, found `yes`",
                "`to`: expected a date not before `from` (`2026-02-01`), found `2026-01-01`",
            ]
        );
    }

    #[test]
    fn a_numbered_page_is_refused_that_so_many_rows_would_be_sorted_for() {
        for (page, size, is_refused) in
            [(1, 1_000, false), (100, 1_000, false), (101, 1_000, true), (MAX_PAGE, 1, true)]
        {
            let mut params = Params::default();
            params.within_reach(page, size, "ask otherwise");
            assert_eq!(!params.problems.is_empty(), is_refused, "{page} {size}");
        }
        let found = problems("", |params| params.within_reach(u32::MAX, u32::MAX, "ask otherwise"));
        let line = "`page`: expected a page within the first 100000 rows (for others, ask otherwise), found page 4294967295 \
                    of 4294967295 rows each";
        assert_eq!(found, [line]);
    }

    #[test]
    fn odd_dates_are_refused() {
        for text in ["", "2026-1-31", "2026-02-30", "+2026-01-31", "2026-01-31T00:00:00Z", "0001-01-01", "9999-01-01"] {
            let mut params = Params::default();
            assert_eq!(params.date("from", Some(text)), None, "{text}");
            assert_eq!(params.problems.len(), 1);
        }
    }
}
