//! [`Feed`]: one listener of the stream of events (server-sent events, as the HTML standard has them).
//!
//! What happened to runs in epoch 412 comes as `412.1`, `412.2` and so on, and then the epoch itself as `412`: whoever comes back
//! with that has everything of it, and with `412.2` gets the epoch once more. Memory holds what one epoch brought, and only once the
//! client took what was before.

use std::{collections::HashMap, fmt::Write, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, Stream, stream};
use serde::Serialize;
use serde_json::json;
use tokio::{sync::watch, time::Interval};

use super::{
    ending::Ending,
    guard::{Guard, every},
    news::{Entry, News, Next},
    places::Place,
    runs_changed::RunChange,
};
use crate::{
    serving::{Serving, now_us},
    summary::rfc3339_utc,
};

const ALERTS_EVERY: Duration = Duration::from_secs(5);
/// A comment, which clients pass over.
const HEARTBEAT: &[u8] = b": here\n\n";
/// What a client waits before it comes back.
const COME_BACK: &str = "retry: 3000\n\n";

/// One listener.
pub(super) struct Feed {
    serving: Arc<Serving>,
    news: Arc<News>,
    listener: watch::Receiver<u64>,
    guard: Guard,
    _place: Place,
    /// The epoch up to which everything was told.
    after: u64,
    heartbeat: Interval,
    alerts: Interval,
    /// Of each table that promises something, whether that is kept.
    promises: HashMap<String, bool>,
    /// What is told first.
    beginning: Option<Bytes>,
    is_over: bool,
}

/// A run that changed, and in which epoch.
#[derive(Serialize)]
struct RunTold<'a> {
    epoch: u64,
    #[serde(flatten)]
    change: &'a RunChange,
}

impl Feed {
    /// `after` is the epoch up to which the client has everything; none for one that begins now.
    pub(super) fn new(
        serving: Arc<Serving>,
        news: Arc<News>,
        guard: Guard,
        place: Place,
        after: Option<u64>,
        heartbeat_every: Duration,
    ) -> Self {
        let listener = news.listen();
        let (newest, as_of_us) = news.newest();
        let mut feed = Self {
            serving,
            news,
            listener,
            guard,
            _place: place,
            after: after.unwrap_or(newest),
            heartbeat: every(heartbeat_every),
            alerts: tokio::time::interval(ALERTS_EVERY),
            promises: HashMap::new(),
            beginning: None,
            is_over: false,
        };
        let mut beginning = COME_BACK.to_owned();
        if after.is_none() {
            feed.add_epoch(&mut beginning, newest, as_of_us);
        }
        feed.beginning = Some(beginning.into());
        feed
    }

    /// The stream, until the client leaves or has to.
    pub(super) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(self, |mut feed| async move {
            let bytes = feed.next().await?;
            Some((Ok(bytes), feed))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        if let Some(beginning) = self.beginning.take() {
            return Some(beginning);
        }
        loop {
            // Who is far behind finds something each time and never waits below: it is judged all the same.
            if let Some(ending) = self.guard.ended().now_or_never() {
                return Some(self.end(ending));
            }
            match self.news.next(self.after) {
                Some(Next::Entry(entry)) => return Some(self.tell(&entry)),
                Some(Next::Missed(newest)) => return Some(self.tell_missed(newest)),
                None => {}
            }
            tokio::select! {
                ending = self.guard.ended() => return Some(self.end(ending)),
                Ok(()) = self.listener.changed() => {}
                _ = self.heartbeat.tick() => return Some(Bytes::from_static(HEARTBEAT)),
                _ = self.alerts.tick() => if let Some(alerts) = self.look_at_promises() {
                    return Some(alerts);
                },
            }
        }
    }

    fn tell(&mut self, entry: &Entry) -> Bytes {
        let Ok(scope) = self.serving.scope_of(self.guard.caller()) else { return self.end(Ending::Revoked) };
        let mut text = String::new();
        match &entry.runs {
            Some(runs) => {
                let seen = runs.iter().enumerate().filter(|(_, change)| change.is_seen_by(&scope.visible));
                for (at, change) in seen {
                    let id = format!("{}.{}", entry.to, at + 1);
                    add_event(&mut text, &id, "run", &RunTold { epoch: entry.to, change });
                }
            }
            None => add_missed(&mut text, entry.from, entry.to),
        }
        self.add_epoch(&mut text, entry.to, entry.as_of_us);
        self.after = entry.to;
        text.into()
    }

    fn tell_missed(&mut self, newest: u64) -> Bytes {
        let mut text = String::new();
        add_missed(&mut text, self.after, newest);
        self.after = newest;
        text.into()
    }

    fn add_epoch(&self, text: &mut String, epoch: u64, as_of_us: Option<i64>) {
        let snapshot = self.serving.snapshots.current();
        let data_state = self.serving.freshness(&snapshot, now_us()).data_state;
        let told = json!({"epoch": epoch, "as_of": as_of_us.and_then(rfc3339_utc), "data_state": data_state});
        add_event(text, &epoch.to_string(), "epoch", &told);
    }

    /// Alerts about promises that are no longer kept, or are again.
    fn look_at_promises(&mut self) -> Option<Bytes> {
        let as_of_us = self.serving.snapshots.current().epoch.as_of_us;
        let (now, mut text) = (now_us(), String::new());
        for promise in &self.serving.settings.objectives {
            let Some(is_met) = promise.is_met(as_of_us, now) else { continue };
            let was_met = self.promises.insert(promise.table.clone(), is_met).unwrap_or(true);
            if is_met != was_met {
                let told = json!({
                    "kind": "freshness",
                    "table": promise.table,
                    "state": if is_met { "met" } else { "missed" },
                    "fresh_within_seconds": promise.fresh_within.as_secs_f64(),
                    "as_of": as_of_us.and_then(rfc3339_utc),
                });
                add_event(&mut text, &self.after.to_string(), "alert", &told);
            }
        }
        (!text.is_empty()).then(|| text.into())
    }

    /// The last event.
    fn end(&mut self, ending: Ending) -> Bytes {
        self.is_over = true;
        let mut text = String::new();
        if let Some((_, reason)) = ending.close() {
            add_event(&mut text, &self.after.to_string(), "end", &json!({"code": reason}));
        }
        text.into()
    }
}

fn add_missed(text: &mut String, after: u64, up_to: u64) {
    add_event(text, &up_to.to_string(), "missed", &json!({"after": after, "up_to": up_to}));
}

/// JSON has no line breaks of its own, so one line of data holds it.
fn add_event(text: &mut String, id: &str, kind: &str, data: &impl Serialize) {
    let data = serde_json::to_string(data).unwrap_or_default();
    // Writing into a text cannot fail.
    let _ = write!(text, "id: {id}\nevent: {kind}\ndata: {data}\n\n");
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Instant};

