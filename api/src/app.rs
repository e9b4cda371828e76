//! [`app`]: every route of the API as one endpoint.
//!
//! `/api/v1` is the canonical prefix and `/api` serves the same routes. The operations of other crates (the HTTP door)
//! are handed in as one more `OpenApi`, so that they are in the same document and under the same rules.

use std::{collections::HashMap, sync::Arc};

use karat_access::Access;
use karat_http::{AllowedMethods, ApiError, HardenSettings, authenticate, closed, harden_with};
use karat_lake::Lake;
use poem::{
    Endpoint, EndpointExt, IntoEndpoint, PathPattern, Request, Response, Result, Route,
    endpoint::{BoxEndpoint, make_sync},
    error::MethodNotAllowedError,
    web::Html,
};
use poem_openapi::{OpenApi, OpenApiService, ServerObject};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    auth::{AuthApis, AuthSettings, Experience, auth_apis, jwks},
    endpoints::{DeclaredApi, PlannedEndpoint, with_endpoints},
    health::{self, ReadyCheck},
    lag::Lag,
    live::{LiveApis, LiveSettings, live_apis},
    prefixes::{Entrance, Prefixed},
    routes::{DataApis, data_apis},
    serving::{Serving, ServingCounters, ServingSettings},
    snapshot::Snapshots,
};

/// Settings of the application.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    pub auth: AuthSettings,
    pub serving: ServingSettings,
    pub live: LiveSettings,
    pub harden: HardenSettings,
    /// Whether `/docs`, `/swagger` and `/openapi.json` are open to everybody. Not so in production, by default.
    pub docs_are_public: bool,
    /// Signs cursors, so that several processes read each other's; a random key when not given.
    pub cursor_key: Option<SecretString>,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            auth: AuthSettings::default(),
            serving: ServingSettings::default(),
            live: LiveSettings::default(),
            harden: HardenSettings::default(),
            docs_are_public: true,
            cursor_key: None,
        }
    }
}

/// What the application works with.
#[derive(Clone)]
pub struct Parts {
    pub access: Access,
    pub lake: Lake,
    /// Kept current by [`follow`](crate::snapshot::follow), which the caller runs.
    pub snapshots: Arc<Snapshots>,
    pub lag: Arc<dyn Lag>,
    /// Dependencies beside the lake that `/ready` asks.
    pub checks: Vec<ReadyCheck>,
    /// Epochs of further pipelines that are asked, such as that of the profits. Kept current in the same way.
    pub others: Vec<Arc<Snapshots>>,
    /// Routes that the pipelines declare.
    pub endpoints: Vec<Arc<PlannedEndpoint>>,
    /// What the data routes count about themselves.
    pub counters: Arc<ServingCounters>,
}

type Apis<E> = Prefixed<(DataApis, LiveApis, AuthApis, DeclaredApi, E)>;

/// Every route, hardened. `extra` are operations of other crates for the same prefix; `()` for none.
///
/// # Errors
/// When the system gives no random numbers, or the query engine cannot be set up.
pub fn app<E>(
    settings: ApiSettings,
    parts: Parts,
    extra: E,
) -> Result<impl Endpoint<Output = Response> + 'static, ApiError>
where
    E: OpenApi + 'static,
{
    let service = service(&settings, &parts, extra)?;
    let plain = closed(&service.spec());
    let document = with_endpoints(plain.clone(), &parts.endpoints)?;
    // The pages have the document in them.
    let shown = |page: String| closed(&without_others(&page)).replace(&plain, &document);
    let (reference, swagger) = (shown(service.scalar_html()), shown(service.swagger_ui_html()));
    let methods = Methods::of(&document);
    let guard = |endpoint: BoxEndpoint<'static>| poem::get(Guarded { is_public: settings.docs_are_public, endpoint });
    let route = Route::new()
        .at("/openapi.json", guard(json(document)))
        .nest("/docs", guard(page(reference)))
        .nest("/swagger", guard(page(swagger)))
        .at("/health", health::live())
        .at("/livez", health::live())
        .at("/ready", health::ready(&parts.snapshots, parts.checks.clone()))
        .at("/readyz", health::ready(&parts.snapshots, parts.checks.clone()))
        .at("/.well-known/jwks.json", poem::get(jwks(&parts.access)));
    let route = Entrance { operations: service.into_endpoint(), others: route };
    let limits = settings.auth.limits()?;
    let route = route
        .around(move |route, request| {
            let limits = limits.clone();
            async move {
                match limits {
                    Some(limits) => limits.call(route.as_ref(), request).await,
                    None => route.call(request).await,
                }
            }
        })
        .data(parts.access);
    let route = route.around(move |route, request| {
        let methods = Arc::clone(&methods);
        async move { route.call(request).await.map_err(|error| methods.name_in(error)) }
    });
    Ok(harden_with(route, settings.harden))
}

