//! Numbers from their text, exactly or not at all.

use super::{Fault, builder::shorten};

/// A whole number of 64 bits. `7.0` is whole; `7.5`, `7e0` and anything beyond the range are not taken.
pub(super) fn int(text: &str) -> Result<i64, Fault> {
    let whole = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => text,
    };
    whole.parse().map_err(|_| inexact("a whole number of 64 bits", text))
}

/// A 64-bit float. A whole number that a float cannot hold is a failure.
pub(super) fn float(text: &str) -> Result<f64, Fault> {
    let value: f64 = text.parse().map_err(|_| inexact("a number", text))?;
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let is_lossy = is_whole && text.parse::<i128>().is_ok_and(|exact| value as i128 != exact);
    if value.is_finite() && !is_lossy { Ok(value) } else { Err(inexact("a number that 64-bit floats hold", text)) }
}

/// A decimal of `precision` digits, `scale` of them behind the point, as an integer of its smallest unit.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Fault> {
    let fault = || inexact(&format!("a decimal({precision},{scale})"), text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| fault())?),
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all_digits = !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !all_digits || exponent.abs() > 80 {
        return Err(fault());
    }
    let digits = format!("{whole}{fraction}");
    let shift = i32::from(scale) + exponent - i32::try_from(fraction.len()).map_err(|_| fault())?;
    let shifted = match usize::try_from(shift) {
        Ok(zeros) => format!("{digits}{}", "0".repeat(zeros)),
        Err(_) => {
            let dropped = shift.unsigned_abs() as usize;
            let padded = format!("{}{digits}", "0".repeat(dropped));
            let (kept, lost) = padded.split_at(padded.len() - dropped);
            if lost.bytes().any(|digit| digit != b'0') {
                return Err(fault());
            }
            kept.to_owned()
        }
    };
    let significant = shifted.trim_start_matches('0');
    if significant.len() > usize::from(precision) {
        return Err(fault());
    }
    let value: i128 = if significant.is_empty() { 0 } else { significant.parse().map_err(|_| fault())? };
    Ok(if negative { -value } else { value })
}

fn inexact(expected: &str, text: &str) -> Fault {
    Fault::new("inexact_value", format!("expected {expected}, found `{}`", shorten(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_exact_or_refused() {
        let cases = [("0", Some(0)), ("-7", Some(-7)), ("7.0", Some(7)), ("9223372036854775807", Some(i64::MAX))];
        for (text, expected) in cases {
            assert_eq!(int(text).ok(), expected, "{text}");
        }
        for text in ["7.5", "9223372036854775808", "1e3", "", "7.", "abc"] {
            assert!(int(text).is_err(), "{text}");
        }
    }

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        let cases = [("12.34", 1234), ("-0.01", -1), ("12.340", 1234), ("1e2", 10000), ("1.5e-1", 15), ("0", 0)];
        for (text, expected) in cases {
            assert_eq!(decimal(text, 9, 2).ok(), Some(expected), "{text}");
        }
        for text in ["12.345", "12345678.00", "1e80", "1e999999999999", "-", "1.2.3", "0x10"] {
            assert!(decimal(text, 9, 2).is_err(), "{text}");
        }
    }

    #[test]
    fn whole_numbers_that_floats_cannot_hold_are_refused() {
        assert_eq!(float("9007199254740992").ok(), Some(9_007_199_254_740_992.0));
        assert!(float("9007199254740993").is_err());
        assert!(float("1e999").is_err());
        assert_eq!(float("0.1").ok(), Some(0.1));
    }
}
