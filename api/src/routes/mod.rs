//! The data operations. One file a resource; answers are in the envelope, with how fresh they are.

mod cover;
mod exports;
mod jobs;
mod profit_views;
mod profits;
mod query;
mod read_epochs;
mod rows;
mod run_views;
mod runs;
mod seen;
mod summary;
mod summary_question;
mod summary_rows;
mod summary_views;
mod sync_status;
mod sync_views;
mod table_views;
mod tables;
mod vitals;
mod vitals_views;

use std::sync::Arc;

use karat_access::Access;
use poem_openapi::Tags;

pub use exports::ExportsApi;
pub use jobs::JobsApi;
pub(crate) use profits::not_declared;
pub use profits::{PROFITS_PIPELINE, ProfitsApi};
pub use query::QueryApi;
pub use rows::RowsApi;
pub use runs::RunsApi;
pub use summary::SummaryApi;
pub use sync_status::SyncStatusApi;
pub use tables::TablesApi;
pub use vitals::VitalsApi;

use crate::{auth::ExperienceRules, serving::Serving};

/// The data operations.
pub type DataApis =
    (SummaryApi, SyncStatusApi, RunsApi, JobsApi, VitalsApi, ExportsApi, TablesApi, RowsApi, QueryApi, ProfitsApi);

/// The data operations, to be mounted under the API's prefix beside the others. `rules` say what gives experience;
/// `access` has the audit log of questions in SQL.
pub fn data_apis(serving: &Arc<Serving>, rules: ExperienceRules, access: &Access) -> DataApis {
    (
        SummaryApi::new(Arc::clone(serving)),
        SyncStatusApi::new(Arc::clone(serving)),
        RunsApi::new(Arc::clone(serving)),
        JobsApi::new(Arc::clone(serving)),
        VitalsApi::new(Arc::clone(serving), rules),
        ExportsApi::new(Arc::clone(serving)),
        TablesApi::new(Arc::clone(serving)),
        RowsApi::new(Arc::clone(serving)),
        QueryApi::new(Arc::clone(serving), access.clone()),
        ProfitsApi::new(Arc::clone(serving)),
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
    /// Figures of one user.
    Vitals,
    /// The same as files.
    Exports,
    /// Gold and silver tables: what they are, their rows, and questions in SQL.
    Tables,
    /// Connections that stay open: charts, the chat, the stream of events.
    Live,
    /// What companies made.
    Profits,
}
