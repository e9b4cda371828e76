//! A door in front of a server that speaks HTTP, behind which requests fail as they do at S3: answered 503 and not carried out,
//! answered 500 and carried out, cut off before or after, or long before, late, or with half of what was asked for.
//!
//! Requests pass as they are, with their `Host`: their signatures stay right.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, http::request::Parts, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What happens to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Each so many-th is answered 503 and not carried out.
    Unavailable {
        one_in: u64,
    },
    /// Each so many-th that writes is carried out, and answered 500.
    FailsAfterwards {
        one_in: u64,
    },
    /// Each so many-th that writes is carried out, and its connection is closed in place of the answer.
    LosesAnswers {
        one_in: u64,
    },
    /// Each so many-th ends with its connection, and is not carried out.
    Resets {
        one_in: u64,
    },
    /// Each so many-th that reads ends in the middle of the object that was asked for.
    CutsReads {
        one_in: u64,
    },
    /// Each that writes if nothing is there is cut off at once, and carried out so much later.
    CarriesOutLate(Duration),
    /// Each answer waits.
    Slow(Duration),
    /// Each so many-th suffers one of all these, in turn.
    Storm {
        one_in: u64,
    },
    /// Nothing is answered, as if the server were frozen.
    Stalled,
}

/// A door; closed when dropped.
pub struct Door {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    failed: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Door {
    /// Opens a door in front of `server`, `HOST:PORT`.
    ///
    /// # Errors
    /// No free port, or no client.
    pub async fn open(server: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, _) = watch::channel(Weather::Fair);
        let (failed, late) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build();
        let way = Way {
            server: server.to_owned(),
            client: client.map_err(std::io::Error::other)?,
            weather: weather.clone(),
            failed: Arc::clone(&failed),
            late: Arc::clone(&late),
            asked: Arc::default(),
        };
        Ok(Self { address, weather, failed, late, accepting: tokio::spawn(accept(listener, way)) })
    }

    /// Where clients find it, `HOST:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Requests that suffered so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Requests that came to the server long after they were cut off, so far.
    pub fn came_late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Way {
    server: String,
    client: reqwest::Client,
    weather: watch::Sender<Weather>,
    failed: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
}

async fn accept(listener: TcpListener, way: Way) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let way = way.clone();
        connections.spawn(async move { way.serve(client).await });
        while connections.try_join_next().is_some() {}
    }
}

/// Closes the connection in place of an answer.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "cut off")
    }
}

impl std::error::Error for Cut {}

type Answer = Result<Response<reqwest::Body>, Cut>;

/// What one request suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unavailable,
    FailsAfterwards,
    LosesAnswer,
    Reset,
    CutRead,
}

const FATES: [Fate; 5] = [Fate::Unavailable, Fate::FailsAfterwards, Fate::LosesAnswer, Fate::Reset, Fate::CutRead];

impl Way {
    async fn serve(self, client: TcpStream) {
        // Requests are small and wait for each other.
        drop(client.set_nodelay(true));
        let service = service_fn(|request| self.answer(request));
        // A connection that fails is one that ends: its client opens another.
        drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service).await);
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        // Nobody sets the weather any more when the door is gone.
        drop(self.weather.subscribe().wait_for(|weather| *weather != Weather::Stalled).await);
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_of_object = !request.uri().query().is_some_and(|query| query.contains("list-type"));
        let fate = self.fate(is_read);
        if fate.is_some() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        match fate {
            Some(Fate::Unavailable) => return error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            Some(Fate::Reset) => return Err(Cut),
            _ => {}
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let weather = *self.weather.borrow();
        if let Weather::CarriesOutLate(by) = weather
            && parts.headers.contains_key("if-none-match")
        {
            self.failed.fetch_add(1, Ordering::Relaxed);
            let way = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                drop(way.pass(parts, body).await);
                way.late.fetch_add(1, Ordering::Relaxed);
            });
            return Err(Cut);
        }
        let answer = self.pass(parts, body).await?;
        if let Weather::Slow(time) = weather {
            tokio::time::sleep(time).await;
        }
        match fate {
            Some(Fate::FailsAfterwards) => error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            Some(Fate::LosesAnswer) => Err(Cut),
            // The client goes on in the middle of an object; of a listing, or of an answer that says no, it cannot.
            Some(Fate::CutRead) if is_of_object && answer.status().is_success() => halved(answer),
            _ => Ok(answer.map(reqwest::Body::from)),
        }
    }

    fn fate(&self, is_read: bool) -> Option<Fate> {
        let (one_in, fate) = match *self.weather.borrow() {
            Weather::Fair | Weather::CarriesOutLate(_) | Weather::Slow(_) | Weather::Stalled => return None,
            Weather::Unavailable { one_in } => (one_in, Some(Fate::Unavailable)),
            Weather::FailsAfterwards { one_in } => (one_in, Some(Fate::FailsAfterwards)),
            Weather::LosesAnswers { one_in } => (one_in, Some(Fate::LosesAnswer)),
            Weather::Resets { one_in } => (one_in, Some(Fate::Reset)),
            Weather::CutsReads { one_in } => (one_in, Some(Fate::CutRead)),
            Weather::Storm { one_in } => (one_in, None),
        };
        let suits = |fate: Fate| match fate {
            Fate::FailsAfterwards | Fate::LosesAnswer => !is_read,
            Fate::CutRead => is_read,
            Fate::Unavailable | Fate::Reset => true,
        };
        if fate.is_some_and(|fate| !suits(fate)) {
            return None;
        }
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        if number % one_in.max(1) != one_in.max(1) - 1 {
            return None;
        }
        let turn = usize::try_from(number / one_in.max(1)).unwrap_or_default();
        fate.or_else(|| (0..FATES.len()).map(|next| FATES[(turn + next) % FATES.len()]).find(|fate| suits(*fate)))
    }

    async fn pass(&self, parts: Parts, body: Bytes) -> Result<Response<Bytes>, Cut> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("http://{}{path}", self.server);
        let asked = self.client.request(parts.method, url).headers(parts.headers).body(body);
        let found = asked.send().await.map_err(|_| Cut)?;
        let mut answer = Response::builder().status(found.status());
        for (name, value) in found.headers() {
            // The body is whole from here on.
            if name != "transfer-encoding" && name != "connection" {
                answer = answer.header(name, value);
            }
        }
        answer.body(found.bytes().await.map_err(|_| Cut)?).map_err(|_| Cut)
    }
}

