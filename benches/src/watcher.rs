//! [`Watcher`]: one WebSocket on which a chart is watched, and [`Heard`]: what came on many of them.
//!
//! Every message is read and checked when it comes; kept is when that was, how long it was, and its epoch.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::json;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
    },
};

use crate::{
    Error, Result,
    charts::{Chart, Pushed},
    connection::Target,
    latency::{Latencies, Percentiles},
};

/// A socket that is not open and pushed nothing within this has failed.
const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// Then it is left without a word.
const FAREWELL: Duration = Duration::from_secs(2);

/// An open socket, on which something was heard.
pub struct Watcher {
    address: String,
    chart: Chart,
    socket: WebSocketStream<TcpStream>,
    last: Option<Pushed>,
    messages: Vec<Arrival>,
}

/// What one client heard.
pub struct Heard {
    pub chart: Chart,
    messages: Vec<Arrival>,
}

#[derive(Clone, Copy)]
struct Arrival {
    at: Instant,
    bytes: usize,
    epoch: u64,
}

/// What all clients heard in a time.
#[derive(Debug, PartialEq, Serialize)]
pub struct Count {
    pub messages: usize,
    pub messages_per_second: f64,
    pub fewest_of_a_client: usize,
    pub most_of_a_client: usize,
    pub bytes: usize,
    /// That the one saw who saw most.
    pub epochs: usize,
    /// Between two messages to a client.
    #[serde(flatten)]
    pub between: Percentiles,
}

impl Watcher {
    /// Opens a socket, waits for its first message, and asks for one at each `interval` from then on.
    ///
    /// # Errors
    /// [`Error::Server`] with what to do when it is refused, closed or silent; [`Error::WrongResult`] when the message is no
    /// such chart.
    pub async fn open(server: &Target, key: &str, chart: Chart, interval: Duration) -> Result<Self> {
        let opened = async {
            let socket = connect(server, key, chart).await?;
            let address = server.address.clone();
            let mut watcher = Self { address, chart, socket, last: None, messages: Vec::new() };
            watcher.hear().await?;
            let wish = json!({"interval_ms": u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)}).to_string();
            let said = watcher.socket.send(Message::text(wish)).await;
            said.map_err(|error| watcher.failed(error.to_string()))?;
            Ok::<_, Error>(watcher)
        };
        match timeout(FIRST_WITHIN, opened).await {
            Ok(opened) => opened,
            Err(_) => {
                let reason = format!("`{}` pushed nothing within {} s", chart.path(), FIRST_WITHIN.as_secs());
                Err(Error::Server { address: server.address.clone(), reason })
            }
        }
    }

    /// Goes on until `stop` changes.
    ///
    /// # Errors
    /// As [`Self::open`], as soon as it is so.
    pub async fn watch(mut self, mut stop: watch::Receiver<bool>) -> Result<Heard> {
        loop {
            tokio::select! {
                _ = stop.changed() => break,
                heard = self.hear() => heard?,
            }
        }
        let _ = timeout(FAREWELL, self.socket.close(None)).await;
        Ok(Heard { chart: self.chart, messages: self.messages })
    }

    /// Waits for a message and takes it. May be dropped and asked again at any time.
    async fn hear(&mut self) -> Result<()> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return self.take(&text),
                // Answers to pings are the library's.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    let why = frame.map_or_else(
                        || "without a reason".to_owned(),
                        |frame| format!("with {} `{}`", u16::from(frame.code), frame.reason),
                    );
                    return Err(self.failed(format!("was closed {why}")));
                }
                Some(Ok(other)) => {
                    let problem = format!("`{}` pushed {} bytes that are no text", self.chart.path(), other.len());
                    return Err(Error::WrongResult(problem));
                }
                Some(Err(error)) => return Err(self.failed(error.to_string())),
                None => return Err(self.failed("ended".to_owned())),
            }
        }
    }

    fn take(&mut self, text: &str) -> Result<()> {
        let pushed = self.chart.check(text)?;
        if self.last.is_some_and(|last| pushed.at < last.at || pushed.epoch < last.epoch) {
            let path = self.chart.path();
            let problem =
                format!("`{path}` pushed an older chart behind a newer one: {:?}, then {pushed:?}", self.last);
            return Err(Error::WrongResult(problem));
        }
        self.last = Some(pushed);
        self.messages.push(Arrival { at: Instant::now(), bytes: text.len(), epoch: pushed.epoch });
        Ok(())
    }

    fn failed(&self, reason: String) -> Error {
        Error::Server { address: self.address.clone(), reason: format!("`{}`: {reason}", self.chart.path()) }
    }
}

