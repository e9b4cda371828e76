//! Paths outside the document: open to everybody, or, in production, for those who logged in.

use super::{Right, callers, log_in};
use crate::{client::http, process::Folder, wait::until};

const OPEN: [&str; 5] = ["/health", "/livez", "/ready", "/readyz", "/.well-known/jwks.json"];

/// In production they need a log-in.
const PAGES: [&str; 3] = ["/docs", "/swagger", "/openapi.json"];

#[tokio::test]
async fn security_53_and_80_paths_outside_the_document_are_open_or_need_a_log_in() {
    let folder = Folder::new();
    let callers = callers(&folder).await;
    let fit = [
        &["up", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"][..],
        &["--public-url", "https://karat.example.org", "--behind-tls", "--allowed-host", "127.0.0.1"],
        &["--smtp", "smtps://mail.invalid", "--mail-from", "Karat <karat@example.org>"],
    ]
    .concat();
    for environment in ["development", "production"] {
        let mut karat = folder.start(environment, &[&fit[..], &["--environment", environment]].concat());
        let (url, metrics) = (karat.url().await, karat.metrics_url().await);
        until("the instance is ready", async || {
            http().get(format!("{url}/ready")).send().await.ok().filter(|answer| answer.status() == 200)
        })
        .await;
        for caller in &callers {
            let credential = match &caller.credential {
                Some(name) if caller.is_session => Some(log_in(&url, name).await),
                other => other.clone(),
            };
            let ask = async |url: String| {
                let request = http().get(url);
                let request = match &credential {
                    Some(credential) => request.bearer_auth(credential),
                    None => request,
                };
                request.send().await.unwrap().status().as_u16()
            };
            let open = OPEN.map(|path| (path, 200)).into_iter();
            let pages = PAGES.map(|path| {
                let right = if environment == "development" { Right::Anybody } else { Right::Credential };
                // A key of some routes is known, and refused on the others.
                let refusal = if caller.may(right) { 403 } else { 401 };
                (path, if caller.may_at(right, path) { 200 } else { refusal })
            });
            for (path, expected) in open.chain(pages).chain([("/metrics", 404)]) {
                // A machine that stands still for two seconds is not ready for a moment, to anybody.
                let status =
                    until(path, async || Some(ask(format!("{url}{path}")).await).filter(|status| *status != 503)).await;
                assert_eq!(status, expected, "{path} by {} in {environment}", caller.name);
            }
            assert_eq!(ask(format!("{metrics}/metrics")).await, 200, "{}", caller.name);
        }
        karat.stop().await;
    }
}
