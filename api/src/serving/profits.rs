//! Reads `gold.profits` at the version that an epoch names: one page, and what the whole selection comes to.
//!
//! Filters are expressions over known columns and never text. Amounts are added in 256 bits, so the sum of any number of
//! them is exact.

use std::sync::Arc;

use karat_http::ApiError;
use karat_lake::{
    arrow::{array::RecordBatch, error::ArrowError},
    datafusion::{
        catalog::TableProvider,
        error::DataFusionError,
        functions_aggregate::expr_fn::{count, count_distinct, sum},
        logical_expr::{Expr, SortExpr, cast, ident, lit},
    },
};

use super::{key::KeyParts, scans::query_error};
use crate::{
    lakehouse::{
        rows::{TableReader, TableVersion},
        scope::only_visible,
    },
    snapshot::{Columns, EXACT},
    summary::Visible,
};

/// The full name of the table.
pub(crate) const PROFITS: &str = "gold.profits";

/// Which profits are wanted.
#[derive(Debug, Clone)]
pub(crate) struct ProfitFilter {
    pub(crate) company: Option<String>,
    pub(crate) year: Option<u32>,
    /// Counted from 1.
    pub(crate) page: u32,
    /// Rows of a page.
    pub(crate) size: u32,
}

/// What a company made in a month.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProfitRow {
    pub(crate) company: String,
    pub(crate) year: i64,
    pub(crate) month: i64,
    /// Exact, with two digits behind the point.
    pub(crate) profit: String,
    pub(crate) recorded_at_us: Option<i64>,
}

/// One page of a selection, and its totals.
#[derive(Debug, Clone)]
pub(crate) struct Profits {
    /// By company, year and month.
    pub(crate) rows: Vec<ProfitRow>,
    pub(crate) num_rows: i64,
    pub(crate) num_companies: i64,
    /// As [`ProfitRow::profit`].
    pub(crate) total: String,
}

impl Default for Profits {
    fn default() -> Self {
        Self { rows: Vec::new(), num_rows: 0, num_companies: 0, total: "0.00".to_owned() }
    }
}

impl ProfitFilter {
    /// What of a question this is; the page apart.
    pub(crate) fn parts(&self, question: &mut KeyParts, page: &mut KeyParts) {
        question.maybe("company", self.company.as_deref()).number("year", self.year.map_or(-1, i128::from));
        page.number("page", self.page).number("size", self.size);
    }
}

/// The profits of the served version that `filter` wants and the caller may see.
///
/// # Errors
/// 503 when too many wait, or too much memory is used; 500 when the lake fails.
pub(crate) async fn find(
    tables: &Arc<TableReader>,
    version: u64,
    visible: &Visible,
    filter: &ProfitFilter,
) -> Result<Profits, ApiError> {
    let (reader, visible, filter) = (Arc::clone(tables), visible.clone(), filter.clone());
    let find = async move {
        let table = reader.provider(&TableVersion::of(PROFITS, version, false)).await?;
        scan(&reader, table, &visible, &filter).await.map_err(query_error)
    };
    tables.scans.run(find).await
}

async fn scan(
    tables: &TableReader,
    table: Arc<dyn TableProvider>,
    visible: &Visible,
    filter: &ProfitFilter,
) -> Result<Profits, DataFusionError> {
    let mut frame = tables.scans.session.read_table(table)?;
    for condition in conditions(visible, filter) {
        frame = frame.filter(condition)?;
    }
    let figures = vec![
        count(lit(1)).alias("num_rows"),
        count_distinct(ident("company")).alias("num_companies"),
        sum(cast(ident("profit"), EXACT)).alias("total"),
    ];
    let mut profits = Profits::default();
    for batch in frame.clone().aggregate(Vec::new(), figures)?.collect().await? {
        add_totals(&batch, &mut profits)?;
    }
    let (page, size) = (filter.page as usize, filter.size as usize);
    let first = page.saturating_sub(1).saturating_mul(size);
    for batch in frame.sort(in_order())?.limit(first, Some(size))?.collect().await? {
        add_rows(&batch, &mut profits.rows)?;
    }
    Ok(profits)
}

fn in_order() -> Vec<SortExpr> {
    ["company", "year", "month"].into_iter().map(|column| ident(column).sort(true, false)).collect()
}

fn conditions(visible: &Visible, filter: &ProfitFilter) -> Vec<Expr> {
    let conditions = [
        filter.company.as_ref().map(|company| ident("company").eq(lit(company.as_str()))),
        filter.year.map(|year| ident("year").eq(lit(i64::from(year)))),
        only_visible(visible, true, true),
    ];
    conditions.into_iter().flatten().collect()
}

fn add_totals(batch: &RecordBatch, profits: &mut Profits) -> Result<(), ArrowError> {
    let columns = Columns::of(batch);
    let (rows, companies) = (columns.numbers("num_rows")?, columns.numbers("num_companies")?);
    let totals = columns.decimals("total")?;
    for row in 0..batch.num_rows() {
        (profits.num_rows, profits.num_companies) = (rows.get_or_0(row), companies.get_or_0(row));
        // Of no rows there is no sum.
        profits.total = totals.text(row).unwrap_or_else(|| Profits::default().total);
    }
    Ok(())
}

fn add_rows(batch: &RecordBatch, rows: &mut Vec<ProfitRow>) -> Result<(), ArrowError> {
    let columns = Columns::of(batch);
    let (companies, profits) = (columns.texts("company")?, columns.decimals("profit")?);
    let (years, months) = (columns.numbers("year")?, columns.numbers("month")?);
    let recorded = columns.instants("recorded_at")?;
    rows.extend((0..batch.num_rows()).map(|row| ProfitRow {
        company: companies.owned(row).unwrap_or_default(),
        year: years.get_or_0(row),
        month: months.get_or_0(row),
        profit: profits.text(row).unwrap_or_default(),
        recorded_at_us: recorded.get(row),
    }));
    Ok(())
}
