//! Spreadsheets: sheets of at most a million rows below a header, ten of them.
//!
//! Cells go into unnamed files of the scratch folder row by row, since the sizes and the styles of a spreadsheet stand in
//! front of them; the file itself is then compressed on its way to the client. What does not fit is refused before that,
//! so that an error can still be answered.
//!
//! Texts are cells of the kind "text", which no program takes for a formula; those that look like one are also marked as
//! typed with a leading `'`, so that editing the cell does not make one of it. Dates and times (UTC) are real ones. A number
//! that a cell, which holds a 64-bit float, would round is written as text.
//!
//! The library panics when the scratch folder is full. That ends the one file, as any other panic of a blocking thread does.

use std::{fs, path::Path};

use karat_http::ApiError;
use karat_lake::arrow::{array::RecordBatch, datatypes::Schema, error::ArrowError};
use rust_xlsxwriter::{Format as Style, Workbook, XlsxError};

use super::{Format, cells::is_formula, does_not_fit, produce::Encoder, sink::Sink, xlsx_column::Column};

/// How much fits into one spreadsheet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rows of a sheet below its header.
    pub(super) sheet_rows: u32,
    pub(super) sheets: usize,
    /// Cells of a sheet in the scratch folder. A part of a plain zip file has less than 4 GiB.
    pub(super) sheet_bytes: u64,
    pub(super) scratch_bytes: u64,
}

/// How cells look.
pub(super) struct Styles {
    header: Style,
    pub(super) date: Style,
    pub(super) time: Style,
    /// A text that looks like a formula.
    pub(super) quoted: Style,
}

pub(super) struct Xlsx {
    sink: Sink,
    limits: Limits,
    workbook: Workbook,
    styles: Styles,
    header: Vec<String>,
    sheets: usize,
    /// Of the newest sheet.
    rows: u32,
    bytes: u64,
    bytes_of_all: u64,
}

impl Limits {
    pub(super) fn of(scratch_bytes: u64) -> Self {
        Self { sheet_rows: 1_000_000, sheets: 10, sheet_bytes: 3 << 30, scratch_bytes }
    }
}

impl Xlsx {
    pub(super) fn new(sink: Sink, schema: &Schema, scratch: &Path, limits: Limits) -> Result<Self, ApiError> {
        fs::create_dir_all(scratch).map_err(ApiError::internal)?;
        let mut workbook = Workbook::new();
        workbook.set_tempdir(scratch).map_err(ApiError::internal)?;
        let styles = Styles {
            header: Style::new().set_bold(),
            date: Style::new().set_num_format("yyyy-mm-dd"),
            time: Style::new().set_num_format("yyyy-mm-dd hh:mm:ss.000"),
            quoted: Style::new().set_quote_prefix(),
        };
        let header = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut xlsx = Self { sink, limits, workbook, styles, header, sheets: 0, rows: 0, bytes: 0, bytes_of_all: 0 };
        xlsx.begin_sheet()?;
        Ok(xlsx)
    }

    fn begin_sheet(&mut self) -> Result<(), ApiError> {
        if self.sheets == self.limits.sheets {
            return Err(self.too_many_rows());
        }
        let sheet = self.workbook.add_worksheet_with_constant_memory().map_err(refused)?;
        sheet.set_freeze_panes(1, 0).map_err(refused)?;
        for (at, name) in self.header.iter().enumerate() {
            let plain = self.styles.header.clone();
            let style = if is_formula(name) { plain.set_quote_prefix() } else { plain };
            sheet.write_string_with_format(0, column_number(at), name, &style).map_err(refused)?;
        }
        self.sheets += 1;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    fn too_many_rows(&self) -> ApiError {
        let Limits { sheet_rows, sheets, .. } = self.limits;
        let rows = u64::from(sheet_rows) * sheets as u64;
        does_not_fit(Format::Xlsx, &format!("`parquet` for more than {rows} rows, or for as many long ones"))
    }
}

impl Encoder for Xlsx {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), ApiError> {
        let columns = batch.columns().iter().map(Column::of).collect::<Result<Vec<_>, ArrowError>>();
        let columns = columns.map_err(ApiError::internal)?;
        for at in 0..batch.num_rows() {
            if self.rows == self.limits.sheet_rows || self.bytes >= self.limits.sheet_bytes {
                self.begin_sheet()?;
            }
            // The header is the first row.
            self.rows += 1;
            let sheet = self.workbook.worksheet_from_index(self.sheets - 1).map_err(ApiError::internal)?;
            let mut bytes = 0;
            for (number, column) in columns.iter().enumerate() {
                let place = (self.rows, column_number(number));
                bytes += column.write(sheet, place, at, &self.styles).map_err(refused)?;
            }
            self.bytes += bytes;
            self.bytes_of_all += bytes;
            if self.bytes_of_all > self.limits.scratch_bytes {
                return Err(self.too_many_rows());
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Sink, ApiError> {
        let Self { workbook, sink, .. } = &mut *self;
        workbook.save_to_writer(sink).map_err(ApiError::internal)?;
        Ok(self.sink)
    }
}

/// Numbers beyond the library's are refused by it.
fn column_number(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

fn refused(error: XlsxError) -> ApiError {
    match error {
        XlsxError::MaxStringLengthExceeded => {
            does_not_fit(Format::Xlsx, "`parquet` for texts of more than 32767 characters")
        }
        XlsxError::RowColumnLimitError => does_not_fit(Format::Xlsx, "`parquet` for more than 16384 columns"),
        other => ApiError::internal(other),
    }
}
