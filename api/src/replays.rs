//! Replays over HTTP: the API publishes a command, the transform worker executes it (decision 14).

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use karat_access::Permission;
use karat_eventlog::{EventLog, NewRecord};
use karat_http::{Answer, ApiError, JsonBody, authenticate, error_answers, ok};
use karat_schemas::{COMMANDS_TOPIC, command::Command};
use poem::Request;
use poem_openapi::{Object, OpenApi, Tags};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

error_answers! {
    /// A replay that was not ordered.
    pub ReplayError: 400, 401, 403, 404, 422, 503;
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
}

/// The routes on replays.
pub struct ReplaysApi {
    log: Arc<dyn EventLog>,
    pipelines: Vec<String>,
    local: Option<SecretString>,
}

impl ReplaysApi {
    /// `local` is the credential of the data folder's owner, accepted instead of a log-in.
    pub fn new(log: Arc<dyn EventLog>, pipelines: Vec<String>, local: Option<SecretString>) -> Self {
        Self { log, pipelines, local }
    }

    async fn require_operator(&self, request: &Request) -> Result<(), ApiError> {
        let given = request.header(LOCAL_HEADER).unwrap_or_default();
        if let Some(local) = &self.local
            && verify_slices_are_equal(local.expose_secret().as_bytes(), given.as_bytes()).is_ok()
        {
            return Ok(());
        }
        authenticate(request).await?.require(Permission::OperatePipelines)?;
        Ok(())
    }
}

#[OpenApi]
impl ReplaysApi {
    /// Rebuild silver and gold of a pipeline from bronze
    ///
    /// The order is durable when this answers; the rebuild runs beside live ingestion, and the new tables take the
    /// place of the old ones in one step. Readers keep the old ones until then.
    #[oai(path = "/admin/replays", method = "post", operation_id = "startReplay", tag = "Tag::Operation")]
    async fn start(&self, request: &Request, body: JsonBody<ReplayRequest>) -> Result<Answer<Ordered>, ReplayError> {
        self.require_operator(request).await?;
        let pipeline = body.0.pipeline;
        if !self.pipelines.contains(&pipeline) {
            return Err(ApiError::not_found(format!("no pipeline is named `{pipeline}`")).into());
        }
        let command = Command::Replay { pipeline: pipeline.clone() };
        let payload = serde_json::to_vec(&command).map_err(ApiError::internal)?;
        let record = NewRecord { key: Some(pipeline.clone().into()), payload: payload.into(), ..NewRecord::default() };
        let appended = self.log.append(COMMANDS_TOPIC, vec![record]).await;
        appended.map_err(|error| {
            ApiError::unavailable("log_unavailable", "the event log takes no commands now").caused_by(error)
        })?;
        Ok(ok(Ordered { pipeline }, "the replay is ordered"))
    }
}
