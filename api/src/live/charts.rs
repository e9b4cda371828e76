//! `GET /charts/{chart}`: figures that are pushed at an interval, and at once on a new epoch.
//!
//! Charts of runs and of profits follow the epochs of their own pipelines. What a chart shows is rendered once for each epoch
//! and scope, through the cache of answers; only the time in front of it is each client's own. A client that is slow gets the
//! newest when it has taken the one before.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use karat_access::Caller;
use karat_http::{ApiError, error_answers, timestamp};
use poem::Request;
use poem_openapi::{
    OpenApi,
    param::{Path, Query},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    Live,
    chart_data::{Drawn, FORMS, Form, SOURCES, Source, draw},
    ending::Ending,
    handshake::Switched,
    line::{Line, Talk},
    opened::Opened,
    profit_data,
};
use crate::{
    routes::{DataTag, PROFITS_PIPELINE, not_declared},
    serving::{
        KeyParts, Question, Serving,
        freshness::DataState,
        now_us,
        params::Params,
        profits::PROFITS,
        raw::{ChartText, FiguresText, Raw, TicketText},
    },
    snapshot::{DAY_US, Snapshots},
    summary::rfc3339_utc,
};

error_answers! {
    /// Errors of `GET /charts/{chart}`. 501 is for charts of profits where no pipeline keeps them.
    pub ChartError: 400, 401, 403, 404, 422, 426, 429, 501, 503;
}

const USUAL_INTERVAL: Duration = Duration::from_millis(2_000);
const SHORTEST_INTERVAL_MS: u64 = 250;
const LONGEST_INTERVAL_MS: u64 = 60_000;
/// Epochs that follow each other more quickly are pushed together.
const BETWEEN_EPOCHS: Duration = Duration::from_millis(500);

/// Operations on charts.
pub struct ChartApi {
    live: Arc<Live>,
    serving: Arc<Serving>,
}

impl ChartApi {
    pub(super) fn new(live: Arc<Live>, serving: Arc<Serving>) -> Self {
        Self { live, serving }
    }
}

#[OpenApi(tag = "DataTag::Live")]
impl ChartApi {
    /// Watch a chart (WebSocket)
    ///
    /// Pushes `{timestamp, chart_type, source, epoch, as_of, data_state, series}`, or `slices` in place of `series` for `pie`: at
    /// once, then each 2,000 ms, and at once on a new epoch. The client may send `{"interval_ms": 3000}`, from 250 to 60000. The
    /// token is in `Authorization`, in `Sec-WebSocket-Protocol` behind `bearer`, or a ticket is in `ticket`. Close codes are 1001 when
    /// the server stops, 4401 when the token ends, 4408 for a client that is too slow, 4429 beyond a limit, 1009 for a message
    /// that is too large.
    #[oai(path = "/charts/:chart", method = "get", operation_id = "watch_chart")]
    async fn watch(
        &self,
        request: &Request,
        opened: Opened,
        /// `line` over time, `bar` of the largest, `pie` of the parts.
        chart: Path<Raw<ChartText>>,
        /// Whose figures: runs of the last 30 UTC days by day, source or status, or profits of the last 12 UTC months by month or
        /// company, which are exact.
        source: Query<Option<Raw<FiguresText>>>,
        /// A one-use ticket of `POST /auth/ws-ticket`, in place of a token.
        #[oai(name = "ticket")]
        _ticket: Query<Option<Raw<TicketText>>>,
    ) -> Result<Switched, ChartError> {
        self.serving.scope_of(opened.lease.caller())?;
        let form = FORMS.iter().find(|(word, _)| *word == &**chart).map(|(_, form)| *form);
        let form = form.ok_or_else(|| ApiError::not_found("there is no such chart: `line`, `bar` and `pie` are"))?;
        let mut params = Params::of(request, &["source", "ticket"]);
        let source = params.choice("source", source.as_deref(), &SOURCES).unwrap_or_default();
        params.finish()?;
        let snapshots = match source {
            Source::Runs => &self.serving.snapshots,
            Source::Profits => self.serving.snapshots_of(PROFITS_PIPELINE).ok_or_else(not_declared)?,
        };
        let snapshots = Arc::clone(snapshots);
        let talk = Watch { serving: Arc::clone(&self.serving), snapshots, form, source };
        Ok(self.live.open(request, opened.lease, talk)?)
    }
}

/// One client that watches a chart.
struct Watch {
    serving: Arc<Serving>,
    /// The epochs that the figures are of.
    snapshots: Arc<Snapshots>,
    form: Form,
    source: Source,
}

/// What a client may send.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    interval_ms: u64,
}

/// A message, but for the time in front.
#[derive(Serialize)]
struct Chart {
    chart_type: &'static str,
    source: &'static str,
    epoch: u64,
    as_of: Option<String>,
    data_state: DataState,
    #[serde(flatten)]
    drawn: Drawn,
}

