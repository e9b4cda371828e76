//! What the charts show of profits: those of the last 12 UTC months, this one included, at the version that an epoch names.
//!
//! - *line*: the profit of each month.
//! - *bar*: the profit of each company: the 20 with most, and `other` for what the rest comes to.
//! - *pie*: the same of the companies that made any: a loss has no slice.
//!
//! Sums are exact, and of what `GET /profits` lets the caller see.

use std::{borrow::Cow, sync::Arc};

use chrono::Datelike;
use karat_http::ApiError;
use karat_lake::{
    arrow::datatypes::i256,
    datafusion::{
        common::ScalarValue,
        error::DataFusionError,
        functions_aggregate::expr_fn::sum,
        logical_expr::{Expr, cast, ident, lit},
        prelude::DataFrame,
    },
};

use super::chart_data::{Drawn, Form, MOST_BARS, Number, OTHER, Point, Series, Slice, date_of};
use crate::{
    lakehouse::{
        rows::{TableReader, TableVersion},
        scope::only_visible,
    },
    serving::{profits::PROFITS, scans::query_error},
    snapshot::{Columns, EXACT},
    summary::Visible,
};

const MONTHS: i64 = 12;

/// A year and a month of it, 1 to 12.
type Month = (i64, i64);
/// What something comes to: its name, and the amount in digits.
type Sum = (String, String);

/// Draws a chart of the profits that `visible` lets see; `version` is none before there are any. `today` is counted in days
/// since 1970.
///
/// # Errors
/// 503 when too many wait, or too much memory is used; 500 when the lake fails.
pub(super) async fn draw(
    form: Form,
    tables: &Arc<TableReader>,
    version: Option<u64>,
    visible: &Visible,
    today: i64,
) -> Result<Drawn, ApiError> {
    let months = months(today);
    let sums = match version {
        Some(version) => {
            let reader = Arc::clone(tables);
            let conditions: Vec<Expr> = within(&months).into_iter().chain(only_visible(visible, true, true)).collect();
            let find = async move {
                let table = reader.provider(&TableVersion::of(PROFITS, version, false)).await?;
                let frame = reader.scans.session.read_table(table).map_err(query_error)?;
                read(form, frame, conditions).await.map_err(query_error)
            };
            tables.scans.run(find).await?
        }
        None => Vec::new(),
    };
    Ok(match form {
        Form::Line => series(months.iter().map(|month| of_month(*month, &sums)).collect()),
        Form::Bar => series(sums),
        Form::Pie => Drawn::Slices(sums.into_iter().map(slice).collect()),
    })
}

fn series(sums: Vec<Sum>) -> Drawn {
    let points = sums.into_iter().map(|(x, amount)| Point { x, y: Number::Amount(amount) }).collect();
    Drawn::Series(vec![Series { name: "profit", points }])
}

fn slice((name, amount): Sum) -> Slice {
    Slice { name: Cow::Owned(name), value: Number::Amount(amount) }
}

async fn read(form: Form, mut frame: DataFrame, conditions: Vec<Expr>) -> Result<Vec<Sum>, DataFusionError> {
    for condition in conditions {
        frame = frame.filter(condition)?;
    }
    let total = vec![sum(cast(ident("profit"), EXACT)).alias("total")];
    match form {
        Form::Line => by_month(frame.aggregate(vec![ident("year"), ident("month")], total)?).await,
        Form::Bar => most(frame.aggregate(vec![ident("company")], total)?).await,
        Form::Pie => most(frame.aggregate(vec![ident("company")], total)?.filter(ident("total").gt(nothing()))?).await,
    }
}

async fn by_month(months: DataFrame) -> Result<Vec<Sum>, DataFusionError> {
    let mut found = Vec::new();
    for batch in months.collect().await? {
        let columns = Columns::of(&batch);
        let (years, months) = (columns.numbers("year")?, columns.numbers("month")?);
        let totals = columns.decimals("total")?;
        let of = |row| Some((label((years.get(row)?, months.get(row)?)), totals.text(row)?));
        found.extend((0..batch.num_rows()).filter_map(of));
    }
    Ok(found)
}

/// The companies with most, and the others as one.
async fn most(companies: DataFrame) -> Result<Vec<Sum>, DataFusionError> {
    let order = vec![ident("total").sort(false, false), ident("company").sort(true, false)];
    let mut found: Vec<Sum> = Vec::new();
    for batch in companies.clone().sort(order)?.limit(0, Some(MOST_BARS))?.collect().await? {
        let columns = Columns::of(&batch);
        let (names, totals) = (columns.texts("company")?, columns.decimals("total")?);
        let of = |row| Some((names.owned(row)?, totals.text(row)?));
        found.extend((0..batch.num_rows()).filter_map(of));
    }
    if found.len() < MOST_BARS {
        return Ok(found);
    }
    let shown = found.iter().map(|(company, _)| lit(company.as_str())).collect();
    let rest = vec![sum(ident("total")).alias("rest")];
    let others = companies.filter(ident("company").in_list(shown, true))?.aggregate(Vec::new(), rest)?;
    for batch in others.collect().await? {
        let columns = Columns::of(&batch);
        let rests = columns.decimals("rest")?;
        // Of no companies there is no sum.
        found.extend((0..batch.num_rows()).filter_map(|row| Some((OTHER.to_owned(), rests.text(row)?))));
    }
    Ok(found)
}

fn nothing() -> Expr {
    Expr::Literal(ScalarValue::Decimal256(Some(i256::ZERO), 76, 2), None)
}

/// The last months up to that of `today`.
fn months(today: i64) -> Vec<Month> {
    let date = date_of(today);
    let newest = i64::from(date.year()) * 12 + i64::from(date.month0());
    (0..MONTHS).rev().map(|back| newest - back).map(|at| (at.div_euclid(12), at.rem_euclid(12) + 1)).collect()
}

/// The condition that only rows of these months meet, which are 12.
fn within(months: &[Month]) -> Option<Expr> {
    let (year, month) = *months.last()?;
    let this_year = ident("year").eq(lit(year)).and(ident("month").lt_eq(lit(month)));
    Some(this_year.or(ident("year").eq(lit(year - 1)).and(ident("month").gt(lit(month)))))
}

/// As the summaries write a month (`2026-01`).
fn label((year, month): Month) -> String {
    format!("{year:04}-{month:02}")
}

fn of_month(month: Month, sums: &[Sum]) -> Sum {
    let label = label(month);
    let amount =
        sums.iter().find(|(of, _)| *of == label).map_or_else(|| "0.00".to_owned(), |(_, amount)| amount.clone());
    (label, amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_months_of_a_line_end_with_that_of_today_and_go_over_the_turn_of_the_year() {
        // 2024-10-04, and the first and the last day of a year.
        for (today, first, last) in
            [(20_000, "2023-11", "2024-10"), (19_723, "2023-02", "2024-01"), (19_722, "2023-01", "2023-12")]
        {
            let labels: Vec<String> = months(today).into_iter().map(label).collect();
            assert_eq!((labels.len(), labels[0].as_str(), labels[11].as_str()), (12, first, last));
            assert!(labels.is_sorted(), "{labels:?}");
        }
    }
}
