//! Replays over HTTP: the API publishes a command, the transform worker executes it and writes its outcome in the lake
//! (decision 14).

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use karat_access::{Access, Actor, Permission};
use karat_eventlog::{EventLog, NewRecord};
use karat_http::{Answer, ApiError, JsonBody, authenticate, error_answers, ok, origin};
use karat_lake::{Lake, outcomes::Outcomes};
use karat_schemas::{COMMANDS_TOPIC, command::Command};
use poem::Request;
use poem_openapi::{Enum, Object, OpenApi, Tags, param::Path};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::summary::rfc3339_utc;

error_answers! {
    /// A replay that was not ordered.
    pub ReplayError: 400, 401, 403, 404, 415, 422, 503;
    /// An outcome that was not found out.
    pub OutcomeError: 401, 403, 404;
}

/// Header with the credential that a running instance leaves in its data folder for the command line.
pub const LOCAL_HEADER: &str = "x-karat-local";

#[derive(Tags)]
enum Tag {
    /// Pipelines, run by operators.
    Operation,
}

/// Which pipeline to rebuild.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    /// Name of the pipeline.
    #[oai(validator(max_length = 100))]
    pipeline: String,
}

/// An ordered replay.
#[derive(Debug, Object)]
struct Ordered {
    /// Name of the pipeline.
    pipeline: String,
    /// Under this name `GET /admin/replays/{id}` tells how it ended.
    id: String,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Enum)]
#[oai(rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum ReplayState {
    /// Not ended, or never ordered.
    Pending,
    /// The new tables are in place.
    Done,
    /// The tables are as they were.
    Failed,
}

/// A replay that was ordered.
#[derive(Debug, Object, Serialize, Deserialize)]
pub struct Replay {
    pub id: String,
    pub state: ReplayState,
    /// Name of the pipeline; null while pending.
    #[oai(nullable)]
    pub pipeline: Option<String>,
    /// When it ended, RFC 3339 in UTC.
    #[oai(nullable)]
    pub ended_at: Option<String>,
    /// Why it failed, and what to do.
    #[oai(nullable)]
    pub failure: Option<String>,
}

/// The routes on replays.
pub struct ReplaysApi {
    log: Arc<dyn EventLog>,
    lake: Lake,
    outcomes: Outcomes,
    pipelines: Vec<String>,
    local: Option<SecretString>,
}

impl ReplaysApi {
    /// `local` is the credential of the data folder's owner, accepted instead of a log-in.
    pub fn new(
        log: Arc<dyn EventLog>,
        lake: Lake,
        pipelines: Vec<String>,
        local: Option<SecretString>,
    ) -> karat_lake::Result<Self> {
        Ok(Self { log, outcomes: Outcomes::of(&lake)?, lake, pipelines, local })
    }

    /// Who asks: an operator, or whoever owns the data folder.
    async fn require_operator(&self, request: &Request) -> Result<Actor, ApiError> {
        let given = request.header(LOCAL_HEADER).unwrap_or_default();
        if let Some(local) = &self.local
            && verify_slices_are_equal(local.expose_secret().as_bytes(), given.as_bytes()).is_ok()
        {
            return Ok(Actor::Shell);
        }
        let caller = authenticate(request).await?;
        caller.require(Permission::OperatePipelines)?;
        Ok(Actor::from(&*caller))
    }
}

#[OpenApi]
impl ReplaysApi {
    /// Rebuild silver and gold of a pipeline from bronze
    ///
    /// The order is durable when this answers; the rebuild runs beside live ingestion, and the new tables take the
    /// place of the old ones in one step. Readers keep the old ones until then. The whole tables are rebuilt.
    #[oai(path = "/admin/replays", method = "post", operation_id = "startReplay", tag = "Tag::Operation")]
    async fn start(&self, request: &Request, body: JsonBody<ReplayRequest>) -> Result<Answer<Ordered>, ReplayError> {
        let actor = self.require_operator(request).await?;
        let pipeline = body.0.pipeline;
        if !self.pipelines.contains(&pipeline) {
            return Err(ApiError::not_found(format!("no pipeline is named `{pipeline}`")).into());
        }
        let id = Uuid::now_v7();
        // Before it is ordered: what cannot be put on record does not happen. Whether it did, its outcome tells.
        if let Some(access) = request.data::<Access>() {
            access.note_replay(actor, id, &pipeline, &origin(request)).await.map_err(ApiError::from)?;
        }
        let id = id.to_string();
        let lake = Some(self.lake.identity().await.map_err(ApiError::internal)?);
        let command = Command::Replay { pipeline: pipeline.clone(), id: Some(id.clone()), lake };
        let payload = serde_json::to_vec(&command).map_err(ApiError::internal)?;
        let record = NewRecord { key: Some(pipeline.clone().into()), payload: payload.into(), ..NewRecord::default() };
        let appended = self.log.append(COMMANDS_TOPIC, vec![record]).await;
        appended.map_err(|error| {
            ApiError::unavailable("log_unavailable", "the event log takes no commands now").caused_by(error)
        })?;
        Ok(ok(Ordered { pipeline, id }, "the replay is ordered"))
    }

    /// Ask how a replay ended
    ///
    /// The newest thousand outcomes are kept.
    #[oai(path = "/admin/replays/:id", method = "get", operation_id = "getReplay", tag = "Tag::Operation")]
    async fn get(
        &self,
        request: &Request,
        /// The `id` of the order.
        id: Path<String>,
    ) -> Result<Answer<Replay>, OutcomeError> {
        self.require_operator(request).await?;
        let id = Uuid::parse_str(&id.0).map_err(|_| ApiError::not_found("there is no such replay"))?.to_string();
        let outcome = self.outcomes.get(&id).await.map_err(ApiError::internal)?;
        let Some(outcome) = outcome else {
            let replay = Replay { id, state: ReplayState::Pending, pipeline: None, ended_at: None, failure: None };
            return Ok(ok(replay, "the replay has not ended"));
        };
        let (state, message) = match outcome.failure {
            None => (ReplayState::Done, "the replay is done"),
            Some(_) => (ReplayState::Failed, "the replay failed"),
        };
        let ended_at = rfc3339_utc(outcome.ended_at_us);
        let (pipeline, failure) = (Some(outcome.pipeline), outcome.failure);
        Ok(ok(Replay { id, state, pipeline, ended_at, failure }, message))
    }
}
