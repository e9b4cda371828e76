//! `POST /query`.

use std::{collections::BTreeMap, sync::Arc};

use karat_access::{Access, Origin, Permission, QueryNote};
use karat_http::{ApiError, Authenticated, JsonBody, error_answers, origin};
use poem::Request;
use poem_openapi::{Object, OpenApi, types::Example};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    DataTag,
    read_epochs::{PipelineEpoch, ReadEpochs, example_epoch},
};
use crate::{
    lakehouse::sql::{Answered, MAX_CHARS},
    serving::{
        OnceAnswer, Serving, envelope,
        params::{DEFAULT_LIMIT, MAX_LIMIT},
    },
};

error_answers! {
    /// Errors of `POST /query`.
    pub QueryError: 400, 401, 403, 413, 415, 422, 429, 503, 504;
}

/// Bytes of a body: the characters of a question may take four each, and six when they are escaped.
const MAX_BODY_BYTES: u64 = 6 * MAX_CHARS as u64 + 1_024;

/// Questions in SQL.
pub struct QueryApi {
    serving: Arc<Serving>,
    access: Access,
}

impl QueryApi {
    pub(super) fn new(serving: Arc<Serving>, access: Access) -> Self {
        Self { serving, access }
    }
}

/// A question.
#[derive(Debug, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(example)]
pub struct SqlQuestion {
    /// One `SELECT` over tables of the newest epochs, by their full names.
    #[oai(validator(max_length = 20000))]
    pub sql: String,
    /// Rows of the answer at most. Default: 1000.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A column of an answer.
#[derive(Debug, Clone, Serialize, Object)]
pub struct SqlColumn {
    pub name: String,
    /// As of a table's column.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    pub column_type: String,
}

/// The answer to a question.
#[derive(Debug, Serialize, Object)]
#[oai(example)]
pub struct SqlAnswer {
    /// The epoch whose tables were read; of several pipelines, that of the one whose newest event is the oldest.
    pub epoch: u64,
    /// The epochs whose tables were read, one a pipeline: two may be at two points in time.
    pub epochs: Vec<PipelineEpoch>,
    pub columns: Vec<SqlColumn>,
    /// Lists of values, in the order of the columns. Whole numbers are exact, decimals are text, times RFC 3339 in UTC, bytes
    /// base64.
    pub rows: Vec<Vec<Value>>,
    /// Whether there are more rows than these: by `limit`, or because the answer would be too large.
    pub is_truncated: bool,
}

/// [`SqlAnswer`] as it is written, with rows that are JSON already.
#[derive(Serialize)]
struct Written<'a> {
    epoch: u64,
    epochs: Vec<PipelineEpoch>,
    columns: Vec<SqlColumn>,
    rows: &'a RawValue,
    is_truncated: bool,
}

impl Example for SqlQuestion {
    fn example() -> Self {
        let sql = "SELECT source, sum(runs) AS runs FROM gold.daily_summary GROUP BY source ORDER BY runs DESC";
        Self { sql: sql.to_owned(), limit: Some(100) }
    }
}

impl Example for SqlAnswer {
    fn example() -> Self {
        let column =
            |name: &str, column_type: &str| SqlColumn { name: name.to_owned(), column_type: column_type.to_owned() };
        Self {
            epoch: 412,
            epochs: vec![example_epoch()],
            columns: vec![column("source", "string"), column("runs", "int64")],
            rows: vec![vec![json!("billing"), json!(731)]],
            is_truncated: false,
        }
    }
}

#[OpenApi(tag = "DataTag::Tables")]
impl QueryApi {
    /// Ask in SQL
    ///
    /// Read-only, for operators and admins: one `SELECT` over the gold, silver and quarantine tables of the pipelines, such as
    /// `gold.daily_summary`, each pipeline at its newest epoch. It ends at a deadline and within its memory, a few run at a time,
    /// and each leaves a row in the audit log.
    #[oai(path = "/query", method = "post", operation_id = "query")]
    async fn query(
        &self,
        request: &Request,
        caller: Authenticated,
        body: JsonBody<SqlQuestion, MAX_BODY_BYTES>,
    ) -> Result<OnceAnswer<SqlAnswer>, QueryError> {
        caller.require(Permission::Query)?;
        let SqlQuestion { sql, limit } = body.0;
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let line = format!("`limit`: expected a whole number from 1 to {MAX_LIMIT}, found `{limit}`");
            return Err(ApiError::validation(vec![line]).into());
        }
        let (access, origin) = (self.access.clone(), origin(request));
        let asked = Asked { access, caller, origin, sql: sql.clone(), is_noted: false };
        let newest = ReadEpochs::newest(&self.serving);
        let versions: BTreeMap<String, u64> =
            newest.tables().into_iter().map(|(name, (_, version))| (name.to_owned(), version)).collect();
        let answered = self.serving.sql.answer(sql, &versions, limit as usize).await;
        asked.note(&answered).await?;
        let Answered { columns, tables, rows, is_truncated, .. } = answered?;
        let columns = columns.into_iter().map(|(name, column_type)| SqlColumn { name, column_type }).collect();
        let read = newest.of_tables(&tables);
        let epoch = read.told().0.epoch.epoch;
        let written = Written { epoch, epochs: read.views(), columns, rows: &rows, is_truncated };
        Ok(OnceAnswer::of(envelope(&written, "the answer to the question")?))
    }
}

/// A question that the audit log gets a row about, also when nobody waits for its answer any more.
struct Asked {
    access: Access,
    caller: Authenticated,
    origin: Origin,
    sql: String,
    is_noted: bool,
}

impl Asked {
    /// Writes how it ended.
    async fn note(mut self, answered: &Result<Answered, ApiError>) -> Result<(), ApiError> {
        let (ended, rows) = match answered {
            Ok(answered) => ("answered", answered.num_rows),
            Err(error) => (error.code(), 0),
        };
        let note = QueryNote { sql: &self.sql, ended, rows };
        let noted = self.access.note_query(&self.caller, note, &self.origin).await;
        self.is_noted = true;
        Ok(noted?)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_noted {
            return;
        }
        let (access, caller, origin) = (self.access.clone(), self.caller.clone(), self.origin.clone());
        let sql = std::mem::take(&mut self.sql);
        // One for each question that was broken off, of which as many run as there are turns.
        runtime.spawn(async move {
            let note = QueryNote { sql: &sql, ended: "cancelled", rows: 0 };
            if let Err(error) = access.note_query(&caller, note, &origin).await {
                tracing::error!(%error, "cannot write to the audit log");
            }
        });
    }
}
