//! Asking one question as often as a server answers it, and many questions at fixed times.
//!
//! `wrk` asks the one when it is installed: it takes least of the processors that it shares with the server. Else the
//! connections of this crate do, which take more, so that figures of the two are not to be compared.

use std::{
    io,
    process::Command,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::{
    Error, Result,
    connection::{Connection, Target},
    latency::{Latencies, Percentiles},
    pace::Pace,
};

/// Connections of [`at_rate`].
const RATE_CONNECTIONS: u32 = 20;
const TURN: usize = RATE_CONNECTIONS as usize;
/// An answer that takes longer has failed, for `wrk`.
const WRK_TIMEOUT: &str = "10s";

/// A GET and what it is answered with.
pub struct Question {
    pub target: Target,
    /// API key or access token.
    pub credential: Option<String>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The status of every answer.
    pub status: u16,
}

/// How fast a question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// What asks, in a closed loop: each connection asks again when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Generator {
    Wrk,
    Own,
}

impl Question {
    /// The whole request.
    pub fn request(&self) -> Vec<u8> {
        let more: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.target.head("GET", self.credential.as_deref(), &more).into_bytes()
    }

    fn wrk_arguments(&self, connections: u32, seconds: u64) -> Vec<String> {
        let mut arguments: Vec<String> = ["--latency", "--timeout", WRK_TIMEOUT, "-t1"].map(str::to_owned).into();
        arguments.extend([format!("-c{connections}"), format!("-d{seconds}s")]);
        let credential = self.credential.iter().map(|credential| format!("Authorization: Bearer {credential}"));
        for header in credential.chain(self.headers.iter().map(|(name, value)| format!("{name}: {value}"))) {
            arguments.extend(["-H".to_owned(), header]);
        }
        arguments.push(format!("http://{}{}", self.target.address, self.target.path));
        arguments
    }
}

impl Generator {
    /// `wrk` when it is there.
    ///
    /// # Errors
    /// When it is there and does not start.
    pub fn find() -> Result<Self> {
        match Command::new("wrk").arg("--version").output() {
            Ok(_) => Ok(Self::Wrk),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Own),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks over so many connections for so many seconds.
    ///
    /// # Errors
    /// [`Error::WrongResult`] when an answer is another than expected, or none; it ends the measurement.
    pub fn drive(self, question: &Question, connections: u32, seconds: u64) -> Result<Speed> {
        match self {
            Self::Wrk => wrk(question, connections, seconds),
            Self::Own => runtime()?.block_on(closed_loop(question, connections, seconds)),
        }
    }
}

/// Asks each of `requests` once, `rate` of them a second in all, and gives how long each took from when it was due; the
/// first `warm_up` of them are not counted.
///
/// # Errors
/// As [`Generator::drive`], for any other status than 200.
pub fn at_rate(target: &Target, requests: &[Vec<u8>], rate: f64, warm_up: u32) -> Result<Latencies> {
    runtime()?.block_on(async {
        let (start, gap) = (Instant::now() + Duration::from_millis(100), Duration::from_secs_f64(1.0 / rate));
        let num_requests = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        let end = start + gap * num_requests;
        let pace = &Pace::start(RATE_CONNECTIONS, start, gap, end)?;
        let connections = (0..RATE_CONNECTIONS).map(|number| async move {
            let mut connection = Connection::open(target).await?;
            let mut seen = Latencies::default();
            for (place, request) in (0..num_requests).zip(requests).skip(number as usize).step_by(TURN) {
                let due = start + gap * place;
                pace.wait(number, due).await;
                expect(200, connection.ask(request).await?.status)?;
                if place >= warm_up {
                    seen.add(due.elapsed());
                }
            }
            Ok::<_, Error>(seen)
        });
        joined(try_join_all(connections).await?)
    })
}

async fn closed_loop(question: &Question, connections: u32, seconds: u64) -> Result<Speed> {
    let (request, end) = (question.request(), Instant::now() + Duration::from_secs(seconds));
    let request = &request;
    let connections = (0..connections).map(|_| async move {
        let mut connection = Connection::open(&question.target).await?;
        let mut seen = Latencies::default();
        loop {
            let begin = Instant::now();
            if begin >= end {
                return Ok::<_, Error>(seen);
            }
            expect(question.status, connection.ask(request).await?.status)?;
            seen.add(begin.elapsed());
        }
    });
    let seen = joined(try_join_all(connections).await?)?;
    let Percentiles { p50_ms, p99_ms, .. } = seen.percentiles();
    Ok(Speed { requests_per_second: (seen.len() as f64 / seconds as f64).round(), p50_ms, p99_ms })
}

fn joined(parts: Vec<Latencies>) -> Result<Latencies> {
    let mut all = Latencies::default();
    parts.into_iter().for_each(|part| all.extend(part));
    if all.is_empty() { Err(Error::WrongResult("nothing was answered".to_owned())) } else { Ok(all) }
}

fn expect(expected: u16, found: u16) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::WrongResult(format!("an answer has status {found} in place of {expected}")))
}

