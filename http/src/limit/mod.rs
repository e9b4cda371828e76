//! Quotas: how many requests a client may make in a window of time.
//!
//! [`Limits`] stands in front of the routes. A request falls under the first rule for its route, or under the quota of
//! its kind of credential; the answer tells what is left in `RateLimit` and `RateLimit-Policy` (IETF draft
//! "RateLimit header fields for HTTP"), a refusal also in `Retry-After`.
//!
//! Where a network is counted and it is one of IPv6, the /48 around it has a count too, of 16 times as much.
//!
//! Counts are in this process, or in Redis so that several processes share them. When Redis is away, this process
//! counts alone and tries it again some seconds later: requests go on either way.

mod count;
mod headers;
mod keys;
mod rate;
mod redis;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use karat_access::{Access, AccessError, Caller, CallerKind, Credential};
use poem::http::{Method, StatusCode};
use poem::{Endpoint, IntoResponse, Request, Response, Result};
use tokio::sync::Semaphore;

pub(crate) use headers::{QuotaHeaders, put};
pub use rate::EventRates;
pub use redis::SharedCounts;

use crate::caller::{Recognised, credential};
use crate::client_ip::limit_key;
use crate::{ApiError, client_ip};
use count::LocalCounts;
use headers::Policies;
use keys::{Keys, quota_around};

/// Good keys that are new here wait at most so long behind made-up ones of their network.
const MADE_UP_WINDOW: Duration = Duration::from_secs(60);

/// Credentials that were never seen are looked up so many at a time.
const LOOKUPS: usize = 8;

/// How long a request waits for its credential to be looked up, its turn included: as long as its head may take.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(15);

/// So many requests in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Its name in the headers.
    pub name: &'static str,
    /// Requests allowed in one window.
    pub requests: u32,
    /// Length of the window.
    pub window: Duration,
}

/// A quota of its own for some routes, counted by client network.
#[derive(Debug, Clone, Copy)]
pub struct RouteRule {
    /// The method.
    pub method: &'static str,
    /// The path behind the API's prefix; one that ends with `/` stands for every path that begins so.
    pub path: &'static str,
    /// What is allowed.
    pub quota: Quota,
}

impl RouteRule {
    fn is_for(&self, method: &Method, path: &str) -> bool {
        let is_path = self.path == path || (self.path.ends_with('/') && path.starts_with(self.path));
        is_path && self.method == method.as_str()
    }
}

/// The quotas of an application.
#[derive(Debug, Clone)]
pub struct LimitSettings {
    /// Where the routes are; nothing else is counted. The first that fits counts, so the longer one comes first.
    pub prefixes: &'static [&'static str],
    /// Routes with a quota of their own. Rules with the same quota name share it.
    pub rules: Vec<RouteRule>,
    /// Without a credential, by client network and route.
    pub anonymous: Quota,
    /// With an access token, by user.
    pub user: Quota,
    /// With an API key, by key.
    pub api_key: Quota,
    /// Routes that API keys may call without limit: what they publish is counted in events, by [`EventRates`].
    pub publishing: Vec<&'static str>,
    /// Routes that begin so are not counted with this header, which the route itself checks.
    pub owner: Option<(&'static str, &'static str)>,
}

/// What became of counting one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Whether the request is within the quota.
    pub is_allowed: bool,
    /// What is left of it.
    pub remaining: u32,
    /// Until the window ends.
    pub resets_in: Duration,
}

/// Counts requests and refuses those beyond their quota.
pub struct Limits {
    settings: LimitSettings,
    policies: Policies,
    local: LocalCounts,
    shared: Option<SharedCounts>,
    lookups: Semaphore,
    patience: Duration,
}

impl Limits {
    /// Limits that are counted here, or in Redis when there is one.
    pub fn new(settings: LimitSettings, shared: Option<SharedCounts>) -> Arc<Self> {
        let (policies, local) = (Policies::of(&settings), LocalCounts::default());
        let lookups = Semaphore::new(LOOKUPS);
        Arc::new(Self { settings, policies, local, shared, lookups, patience: LOOKUP_PATIENCE })
    }

    /// The same, where every turn to look up a credential is taken and nobody waits long for one.
    #[cfg(test)]
    pub(crate) fn without_turns(mut self: Arc<Self>) -> Arc<Self> {
        if let Some(limits) = Arc::get_mut(&mut self) {
            limits.lookups.forget_permits(LOOKUPS);
            limits.patience = Duration::from_millis(20);
        }
        self
    }

