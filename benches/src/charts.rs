//! The charts that the server pushes over WebSockets, and whether what it pushed is one.

use chrono::{DateTime, Utc};
use clap::ValueEnum;
use serde::Deserialize;

use crate::{Error, Result};

/// A chart to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chart {
    pub form: Form,
    pub figures: Figures,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Line,
    Bar,
    Pie,
}

/// Whose figures a chart shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Figures {
    Runs,
    Profits,
}

/// What a right message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    pub at: DateTime<Utc>,
    pub epoch: u64,
}

/// The 20 largest have a bar, or a slice, of their own, and the others one together.
const MOST_PARTS: usize = 21;
const DAYS: usize = 30;
const MONTHS: usize = 12;
/// A refusal shows so much of what was pushed.
const SHOWN_CHARACTERS: usize = 300;

#[derive(Deserialize)]
struct Message {
    timestamp: DateTime<Utc>,
    chart_type: String,
    source: String,
    epoch: u64,
    #[serde(rename = "as_of")]
    _as_of: Option<DateTime<Utc>>,
    #[serde(rename = "data_state")]
    _data_state: DataState,
    series: Option<Vec<Series>>,
    slices: Option<Vec<Slice>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum DataState {
    Complete,
    Partial,
    Late,
}

#[derive(Deserialize)]
struct Series {
    name: String,
    points: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    x: String,
    #[serde(rename = "y")]
    _y: f64,
}

#[derive(Deserialize)]
struct Slice {
    name: String,
    #[serde(rename = "value")]
    _value: f64,
}

impl Chart {
    /// Every form of each of `figures`.
    pub fn all(figures: &[Figures]) -> Vec<Self> {
        let forms = [Form::Line, Form::Bar, Form::Pie];
        figures.iter().flat_map(|figures| forms.map(|form| Self { form, figures: *figures })).collect()
    }

