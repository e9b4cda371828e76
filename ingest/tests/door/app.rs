//! One test application: fresh folders, typed callers, the records that reached the log.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use karat_access::{
    Access, AccessSettings, Actor, AuditFilter, AuditRow, Caller, CallerKind, ConsentRule, Credential, HashSettings,
    NewApiKey, NewUser, Origin, Role, Scopes,
};
use karat_eventlog::{
    ConsumerSettings, EventLog, PollLimits, Record, Result as LogResult, StartPositions, TopicSpec,
    embedded::EmbeddedLog,
};
use karat_http::harden;
use karat_ingest::{
    Progress, Publisher, ReceiptKey,
    door::{Budget, IngestApi},
};
use karat_schemas::{events::Contracts, pipelines};
use poem::endpoint::BoxEndpoint;
use poem::{Body, Endpoint, EndpointExt, IntoEndpoint, Request, Response, Route};
use poem_openapi::OpenApiService;
use secrecy::{ExposeSecret, SecretBox};
use serde_json::{Value, json};
use tempfile::TempDir;

pub struct App {
    pub endpoint: BoxEndpoint<'static, Response>,
    pub log: Arc<EmbeddedLog>,
    /// An API key that may publish everything.
    pub key: String,
    /// The OpenAPI document.
    pub spec: String,
    /// The memory for requests in flight.
    pub budget: Budget,
    access: Access,
    owner: uuid::Uuid,
    _folder: TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub retry_after: Option<String>,
    pub quota: Option<String>,
    pub body: Value,
}

impl App {
    pub async fn start() -> Self {
        Self::start_with(|log| log, None).await
    }

    /// `wrap` may put something in front of the log.
    pub async fn start_with(
        wrap: impl FnOnce(Arc<dyn EventLog>) -> Arc<dyn EventLog>,
        progress: Option<Arc<dyn Progress>>,
    ) -> Self {
        Self::start_on(wrap, progress, ConsentRule::default()).await
    }

    /// Consent is asked for as the rule says.
    pub async fn start_asking(consent: ConsentRule) -> Self {
        Self::start_on(|log| log, None, consent).await
    }

    async fn start_on(
        wrap: impl FnOnce(Arc<dyn EventLog>) -> Arc<dyn EventLog>,
        progress: Option<Arc<dyn Progress>>,
        consent: ConsentRule,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(open_log(&folder.path().join("log")).await);
        let access = open_access(folder.path(), consent).await;
        let receipts = ReceiptKey::new(&SecretBox::new(b"a secret of the test".to_vec().into()));
        let publisher = Publisher::new(wrap(log.clone()), Arc::new(contracts()), receipts);
        let api = IngestApi::new(publisher, progress);
        let budget = api.budget();
        let service = OpenApiService::new(api, "karat", "1");
        let spec = service.spec();
        let app = Route::new().nest("/api/v1", service).data(access.clone());
        let endpoint = harden(app).into_endpoint().boxed();
        let owner = user(&access, "owner", Role::Operator).await;
        let key = api_key(&access, owner, &["publish:*"], None).await;
        Self { endpoint, log, key, spec, budget, access, owner, _folder: folder }
    }

    /// Another key of the same owner.
    pub async fn key_with(&self, scopes: &[&str]) -> String {
        api_key(&self.access, self.owner, scopes, None).await
    }

    /// Another key of the same owner, for which a rate was declared.
    pub async fn key_at(&self, events_per_second: u32) -> String {
        api_key(&self.access, self.owner, &["publish:*"], Some(events_per_second)).await
    }

    /// A key of another user.
    pub async fn key_of(&self, name: &str, role: Role) -> String {
        let id = user(&self.access, name, role).await;
        api_key(&self.access, id, &["publish:*", "read"], None).await
    }

    /// A body that comes once a key was revoked, to which its request had been let in.
    pub fn after_revoking(&self, key: &str, text: String) -> Body {
        let (access, key) = (self.access.clone(), key.to_owned());
        Body::from_bytes_stream(futures::stream::once(async move {
            let caller = access.authenticate(Credential::ApiKey(&key)).await.unwrap();
            let CallerKind::ApiKey { key: id, .. } = caller.kind else { panic!("{caller:?} has no key") };
            access.revoke_api_key(id, None, Actor::Shell, &Origin::default()).await.unwrap();
            Ok::<_, std::io::Error>(text)
        }))
    }

    /// The same, once the owner took consent back.
    pub fn after_withdrawal(&self, text: String) -> Body {
        let (access, key) = (self.access.clone(), self.key.clone());
        Body::from_bytes_stream(futures::stream::once(async move {
            let owner = access.authenticate(Credential::ApiKey(&key)).await.unwrap();
            access.revoke_consent(&owner, "test", &Origin::default()).await.unwrap();
            Ok::<_, std::io::Error>(text)
        }))
    }

    /// Whose a key is.
    pub async fn owner_of(&self, key: &str) -> Arc<Caller> {
        self.access.authenticate(Credential::ApiKey(key)).await.unwrap()
    }

    /// The owner consents to a version, or takes that back.
    pub async fn consent(&self, version: Option<&str>) {
        self.consent_of(&self.key, version).await;
    }

