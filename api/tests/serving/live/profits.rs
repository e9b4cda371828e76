//! Charts of profits: their months, their companies, whose they are, and that they follow their own epochs.

use std::collections::HashMap;

use chrono::{Datelike, Utc};
use karat_access::Role;
use serde_json::{Value, json};

use super::{heard, heard_where, open, say};
use crate::support::{Profit, TestApp, at};

/// A month that lies so many before this one.
fn month(back: i64) -> (i64, i64) {
    let now = Utc::now();
    let at = i64::from(now.year()) * 12 + i64::from(now.month0()) - back;
    (at.div_euclid(12), at.rem_euclid(12) + 1)
}

fn profit(company: &str, (year, month): (i64, i64), cents: i128, user: &str, source: &str) -> Profit {
    Profit {
        company: company.to_owned(),
        year,
        month,
        cents,
        source: source.to_owned(),
        user: Some(user.to_owned()),
        recorded_at_us: at("2026-01-05T09:00:00Z"),
    }
}

async fn chart(app: &TestApp, form: &str, token: &str) -> Value {
    heard(&mut open(app, &format!("/api/v1/charts/{form}?source=profits"), token).await).await
}

/// What a chart shows, as pairs.
fn pairs(list: &Value, name: &str, value: &str) -> Vec<(String, f64)> {
    let pair = |item: &Value| (item[name].as_str().unwrap().to_owned(), item[value].as_f64().unwrap());
    list.as_array().unwrap().iter().map(pair).collect()
}

fn named(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[tokio::test]
async fn charts_of_profits_show_the_last_months_of_what_the_list_of_profits_shows() {
    let granted = HashMap::from([(Role::User, vec!["/shared".to_owned()])]);
    let app = TestApp::start_with(|settings| settings.serving.granted_sources = granted).await;
    let (mine, now, last, first) = (app.user_id.clone(), month(0), month(1), month(11));
    let rows = [
        profit("alder", now, 10, &mine, "/a"),
        profit("alder", last, 20, &mine, "/a"),
        profit("dune", now, -150, "x", "/shared"),
        profit("ember", first, 500, "x", "/a"),
        profit("ember", month(12), 700, "x", "/a"),
    ];
    app.publish_profits(&rows, 5).await;
    let label = |(year, month): (i64, i64)| format!("{year:04}-{month:02}");
    for (token, in_first) in [(&app.admin, 5.0), (&app.user, 0.0)] {
        let line = chart(&app, "line", token).await;
        assert_eq!(
            (&line["chart_type"], &line["source"], &line["epoch"]),
            (&json!("line"), &json!("profits"), &json!(1))
        );
        assert_eq!(line["as_of"], "2026-01-05T09:00:00Z", "{line}");
        assert_eq!(line["series"][0]["name"], "profit", "{line}");
        let points = pairs(&line["series"][0]["points"], "x", "y");
        assert_eq!(points.len(), 12, "{line}");
        assert_eq!((&points[0], &points[10]), (&(label(first), in_first), &(label(last), 0.2)), "{line}");
        assert_eq!(points[11], (label(now), -1.4), "{line}");
    }
    let bars = async |token: &str| pairs(&chart(&app, "bar", token).await["series"][0]["points"], "x", "y");
    assert_eq!(bars(&app.admin).await, named(&[("ember", 5.0), ("alder", 0.3), ("dune", -1.5)]));
    assert_eq!(bars(&app.user).await, named(&[("alder", 0.3), ("dune", -1.5)]));
    let slices = async |token: &str| pairs(&chart(&app, "pie", token).await["slices"], "name", "value");
    assert_eq!(slices(&app.admin).await, named(&[("ember", 5.0), ("alder", 0.3)]), "a loss has no slice");
    assert_eq!(slices(&app.user).await, named(&[("alder", 0.3)]));
}

#[tokio::test]
async fn a_chart_of_profits_is_pushed_on_an_epoch_of_theirs_and_sums_up_the_smaller_companies() {
    let app = TestApp::start().await;
    let mut bar = open(&app, "/api/v1/charts/bar?source=profits", &app.admin).await;
    let nothing = heard(&mut bar).await;
    assert_eq!((&nothing["epoch"], &nothing["series"][0]["points"]), (&json!(0), &json!([])), "{nothing}");
    // So long that only the epoch can be what makes it come.
    say(&mut bar, "{\"interval_ms\": 60000}").await;
    let company = |n: i64| profit(&format!("company {n:02}"), month(n % 12), i128::from(n) * 100, "x", "/a");
    app.publish_profits(&(1..=25).map(company).collect::<Vec<_>>(), 25).await;
    let message = heard_where(&mut bar, |message| message["epoch"] == 1).await;
    let points = pairs(&message["series"][0]["points"], "x", "y");
    assert_eq!((points.len(), &points[0]), (21, &("company 25".to_owned(), 25.0)), "{message}");
    assert_eq!(points[19..], named(&[("company 06", 6.0), ("other", 15.0)]), "{message}");
    let line = chart(&app, "line", &app.admin).await;
    let sum: f64 = pairs(&line["series"][0]["points"], "x", "y").iter().map(|(_, profit)| profit).sum();
    assert!((sum - 325.0).abs() < 1e-9, "{line}");
}
