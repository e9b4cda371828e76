//! `/health`, `/livez`, `/ready`, `/readyz`: whether this process lives, and whether it can do its work.
//!
//! Liveness asks nothing of anybody: a database that is away is no reason to restart this process. Readiness asks each
//! dependency, with a deadline, and answers 503 when one is away. What failed goes to the log; a client reads its name.

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, join_all};
use karat_http::{ApiError, ok};
use poem::{Endpoint, EndpointExt, IntoResponse, Request, Response, Result, RouteMethod, endpoint};
use poem_openapi::Object;
use serde::Serialize;

use crate::snapshot::Snapshots;

/// Each check's time.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);
/// The follower looks every second; this long without a look, it is stuck or gone.
const FOLLOWER_SILENCE: Duration = Duration::from_secs(30);

/// One dependency.
#[derive(Clone)]
pub struct ReadyCheck {
    name: &'static str,
    check: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

impl ReadyCheck {
    /// A check by name. The text of its error goes to the log only.
    pub fn new<F, Fut>(name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, check: Arc::new(move || Box::pin(check())) }
    }

    async fn run(&self) -> bool {
        let result = tokio::time::timeout(CHECK_DEADLINE, (self.check)()).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {} s", CHECK_DEADLINE.as_secs())));
        if let Err(reason) = &result {
            tracing::warn!(check = self.name, %reason, "not ready");
        }
        result.is_ok()
    }
}

/// What a health route says.
#[derive(Debug, Clone, Serialize, Object)]
struct Health {
    /// `ok`.
    status: String,
    /// Each dependency, with `?verbose`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[oai(skip_serializing_if_is_none)]
    checks: Option<Vec<CheckResult>>,
}

#[derive(Debug, Clone, Serialize, Object)]
struct CheckResult {
    name: String,
    ok: bool,
}

/// Answers as long as the process does.
pub(crate) fn live() -> RouteMethod {
    let health = || Health { status: "ok".to_owned(), checks: None };
    poem::get(endpoint::make_sync(move |_| ok(health(), "the process is alive")))
}

/// Answers 200 when every check passes, else 503 naming those that do not.
pub(crate) fn ready(snapshots: &Arc<Snapshots>, checks: Vec<ReadyCheck>) -> RouteMethod {
    let mut all = vec![follower_check(snapshots)];
    all.extend(checks);
    poem::get(Ready(Arc::new(all)).boxed())
}

struct Ready(Arc<Vec<ReadyCheck>>);

impl Endpoint for Ready {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let is_verbose =
            request.uri().query().is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
        let results = join_all(self.0.iter().map(ReadyCheck::run)).await;
        let results: Vec<_> = self.0.iter().zip(results).map(|(check, ok)| (check.name, ok)).collect();
        let failed: Vec<_> =
            results.iter().filter(|(_, ok)| !ok).map(|(name, _)| format!("`{name}`: is away")).collect();
        if !failed.is_empty() {
            let error = ApiError::unavailable("not_ready", "something that the server depends on is away");
            return Err(error.details(failed).retry_after(Duration::from_secs(1)).into());
        }
        let checks = results.into_iter().map(|(name, ok)| CheckResult { name: name.to_owned(), ok });
        let health = Health { status: "ok".to_owned(), checks: is_verbose.then(|| checks.collect()) };
        Ok(ok(health, "everything that the server depends on is there").into_response())
    }
}

fn follower_check(snapshots: &Arc<Snapshots>) -> ReadyCheck {
    let snapshots = Arc::clone(snapshots);
    ReadyCheck::new("lake", move || {
        let health = snapshots.health();
        async move {
            match health.last_looked {
                None => Err("no epoch has been looked for yet".to_owned()),
                Some(at) if at.elapsed() > FOLLOWER_SILENCE => Err("epochs are no longer followed".to_owned()),
                Some(_) if health.has_failed => Err("the next epoch cannot be loaded".to_owned()),
                Some(_) => Ok(()),
            }
        }
    })
}
