//! Connections that stay open: WebSockets with charts and a chat, and a stream of events.
//!
//! - What opens one is a *lease* (`opened`): an access token, an API key, or a ticket of a browser. It is judged again each second
//!   (`guard`), so a log-out, a new role or the end of a token holds here as soon as for requests.
//! - `places` bounds how many there are, of each user and in all, and what a user may send.
//! - Nothing waits in memory for a client that does not read: one message is on its way at a time, what comes meanwhile replaces
//!   it, and who does not take it in time is disconnected ([`line`]).
//! - `charts` and `events` answer from the epoch that is served, `chat` from a generator or another server (`provider`).
//!
//! How each close code comes about is in `ending`.

mod chart_data;
mod charts;
mod chat;
pub(crate) mod ending;
mod events;
mod feed;
pub(crate) mod guard;
mod handshake;
mod line;
mod lorem;
mod news;
mod opened;
mod places;
mod profit_data;
mod provider;
mod runs_changed;

use std::{sync::Arc, time::Duration};

use karat_access::{Access, Lease};
use karat_http::{ApiError, Origins, Stopping};
use karat_lake::Lake;
use poem::{Request, http::StatusCode};

pub use charts::ChartApi;
pub use chat::ChatApi;
pub use events::EventStreamApi;
pub use provider::ChatProvider;

use self::{
    chat::Answers,
    ending::Ending,
    guard::Guard,
    handshake::{Handshake, Switched},
    line::{Line, Talk},
    news::News,
    places::{Full, Place, Places},
};
use crate::serving::Serving;

/// Bounds of connections that stay open.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// Of all users together.
    pub connections: usize,
    pub connections_per_user: usize,
    /// Messages that a user may send in a minute, over all connections; control frames count too.
    pub messages_per_minute: u32,
    /// Of one message of a client.
    pub max_message_bytes: usize,
    /// How often a client is asked whether it is there.
    pub ping_every: Duration,
    /// How long it may take to say so.
    pub pong_within: Duration,
    /// How long it may take to accept a message.
    pub send_within: Duration,
    /// How often its right is looked at.
    pub look_every: Duration,
    /// How often a stream of events says that it lives.
    pub heartbeat_every: Duration,
    /// Who answers the chat.
    pub chat: ChatProvider,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            connections: 1_000,
            connections_per_user: 10,
            messages_per_minute: 60,
            max_message_bytes: 8 * 1024,
            ping_every: Duration::from_secs(20),
            pong_within: Duration::from_secs(10),
            send_within: Duration::from_secs(10),
            look_every: Duration::from_secs(1),
            heartbeat_every: Duration::from_secs(15),
            chat: ChatProvider::LoremIpsum,
        }
    }
}

/// What the live routes share.
pub(crate) struct Live {
    access: Access,
    origins: Origins,
    settings: Arc<LiveSettings>,
    places: Arc<Places>,
}

/// The live operations.
pub type LiveApis = (ChartApi, ChatApi, EventStreamApi);

/// The live operations, to be mounted under the API's prefix beside the others. `origins` are those whose pages may open one.
///
/// # Errors
/// When no client for the chat's server can be made.
pub fn live_apis(
    access: &Access,
    origins: &Origins,
    settings: &LiveSettings,
    serving: &Arc<Serving>,
    lake: &Lake,
) -> Result<LiveApis, ApiError> {
    let places = Places::new(settings);
    let (access, origins, shared) = (access.clone(), origins.clone(), Arc::new(settings.clone()));
    let live = Arc::new(Live { access, origins, settings: shared, places });
    let answers = Answers::of(&settings.chat)?;
    let news = News::new(lake.clone(), Arc::clone(&serving.snapshots));
    Ok((
        ChartApi::new(Arc::clone(&live), Arc::clone(serving)),
        ChatApi::new(Arc::clone(&live), Arc::clone(serving), answers),
        EventStreamApi::new(live, Arc::clone(serving), news),
    ))
}

impl Live {
    fn guard(&self, request: &Request, lease: Lease) -> Guard {
        Guard::new(self.access.clone(), lease, Stopping::of(request), self.settings.look_every)
    }

    fn place(&self, lease: &Lease) -> Result<Place, Full> {
        self.places.take(lease.caller().id)
    }

    /// Opens a WebSocket, on which `talk` goes on until it ends.
    ///
    /// # Errors
    /// 403 from a page of another origin; 426 when none is asked for; 503 when there is no room for anybody. A user who has
    /// as many as one may have is told so on the socket: a page cannot read another answer.
    fn open(&self, request: &Request, lease: Lease, talk: impl Talk) -> Result<Switched, ApiError> {
        if !self.origins.admits(request) {
            let message = "a page of another origin may not open this: it is not in `server.allowed_origins`";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message));
        }
        let handshake = Handshake::of(request)?;
        let place = match self.place(&lease) {
            Ok(place) => Some(place),
            Err(Full::OfUser) => None,
            Err(Full::All) => return Err(no_room()),
        };
        let (guard, settings) = (self.guard(request, lease), Arc::clone(&self.settings));
        Ok(handshake.accept(&self.settings, move |stream| async move {
            match place {
                Some(place) => {
                    let mut line = Line::new(stream, guard, place, settings);
                    let ending = talk.talk(&mut line).await;
                    line.end(ending).await;
                }
                None => line::end(stream, Ending::TooManyConnections).await,
            }
        }))
    }
}

fn no_room() -> ApiError {
    let message = "there are as many open streams as this server holds: try again after `Retry-After`";
    ApiError::unavailable("streams_full", message).retry_after(Duration::from_secs(10))
}