fn wrk(question: &Question, connections: u32, seconds: u64) -> Result<Speed> {
    let output = Command::new("wrk").args(question.wrk_arguments(connections, seconds)).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    read_wrk(&text).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        Error::WrongResult(format!("`wrk` against `{}` says: {text}{said}", question.target.path))
    })
}

/// What `wrk --latency` printed; none when a request failed.
fn read_wrk(text: &str) -> Option<Speed> {
    let value = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    if value("Socket errors:").or_else(|| value("Non-2xx")).is_some() {
        return None;
    }
    Some(Speed {
        requests_per_second: value("Requests/sec:")?.parse::<f64>().ok()?.round(),
        p50_ms: value("50%").and_then(milliseconds)?,
        p99_ms: value("99%").and_then(milliseconds)?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    // The longer units first: `ms` ends with the unit of seconds too.
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    const PRINTED: &str = "Running 5s test @ http://127.0.0.1:1/x
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.21ms  502.11us  12.00ms   91.00%
    Req/Sec    53.10k     2.10k   60.00k    80.00%
  Latency Distribution
     50%    1.10ms
     75%    1.40ms
     90%  850.00us
     99%    1.25s
  265000 requests in 5.00s, 1.50GB read
Requests/sec:  53000.42
Transfer/sec:    307.20MB
";

    #[test]
    fn what_wrk_prints_is_read_with_its_units_and_not_when_a_request_failed() {
        let expected = Speed { requests_per_second: 53_000.0, p50_ms: 1.1, p99_ms: 1250.0 };
        assert_eq!(read_wrk(PRINTED), Some(expected));
        for failed in ["  Non-2xx or 3xx responses: 3\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n"] {
            assert_eq!(read_wrk(&format!("{PRINTED}{failed}")), None, "{failed}");
        }
        assert_eq!(read_wrk("unable to connect to 127.0.0.1:1 Connection refused"), None);
        assert_eq!(
            (milliseconds("850.00us"), milliseconds("2.00m"), milliseconds("2")),
            (Some(0.85), Some(120_000.0), None)
        );
    }

    #[test]
    fn wrk_gets_the_same_request() {
        let question = Question {
            target: Target::parse("http://127.0.0.1:1/a?b=c").unwrap(),
            credential: Some("token".to_owned()),
            headers: vec![("If-None-Match", "\"tag\"".to_owned())],
            status: 304,
        };
        let arguments = question.wrk_arguments(64, 5);
        for wanted in ["-c64", "-d5s", "Authorization: Bearer token", "If-None-Match: \"tag\""] {
            assert!(arguments.iter().any(|argument| argument == wanted), "{wanted}: {arguments:?}");
        }
        assert_eq!(arguments.last().unwrap(), "http://127.0.0.1:1/a?b=c");
        let request = String::from_utf8(question.request()).unwrap();
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n") && request.contains("If-None-Match: \"tag\"\r\n"));
    }

    /// Answers every request on every connection with this status.
    fn server(status: u16) -> Target {
        use std::io::{Read, Write};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut received = Vec::new();
                    let mut part = [0; 1024];
                    while let Ok(length @ 1..) = stream.read(&mut part) {
                        received.extend_from_slice(&part[..length]);
                        if received.ends_with(b"\r\n\r\n") {
                            received.clear();
                            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok");
                            if stream.write_all(answer.as_bytes()).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Target::parse(&format!("http://{address}/")).unwrap()
    }

    fn of(target: Target) -> Question {
        Question { target, credential: None, headers: Vec::new(), status: 200 }
    }

    #[test]
    fn the_own_loop_counts_what_is_answered_and_ends_at_another_status() {
        let speed = Generator::Own.drive(&of(server(200)), 4, 1).unwrap();
        assert!(speed.requests_per_second >= 1.0 && speed.p99_ms >= speed.p50_ms, "{speed:?}");
        let failed = Generator::Own.drive(&of(server(503)), 2, 1).unwrap_err();
        assert!(matches!(&failed, Error::WrongResult(reason) if reason.contains("503")), "{failed}");
    }

    #[test]
    fn each_question_is_asked_once_at_its_time() {
        let target = server(200);
        let requests = vec![of(target.clone()).request(); 50];
        let begin = Instant::now();
        assert_eq!(at_rate(&target, &requests, 1000.0, 10).unwrap().len(), 40);
        assert!(begin.elapsed() >= Duration::from_millis(49), "they were not sent all at once");
    }
}
