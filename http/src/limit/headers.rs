//! The headers that tell of a quota: `RateLimit-Policy`, which is written once for each quota, and `RateLimit`.

use std::time::Duration;

use poem::Response;
use poem::http::{HeaderName, HeaderValue};

use super::{LimitSettings, Quota, Taken};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// Both headers. On an answer that is an error they are put when it is rendered.
#[derive(Debug, Clone)]
pub(crate) struct QuotaHeaders {
    policy: Option<HeaderValue>,
    left: Option<HeaderValue>,
}

impl QuotaHeaders {
    pub(super) fn of(quota: Quota, taken: Taken) -> Self {
        Self { policy: policy(quota), left: left(quota, taken) }
    }
}

/// The policies of the quotas that most requests fall under.
pub(super) struct Policies(Vec<(Quota, Option<HeaderValue>)>);

impl Policies {
    pub(super) fn of(settings: &LimitSettings) -> Self {
        let quotas = [settings.anonymous, settings.user, settings.api_key].into_iter();
        let quotas = quotas.chain(settings.rules.iter().map(|rule| rule.quota));
        Self(quotas.map(|quota| (quota, policy(quota))).collect())
    }

    pub(super) fn headers(&self, quota: Quota, taken: Taken) -> QuotaHeaders {
        match self.0.iter().find(|(of, _)| *of == quota) {
            Some((_, policy)) => QuotaHeaders { policy: policy.clone(), left: left(quota, taken) },
            None => QuotaHeaders::of(quota, taken),
        }
    }
}

/// Puts the headers on an answer.
pub(crate) fn put(response: &mut Response, quota: QuotaHeaders) {
    for (name, value) in [(POLICY, quota.policy), (LEFT, quota.left)] {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
}

fn policy(quota: Quota) -> Option<HeaderValue> {
    let Quota { name, requests, window } = quota;
    HeaderValue::try_from(format!("\"{name}\";q={requests};w={}", seconds(window))).ok()
}

fn left(quota: Quota, taken: Taken) -> Option<HeaderValue> {
    let Taken { remaining, resets_in, .. } = taken;
    HeaderValue::try_from(format!("\"{}\";r={remaining};t={}", quota.name, seconds(resets_in))).ok()
}

/// Rounded up, so that who waits for so long does not come too early.
fn seconds(duration: Duration) -> u128 {
    duration.as_millis().div_ceil(1000)
}
