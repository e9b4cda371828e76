//! [`Stopping`]: how what goes on behind a request hears that the server stops.
//!
//! A socket or a stream of events never ends by itself. Whoever runs one waits for the stop beside everything else, says goodbye
//! and ends; the server waits for those that hold this, as it waits for running requests.

use poem::Request;
use tokio::sync::watch;

/// The stop of the server that a request came through.
#[derive(Debug, Clone, Default)]
pub struct Stopping(Option<watch::Receiver<bool>>);

impl Stopping {
    pub(crate) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self(Some(stopping))
    }

    /// That of a request; one that came through no server of ours is never stopped.
    pub fn of(request: &Request) -> Self {
        request.data::<Self>().cloned().unwrap_or_default()
    }

    /// Waits for the stop.
    pub async fn stopped(&mut self) {
        match &mut self.0 {
            // An error means that the sender is gone, which is also a stop.
            Some(stopping) => drop(stopping.wait_for(|stop| *stop).await),
            None => std::future::pending().await,
        }
    }
}
