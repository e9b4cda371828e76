//! The form of what charts show, and what they show of runs: figures of those that started on the last 30 UTC days, today
//! included, from the epoch that is served. Those of profits are in `profit_data`.
//!
//! - *line*: runs, completed and failed of each day.
//! - *bar*: completed and failed of each source: the 20 with most runs, and `other` for what the rest comes to.
//! - *pie*: runs by status.
//!
//! All three are folds that the summary routes have too, of what the caller may see.

use std::borrow::Cow;

use chrono::{DateTime, Days, NaiveDate};
use chrono_tz::Tz;
use serde::{Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

use crate::{
    snapshot::{DAY_US, SummaryState},
    summary::{
        Cell, Figures, GroupBy, Selection, Stopped, Visible, Work,
        calendar::{Grain, Span, spans},
        fold,
    },
};

const DAYS: u64 = 30;
/// What has a bar of its own; what comes behind is one together, with this name.
pub(super) const MOST_BARS: usize = 20;
pub(super) const OTHER: &str = "other";

/// The form of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Line,
    Bar,
    Pie,
}

/// Whose figures a chart shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Source {
    #[default]
    Runs,
    Profits,
}

/// The words for each form and each source, as requests have them.
pub(super) const FORMS: [(&str, Form); 3] = [("line", Form::Line), ("bar", Form::Bar), ("pie", Form::Pie)];
pub(super) const SOURCES: [(&str, Source); 2] = [("runs", Source::Runs), ("profits", Source::Profits)];

/// The figures of a chart.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Drawn {
    Series(Vec<Series>),
    Slices(Vec<Slice>),
}

/// One line, or the bars of one colour.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) points: Vec<Point>,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Point {
    /// A date, a month, or the name of a source or a company.
    pub(super) x: String,
    pub(super) y: Number,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Slice {
    pub(super) name: Cow<'static, str>,
    pub(super) value: Number,
}

/// A figure, which is written as a JSON number with every digit.
#[derive(Debug, PartialEq)]
pub(super) enum Number {
    Count(i64),
    /// In digits: there are more than a float holds.
    Amount(String),
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_i64(*count),
            Self::Amount(digits) => {
                RawValue::from_string(digits.clone()).map_err(S::Error::custom)?.serialize(serializer)
            }
        }
    }
}

impl Form {
    pub(super) fn name(self) -> &'static str {
        FORMS.iter().find(|(_, form)| *form == self).map_or("", |(name, _)| *name)
    }
}

impl Source {
    pub(super) fn name(self) -> &'static str {
        SOURCES.iter().find(|(_, source)| *source == self).map_or("", |(name, _)| *name)
    }
}

/// Draws a chart of the runs that `visible` lets see. `today` is counted in days since 1970.
///
/// # Errors
/// When `work` is stopped, or has not the memory for it.
pub(super) fn draw(
    form: Form,
    state: &SummaryState,
    visible: Visible,
    today: i64,
    work: &Work,
) -> Result<Drawn, Stopped> {
    let to = date_of(today);
    let from = to.checked_sub_days(Days::new(DAYS - 1)).unwrap_or(to);
    match form {
        Form::Line => {
            let selection = selection(spans(Tz::UTC, from, to, Grain::Day), GroupBy::Nothing, true, visible);
            Ok(Drawn::Series(line(&selection.spans, &fold(state, &selection, work)?.cells)))
        }
        Form::Bar => {
            let selection = selection(whole(from, to), GroupBy::Source, false, visible);
            Ok(Drawn::Series(bars(fold(state, &selection, work)?.cells)))
        }
        Form::Pie => {
            let selection = selection(whole(from, to), GroupBy::Nothing, false, visible);
            Ok(Drawn::Slices(slices(&fold(state, &selection, work)?.totals)))
        }
    }
}

/// The date of a day that is counted from 1970.
pub(super) fn date_of(day: i64) -> NaiveDate {
    DateTime::from_timestamp_micros(day.saturating_mul(DAY_US)).unwrap_or_default().date_naive()
}

fn selection(spans: Vec<Span>, group_by: GroupBy, fill: bool, visible: Visible) -> Selection {
    Selection { spans, source: None, job: None, top_level_only: false, group_by, fill, visible, page: 0..usize::MAX }
}

