//! Consent: the present state on the user, every step of it in its own rows.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::engine::{Row, args};
use super::users::{finish, lock};
use super::{Consent, Store, User};
use crate::time::now_us;
use crate::{AccessError, AuditEvent};

/// The place of a step among those of an account, as text too: where a page ended, and the next one begins behind it. By
/// time and, of those at the same time, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsentPlace {
    /// Microseconds since 1970, UTC.
    pub at_us: i64,
    /// Of the step.
    pub id: Uuid,
}

impl ConsentPlace {
    /// Behind it is every step.
    const START: Self = Self { at_us: i64::MAX, id: Uuid::nil() };
}

impl From<&Consent> for ConsentPlace {
    fn from(step: &Consent) -> Self {
        Self { at_us: step.at_us, id: step.id }
    }
}

impl fmt::Display for ConsentPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at_us, self.id)
    }
}

impl FromStr for ConsentPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place =
            text.split_once('.').and_then(|(at, id)| Some(Self { at_us: at.parse().ok()?, id: id.parse().ok()? }));
        place.ok_or_else(|| "expected what `next_before` of a page was, found something else".to_owned())
    }
}

impl Store {
    /// Records that consent to a version was `granted` or `revoked`.
    pub(crate) async fn add_consent(
        &self,
        user: Uuid,
        status: &'static str,
        version: &str,
        source: &str,
        event: &AuditEvent,
    ) -> Result<User, AccessError> {
        let mut tx = self.database.write().await?;
        lock(&mut tx, user).await?;
        let at = now_us();
        let sql = "INSERT INTO consents (id, user_id, status, version, source, at, ip) VALUES (?, ?, ?, ?, ?, ?, ?)";
        let ip = event.origin.ip_text();
        tx.execute(sql, args![Uuid::now_v7(), user, status, version, source, at, ip]).await?;
        let sql = "UPDATE users SET consent_status = ?, consent_version = ?, updated_at = ?, version = version + 1 \
                   WHERE id = ?";
        tx.execute(sql, args![status, version, at, user]).await?;
        finish(tx, user, event).await
    }

    /// The steps behind a place, or all, newest first.
    pub(crate) async fn list_consents(
        &self,
        user: Uuid,
        behind: Option<ConsentPlace>,
        limit: u32,
    ) -> Result<Vec<Consent>, AccessError> {
        let ConsentPlace { at_us, id } = behind.unwrap_or(ConsentPlace::START);
        let sql = "SELECT id, status, version, source, ip, at FROM consents \
                   WHERE user_id = ? AND at <= ? AND (at < ? OR id < ?) ORDER BY at DESC, id DESC LIMIT ?";
        self.database.rows(sql, args![user, at_us, at_us, id, limit]).await?.iter().map(consent).collect()
    }
}

fn consent(row: &Row) -> Result<Consent, AccessError> {
    Ok(Consent {
        id: row.id("id")?,
        status: row.text("status")?,
        version: row.text("version")?,
        source: row.text("source")?,
        ip: row.text_or_null("ip")?,
        at_us: row.int("at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written_and_anything_else_is_refused() {
        let place = ConsentPlace { at_us: 1_764_000_000_000_001, id: Uuid::from_u128(7) };
        assert_eq!(place.to_string(), "1764000000000001.00000000-0000-0000-0000-000000000007");
        assert_eq!(place.to_string().parse::<ConsentPlace>(), Ok(place));
        for other in ["", "1", ".", "1.", "1.x", "x.00000000-0000-0000-0000-000000000007", "99999999999999999999.7"] {
            assert!(other.parse::<ConsentPlace>().is_err(), "{other}");
        }
    }
}
