//! The quotas of the product (decision 37): by kind of credential, and for routes that anybody may call.

use std::time::Duration;

use karat_http::{LimitSettings, Quota, RouteRule};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What is allowed by default.
pub fn default_quotas() -> LimitSettings {
    let quota = |name, requests, window| Quota { name, requests, window };
    let rule = |path, quota| RouteRule { method: "POST", path, quota };
    let login = quota("login", 10, 15 * MINUTE);
    let second_step = quota("login-mfa", 20, 15 * MINUTE);
    let code = quota("code", 20, HOUR);
    let mut rules = vec![
        rule("/auth/login", login),
        rule("/auth/login/mfa", second_step),
        // Each log-in by a passkey is two requests.
        rule("/auth/mfa/passkeys/login", second_step),
        rule("/auth/mfa/passkeys/login/confirm", second_step),
        rule("/auth/register", quota("register", 5, HOUR)),
        // Twenty an hour a session is kept by the session itself; many people may share one address.
        rule("/auth/refresh", quota("refresh", 600, HOUR)),
    ];
    for path in [
        "/auth/reset-password",
        "/auth/reset-password/confirm",
        "/auth/verify-email",
        "/auth/phone/request",
        "/auth/phone/verify",
    ] {
        rules.push(rule(path, code));
    }
    // Of a user they are free; each is a connection, of which a user has few. Made-up tickets are looked up, so they have a bound.
    for path in ["/charts/", "/chat", "/events/stream"] {
        rules.push(RouteRule { method: "GET", path, quota: quota("streams", 6_000, HOUR) });
    }
    // A page may show many; each may be a request to a bucket.
    rules.push(RouteRule { method: "GET", path: "/avatars/", quota: quota("pictures", 6_000, HOUR) });
    LimitSettings {
        prefixes: &["/api/v1", "/api"],
        rules,
        anonymous: quota("anonymous", 100, HOUR),
        user: quota("user", 1_000, HOUR),
        api_key: quota("api-key", 1_000, HOUR),
        publishing: vec!["/events", "/lineage", "/receipts"],
        // Orders of the data folder's owner carry a secret that no guess reaches.
        owner: Some(("/admin/replays", crate::replays::LOCAL_HEADER)),
    }
}
