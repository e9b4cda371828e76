//! What `GET /profits` answers.

use poem_openapi::{Object, types::Example};
use serde::Serialize;

use crate::{
    serving::{
        freshness::DataState,
        profits::{ProfitRow, Profits},
    },
    summary::rfc3339_utc,
};

/// What a company made in a month.
#[derive(Debug, Clone, Serialize, Object)]
pub struct Profit {
    pub company: String,
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// Exact, with two digits behind the point; negative for a loss. Text, because many programs read numbers as floats.
    pub profit: String,
    /// The time of the event that counts, RFC 3339 in UTC.
    #[oai(nullable)]
    pub recorded_at: Option<String>,
}

/// What the whole selection comes to.
#[derive(Debug, Clone, Serialize, Object)]
pub struct ProfitTotals {
    /// Rows of all pages: one a company and month.
    pub rows: i64,
    pub companies: i64,
    /// The exact sum, in the form of a row's profit.
    pub profit: String,
}

/// A page of profits.
#[derive(Debug, Clone, Serialize, Object)]
#[oai(example)]
pub struct ProfitPage {
    /// The epoch that the figures are of; another page may be of a later one.
    pub epoch: u64,
    /// Newest event time that is folded in, RFC 3339 in UTC.
    #[oai(nullable)]
    pub as_of: Option<String>,
    pub data_state: DataState,
    /// The page, counted from 1.
    pub page: u32,
    /// Rows of a page.
    pub size: u32,
    /// Pages that there are, those too that are behind the first 100,000 rows and are not answered.
    pub pages: i64,
    /// By company, year and month.
    pub profits: Vec<Profit>,
    /// Over all pages.
    pub totals: ProfitTotals,
}

impl From<ProfitRow> for Profit {
    fn from(row: ProfitRow) -> Self {
        let ProfitRow { company, year, month, profit, recorded_at_us } = row;
        Self { company, year, month, profit, recorded_at: recorded_at_us.and_then(rfc3339_utc) }
    }
}

impl From<&Profits> for ProfitTotals {
    fn from(profits: &Profits) -> Self {
        Self { rows: profits.num_rows, companies: profits.num_companies, profit: profits.total.clone() }
    }
}

impl Example for ProfitPage {
    fn example() -> Self {
        Self {
            epoch: 42,
            as_of: Some("2026-01-05T09:00:00Z".to_owned()),
            data_state: DataState::Complete,
            page: 1,
            size: 50,
            pages: 1,
            profits: vec![Profit {
                company: "Alder Mills".to_owned(),
                year: 2025,
                month: 12,
                profit: "241857.03".to_owned(),
                recorded_at: Some("2026-01-05T09:00:00Z".to_owned()),
            }],
            totals: ProfitTotals { rows: 1, companies: 1, profit: "241857.03".to_owned() },
        }
    }
}
