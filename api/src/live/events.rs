//! `GET /events/stream`: epochs, changes of runs and alerts, as server-sent events.

use std::{sync::Arc, time::Duration};

use karat_http::{ApiError, error_answers};
use poem::{Body, IntoResponse, Request, Response, http::StatusCode};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::{Header, Query},
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
};

use super::{Live, feed::Feed, news::News, no_room, opened::Opened, places::Full};
use crate::{
    routes::DataTag,
    serving::{
        Serving,
        params::Params,
        raw::{EventIdText, Raw, TicketText},
    },
};

error_answers! {
    /// Errors of `GET /events/stream`.
    pub EventStreamError: 400, 401, 403, 422, 429, 503;
}

const MEDIA_TYPE: &str = "text/event-stream";

/// Operations on the stream of events.
pub struct EventStreamApi {
    live: Arc<Live>,
    serving: Arc<Serving>,
    news: Arc<News>,
}

impl EventStreamApi {
    pub(super) fn new(live: Arc<Live>, serving: Arc<Serving>, news: Arc<News>) -> Self {
        Self { live, serving, news }
    }
}

#[OpenApi(tag = "DataTag::Live")]
impl EventStreamApi {
    /// Listen to what happens (server-sent events)
    ///
    /// `run` for a run that is new or has another status (of the caller's own, or of all with `read_all_data`), `epoch` after those
    /// of one epoch, `alert` when a table's newest event is older than it promises and when it is not any more, `missed` when not
    /// everything can be told, `end` with a `code` when the server ends the stream. Ids begin with the number of the epoch: with the last one in
    /// `Last-Event-ID` the stream goes on behind it, or says `missed`. A comment comes every 15 seconds.
    #[oai(path = "/events/stream", method = "get", operation_id = "read_event_stream")]
    async fn listen(
        &self,
        request: &Request,
        opened: Opened,
        /// The id of the last event that the client has.
        #[oai(name = "Last-Event-ID")]
        last_of_header: Header<Option<Raw<EventIdText>>>,
        /// The same, for clients that cannot send the header.
        last_event_id: Query<Option<Raw<EventIdText>>>,
        /// A one-use ticket of `POST /auth/ws-ticket`, in place of a token.
        #[oai(name = "ticket")]
        _ticket: Query<Option<Raw<TicketText>>>,
    ) -> Result<EventStream, EventStreamError> {
        self.serving.scope_of(opened.lease.caller())?;
        let mut params = Params::of(request, &["last_event_id", "ticket"]);
        let last = last_event_id.as_deref().or(last_of_header.as_deref());
        let after = last.and_then(|id| {
            let after = epoch_of(id);
            if after.is_none() {
                params.add("last_event_id", "the id of an event, such as `412` or `412.3`", "another text");
            }
            after
        });
        params.finish()?;
        let place = self.live.place(&opened.lease).map_err(|full| match full {
            Full::All => no_room(),
            Full::OfUser => too_many(),
        })?;
        let guard = self.live.guard(request, opened.lease);
        let heartbeat = self.live.settings.heartbeat_every;
        let (serving, news) = (Arc::clone(&self.serving), Arc::clone(&self.news));
        let feed = Feed::new(serving, news, guard, place, after, heartbeat);
        Ok(EventStream(Body::from_bytes_stream(feed.stream())))
    }
}

/// The epoch up to which a client has everything, by the id of its last event.
fn epoch_of(id: &str) -> Option<u64> {
    match id.split_once('.') {
        None => id.parse().ok(),
        // It has some of that epoch, which comes once more.
        Some((epoch, part)) => {
            part.parse::<u64>().ok()?;
            epoch.parse::<u64>().ok()?.checked_sub(1)
        }
    }
}

fn too_many() -> ApiError {
    let message = "you have as many open streams as one user may have: close one of them";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message).retry_after(Duration::from_secs(10))
}

/// 200: events until the client leaves.
pub struct EventStream(Body);

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        // The second is for proxies that would collect what comes.
        Response::builder().content_type(MEDIA_TYPE).header("x-accel-buffering", "no").body(self.0)
    }
}

impl ApiResponse for EventStream {
    fn meta() -> MetaResponses {
        let schema = MetaSchemaRef::Inline(Box::new(MetaSchema::new("string")));
        let answer = MetaResponse {
            description: "Events, for as long as the client listens.",
            status: Some(200),
            status_range: None,
            content: vec![MetaMediaType { content_type: MEDIA_TYPE, schema }],
            headers: vec![],
        };
        MetaResponses { responses: vec![answer] }
    }

    fn register(_: &mut Registry) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_part_of_an_epoch_gets_it_once_more() {
        for (id, expected) in [("412", Some(412)), ("0", Some(0)), ("412.3", Some(411)), ("0.1", None)] {
            assert_eq!(epoch_of(id), expected, "{id}");
        }
        for bad in ["", "x", "-1", "412.", "412.x", ".3", "1.2.3"] {
            assert_eq!(epoch_of(bad), None, "{bad}");
        }
    }
}
