//! What the audit log keeps of refusals. Whoever is refused can come again at once, and each row is a write that every
//! other change waits for: what costs its sender nothing is written once a minute.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::secret::sha256;
use crate::{Access, AccessError, Action, Actor, AuditEvent, Caller, Origin, Permission, TokenFault};

/// How long a row stands for every refusal like it.
const ONE_ROW: Duration = Duration::from_secs(60);
/// Rows that are remembered at a time. Beyond that the oldest are forgotten, and what they stood for is written again.
pub(crate) const REMEMBERED: usize = 10_000;

impl Access {
    /// Notes that a caller lacked a permission: one row a minute for each caller and permission.
    pub async fn note_access_denied(&self, caller: &Caller, permission: Permission, origin: &Origin) {
        let event = AuditEvent::refused(caller.into(), Action::AccessDenied, Some(caller.id), origin)
            .with_details(json!({"permission": permission.name()}));
        self.audit_repeatable(&denied(caller, permission.name()), event).await;
    }

    /// Notes that the scopes of a caller's API key do not cover a route: one row a minute for each key.
    pub async fn note_route_denied(&self, caller: &Caller, origin: &Origin) {
        let event = AuditEvent::refused(caller.into(), Action::AccessDenied, Some(caller.id), origin)
            .with_details(json!({"reason": "route_scope"}));
        self.audit_repeatable(&denied(caller, "route"), event).await;
    }

    /// Notes that a credential does not hold: one row a minute for each network and fault. Who presents none at all is
    /// not refused a credential, and leaves none.
    pub async fn note_bad_credential(&self, fault: TokenFault, origin: &Origin) {
        if fault == TokenFault::Missing {
            return;
        }
        let event =
            AuditEvent::denied(Action::CredentialRefused, None, origin).with_details(json!({"reason": fault.name()}));
        self.audit_repeatable(&format!("{} {}", network(origin), fault.name()), event).await;
    }

    /// Notes that events were refused for want of consent: one row a minute for each credential.
    pub async fn note_consent_needed(&self, caller: &Caller, version: &str, origin: &Origin) {
        let event = AuditEvent::refused(caller.into(), Action::AccessDenied, Some(caller.id), origin)
            .with_details(json!({"consent": version}));
        self.audit_repeatable(&denied(caller, "consent"), event).await;
    }

    /// Notes that a request was refused before anything was asked of the accounts: one row a minute for each network.
    pub async fn note_refusal(&self, action: Action, origin: &Origin) {
        self.audit_repeatable(&network(origin), AuditEvent::denied(action, None, origin)).await;
    }

    /// Takes a refusal for want of a permission as noted, because another row tells more of it.
    pub(crate) fn skip_access_denied(&self, caller: &Caller, permission: Permission) {
        self.is_due(Action::AccessDenied, &denied(caller, permission.name()));
    }

    /// Writes an audit row for something that was refused, unless there is one of the last minute about the same
    /// action and `who`.
    pub(crate) async fn audit_repeatable(&self, who: &str, event: AuditEvent) {
        if self.is_due(event.action, who) {
            self.audit_refusal(event).await;
        }
    }

    /// Passes a result on. A code or link that was refused leaves a row; whose it would have been is not known.
    pub(crate) async fn audit_code<T>(
        &self,
        result: Result<T, AccessError>,
        action: Action,
        origin: &Origin,
    ) -> Result<T, AccessError> {
        if matches!(result, Err(AccessError::CodeRefused)) {
            self.note_refusal(action, origin).await;
        }
        result
    }

    /// Asks for open registration.
    ///
    /// # Errors
    /// [`AccessError::RegistrationClosed`].
    pub(crate) async fn require_open_registration(&self, origin: &Origin) -> Result<(), AccessError> {
        if self.inner.settings.registration_open {
            return Ok(());
        }
        self.note_refusal(Action::Register, origin).await;
        Err(AccessError::RegistrationClosed)
    }

    fn is_due(&self, action: Action, who: &str) -> bool {
        let key = sha256(&json!([action.name(), who]).to_string());
        self.inner.refusals.replace_if(key, Instant::now(), |written| written.elapsed() >= ONE_ROW)
    }
}

/// Where a request came from. A host with IPv6 has a whole /64 to choose from, so it counts as one.
pub(crate) fn network(origin: &Origin) -> String {
    match origin.ip {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("{:x?}", &ip.segments()[..4]),
        None => String::new(),
    }
}

/// Who lacked what.
fn denied(caller: &Caller, what: impl Display) -> String {
    let (kind, id) = Actor::from(caller).columns();
    format!("{kind} {} {what}", id.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one() {
        let at = |ip: &str| network(&Origin::new(Some(ip.parse().unwrap()), None, None));
        assert_eq!(at("2001:db8:1:2::5"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::5"), at("2001:db8:1:3::5"));
        assert_ne!(at("203.0.113.5"), at("203.0.113.6"));
    }
}