/// The OpenAPI document of [`app`], as JSON.
///
/// # Errors
/// As [`app`].
pub fn openapi_json<E: OpenApi + 'static>(settings: &ApiSettings, parts: &Parts, extra: E) -> Result<String, ApiError> {
    with_endpoints(closed(&service(settings, parts, extra)?.spec()), &parts.endpoints)
}

fn service<E: OpenApi + 'static>(
    settings: &ApiSettings,
    parts: &Parts,
    extra: E,
) -> Result<OpenApiService<Apis<E>, ()>, ApiError> {
    let key = settings.cursor_key.as_ref().map(|key| key.expose_secret().as_bytes());
    let (snapshots, lag) = (Arc::clone(&parts.snapshots), Arc::clone(&parts.lag));
    let experience = Experience::of_gold(Arc::clone(&parts.snapshots), settings.auth.experience);
    let counters = Arc::clone(&parts.counters);
    let serving = Serving::new(settings.serving.clone(), snapshots, parts.lake.clone(), lag, key, counters)?;
    let serving = Arc::new(serving.with_others(&parts.others));
    let data = data_apis(&serving, settings.auth.experience, &parts.access);
    // Pages that may use the cookie of a log-in may open these.
    let live = live_apis(&parts.access, &settings.auth.origins, &settings.live, &serving, &parts.lake)?;
    let declared = DeclaredApi::new(&serving, &parts.endpoints);
    let auth = auth_apis(&parts.access, &settings.auth, &experience);
    let apis = Prefixed((data, live, auth, declared, extra));
    let server = ServerObject::new("/api/v1").description("The canonical prefix; `/api` serves the same routes.");
    Ok(OpenApiService::new(apis, "Karat", env!("CARGO_PKG_VERSION"))
        .description("Runs of ETL jobs: publish events, read figures, watch jobs and pipelines.")
        .server(server))
}

/// The methods of each path, as `Allow` names them.
struct Methods(HashMap<String, String>);

impl Methods {
    /// Reads them from the OpenAPI document.
    fn of(document: &str) -> Arc<Self> {
        let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
        let paths = document["paths"].as_object().cloned().unwrap_or_default();
        let methods = |operations: &serde_json::Value| {
            let names = operations.as_object().into_iter().flatten().map(|(name, _)| name.to_uppercase());
            names
                .flat_map(|name| if name == "GET" { vec![name, "HEAD".to_owned()] } else { vec![name] })
                .collect::<Vec<_>>()
                .join(", ")
        };
        // The document writes `{id}`; the router numbers the parts of a path that may be anything.
        let pattern = |path: &str| {
            let mut numbers = 0_u32..;
            let parts = path.split('/').map(|part| match part.starts_with('{').then(|| numbers.next()).flatten() {
                Some(number) => format!(":param{number}"),
                None => part.to_owned(),
            });
            parts.collect::<Vec<_>>().join("/")
        };
        Arc::new(Self(paths.iter().map(|(path, operations)| (pattern(path), methods(operations))).collect()))
    }

    /// Puts the methods of the path on the error of a method that it does not answer.
    fn name_in(&self, mut error: poem::Error) -> poem::Error {
        if error.is::<MethodNotAllowedError>()
            && let Some(PathPattern(pattern)) = error.data::<PathPattern>().cloned()
        {
            let path = pattern.strip_prefix("/api/v1").or_else(|| pattern.strip_prefix("/api"));
            let methods = path.and_then(|path| self.0.get(path)).map_or("GET, HEAD", String::as_str);
            error.set_data(AllowedMethods(methods.to_owned()));
        }
        error
    }
}

/// A reference page that asks other hosts for nothing, and this one for no icon: the reference would have fonts from its maker,
/// which the policy of the pages refuses, one complaint in the browser each.
fn without_others(page: &str) -> String {
    let marked = "id=\"api-reference\"";
    let configured = format!("{marked} data-configuration='{{\"withDefaultFonts\":false}}'");
    // The first of each is the page's; in its script they may come again.
    page.replacen("<head>", "<head><link rel=\"icon\" href=\"data:,\">", 1).replacen(marked, &configured, 1)
}

fn json(document: String) -> BoxEndpoint<'static> {
    make_sync(move |_| Response::builder().content_type("application/json").body(document.clone())).boxed()
}

fn page(html: String) -> BoxEndpoint<'static> {
    Route::new().at("/", make_sync(move |_| Html(html.clone()))).map_to_response().boxed()
}

/// The reference pages, open or for those who are logged in.
struct Guarded {
    is_public: bool,
    endpoint: BoxEndpoint<'static>,
}

impl Endpoint for Guarded {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        if !self.is_public {
            authenticate(&request).await?;
        }
        self.endpoint.call(request).await
    }
}