    /// The same, of the owner of another key.
    pub async fn consent_of(&self, key: &str, version: Option<&str>) {
        let owner = self.owner_of(key).await;
        let origin = Origin::default();
        let done = match version {
            Some(version) => self.access.grant_consent(&owner, version, "test", &origin).await,
            None => self.access.revoke_consent(&owner, "test", &origin).await,
        };
        done.unwrap();
    }

    pub fn owner(&self) -> String {
        self.owner.to_string()
    }

    /// What the audit log has of callers without a right, newest first.
    pub async fn denied(&self) -> Vec<AuditRow> {
        let filter = AuditFilter { action: Some("access_denied".to_owned()), ..AuditFilter::default() };
        self.access.audit_log(&filter, 100).await.unwrap()
    }

    /// A POST under `/api/v1` with the key that may everything.
    pub fn post(&self, path: &str) -> poem::RequestBuilder {
        Request::builder()
            .method(poem::http::Method::POST)
            .uri(format!("/api/v1/{path}").parse().unwrap())
            .header("authorization", format!("Bearer {}", self.key))
    }

    pub async fn send(&self, request: Request) -> Answered {
        let response = self.endpoint.get_response(request).await;
        let status = response.status().as_u16();
        let retry_after = response.header("retry-after").map(str::to_owned);
        let quota = response.header("ratelimit-policy").map(str::to_owned);
        let bytes = response.into_body().into_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        check_envelope(status, &body);
        Answered { status, retry_after, quota, body }
    }

    pub async fn publish(&self, path: &str, content_type: &str, body: impl Into<Body>) -> Answered {
        self.send(self.post(path).content_type(content_type).body(body.into())).await
    }

    /// Every record of the topic of the shipped types.
    pub async fn records(&self) -> Vec<Record> {
        let topic = "karat.events";
        let wanted: i64 = self.log.topic(topic).await.unwrap().partitions.iter().map(|range| range.end).sum();
        let settings =
            ConsumerSettings { group: "test".into(), topic: topic.into(), start: Arc::new(FromTheBeginning) };
        let mut consumer = self.log.consumer(settings).await.unwrap();
        let limits = PollLimits { max_records: 20_000, max_bytes: 64 << 20, max_wait: Duration::from_secs(60) };
        let mut records = Vec::new();
        while (records.len() as i64) < wanted {
            let polled = consumer.poll(limits).await.unwrap().records;
            assert!(!polled.is_empty(), "the log gave {} of {wanted} records", records.len());
            records.extend(polled);
        }
        records
    }
}

/// A good CloudEvent of a shipped type.
pub fn event(id: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/crm", "type": "etl.run.finished",
           "data": {"run_id": id, "source": "crm", "job": "load", "status": "completed",
                    "started_at": "2026-01-31T10:00:00Z", "finished_at": "2026-01-31T10:00:05Z"}})
}

/// A good OpenLineage event.
pub fn run_event(run_id: &str) -> Value {
    json!({"eventType": "COMPLETE", "eventTime": "2026-01-31T10:00:05Z", "producer": "p",
           "run": {"runId": run_id}, "job": {"namespace": "crm", "name": "load"}, "inputs": [], "outputs": []})
}

/// The value of a header, as text.
pub fn header(record: &Record, name: &str) -> Option<String> {
    record.headers.get(name).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn check_envelope(status: u16, body: &Value) {
    let expected = if status < 400 { "success" } else { "error" };
    assert_eq!(body["status"], expected, "{status}: {body}");
    assert!(body["timestamp"].is_string() && body["message"].is_string());
    if status >= 400 {
        assert!(body["code"].is_string() && body["details"].is_array() && body["request_id"].is_string(), "{body}");
    }
}

fn contracts() -> Contracts {
    let text = format!("{}\n[[event]]\ntype = \"any\"\n", pipelines::BUILT_IN);
    Contracts::compile(&pipelines::parse(&text).unwrap(), |_| unreachable!()).map_err(|p| p.join("\n")).unwrap()
}

async fn open_log(folder: &Path) -> EmbeddedLog {
    let log = EmbeddedLog::open(folder).unwrap();
    log.ensure_topic(&TopicSpec { name: "karat.events".into(), partitions: 4, retention: None }).await.unwrap();
    log
}

async fn open_access(folder: &Path, consent: ConsentRule) -> Access {
    let hashing = HashSettings { memory_kib: 8, passes: 1, ..HashSettings::default() };
    Access::open(AccessSettings { hashing, consent, ..AccessSettings::in_folder(folder) }).await.unwrap()
}

async fn user(access: &Access, name: &str, role: Role) -> uuid::Uuid {
    let password = "A long passphrase of test 1".to_owned().into();
    let new = NewUser { username: name.into(), email: None, password, role };
    access.create_user(new, Actor::Shell, &Origin::new(None, None, None)).await.unwrap().id
}

async fn api_key(access: &Access, owner: uuid::Uuid, scopes: &[&str], events_per_second: Option<u32>) -> String {
    let scopes = Scopes::parse(scopes).unwrap();
    let new = NewApiKey { owner, name: "key".into(), scopes, expires_in: None, events_per_second };
    let issued = access.create_api_key(new, Actor::Shell, &Origin::new(None, None, None)).await.unwrap();
    issued.secret.expose_secret().to_owned()
}

struct FromTheBeginning;

#[async_trait]
impl StartPositions for FromTheBeginning {
    async fn next_offsets(&self, _: &str, _: &[u32]) -> LogResult<BTreeMap<u32, i64>> {
        Ok(BTreeMap::new())
    }
}