    /// Answers a request, if its quota allows.
    pub async fn call(&self, endpoint: &impl Endpoint<Output = Response>, mut request: Request) -> Result<Response> {
        let (rule, caller) = self.rule_for(&request).await;
        if let Some(caller) = caller {
            request.set_data(Recognised(caller));
        }
        let (keys, quota) = match rule {
            Rule::Free => return endpoint.call(request).await,
            Rule::Refused(Refused::Full(quota, taken)) => return Ok(self.refusal(quota, taken)),
            Rule::Refused(busy @ Refused::Busy) => return Ok(ApiError::from(busy).into_response()),
            Rule::Under(keys, quota) => (keys, quota),
        };
        let taken = self.take_both(&keys, quota).await;
        if !taken.is_allowed {
            return Ok(self.refusal(quota, taken));
        }
        let mut response = match endpoint.call(request).await {
            Ok(response) => response,
            Err(mut error) => {
                error.set_data(self.policies.headers(quota, taken));
                return Err(error);
            }
        };
        if response.status() == StatusCode::NOT_MODIFIED {
            self.give_back(&keys.client).await;
            if let Some(around) = &keys.around {
                self.give_back(around).await;
            }
        }
        put(&mut response, self.policies.headers(quota, taken));
        Ok(response)
    }

    fn refusal(&self, quota: Quota, taken: Taken) -> Response {
        let mut response = ApiError::too_many_requests(taken.resets_in).into_response();
        put(&mut response, self.policies.headers(quota, taken));
        response
    }

    /// What a request is counted under, and who asks, if that had to be found out and is somebody.
    async fn rule_for(&self, request: &Request) -> (Rule, Option<Arc<Caller>>) {
        let path = request.uri().path();
        let path = self.settings.prefixes.iter().find_map(|prefix| path.strip_prefix(prefix));
        let ip = limit_key(client_ip(request).unwrap_or(IpAddr::from([0, 0, 0, 0])));
        let Some(path) = path else { return self.uncounted(request, ip).await };
        let is_owner =
            |(start, header): (&str, &str)| path.starts_with(start) && request.headers().contains_key(header);
        if request.method() == Method::OPTIONS {
            return (Rule::Free, None);
        }
        if self.settings.owner.is_some_and(is_owner) {
            return self.uncounted(request, ip).await;
        }
        let path = path.trim_end_matches('/');
        let is_rule = |rule: &&RouteRule| rule.is_for(request.method(), path);
        if let Some(rule) = self.settings.rules.iter().find(is_rule) {
            let keys = Keys::of_network(ip, |network| format!("{}:{network}", rule.quota.name));
            return (Rule::Under(keys, rule.quota), None);
        }
        let caller = match self.caller(request, ip).await {
            Ok(caller) => caller,
            Err(refused) => return (Rule::Refused(refused), None),
        };
        let settings = &self.settings;
        let rule = match caller.as_ref().map(|caller| &caller.kind) {
            None => {
                // The first part only: what follows may be anything.
                let route = path.split('/').nth(1).unwrap_or_default();
                let route: String = route.chars().take(32).collect();
                let name =
                    |network: &str| format!("{}:{network}:{} {route}", settings.anonymous.name, request.method());
                Rule::Under(Keys::of_network(ip, name), settings.anonymous)
            }
            Some(CallerKind::User { .. }) => {
                let id = caller.as_ref().map(|caller| caller.id).unwrap_or_default();
                Rule::Under(Keys::of_credential(format!("{}:{id}", settings.user.name)), settings.user)
            }
            Some(CallerKind::ApiKey { .. }) if settings.publishing.iter().any(|route| path.starts_with(route)) => {
                Rule::Free
            }
            Some(CallerKind::ApiKey { key, .. }) => {
                Rule::Under(Keys::of_credential(format!("{}:{key}", settings.api_key.name)), settings.api_key)
            }
        };
        (rule, caller)
    }

    /// What is not counted may still look at a key, and made-up ones are bounded there too.
    async fn uncounted(&self, request: &Request, ip: IpAddr) -> (Rule, Option<Arc<Caller>>) {
        match self.caller(request, ip).await {
            Ok(caller) => (Rule::Free, caller),
            Err(refused) => (Rule::Refused(refused), None),
        }
    }

