//! The routes of declared endpoints: what a request asks becomes values of declared types, and an answer of one epoch.
//!
//! As JSON an answer has pages, with a cursor of its epoch; as a file it has all rows or is refused, so nobody takes a
//! part for the whole. Who asks is the caller's credential, and no parameter.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use karat_access::Caller;
use karat_http::{ApiError, authenticate};
use karat_schemas::pipelines::Rows as Whose;
use poem::{
    Endpoint, EndpointExt, IntoResponse, Request, Response, Result,
    endpoint::BoxEndpoint,
    http::{Method, StatusCode},
};
use poem_openapi::{
    OpenApi,
    registry::{MetaApi, Registry},
};
use serde::Serialize;
use serde_json::value::RawValue;
use url::form_urlencoded;

use super::{
    PREFIX, PlannedEndpoint,
    plan::{Values, own_values, scalar},
};
use crate::{
    export::{File, Form, Format, Rows},
    lakehouse::rows::Page,
    serving::{
        Key, KeyParts, Question, Serving, envelope,
        freshness::DataState,
        in_time, now_us,
        params::{Params, found},
    },
    snapshot::Snapshot,
    summary::rfc3339_utc,
};

/// The routes, for the router. They are not in the metadata, which is the same for every instance; see `document`.
pub(crate) struct DeclaredApi {
    serving: Arc<Serving>,
    endpoints: Vec<Arc<PlannedEndpoint>>,
}

impl DeclaredApi {
    pub(crate) fn new(serving: &Arc<Serving>, endpoints: &[Arc<PlannedEndpoint>]) -> Self {
        Self { serving: Arc::clone(serving), endpoints: endpoints.to_vec() }
    }
}

impl OpenApi for DeclaredApi {
    fn meta() -> Vec<MetaApi> {
        Vec::new()
    }

    fn register(_: &mut Registry) {}

    fn add_routes(self, routes: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {
        for planned in self.endpoints {
            let path = format!("{PREFIX}/{}", planned.name());
            let route = Route { serving: Arc::clone(&self.serving), planned };
            routes.entry(path).or_default().insert(Method::GET, route.boxed());
        }
    }
}

struct Route {
    serving: Arc<Serving>,
    planned: Arc<PlannedEndpoint>,
}

impl Endpoint for Route {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        Ok(self.answer(&request).await?)
    }
}

/// What a request asks.
struct Asked {
    /// By name, as it was written or declared; absent for NULL.
    written: BTreeMap<String, Option<String>>,
    values: Values,
    /// The form of the file, when one is wanted.
    file: Option<Format>,
    /// Rows of a page.
    limit: usize,
    cursor: Option<String>,
}

/// The data of a JSON answer.
#[derive(Serialize)]
struct WrittenPage<'a> {
    epoch: u64,
    as_of: Option<String>,
    data_state: DataState,
    rows: &'a RawValue,
    next_cursor: Option<String>,
}

/// A question whose answer is made.
struct Asking {
    serving: Arc<Serving>,
    planned: Arc<PlannedEndpoint>,
    snapshot: Arc<Snapshot>,
    values: Values,
}

impl Route {
    async fn answer(&self, request: &Request) -> Result<Response, ApiError> {
        let caller = authenticate(request).await?;
        let scope = self.serving.scope_of(&caller)?;
        self.require_role(&caller)?;
        let asked = self.understand(request)?;
        let declared = &self.planned.declared;
        let mut parts = scope.asks("endpoint");
        // What the file says is part of the question: another instance may say something else under this name.
        parts.text("declared", &format!("{declared:?}")).text("caller", &caller.id.to_string());
        for (name, value) in &asked.written {
            parts.text("parameter", name).maybe("value", value.as_deref());
        }
        let id = parts.key();
        let cursor = self.serving.read_cursor::<u64>(asked.cursor.as_deref())?;
        if let Some(cursor) = &cursor {
            cursor.check_question(id)?;
        }
        let snapshots = self.serving.snapshots_of(&declared.pipeline).ok_or_else(not_served)?;
        let snapshot = self.serving.snapshot_in(snapshots, cursor.as_ref()).await?;
        let skip = cursor.map_or(0, |cursor| usize::try_from(cursor.position).unwrap_or(usize::MAX));
        let mut page = KeyParts::of("page");
        let extension = asked.file.map_or("json", Format::extension);
        page.text("extension", extension).number("limit", asked.limit as u64).number("skip", skip as u64);
        let freshness = self.serving.freshness(&snapshot, now_us());
        let question = Question { id, page, snapshot: Arc::clone(&snapshot), freshness, clock: 0 };
        let mut values = asked.values;
        values.extend(own_values(&caller.id.to_string(), snapshot.epoch.as_of_us));
        let file_name = format!("{}-of-epoch-{}", declared.name, snapshot.epoch.epoch);
        let (serving, planned) = (Arc::clone(&self.serving), Arc::clone(&self.planned));
        let asking = Asking { serving, planned, snapshot, values };
        if let Some(format) = asked.file {
            let file = File { name: file_name, form: Form { format, has_mark: false } };
            let answer = self.serving.export(request, question, file, move || asking.file()).await?;
            return Ok(answer.into_response());
        }
        let render = asking.page(id, skip, asked.limit, freshness.data_state);
        Ok(self.serving.answer::<()>(request, question, render).await?.into_response())
    }