fn error(status: StatusCode, code: &str) -> Answer {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>the weather</Message></Error>");
    let answer = Response::builder().status(status).header("content-type", "application/xml");
    answer.body(text.into()).map_err(|_| Cut)
}

/// What is written and not sent yet when a connection ends never leaves.
const UNTIL_IT_HAS_LEFT: Duration = Duration::from_millis(20);

/// Half of the bytes that the answer says it has, and then the end.
fn halved(answer: Response<Bytes>) -> Answer {
    let length = answer.body().len();
    if length < 2 {
        return Err(Cut);
    }
    let (mut parts, body) = answer.into_parts();
    parts.headers.insert("content-length", length.into());
    let half = stream::once(std::future::ready(Ok::<_, std::io::Error>(body.slice(..length / 2))));
    let end = stream::once(async {
        tokio::time::sleep(UNTIL_IT_HAS_LEFT).await;
        Err(std::io::Error::other("cut off"))
    });
    Ok(Response::from_parts(parts, reqwest::Body::wrap_stream(half.chain(end))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that counts what it carries out, and answers with the number and the `Host` it was asked for.
    async fn server() -> (String, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let service = service_fn(|request: Request<Incoming>| {
                        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                        let host = request.headers()["host"].to_str().unwrap().to_owned();
                        async move { Ok::<_, Cut>(Response::new(reqwest::Body::from(format!("{number} {host}")))) }
                    });
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
                });
            }
        });
        (address, done)
    }

    #[tokio::test]
    async fn requests_suffer_what_the_weather_says_and_are_carried_out_or_not() {
        let (server, done) = server().await;
        let door = Door::open(&server).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/bucket/key?part=1", door.address());
        let put = async || client.put(&url).body("x").send().await;
        let get = async || client.get(&url).send().await.unwrap().text().await;
        // What is signed stays as it is.
        assert_eq!(put().await.unwrap().text().await.unwrap(), format!("1 {}", door.address()));
        door.set(Weather::Unavailable { one_in: 1 });
        assert_eq!(put().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        door.set(Weather::Resets { one_in: 1 });
        assert!(put().await.is_err());
        assert_eq!(done.load(Ordering::Relaxed), 1);
        door.set(Weather::FailsAfterwards { one_in: 1 });
        assert_eq!(put().await.unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
        door.set(Weather::LosesAnswers { one_in: 1 });
        assert!(put().await.is_err());
        assert_eq!(done.load(Ordering::Relaxed), 3);
        assert!(get().await.unwrap().starts_with("4 "));
        door.set(Weather::CutsReads { one_in: 1 });
        assert!(get().await.is_err());
        assert_eq!(door.failed(), 5);
        door.set(Weather::Storm { one_in: 2 });
        let mut failures = 0;
        for _ in 0..20 {
            failures += u64::from(!put().await.is_ok_and(|answer| answer.status().is_success()));
        }
        assert_eq!((failures, door.failed()), (10, 15));
        let before = done.load(Ordering::Relaxed);
        // Later than the request that comes after it, on a slow machine too.
        door.set(Weather::CarriesOutLate(Duration::from_secs(3)));
        assert!(client.put(&url).header("if-none-match", "*").body("x").send().await.is_err());
        assert!(put().await.unwrap().text().await.unwrap().starts_with(&format!("{} ", before + 1)));
        while door.came_late() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(done.load(Ordering::Relaxed), before + 2);
    }
}