    /// Who asks; a credential that does not hold counts as none.
    async fn caller(&self, request: &Request, ip: IpAddr) -> Result<Option<Arc<Caller>>, Refused> {
        let Some(access) = request.data::<Access>() else { return Ok(None) };
        let Ok(credential) = credential(request) else { return Ok(None) };
        Ok(self.look_up(access, credential, ip).await?.ok())
    }

    /// [`Access::authenticate`] for a client of the network `ip`. An API key that was never seen has to be looked up in
    /// the database, which many made-up ones must not reach: of a network that showed as many as it may ask without a
    /// credential, keys that were good before are still taken, and others have to wait. Counted in this process, whose
    /// database connections are at stake.
    pub(crate) async fn look_up(
        &self,
        access: &Access,
        credential: Credential<'_>,
        ip: IpAddr,
    ) -> Result<Result<Arc<Caller>, AccessError>, Refused> {
        if access.is_known(credential) {
            return Ok(access.authenticate(credential).await);
        }
        // Boxed: rare, and the way to the database would make the future of every request larger.
        let asking = Box::pin(self.ask_database(access, credential, ip));
        tokio::time::timeout(self.patience, asking).await.unwrap_or(Err(Refused::Busy))
    }

    async fn ask_database(
        &self,
        access: &Access,
        credential: Credential<'_>,
        ip: IpAddr,
    ) -> Result<Result<Arc<Caller>, AccessError>, Refused> {
        let anonymous = self.settings.anonymous;
        let quota = Quota { window: anonymous.window.min(MADE_UP_WINDOW), ..anonymous };
        let keys = Keys::of_network(ip, |network| format!("{}:{network}:unknown keys", quota.name));
        // It is counted after it was looked up, so that many good new keys at a time are not refused: those that are under way
        // at that moment are what a flood has beyond its quota.
        let _turn = self.lookups.acquire().await.ok();
        let full = self.local.full(&keys.client, quota);
        let full = full.or_else(|| self.local.full(keys.around.as_deref()?, quota_around(quota)));
        if let Some(taken) = full {
            return Err(Refused::Full(quota, taken));
        }
        let result = access.authenticate(credential).await;
        if matches!(result, Err(AccessError::NotAuthenticated(_))) {
            self.local.take(&keys.client, quota);
            if let Some(around) = &keys.around {
                self.local.take(around, quota_around(quota));
            }
        }
        Ok(result)
    }

    /// Counts a request for the client, then for what is around it: what a client may not do counts for nobody else.
    async fn take_both(&self, keys: &Keys, quota: Quota) -> Taken {
        let taken = self.take(&keys.client, quota).await;
        let Some(around) = keys.around.as_deref().filter(|_| taken.is_allowed) else { return taken };
        let of_all = self.take(around, quota_around(quota)).await;
        if !of_all.is_allowed {
            self.give_back(&keys.client).await;
            return of_all;
        }
        Taken { remaining: taken.remaining.min(of_all.remaining), ..taken }
    }

    async fn take(&self, key: &str, quota: Quota) -> Taken {
        match &self.shared {
            Some(shared) => match shared.take(key, quota).await {
                Some(taken) => taken,
                None => self.local.take(key, quota),
            },
            None => self.local.take(key, quota),
        }
    }

    async fn give_back(&self, key: &str) {
        match &self.shared {
            Some(shared) if shared.give_back(key).await => {}
            _ => self.local.give_back(key),
        }
    }
}

/// How a request is counted.
enum Rule {
    /// Not at all.
    Free,
    /// Under these names.
    Under(Keys, Quota),
    /// It is refused already.
    Refused(Refused),
}

/// Why a credential is not looked up.
pub(crate) enum Refused {
    /// Its network showed too many that do not hold.
    Full(Quota, Taken),
    /// It did not have its turn, or an answer, in time.
    Busy,
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full(_, taken) => Self::too_many_requests(taken.resets_in),
            Refused::Busy => AccessError::Busy.into(),
        }
    }
}

/// Why Redis could not be set up.
pub(crate) fn redis_error(reason: impl std::fmt::Display) -> AccessError {
    AccessError::Unreachable { address: "redis".to_owned(), reason: reason.to_string() }
}
