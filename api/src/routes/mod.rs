//! The data operations. One file a resource; answers are in the envelope, with how fresh they are.

mod cover;
mod jobs;
mod query;
mod rows;
mod run_views;
mod runs;
mod seen;
mod summary;
mod summary_question;
mod summary_views;
mod sync_status;
mod sync_views;
mod table_views;
mod tables;

use std::sync::Arc;

use karat_access::Access;
use poem_openapi::Tags;

pub use jobs::JobsApi;
pub use query::QueryApi;
pub use rows::RowsApi;
pub use runs::RunsApi;
pub use summary::SummaryApi;
pub use sync_status::SyncStatusApi;
pub use tables::TablesApi;

use crate::serving::Serving;

/// The data operations.
pub type DataApis = (SummaryApi, SyncStatusApi, RunsApi, JobsApi, TablesApi, RowsApi, QueryApi);

/// The data operations, to be mounted under the API's prefix beside the others. `access` has the audit log of questions in
/// SQL.
pub fn data_apis(serving: &Arc<Serving>, access: &Access) -> DataApis {
    (
        SummaryApi::new(Arc::clone(serving)),
        SyncStatusApi::new(Arc::clone(serving)),
        RunsApi::new(Arc::clone(serving)),
        JobsApi::new(Arc::clone(serving)),
        TablesApi::new(Arc::clone(serving)),
        RowsApi::new(Arc::clone(serving)),
        QueryApi::new(Arc::clone(serving), access.clone()),
    )
}

#[derive(Tags)]
pub(crate) enum DataTag {
    /// Figures of runs by day, week and month.
    Summary,
    /// Whether jobs and pipelines do what is expected.
    SyncStatus,
    /// Single runs and the jobs that they belong to.
    Runs,
    /// Gold and silver tables: what they are, their rows, and questions in SQL.
    Tables,
}