    /// Path and query, where it is watched.
    pub fn path(self) -> String {
        format!("/api/v1/charts/{}?source={}", self.form.name(), self.figures.name())
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Error::WrongResult`] with the message when it is not what this chart pushes.
    pub fn check(self, text: &str) -> Result<Pushed> {
        let wrong = |problem: String| {
            let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
            Error::WrongResult(format!("`{}` pushed what is no such chart, {problem}: {shown}", self.path()))
        };
        let message: Message = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match self.problem(&message) {
            Some(problem) => Err(wrong(problem.to_owned())),
            None => Ok(Pushed { at: message.timestamp, epoch: message.epoch }),
        }
    }

    fn problem(self, message: &Message) -> Option<&'static str> {
        if message.chart_type != self.form.name() || message.source != self.figures.name() {
            return Some("it is of another chart");
        }
        match (&message.series, &message.slices, self.form) {
            (Some(series), None, Form::Line | Form::Bar) => self.problem_of_series(series),
            (None, Some(slices), Form::Pie) => self.problem_of_slices(slices),
            _ => Some("a line and a bar have `series`, a pie has `slices`, and none has both"),
        }
    }

    fn problem_of_series(self, series: &[Series]) -> Option<&'static str> {
        let expected: &[&str] = match (self.form, self.figures) {
            (_, Figures::Profits) => &["profit"],
            (Form::Line, Figures::Runs) => &["runs", "completed", "failed"],
            (_, Figures::Runs) => &["completed", "failed"],
        };
        if !series.iter().map(|one| one.name.as_str()).eq(expected.iter().copied()) {
            return Some("its series have other names");
        }
        let is_right = |points: usize| match (self.form, self.figures) {
            (Form::Line, Figures::Runs) => points == DAYS,
            (Form::Line, Figures::Profits) => points == MONTHS,
            _ => points <= MOST_PARTS,
        };
        if !series.iter().all(|one| is_right(one.points.len())) {
            return Some("it has too few points, or too many");
        }
        let first = series.first()?;
        let is_along =
            |one: &Series| one.points.iter().map(|point| &point.x).eq(first.points.iter().map(|point| &point.x));
        (!series.iter().all(is_along)).then_some("its series are not over the same points")
    }

    fn problem_of_slices(self, slices: &[Slice]) -> Option<&'static str> {
        let is_right = match self.figures {
            Figures::Runs => {
                slices.iter().map(|slice| slice.name.as_str()).eq(["completed", "failed", "aborted", "running"])
            }
            Figures::Profits => slices.len() <= MOST_PARTS,
        };
        (!is_right).then_some("it has other slices")
    }
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Bar => "bar",
            Self::Pie => "pie",
        }
    }
}

impl Figures {
    pub fn name(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Profits => "profits",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message(chart: Chart, key: &str, figures: Value) -> String {
        let mut message = json!({
            "timestamp": "2026-01-31T22:00:42.310Z", "chart_type": chart.form.name(), "source": chart.figures.name(),
            "epoch": 412, "as_of": null, "data_state": "complete",
        });
        message[key] = figures;
        message.to_string()
    }

    fn series(names: &[&str], points: usize) -> Value {
        let points: Vec<Value> = (0..points).map(|x| json!({"x": x.to_string(), "y": 31})).collect();
        names.iter().map(|name| json!({"name": name, "points": points})).collect()
    }

    /// What the chart may push.
    fn right(chart: Chart) -> (&'static str, Value) {
        match (chart.form, chart.figures) {
            (Form::Line, Figures::Runs) => ("series", series(&["runs", "completed", "failed"], DAYS)),
            (Form::Bar, Figures::Runs) => ("series", series(&["completed", "failed"], MOST_PARTS)),
            (Form::Line, Figures::Profits) => ("series", series(&["profit"], MONTHS)),
            (Form::Bar, Figures::Profits) => ("series", series(&["profit"], 0)),
            (Form::Pie, Figures::Runs) => {
                let slice = |name: &str| json!({"name": name, "value": 7});
                ("slices", ["completed", "failed", "aborted", "running"].map(slice).into_iter().collect())
            }
            (Form::Pie, Figures::Profits) => ("slices", json!([{"name": "a", "value": 12.05}])),
        }
    }

    #[test]
    fn each_chart_is_right_as_what_it_is_and_as_no_other() {
        let charts = Chart::all(&[Figures::Runs, Figures::Profits]);
        assert_eq!(charts.len(), 6);
        for chart in &charts {
            let (key, figures) = right(*chart);
            let text = message(*chart, key, figures);
            assert_eq!(chart.check(&text).unwrap().epoch, 412, "{text}");
            for other in charts.iter().filter(|other| *other != chart) {
                assert!(matches!(other.check(&text), Err(Error::WrongResult(_))), "{text}");
            }
        }
    }

    #[test]
    fn a_message_that_is_wrong_in_one_place_is_refused_and_shown() {
        let line = Chart { form: Form::Line, figures: Figures::Runs };
        let pie = Chart { form: Form::Pie, figures: Figures::Runs };
        let names = ["runs", "completed", "failed"];
        let mut shifted = series(&names, DAYS);
        shifted[1]["points"][3]["x"] = json!("another day");
        let mut without_value = series(&names, DAYS);
        without_value[2]["points"][0]["y"] = Value::Null;
        for text in [
            message(line, "series", series(&names, DAYS - 1)),
            message(line, "series", series(&names[..2], DAYS)),
            message(line, "series", shifted),
            message(line, "series", without_value),
            message(line, "slices", right(pie).1),
            json!({"timestamp": "2026-01-31T22:00:42.310Z", "error": "validation_error", "message": "no"}).to_string(),
            "no JSON".to_owned(),
        ] {
            let shown = line.check(&text).unwrap_err().to_string();
            assert!(shown.contains("/api/v1/charts/line?source=runs") && shown.contains(&text[..7]), "{shown}");
        }
        assert!(pie.check(&message(pie, "slices", json!([{"name": "completed", "value": 1}]))).is_err());
    }
}
