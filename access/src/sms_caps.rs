//! How many text messages leave in an hour, to one country and in all. Whoever earns from messages to some numbers could have
//! any number of them sent, each to another number and from another network: the limits of a number and of a network do not
//! end that.
//!
//! Hours are those of the clock. A message is counted before it is made, in the database, so that all processes count
//! together and parallel ones cannot pass together. What is beyond a cap is answered as what is beyond the limit of a number:
//! neither tells whether an account has it.

use std::time::Duration;

use serde_json::json;

use crate::settings::SmsCaps;
use crate::store::{Attempt, AttemptPolicy};
use crate::time::now_us;
use crate::{Access, AccessError, AuditEvent, Phone};

const HOUR_US: i64 = 60 * 60 * 1_000_000;

/// Calling codes of two digits (ITU-T E.164, its list of assigned codes). Those that begin with 1 or 7 have one digit,
/// all others three.
const TWO_DIGITS: [&str; 44] = [
    "20", "27", "30", "31", "32", "33", "34", "36", "39", "40", "41", "43", "44", "45", "46", "47", "48", "49", "51",
    "52", "53", "54", "55", "56", "57", "58", "60", "61", "62", "63", "64", "65", "66", "81", "82", "84", "86", "90",
    "91", "92", "93", "94", "95", "98",
];

impl Access {
    /// Counts a message to a number. One beyond a cap leaves a row, one a minute for each cap.
    ///
    /// # Errors
    /// [`AccessError::TooManyAttempts`] until the hour ends.
    pub(crate) async fn count_message(&self, phone: &Phone, refusal: &AuditEvent) -> Result<(), AccessError> {
        let SmsCaps { per_hour, per_country_hour } = self.inner.settings.sms_caps;
        let now = now_us();
        let country = format!("+{}", calling_code(phone));
        for (cap, most) in [(country.as_str(), per_country_hour), ("all", per_hour)] {
            let name = format!("sms-cap:{cap}:{}", now / HOUR_US);
            let Attempt::Wait { micros } = self.inner.store.begin_attempt(&name, policy(most, now)).await? else {
                continue;
            };
            let details = json!({"reason": "too_many_messages", "cap": cap});
            self.audit_repeatable(&format!("sms-cap:{cap}"), refusal.clone().with_details(details)).await;
            let retry_after = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
            return Err(AccessError::TooManyAttempts { retry_after });
        }
        Ok(())
    }
}

/// So many are free, and then none until the hour ends.
fn policy(most: u32, now: i64) -> AttemptPolicy {
    let left = HOUR_US - now % HOUR_US;
    AttemptPolicy { free: most, first_wait_us: left, longest_wait_us: left, forget_after_us: HOUR_US }
}

/// The calling code of the country, without the `+`. Countries that share one (`1`, `7`) count as one.
fn calling_code(phone: &Phone) -> &str {
    let digits = phone.as_str().trim_start_matches('+');
    let length = match digits.get(..2) {
        Some(two) if two.starts_with(['1', '7']) => 1,
        Some(two) if TWO_DIGITS.contains(&two) => 2,
        _ => 3,
    };
    digits.get(..length).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_country_of_a_number_is_its_calling_code() {
        for (number, code) in [
            ("+12025550123", "1"),
            ("+77012345678", "7"),
            ("+34600123456", "34"),
            ("+447700900123", "44"),
            ("+959123456789", "95"),
            ("+989123456789", "98"),
            ("+351912345678", "351"),
            ("+971501234567", "971"),
            ("+886912345678", "886"),
        ] {
            assert_eq!(calling_code(&Phone::parse(number).unwrap()), code, "{number}");
        }
    }

    #[test]
    fn the_wait_beyond_a_cap_ends_with_the_hour() {
        let policy = policy(3, 5 * HOUR_US + HOUR_US / 4);
        assert_eq!((policy.free, policy.first_wait_us), (3, HOUR_US / 4 * 3));
    }
}
