//! Requests for `POST /events` that are made once and sent often.
//!
//! Only the ids change from one sending to the next, in place, so that the load program costs almost nothing beside the
//! server. Events are of type `etl.run.finished` and all started at one time.

use std::{fmt::Write, ops::Range};

use crate::{connection::Target, generate::Timestamp};

/// What the events of a [`Requests`] have in common.
#[derive(Debug, Clone)]
pub struct Common<'a> {
    pub target: &'a Target,
    /// API key or access token.
    pub credential: Option<&'a str>,
    /// Source of the runs, and the end of the events' own source: unique, so that no event was published before.
    pub source: &'a str,
    /// Start of the runs, milliseconds since 1970 UTC.
    pub start_ms: i64,
}

/// One request, ready to be sent, over and over, each time with new events.
pub struct Requests {
    bytes: Vec<u8>,
    /// Where each event has its id: as the id of the event, and of the run.
    ids: Vec<[Range<usize>; 2]>,
    next_id: u64,
}

/// An id is so many hexadecimal digits.
const ID_LENGTH: usize = 16;
const JOBS: usize = 20;
/// One run in so many fails.
const FAILED_EVERY: usize = 25;

impl Requests {
    /// Requests of `num_events` events each; ids count up from `first_id`. One event is sent in structured mode, more
    /// as a batch.
    pub fn new(common: &Common<'_>, num_events: usize, first_id: u64) -> Self {
        let mut body = String::new();
        let mut ids = Vec::with_capacity(num_events);
        let is_batch = num_events != 1;
        body.push_str(if is_batch { "[" } else { "" });
        for event in 0..num_events {
            body.push_str(if event > 0 { "," } else { "" });
            ids.push(write_event(common, event, &mut body));
        }
        body.push_str(if is_batch { "]" } else { "" });
        let content_type = if is_batch { "application/cloudevents-batch+json" } else { "application/cloudevents+json" };
        let length = body.len().to_string();
        let more = [("Content-Type", content_type), ("Content-Length", length.as_str())];
        let head = common.target.head("POST", common.credential, &more);
        for place in ids.iter_mut().flatten() {
            *place = place.start + head.len()..place.end + head.len();
        }
        Self { bytes: (head + &body).into_bytes(), ids, next_id: first_id }
    }

    /// The next request.
    pub fn next_request(&mut self) -> &[u8] {
        for places in &self.ids {
            let digits = hexadecimal(self.next_id);
            for place in places {
                self.bytes[place.clone()].copy_from_slice(&digits);
            }
            self.next_id += 1;
        }
        &self.bytes
    }
}

fn write_event(common: &Common<'_>, event: usize, body: &mut String) -> [Range<usize>; 2] {
    let (source, time) = (common.source, Timestamp(common.start_ms + 1_500));
    let id = write_id(body, r#"{"specversion":"1.0","id":""#);
    let _ = write!(
        body,
        r#"","source":"/benches/{source}","type":"etl.run.finished","time":"{time}","datacontenttype":"application/json","data":"#
    );
    let run_id = write_id(body, r#"{"run_id":""#);
    let (status, failed) = if event % FAILED_EVERY == FAILED_EVERY - 1 { ("failed", 7) } else { ("completed", 0) };
    let _ = write!(
        body,
        r#"","source":"{source}","job":"job-{:02}","status":"{status}","started_at":"{}","finished_at":"{time}","records_read":1200,"records_written":{},"records_failed":{failed},"bytes_written":262144,"error":null}}}}"#,
        event % JOBS,
        Timestamp(common.start_ms),
        1200 - failed,
    );
    [id, run_id]
}

/// Writes `before` and room for an id.
fn write_id(body: &mut String, before: &str) -> Range<usize> {
    body.push_str(before);
    let start = body.len();
    body.push_str(&"0".repeat(ID_LENGTH));
    start..body.len()
}

fn hexadecimal(number: u64) -> [u8; ID_LENGTH] {
    let mut digits = [0; ID_LENGTH];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
    }
    digits
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn bodies(num_events: usize, num_requests: usize) -> Vec<Value> {
        let target = Target::parse("http://localhost:1/api/v1/events").unwrap();
        let common = Common { target: &target, credential: Some("k"), source: "bench", start_ms: 1_767_225_600_000 };
        let mut requests = Requests::new(&common, num_events, 0xff);
        let mut bodies = Vec::new();
        for _ in 0..num_requests {
            let text = String::from_utf8(requests.next_request().to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
            bodies.push(serde_json::from_str(body).unwrap());
        }
        bodies
    }

    #[test]
    fn a_single_event_is_an_object_that_keeps_the_contract() {
        let pipelines = karat_schemas::pipelines::parse(karat_schemas::pipelines::BUILT_IN).unwrap();
        let contracts = karat_schemas::events::Contracts::compile(&pipelines, |_| Err("none".to_owned()));
        let Ok(contracts) = contracts else { panic!("the built-in contracts do not compile") };
        let event = &bodies(1, 1)[0];
        assert_eq!(event["id"], "00000000000000ff");
        let data = event["data"].to_string();
        let data = karat_schemas::json::parse(&data).unwrap();
        assert_eq!(contracts.get("etl.run.finished").unwrap().violations(&data), []);
    }

    #[test]
    fn no_id_is_sent_twice_and_a_run_has_the_id_of_its_event() {
        let events: Vec<Value> = bodies(30, 3).iter().flat_map(|body| body.as_array().unwrap().clone()).collect();
        let ids: HashSet<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 90);
        assert!(events.iter().all(|event| event["id"] == event["data"]["run_id"]));
    }
}
