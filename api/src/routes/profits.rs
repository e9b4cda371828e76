//! `GET /profits`: what companies made by month, from the pipeline `finance`.
//!
//! Rows are seen as runs are (decision 32): who may read all data sees all, others the profits that they published, and
//! those of sources that are granted to their role.

use std::sync::Arc;

use karat_http::{ApiError, Authenticated, error_answers};
use poem::{Request, http::StatusCode};
use poem_openapi::{OpenApi, param::Query};

use super::{
    DataTag,
    cover::Cover,
    profit_views::{Profit, ProfitPage, ProfitTotals},
};
use crate::serving::{
    DataAnswer, KeyParts, Question, Serving, envelope, now_us,
    params::{DEFAULT_SIZE, MAX_PAGE, MAX_SIZE, Params},
    profits::{PROFITS, ProfitFilter, Profits, find},
    raw::{NameText, PageText, Raw, SizeText, YearText},
};

error_answers! {
    /// Errors of `GET /profits`. 501 is for an instance whose pipelines have no profits.
    pub ListProfitsError: 400, 401, 403, 422, 429, 501, 503, 504;
}

/// The pipeline that the profits are of.
pub const PROFITS_PIPELINE: &str = "finance";

/// How to reach what numbered pages do not.
const INSTEAD: &str = "filter by `company` or `year`, or follow the cursor of `GET /tables/gold.profits/rows`";

/// Operations on profits.
pub struct ProfitsApi {
    serving: Arc<Serving>,
}

impl ProfitsApi {
    pub(super) fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[OpenApi(tag = "DataTag::Profits")]
impl ProfitsApi {
    /// List profits
    ///
    /// By company, year and month, with the totals of the whole selection. Amounts are exact.
    #[oai(path = "/profits", method = "get", operation_id = "list_profits")]
    async fn list(
        &self,
        request: &Request,
        caller: Authenticated,
        /// Only this company.
        company: Query<Option<Raw<NameText>>>,
        /// Only this year.
        year: Query<Option<Raw<YearText>>>,
        /// The page, counted from 1. It ends within the first 100,000 rows: for others, filter, or follow the cursor of
        /// `GET /tables/gold.profits/rows`.
        page: Query<Option<Raw<PageText>>>,
        /// Rows of a page. Default: 50.
        size: Query<Option<Raw<SizeText>>>,
    ) -> Result<DataAnswer<ProfitPage>, ListProfitsError> {
        let mut params = Params::of(request, &["company", "year", "page", "size"]);
        let filter = ProfitFilter {
            company: company.as_deref().map(str::to_owned),
            year: params.number("year", year.as_deref(), 1..=9_999),
            page: params.number("page", page.as_deref(), 1..=MAX_PAGE).unwrap_or(1),
            size: params.number("size", size.as_deref(), 1..=MAX_SIZE).unwrap_or(DEFAULT_SIZE),
        };
        params.within_reach(filter.page, filter.size, INSTEAD);
        params.finish()?;
        Ok(self.answer(request, &caller, filter).await?)
    }
}

impl ProfitsApi {
    async fn answer(
        &self,
        request: &Request,
        caller: &Authenticated,
        filter: ProfitFilter,
    ) -> Result<DataAnswer<ProfitPage>, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let snapshot = self.serving.snapshots_of(PROFITS_PIPELINE).ok_or_else(not_declared)?.current();
        let cover = Cover::of(&snapshot, self.serving.freshness(&snapshot, now_us()));
        let (mut parts, mut page) = (scope.asks("profits"), KeyParts::of("page"));
        filter.parts(&mut parts, &mut page);
        let (id, freshness) = (parts.key(), cover.freshness);
        let question = Question { id, page, snapshot: Arc::clone(&snapshot), freshness, clock: 0 };
        let tables = Arc::clone(&self.serving.tables);
        let render = async move {
            let found = match snapshot.epoch.tables.get(PROFITS) {
                Some(version) => find(&tables, *version, &scope.visible, &filter).await?,
                None => Profits::default(),
            };
            let page = ProfitPage {
                epoch: cover.epoch,
                as_of: cover.as_of(),
                data_state: cover.freshness.data_state,
                page: filter.page,
                size: filter.size,
                pages: num_pages(found.num_rows, filter.size),
                totals: ProfitTotals::from(&found),
                profits: found.rows.into_iter().map(Profit::from).collect(),
            };
            envelope(&page, "profits by company, year and month")
        };
        self.serving.answer(request, question, render).await
    }
}

fn num_pages(num_rows: i64, size: u32) -> i64 {
    let size = i64::from(size.max(1));
    num_rows.saturating_add(size - 1) / size
}

/// The answer where no pipeline keeps profits.
pub(crate) fn not_declared() -> ApiError {
    let message = "no pipeline of this instance keeps profits: `finance` is not declared in its pipelines";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_declared", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_may_be_short_and_nothing_has_no_pages() {
        let pages = [(0, 50), (1, 50), (50, 50), (51, 50), (3, 1)].map(|(rows, size)| num_pages(rows, size));
        assert_eq!(pages, [0, 1, 1, 2, 3]);
    }
}
