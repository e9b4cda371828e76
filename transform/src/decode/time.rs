//! Times from text: RFC 3339 to UTC microseconds.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Timelike};

use super::{Fault, builder::shorten};

/// Microseconds since 1970 UTC. With `coerce`, digits below a microsecond are cut off and a missing zone means UTC.
pub(super) fn timestamp(text: &str, coerce: bool) -> Result<i64, Fault> {
    if let Some(micros) = plain_utc(text.as_bytes()) {
        return Ok(micros);
    }
    let time = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.to_utc(),
        Err(_) if coerce => {
            NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map_err(|_| wrong(text))?.and_utc()
        }
        Err(_) => return Err(wrong(text)),
    };
    if time.nanosecond() % 1000 != 0 && !coerce {
        let message = format!("expected at most microseconds, found `{}`", shorten(text));
        return Err(Fault::new("inexact_value", message));
    }
    Ok(time.timestamp_micros())
}

/// Days since 1970.
pub(super) fn date(text: &str) -> Result<i32, Fault> {
    let wrong = || Fault::new("wrong_type", format!("expected a date (YYYY-MM-DD), found `{}`", shorten(text)));
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| wrong())?;
    if text.len() != 10 {
        return Err(wrong());
    }
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).map_err(|_| wrong())
}

/// The common form `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`, without the general parser. None for anything else.
fn plain_utc(text: &[u8]) -> Option<i64> {
    let (head, tail) = text.split_at_checked(19)?;
    let number = |range: std::ops::Range<usize>| {
        head[range].iter().try_fold(0u32, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u32::from(byte - b'0')))
    };
    let separators = [head[4], head[7], head[10], head[13], head[16]];
    if separators != *b"--T::" {
        return None;
    }
    let fraction = match tail {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if (1..=6).contains(&digits.len()) => {
            let value = digits
                .iter()
                .try_fold(0u32, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u32::from(byte - b'0')))?;
            value * 10u32.pow(6 - u32::try_from(digits.len()).ok()?)
        }
        _ => return None,
    };
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0..4)?).ok()?, number(5..7)?, number(8..10)?)?;
    let time = date.and_hms_micro_opt(number(11..13)?, number(14..16)?, number(17..19)?, fraction)?;
    Some(time.and_utc().timestamp_micros())
}

fn wrong(text: &str) -> Fault {
    let message = format!("expected a time such as 2026-01-31T12:00:00Z (RFC 3339), found `{}`", shorten(text));
    Fault::new("wrong_type", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_reading_agree() {
        let times =
            ["1970-01-01T00:00:00Z", "2026-02-28T23:59:59.999999Z", "2024-02-29T00:00:00.5Z", "9999-12-31T23:59:59Z"];
        for text in times {
            let general = DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
            assert_eq!(plain_utc(text.as_bytes()), Some(general), "{text}");
        }
    }

    #[test]
    fn offsets_become_utc() {
        assert_eq!(timestamp("2026-01-31T01:00:00+01:00", false).ok(), timestamp("2026-01-31T00:00:00Z", false).ok());
    }

    #[test]
    fn what_is_no_time_or_too_fine_is_refused() {
        let texts = ["", "yesterday", "2026-02-30T00:00:00Z", "2026-01-31T00:00:00", "2026-01-31T00:00:00.1234567Z"];
        for text in texts {
            assert!(timestamp(text, false).is_err(), "{text}");
        }
        assert!(timestamp("2026-01-31T00:00:00.123456789Z", true).is_ok());
        assert!(timestamp("2026-01-31T00:00:00", true).is_ok());
    }
}
