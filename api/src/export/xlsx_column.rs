//! [`Column`]: the values of one column, as the cells of a spreadsheet hold them.

use karat_lake::arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    },
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, TimeUnit},
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use rust_xlsxwriter::{Worksheet, XlsxError};

use super::{cells::is_formula, xlsx::Styles};

/// What a cell takes in its file beside its text: its place, its style and its kind. A little more than it is.
const CELL_BYTES: u64 = 64;
/// The longest that a control character, or one that XML has a use for, is written.
const ESCAPED_BYTES: u64 = 7;

/// Whole numbers up to here are floats too.
const LARGEST_EXACT: u64 = 1 << 53;
/// Decimal digits that every float keeps.
const EXACT_DIGITS: usize = 15;

const DAY_US: f64 = 86_400_000_000.0;
/// 1970-01-01 as spreadsheets count days.
const EPOCH_DAY: f64 = 25_569.0;
/// 1900-03-01, before which spreadsheets count a day that was none, and 10000-01-01, which they do not know.
const KNOWN_DAYS: std::ops::Range<f64> = 61.0..2_958_466.0;

pub(super) enum Column {
    Text(StringArray),
    Flag(BooleanArray),
    Whole(Int64Array),
    Float(Float64Array),
    Date(Date32Array),
    Time(TimestampMicrosecondArray),
    /// Numbers of other kinds, by their digits.
    Digits(Vec<Option<String>>),
    /// Everything else, as CSV has it.
    Shown(Vec<Option<String>>),
}

impl Column {
    pub(super) fn of(column: &ArrayRef) -> Result<Self, ArrowError> {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        match column.data_type() {
            DataType::Utf8 => taken(column, &DataType::Utf8).map(Self::Text),
            DataType::Boolean => taken(column, &DataType::Boolean).map(Self::Flag),
            DataType::Date32 => taken(column, &DataType::Date32).map(Self::Date),
            DataType::Timestamp(..) => taken(column, &utc).map(Self::Time),
            DataType::UInt64 | DataType::Decimal32(..) | DataType::Decimal64(..) => shown(column).map(Self::Digits),
            DataType::Decimal128(..) | DataType::Decimal256(..) => shown(column).map(Self::Digits),
            data_type if data_type.is_integer() => taken(column, &DataType::Int64).map(Self::Whole),
            data_type if data_type.is_floating() => taken(column, &DataType::Float64).map(Self::Float),
            _ => shown(column).map(Self::Shown),
        }
    }

    /// Writes the value at `at`, and says how many bytes that took, or a little more. Nulls are empty cells.
    pub(super) fn write(
        &self,
        sheet: &mut Worksheet,
        (row, number): (u32, u16),
        at: usize,
        styles: &Styles,
    ) -> Result<u64, XlsxError> {
        let place = (row, number);
        match self {
            Self::Text(texts) if texts.is_valid(at) => return text(sheet, place, texts.value(at), styles),
            Self::Flag(flags) if flags.is_valid(at) => {
                sheet.write_boolean(row, number, flags.value(at))?;
            }
            Self::Whole(numbers) if numbers.is_valid(at) => {
                let value = numbers.value(at);
                if value.unsigned_abs() > LARGEST_EXACT {
                    sheet.write_string(row, number, value.to_string())?;
                } else {
                    sheet.write_number(row, number, value as f64)?;
                }
            }
            Self::Float(numbers) if numbers.is_valid(at) => {
                let value = numbers.value(at);
                if value.is_finite() {
                    sheet.write_number(row, number, value)?;
                } else {
                    sheet.write_string(row, number, value.to_string())?;
                }
            }
            Self::Date(days) if days.is_valid(at) => {
                let day = EPOCH_DAY + f64::from(days.value(at));
                if KNOWN_DAYS.contains(&day) {
                    sheet.write_number_with_format(row, number, day, &styles.date)?;
                } else if let Some(date) = days.value_as_date(at) {
                    sheet.write_string(row, number, date.to_string())?;
                }
            }
            Self::Time(times) if times.is_valid(at) => {
                let day = EPOCH_DAY + times.value(at) as f64 / DAY_US;
                if KNOWN_DAYS.contains(&day) {
                    sheet.write_number_with_format(row, number, day, &styles.time)?;
                } else if let Some(text) = crate::summary::rfc3339_utc(times.value(at)) {
                    sheet.write_string(row, number, text)?;
                }
            }
            Self::Digits(texts) => match &texts[at] {
                Some(text) => match exact(text) {
                    Some(value) => {
                        sheet.write_number(row, number, value)?;
                    }
                    None => {
                        sheet.write_string(row, number, text)?;
                    }
                },
                None => return Ok(0),
            },
            Self::Shown(texts) => match &texts[at] {
                Some(shown) => return text(sheet, place, shown, styles),
                None => return Ok(0),
            },
            _ => return Ok(0),
        }
        Ok(CELL_BYTES)
    }
}

fn text(sheet: &mut Worksheet, (row, number): (u32, u16), text: &str, styles: &Styles) -> Result<u64, XlsxError> {
    if is_formula(text) {
        sheet.write_string_with_format(row, number, text, &styles.quoted)?;
    } else {
        sheet.write_string(row, number, text)?;
    }
    let escaped = text.bytes().filter(|byte| matches!(byte, 0..32 | b'&' | b'<' | b'>' | b'_')).count() as u64;
    Ok(CELL_BYTES + text.len() as u64 + escaped * ESCAPED_BYTES)
}

/// The number that these digits are, when a float holds it exactly.
fn exact(digits: &str) -> Option<f64> {
    let significant = digits.trim_start_matches(['-', '0', '.']);
    let count = significant.bytes().filter(u8::is_ascii_digit).count();
    if count > EXACT_DIGITS { None } else { digits.parse().ok() }
}

/// The column as an array of `wanted`; a value that would change is an error.
fn taken<A: Array + Clone + 'static>(column: &ArrayRef, wanted: &DataType) -> Result<A, ArrowError> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(column, wanted, &exact)?;
    let missing = || ArrowError::SchemaError(format!("expected a column of type `{wanted}`"));
    cast.as_any().downcast_ref::<A>().cloned().ok_or_else(missing)
}

fn shown(column: &ArrayRef) -> Result<Vec<Option<String>>, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
    let text = |at: usize| match column.is_valid(at) {
        true => formatter.value(at).try_to_string().map(Some),
        false => Ok(None),
    };
    (0..column.len()).map(text).collect()
}
