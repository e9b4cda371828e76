//! The value of a filter: the text of a parameter as a value of its column's type, exactly or not at all.

use chrono::{DateTime, NaiveDate, NaiveTime};
use karat_lake::{
    arrow::datatypes::{DataType, TimeUnit},
    datafusion::common::ScalarValue,
};

/// The value that `text` means for a column of `data_type`.
///
/// # Errors
/// What was expected instead.
pub(crate) fn literal(data_type: &DataType, text: &str) -> Result<ScalarValue, String> {
    let parsed = match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(ScalarValue::Utf8(Some(text.to_owned()))),
        DataType::UInt64 => whole(text).and_then(|text| text.parse().ok()).map(|n| ScalarValue::UInt64(Some(n))),
        data_type if data_type.is_integer() => {
            whole(text).and_then(|text| text.parse().ok()).map(|n| ScalarValue::Int64(Some(n)))
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            finite(text).map(|n| ScalarValue::Float64(Some(n)))
        }
        DataType::Boolean => match text {
            "true" => Some(ScalarValue::Boolean(Some(true))),
            "false" => Some(ScalarValue::Boolean(Some(false))),
            _ => None,
        },
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            instant_us(text).map(|us| ScalarValue::TimestampMicrosecond(Some(us), zone.clone()))
        }
        DataType::Date32 => date(text).map(|days| ScalarValue::Date32(Some(days))),
        DataType::Decimal128(precision, scale) => {
            decimal(text, *precision, *scale).map(|units| ScalarValue::Decimal128(Some(units), *precision, *scale))
        }
        _ => None,
    };
    parsed.ok_or_else(|| expected(data_type))
}

/// Whether columns of this type can be asked for a value.
pub(crate) fn is_filterable(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::Boolean
            | DataType::Timestamp(TimeUnit::Microsecond, _)
            | DataType::Date32
            | DataType::Decimal128(..)
    ) || data_type.is_integer()
}

fn expected(data_type: &DataType) -> String {
    match data_type {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "a finite number".to_owned(),
        DataType::Boolean => "`true` or `false`".to_owned(),
        DataType::Timestamp(..) => {
            "a time like `2026-01-31T10:00:00Z`, at most to the microsecond, or a date for its start in UTC".to_owned()
        }
        DataType::Date32 => "a date like `2026-01-31`".to_owned(),
        DataType::Decimal128(precision, scale) => {
            format!("a decimal number of at most {precision} digits, {scale} of them after the point")
        }
        DataType::UInt64 => "a whole number of 64 bits without a sign".to_owned(),
        _ => "a whole number of 64 bits".to_owned(),
    }
}

/// Digits with a minus before them, perhaps: the parsers of Rust take a plus as well.
fn whole(text: &str) -> Option<&str> {
    text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn day(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| text.len() == "2026-01-31".len())
}

fn date(text: &str) -> Option<i32> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    i32::try_from(day(text)?.signed_duration_since(epoch).num_days()).ok()
}

fn instant_us(text: &str) -> Option<i64> {
    let midnight = || Some(day(text)?.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
    // What is finer than the column would be cut, and compare as another time.
    let time = DateTime::parse_from_rfc3339(text).ok().filter(|time| time.timestamp_subsec_nanos() % 1_000 == 0);
    time.map(|time| time.timestamp_micros()).or_else(midnight)
}

/// Units of the last place. Digits that the column does not hold are no value of it, unless they are zeros.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (before, after) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(before) || !are_digits(after) {
        return None;
    }
    let after = after.trim_end_matches('0');
    let before = before.trim_start_matches('0');
    if after.len() > scale || before.len() + scale > usize::from(precision) {
        return None;
    }
    let units: i128 = format!("0{before}{after:0<scale$}").parse().ok()?;
    Some(if is_negative { -units } else { units })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

    #[test]
    fn a_text_is_a_value_of_the_column_exactly() {
        let decimal = |units| ScalarValue::Decimal128(Some(units), 10, 2);
        let time = |us| ScalarValue::TimestampMicrosecond(Some(us), None);
        for (data_type, text, value) in [
            (DataType::Utf8, "' OR 1=1 --", ScalarValue::Utf8(Some("' OR 1=1 --".to_owned()))),
            (DataType::Int64, "-9223372036854775808", ScalarValue::Int64(Some(i64::MIN))),
            (DataType::Int64, "9007199254740993", ScalarValue::Int64(Some(9_007_199_254_740_993))),
            (DataType::Float64, "1e3", ScalarValue::Float64(Some(1000.0))),
            (DataType::Boolean, "true", ScalarValue::Boolean(Some(true))),
            (TIME, "1970-01-01T01:00:00.000001+01:00", time(1)),
            (TIME, "1970-01-02", time(86_400_000_000)),
            (DataType::Date32, "1970-01-11", ScalarValue::Date32(Some(10))),
            (DataType::Decimal128(10, 2), "12.3", decimal(1230)),
            (DataType::Decimal128(10, 2), "-0012.3000", decimal(-1230)),
            (DataType::Decimal128(10, 2), "7", decimal(700)),
        ] {
            assert_eq!(literal(&data_type, text), Ok(value), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_value_of_the_column_is_refused() {
        let cases: [(DataType, &[&str]); 7] = [
            (DataType::Int64, &["", "abc", "1e3", " 10", "+1", "1.0", "9223372036854775808", "--1", "1;drop"]),
            (DataType::Float64, &["", "NaN", "inf", "-infinity", "1e400", "x"]),
            (DataType::Boolean, &["", "1", "TRUE", "yes"]),
            (TIME, &["", "0000-00-00", "9999999", "2026-02-30", "2026-01-31T25:00:00Z", "2026-1-1", "now()"]),
            (TIME, &["2026-01-31T10:00:00.1234567Z", "1969-12-31T23:59:59.999999999Z"]),
            (DataType::Date32, &["", "2026-02-30", "+2026-01-31", "2026-01-31T00:00:00Z"]),
            (DataType::Decimal128(10, 2), &["", ".", "1.", ".5", "1.005", "123456789", "1e2", "NaN", "--1"]),
        ];
        for (data_type, texts) in cases {
            for text in texts {
                assert!(literal(&data_type, text).is_err(), "{data_type} {text}");
            }
        }
    }
}