    fn require_role(&self, caller: &Caller) -> Result<(), ApiError> {
        if self.planned.declared.rows == Whose::Own || self.planned.roles.contains(&caller.role) {
            return Ok(());
        }
        Err(ApiError::forbidden("this endpoint answers everybody's rows, and is for other roles"))
    }

    fn understand(&self, request: &Request) -> Result<Asked, ApiError> {
        let declared = &self.planned.declared.parameters;
        let known: Vec<&str> =
            declared.iter().map(|one| one.name.as_str()).chain(["limit", "cursor", "format"]).collect();
        let mut params = Params::of(request, &known);
        let query = request.uri().query().unwrap_or_default();
        let given: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let text = |name: &str| given.get(name).map(String::as_str);
        let (mut written, mut values) = (BTreeMap::new(), Values::new());
        for parameter in declared {
            let name = parameter.name.as_str();
            let default = parameter.default.as_ref().map(|default| default.0.as_str());
            let found_text = text(name).or(default);
            let value = found_text.and_then(|text| parameter.read(text));
            match found_text {
                Some(text) if value.is_none() => params.add(name, &parameter.expected(), &found(text)),
                None if parameter.required => params.add(name, &parameter.expected(), "nothing"),
                _ => {}
            }
            written.insert(name.to_owned(), found_text.map(str::to_owned));
            values.push((name.to_owned(), scalar(parameter.parameter_type, value)));
        }
        let formats = [("json", None), ("csv", Some(Format::Csv)), ("ndjson", Some(Format::Ndjson))];
        let file = params.choice("format", text("format"), &formats).flatten();
        let limit = params.limit(text("limit"));
        if file.is_some() {
            for name in ["limit", "cursor"] {
                if let Some(text) = text(name) {
                    params.add(name, "it with `format=json` alone, since a file has all rows", &found(text));
                }
            }
        }
        params.finish()?;
        Ok(Asked { written, values, file, limit, cursor: text("cursor").map(str::to_owned) })
    }
}

impl Asking {
    /// The bytes of a page.
    async fn page(self, id: Key, skip: usize, limit: usize, data_state: DataState) -> Result<Vec<u8>, ApiError> {
        let Self { serving, planned, snapshot, values } = self;
        // One more than asked tells whether there are more.
        let batches = planned.rows(&serving.tables, &snapshot, values, skip, limit.saturating_add(1)).await?;
        let write = serving.compute(move |serving, _| {
            let page = Page::of(&batches, limit)?;
            let next = skip.saturating_add(page.num_rows) as u64;
            let next = page.has_more.then(|| serving.next_cursor(&snapshot, id, next)).transpose()?;
            written(&snapshot, data_state, &page.rows, next)
        });
        write.await
    }

    /// All rows, for a file.
    fn file(self) -> Rows {
        let schema = Arc::clone(&self.planned.schema);
        let read = async move {
            let Self { serving, planned, snapshot, values } = self;
            let whole = planned.whole(&serving.tables, &snapshot, values);
            let batches = in_time(serving.settings.query_deadline, whole).await?;
            Ok::<_, ApiError>(stream::iter(batches.into_iter().map(Ok::<_, ApiError>)))
        };
        Rows { schema, batches: stream::once(read).try_flatten().boxed() }
    }
}

fn written(
    snapshot: &Snapshot,
    data_state: DataState,
    rows: &RawValue,
    next_cursor: Option<String>,
) -> Result<Vec<u8>, ApiError> {
    let as_of = snapshot.epoch.as_of_us.and_then(rfc3339_utc);
    let page = WrittenPage { epoch: snapshot.epoch.epoch, as_of, data_state, rows, next_cursor };
    envelope(&page, "the rows of the endpoint")
}

fn not_served() -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_served", "the pipeline of this endpoint is not served here")
}