async fn connect(server: &Target, key: &str, chart: Chart) -> Result<WebSocketStream<TcpStream>> {
    let refused = |reason: String| Error::Server { address: server.address.clone(), reason };
    let url = format!("ws://{}{}", server.address, chart.path());
    let mut request = url.into_client_request().map_err(|error| refused(error.to_string()))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {key}"));
    let bearer = bearer.map_err(|_| Error::Usage("a key of `--key` is not one: no header can hold it".to_owned()))?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    let stream = TcpStream::connect(&server.address).await.map_err(|error| refused(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| refused(error.to_string()))?;
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => {
            let status = response.status().as_u16();
            Err(refused(format!("`{}` was answered with {status}{}", chart.path(), advice(status))))
        }
        Err(error) => Err(refused(error.to_string())),
    }
}

/// What to do about a refusal.
fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => " (give keys that may read with --key)",
        429 => " (the openings of this client network are used up: start the server with --without-limits)",
        501 => " (its pipelines keep no profits: measure with --figures runs)",
        503 => " (it has as many streams as it may: raise --streams there)",
        _ => "",
    }
}

impl Heard {
    /// What came from `from` on, and before `to`.
    fn within(&self, from: Instant, to: Instant) -> impl Iterator<Item = &Arrival> {
        self.messages.iter().filter(move |message| (from..to).contains(&message.at))
    }

    /// How many epochs the client saw in a time.
    pub fn epochs(&self, from: Instant, to: Instant) -> usize {
        self.within(from, to).map(|message| message.epoch).collect::<BTreeSet<u64>>().len()
    }
}

impl Count {
    /// From `from` on, and before `to`.
    pub fn of(clients: &[Heard], from: Instant, to: Instant) -> Self {
        let mut between = Latencies::default();
        let (mut messages, mut bytes, mut counts) = (0, 0, Vec::new());
        for client in clients {
            let arrivals: Vec<&Arrival> = client.within(from, to).collect();
            arrivals.windows(2).for_each(|pair| between.add(pair[1].at - pair[0].at));
            messages += arrivals.len();
            bytes += arrivals.iter().map(|message| message.bytes).sum::<usize>();
            counts.push(arrivals.len());
        }
        let seconds = (to - from).as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            messages,
            messages_per_second: (messages as f64 / seconds * 10.0).round() / 10.0,
            fewest_of_a_client: counts.iter().copied().min().unwrap_or(0),
            most_of_a_client: counts.iter().copied().max().unwrap_or(0),
            bytes,
            epochs: clients.iter().map(|client| client.epochs(from, to)).max().unwrap_or(0),
            between: between.percentiles(),
        }
    }
}

/// The fewest messages that a client must hear in a time: nine in ten of those that are due, and one less, as the time may
/// begin and end between two.
pub fn fewest_messages(time: Duration, interval: Duration) -> usize {
    let due = time.as_secs_f64() / interval.as_secs_f64().max(f64::MIN_POSITIVE);
    ((due * 0.9).floor() as usize).saturating_sub(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charts::{Figures, Form};

    fn heard(start: Instant, messages: &[(u64, u64)]) -> Heard {
        let at = |millis| start + Duration::from_millis(millis);
        let messages = messages.iter().map(|(millis, epoch)| Arrival { at: at(*millis), bytes: 100, epoch: *epoch });
        Heard { chart: Chart { form: Form::Pie, figures: Figures::Runs }, messages: messages.collect() }
    }

    #[test]
    fn only_what_came_in_the_time_is_counted() {
        let start = Instant::now();
        let clients = [
            heard(start, &[(0, 1), (1_000, 1), (2_000, 2), (2_500, 3), (3_000, 4)]),
            heard(start, &[(500, 1), (1_500, 1), (2_600, 1), (3_500, 2)]),
        ];
        let (from, to) = (start + Duration::from_secs(1), start + Duration::from_secs(3));
        let count = Count::of(&clients, from, to);
        assert_eq!((count.messages, count.bytes, count.messages_per_second), (5, 500, 2.5));
        assert_eq!((count.fewest_of_a_client, count.most_of_a_client, count.epochs), (2, 3, 3));
        assert_eq!((count.between.p50_ms, count.between.max_ms), (1_000.0, 1_100.0));
        assert_eq!(clients[1].epochs(from, to), 1);
    }

    #[test]
    fn without_clients_nothing_is_counted() {
        let start = Instant::now();
        let count = Count::of(&[], start, start + Duration::from_secs(1));
        assert_eq!((count.messages, count.fewest_of_a_client, count.between.max_ms), (0, 0, 0.0));
    }

    #[test]
    fn a_client_must_hear_most_of_what_is_due() {
        let fewest = |seconds, millis| fewest_messages(Duration::from_secs(seconds), Duration::from_millis(millis));
        assert_eq!((fewest(30, 1_000), fewest(30, 250), fewest(3, 1_000), fewest(1, 1_000)), (26, 107, 1, 1));
    }
}
