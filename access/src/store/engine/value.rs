//! Values on their way into a statement, and rows on their way out.

use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Decode, Row as _, Type};
use uuid::Uuid;

use crate::AccessError;

/// A value for one `?`.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
}

/// The values of a statement, in order.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::engine::Value::from($value)),*] };
}
pub(crate) use args;

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<Uuid> for Value {
    fn from(id: Uuid) -> Self {
        Self::Text(Some(id.to_string()))
    }
}

impl From<Option<Uuid>> for Value {
    fn from(id: Option<Uuid>) -> Self {
        Self::Text(id.map(|id| id.to_string()))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(Some(i64::from(number)))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Int(Some(i64::from(truth)))
    }
}

/// A row of one of the engines.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    MySql(MySqlRow),
}

impl Row {
    pub(crate) fn text(&self, column: &str) -> Result<String, AccessError> {
        self.get(column)
    }

    pub(crate) fn text_or_null(&self, column: &str) -> Result<Option<String>, AccessError> {
        self.get(column)
    }

    pub(crate) fn int(&self, column: &str) -> Result<i64, AccessError> {
        self.get(column)
    }

    pub(crate) fn int_or_null(&self, column: &str) -> Result<Option<i64>, AccessError> {
        self.get(column)
    }

    pub(crate) fn truth(&self, column: &str) -> Result<bool, AccessError> {
        Ok(self.int(column)? != 0)
    }

    pub(crate) fn truth_or_null(&self, column: &str) -> Result<Option<bool>, AccessError> {
        Ok(self.int_or_null(column)?.map(|number| number != 0))
    }

    pub(crate) fn id(&self, column: &'static str) -> Result<Uuid, AccessError> {
        parse_id(column, self.text(column)?)
    }

    pub(crate) fn id_or_null(&self, column: &'static str) -> Result<Option<Uuid>, AccessError> {
        self.text_or_null(column)?.map(|text| parse_id(column, text)).transpose()
    }

    fn get<T>(&self, column: &str) -> Result<T, AccessError>
    where
        T: for<'r> Decode<'r, sqlx::Sqlite> + Type<sqlx::Sqlite>,
        T: for<'r> Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>,
        T: for<'r> Decode<'r, sqlx::MySql> + Type<sqlx::MySql>,
        for<'c> &'c str: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + ColumnIndex<MySqlRow>,
    {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
            Self::MySql(row) => row.try_get(column)?,
        })
    }
}

fn parse_id(column: &'static str, text: String) -> Result<Uuid, AccessError> {
    Uuid::parse_str(&text).map_err(|_| AccessError::Corrupt { column, found: text })
}