/// The whole range as one bucket.
fn whole(from: NaiveDate, to: NaiveDate) -> Vec<Span> {
    let days = spans(Tz::UTC, from, to, Grain::Day);
    let (Some(first), Some(last)) = (days.first(), days.last()) else { return days };
    vec![Span { first: from, start_us: first.start_us, end_us: last.end_us, from_us: first.from_us, to_us: last.to_us }]
}

fn line(spans: &[Span], cells: &[Cell]) -> Vec<Series> {
    let series = |name, value: fn(&Figures) -> i64| Series {
        name,
        points: cells
            .iter()
            .map(|cell| Point { x: spans[cell.span].first.to_string(), y: Number::Count(value(&cell.figures)) })
            .collect(),
    };
    vec![
        series("runs", |figures| figures.runs),
        series("completed", |figures| figures.completed),
        series("failed", |figures| figures.failed),
    ]
}

fn bars(mut cells: Vec<Cell>) -> Vec<Series> {
    cells.sort_by(|left, right| (right.figures.runs, &left.source).cmp(&(left.figures.runs, &right.source)));
    let (shown, rest) = cells.split_at(cells.len().min(MOST_BARS));
    let series = |name, value: fn(&Figures) -> i64| {
        let named = shown.iter().map(|cell| (cell.source.clone().unwrap_or_default(), value(&cell.figures)));
        let other = (!rest.is_empty())
            .then(|| (OTHER.to_owned(), rest.iter().map(|cell| value(&cell.figures)).fold(0, i64::saturating_add)));
        Series { name, points: named.chain(other).map(|(x, y)| Point { x, y: Number::Count(y) }).collect() }
    };
    vec![series("completed", |figures| figures.completed), series("failed", |figures| figures.failed)]
}

fn slices(totals: &Figures) -> Vec<Slice> {
    let slice = |name, value| Slice { name: Cow::Borrowed(name), value: Number::Count(value) };
    vec![
        slice("completed", totals.completed),
        slice("failed", totals.failed),
        slice("aborted", totals.aborted),
        slice("running", totals.running),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(source: &str, runs: i64) -> Cell {
        let figures = Figures { runs, completed: runs - 1, failed: 1, ..Figures::default() };
        Cell { span: 0, source: Some(source.to_owned()), job: None, figures }
    }

    #[test]
    fn a_line_has_a_point_for_each_of_the_last_days_also_without_runs() {
        let drawn = draw(Form::Line, &SummaryState::default(), Visible::All, 20_000, &Work::unbounded());
        let Drawn::Series(series) = drawn.unwrap() else { panic!("a line has series") };
        assert_eq!(series.iter().map(|one| one.name).collect::<Vec<_>>(), ["runs", "completed", "failed"]);
        for one in &series {
            assert_eq!(one.points.len(), 30);
            assert_eq!((one.points[29].x.as_str(), &one.points[29].y), ("2024-10-04", &Number::Count(0)));
        }
    }

    #[test]
    fn the_sources_with_most_runs_have_bars_and_the_rest_is_one() {
        let cells = (0..25).map(|number| cell(&format!("source {number:02}"), 100 - number)).collect();
        let series = bars(cells);
        assert_eq!((series[0].points.len(), series[1].points.len()), (21, 21));
        assert_eq!((series[0].points[0].x.as_str(), &series[0].points[0].y), ("source 00", &Number::Count(99)));
        assert_eq!((series[1].points[20].x.as_str(), &series[1].points[20].y), ("other", &Number::Count(5)));
        assert_eq!(bars(vec![cell("one", 2)])[0].points.len(), 1, "there is no rest");
    }

    #[test]
    fn an_amount_is_a_number_with_every_digit() {
        let large = format!("-{}.05", "9".repeat(36));
        let slices = vec![
            Slice { name: "a".into(), value: Number::Amount(large.clone()) },
            Slice { name: "b".into(), value: Number::Count(i64::MAX) },
        ];
        let written = serde_json::to_string(&Drawn::Slices(slices)).unwrap();
        let rest = "{\"name\":\"b\",\"value\":9223372036854775807}";
        assert_eq!(written, format!("{{\"slices\":[{{\"name\":\"a\",\"value\":{large}}},{rest}]}}"));
    }
}
