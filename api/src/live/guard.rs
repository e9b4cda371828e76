//! [`Guard`]: tells a connection that stays open when it has to end.

use std::{sync::Arc, time::Duration};

use karat_access::{Access, Caller, Lease};
use karat_http::Stopping;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::ending::Ending;

/// The right of a connection, and the stop of the server.
pub(crate) struct Guard {
    access: Access,
    lease: Lease,
    stopping: Stopping,
    look: Interval,
}

impl Guard {
    pub(crate) fn new(access: Access, lease: Lease, stopping: Stopping, look_every: Duration) -> Self {
        Self { access, lease, stopping, look: every(look_every) }
    }

    /// Who it is, with the role of the last look.
    pub(super) fn caller(&self) -> &Arc<Caller> {
        self.lease.caller()
    }

    /// Waits until the connection has to end. May be dropped and asked again at any time.
    pub(crate) async fn ended(&mut self) -> Ending {
        loop {
            tokio::select! {
                () = self.stopping.stopped() => return Ending::ServerStops,
                _ = self.look.tick() => {
                    if let Err(fault) = self.access.renew(&mut self.lease) {
                        return fault.into();
                    }
                }
            }
        }
    }
}

/// Ticks of which the first is a period away; those that were missed do not come in a row.
pub(super) fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