impl Talk for Watch {
    async fn talk(self, line: &mut Line) -> Ending {
        let mut moved = self.snapshots.moved();
        let (mut interval, mut due, mut pushed) = (USUAL_INTERVAL, Instant::now(), None);
        loop {
            tokio::select! {
                heard = line.hear() => {
                    let told = match heard {
                        Err(ending) => return ending,
                        Ok(text) => understand(&text),
                    };
                    match told {
                        Ok(wanted) => (interval, due) = (wanted, Instant::now() + wanted),
                        Err(problem) => if let Err(ending) = line.say(problem).await {
                            return ending;
                        },
                    }
                }
                Ok(()) = moved.changed() => {
                    let soonest = pushed.map_or_else(Instant::now, |at: Instant| at + BETWEEN_EPOCHS);
                    due = due.min(soonest.max(Instant::now()));
                }
                () = sleep_until(due) => {
                    match self.message(line.caller()).await {
                        Ok(Some(message)) => if let Err(ending) = line.say(message).await {
                            return ending;
                        },
                        // It is busy: the next one comes at its time.
                        Ok(None) => {}
                        Err(ending) => return ending,
                    }
                    let now = Instant::now();
                    (pushed, due) = (Some(now), now + interval);
                }
            }
        }
    }
}

impl Watch {
    /// What to push now; none while the server is too busy to say.
    async fn message(&self, caller: &Caller) -> Result<Option<Utf8Bytes>, Ending> {
        match self.figures(caller).await {
            Ok(figures) => Ok(Some(stamped(&figures)?)),
            Err(error) if matches!(error.status().as_u16(), 503 | 504) => Ok(None),
            // A role without the permission.
            Err(error) if error.status().is_client_error() => Err(Ending::Revoked),
            Err(error) => {
                tracing::error!(
                    ?error,
                    chart = self.form.name(),
                    "a chart cannot be drawn; its clients are disconnected"
                );
                Err(Ending::Failed)
            }
        }
    }

    async fn figures(&self, caller: &Caller) -> Result<Bytes, ApiError> {
        let scope = self.serving.scope_of(caller)?;
        let snapshot = self.snapshots.current();
        let now = now_us();
        let today = now.div_euclid(DAY_US);
        let freshness = self.serving.freshness(&snapshot, now);
        let mut parts = scope.asks("chart");
        parts.text("form", self.form.name()).text("figures", self.source.name());
        let question = Question {
            id: parts.key(),
            page: KeyParts::of("page"),
            snapshot: Arc::clone(&snapshot),
            freshness,
            clock: (today + 1) * DAY_US,
        };
        let (form, source, serving) = (self.form, self.source, Arc::clone(&self.serving));
        let render = async move {
            let visible = scope.visible;
            let drawn = match source {
                Source::Runs => {
                    let of = Arc::clone(&snapshot);
                    serving.compute(move |_, work| Ok(draw(form, &of.summary, visible, today, work)?)).await?
                }
                Source::Profits => {
                    let version = snapshot.epoch.tables.get(PROFITS).copied();
                    profit_data::draw(form, &serving.tables, version, &visible, today).await?
                }
            };
            let chart = Chart {
                chart_type: form.name(),
                source: source.name(),
                epoch: snapshot.epoch.epoch,
                as_of: snapshot.epoch.as_of_us.and_then(rfc3339_utc),
                data_state: freshness.data_state,
                drawn,
            };
            serde_json::to_vec(&chart).map_err(ApiError::internal)
        };
        self.serving.bytes(question, render).await
    }
}

/// The time, in front of an object.
fn stamped(figures: &[u8]) -> Result<Utf8Bytes, Ending> {
    let figures = figures.strip_prefix(b"{").and_then(|rest| str::from_utf8(rest).ok()).ok_or(Ending::Failed)?;
    Ok(format!("{{\"timestamp\":\"{}\",{figures}", timestamp()).into())
}

/// The interval that a client wants; else what to tell it.
fn understand(text: &str) -> Result<Duration, Utf8Bytes> {
    let range = SHORTEST_INTERVAL_MS..=LONGEST_INTERVAL_MS;
    let wish = serde_json::from_str::<Wish>(text).ok().filter(|wish| range.contains(&wish.interval_ms));
    wish.map(|wish| Duration::from_millis(wish.interval_ms)).ok_or_else(|| {
        let message = "expected an object like {'interval_ms': 3000}, from 250 to 60000";
        let problem = serde_json::json!({"timestamp": timestamp(), "error": "validation_error", "message": message});
        problem.to_string().into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_taken_within_its_bounds() {
        for (text, expected_ms) in [("{\"interval_ms\": 3000}", 3_000), ("{\"interval_ms\":250}", 250)] {
            assert_eq!(understand(text), Ok(Duration::from_millis(expected_ms)), "{text}");
        }
        for bad in ["", "3000", "{}", "{\"interval_ms\":249}", "{\"interval_ms\":60001}", "{\"interval_ms\":1,\"x\":1}"]
        {
            assert!(understand(bad).unwrap_err().contains("validation_error"), "{bad}");
        }
    }

    #[test]
    fn the_time_stands_in_front_of_what_is_shared() {
        let message = stamped(b"{\"chart_type\":\"pie\"}").unwrap();
        let message: serde_json::Value = serde_json::from_str(&message).unwrap();
        assert_eq!(message["chart_type"], "pie");
        assert!(message["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
