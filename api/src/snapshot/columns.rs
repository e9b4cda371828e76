//! Typed views of a batch's columns, whichever of Arrow's forms of text and time a file has.

use karat_lake::arrow::{
    array::{
        Array, BinaryArray, BooleanArray, Decimal256Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    compute::cast,
    datatypes::{DataType, TimeUnit},
    error::ArrowError,
};

/// Amounts of money, and sums of as many of them as there may be.
pub(crate) const EXACT: DataType = DataType::Decimal256(76, 2);

/// The columns of one batch, by name.
pub(crate) struct Columns<'a>(&'a RecordBatch);

/// One column whose values are read by row.
pub(crate) struct Column<A>(A);

impl<'a> Columns<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Self {
        Self(batch)
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Column<StringArray>, ArrowError> {
        self.column(name, &DataType::Utf8)
    }

    pub(crate) fn numbers(&self, name: &str) -> Result<Column<Int64Array>, ArrowError> {
        self.column(name, &DataType::Int64)
    }

    pub(crate) fn flags(&self, name: &str) -> Result<Column<BooleanArray>, ArrowError> {
        self.column(name, &DataType::Boolean)
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<Column<BinaryArray>, ArrowError> {
        self.column(name, &DataType::Binary)
    }

    pub(crate) fn decimals(&self, name: &str) -> Result<Column<Decimal256Array>, ArrowError> {
        self.column(name, &EXACT)
    }

    /// Microseconds since 1970 UTC.
    pub(crate) fn instants(&self, name: &str) -> Result<Column<TimestampMicrosecondArray>, ArrowError> {
        self.column(name, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
    }

    fn column<A: Array + Clone + 'static>(&self, name: &str, wanted: &DataType) -> Result<Column<A>, ArrowError> {
        let missing = || ArrowError::SchemaError(format!("expected a column `{name}` of type `{wanted}`, found none"));
        let column = self.0.column_by_name(name).ok_or_else(missing)?;
        let column = cast(column, wanted)?;
        column.as_any().downcast_ref::<A>().cloned().map(Column).ok_or_else(missing)
    }
}

impl Column<StringArray> {
    pub(crate) fn get(&self, row: usize) -> Option<&str> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }

    pub(crate) fn owned(&self, row: usize) -> Option<String> {
        self.get(row).map(str::to_owned)
    }
}

impl Column<BinaryArray> {
    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

impl Column<BooleanArray> {
    pub(crate) fn get(&self, row: usize) -> Option<bool> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

impl Column<Int64Array> {
    pub(crate) fn get(&self, row: usize) -> Option<i64> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }

    pub(crate) fn get_or_0(&self, row: usize) -> i64 {
        self.get(row).unwrap_or_default()
    }
}

impl Column<Decimal256Array> {
    /// With every digit.
    pub(crate) fn text(&self, row: usize) -> Option<String> {
        self.0.is_valid(row).then(|| self.0.value_as_string(row))
    }
}

impl Column<TimestampMicrosecondArray> {
    pub(crate) fn get(&self, row: usize) -> Option<i64> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}
