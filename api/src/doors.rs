//! [`Doors`]: the addresses at which the application is asked. HTTP always; the protocol of PostgreSQL in builds with the feature
//! `postgres-wire`, where a setting names an address for it.

use std::{io, net::TcpListener};

use karat_http::{ServeSettings, serve};
use poem::{Endpoint, Response};
use tokio::sync::watch;

/// Where the application is asked, bound and ready to be served.
pub struct Doors {
    listener: TcpListener,
    serving: ServeSettings,
    #[cfg(feature = "postgres-wire")]
    postgres: Option<crate::wire::Port>,
}

impl Doors {
    /// HTTP alone.
    pub fn new(listener: TcpListener, serving: ServeSettings) -> Self {
        Self {
            listener,
            serving,
            #[cfg(feature = "postgres-wire")]
            postgres: None,
        }
    }

    /// With the port for PostgreSQL clients.
    #[cfg(feature = "postgres-wire")]
    #[must_use]
    pub fn with_postgres(mut self, port: crate::wire::Port) -> Self {
        self.postgres = Some(port);
        self
    }

    /// Serves `app` until `stop` becomes true, then lets what runs finish until the deadline.
    ///
    /// # Errors
    /// Only when a listener cannot be used at all.
    pub async fn serve<E>(self, app: E, stop: watch::Receiver<bool>) -> io::Result<()>
    where
        E: Endpoint<Output = Response> + 'static,
    {
        #[cfg(feature = "postgres-wire")]
        if let Some(port) = self.postgres {
            use poem::EndpointExt;

            let app = std::sync::Arc::new(app);
            let asked = port.serve(std::sync::Arc::clone(&app).boxed(), stopped(stop.clone()));
            let served = serve(self.listener, app, self.serving, stopped(stop));
            return tokio::try_join!(served, asked).map(|((), ())| ());
        }
        serve(self.listener, app, self.serving, stopped(stop)).await
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is also a stop.
    let _ = stop.wait_for(|stop| *stop).await;
}