    use karat_access::{
        Access, AccessSettings, Actor, Credential, HashSettings, Lease, LoginOutcome, NewUser, Origin, Role,
    };
    use karat_http::Stopping;
    use karat_lake::Lake;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::{
        lag::NoLag,
        live::{LiveSettings, places::Places},
        serving::ServingSettings,
        snapshot::Snapshots,
    };

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn logged_in(folder: &Path) -> (Access, Lease) {
        let (name, password, origin) = ("maria_77", "nine-Blue-7-boats".to_owned(), Origin::default());
        let hashing = HashSettings { memory_kib: 64, passes: 1, ..HashSettings::default() };
        let access = Access::open(AccessSettings { hashing, ..AccessSettings::in_folder(folder) }).await.unwrap();
        let user = NewUser { username: name.into(), email: None, password: password.clone().into(), role: Role::User };
        access.create_user(user, Actor::Shell, &origin).await.unwrap();
        let LoginOutcome::Tokens(tokens) = access.login(name, password.into(), &origin).await.unwrap() else {
            panic!("there is no second factor")
        };
        let lease = access.lease(Credential::Token(tokens.access_token.expose_secret())).await.unwrap();
        (access, lease)
    }

    #[tokio::test]
    async fn a_listener_that_is_always_behind_is_judged_like_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().join("lake").to_str().unwrap()).unwrap();
        let snapshots = Snapshots::new(lake.clone(), "etl_runs").unwrap();
        let news = News::new(lake.clone(), Arc::clone(&snapshots));
        let settings = ServingSettings::default();
        let serving = Serving::new(settings, snapshots, lake, Arc::new(NoLag), None, Arc::default()).unwrap();
        let (access, lease) = logged_in(folder.path()).await;
        let live = LiveSettings::default();
        let place = Places::new(&live).take(lease.caller().id).unwrap();
        let guard = Guard::new(access.clone(), lease.clone(), Stopping::default(), Duration::from_millis(1));
        let mut feed = Feed::new(Arc::new(serving), Arc::clone(&news), guard, place, None, live.heartbeat_every);
        access.logout(lease.caller(), &Origin::default()).await.unwrap();
        let began = Instant::now();
        for number in 0.. {
            // There is something to tell each time.
            news.keep(Entry { from: number, to: number + 1, as_of_us: None, runs: Some(Vec::new()) });
            let told = feed.next().await.unwrap();
            if told.windows(13).any(|part| part == b"token_revoked") {
                break;
            }
            assert!(began.elapsed() < DEADLINE, "it still hears of epoch {number}");
            // Clocks go on while others have their turn.
            tokio::task::yield_now().await;
        }
        assert!(feed.next().await.is_none(), "that was the last event");
    }

    #[test]
    fn an_event_is_its_id_its_kind_and_one_line() {
        let mut text = String::new();
        add_event(&mut text, "412.1", "run", &json!({"job": "a\nb"}));
        add_missed(&mut text, 3, 9);
        assert_eq!(
            text,
            "id: 412.1\nevent: run\ndata: {\"job\":\"a\\nb\"}\n\n\
             id: 9\nevent: missed\ndata: {\"after\":3,\"up_to\":9}\n\n"
        );
    }
}
