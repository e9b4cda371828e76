//! Declared endpoints (spec V9): routes that `pipelines.toml` declares, from SQL over the gold tables of a pipeline.
//!
//! - [`PlannedEndpoint`] is a declaration whose SQL was planned and judged; `karat validate` makes it as a start does.
//! - `checks` says which SQL is taken: one `SELECT` that gives the same at any time, and reads the caller's rows alone.
//! - `route` answers: what a request gives is a value of a declared type, put into the plan and never into the text.
//! - `whole` reads what a file has, within its bounds.
//! - `document` puts the routes into the OpenAPI document.

mod checks;
mod document;
mod kinds;
mod plan;
mod route;
mod whole;

pub(crate) use document::with_endpoints;
pub use plan::PlannedEndpoint;
pub(crate) use route::DeclaredApi;

/// Where the routes are, behind the prefix of the API.
pub(crate) const PREFIX: &str = "/data";
