//! Asks a broker for a topic's id and partitions.
//!
//! The safe client has no call for it, so this is the crate's only unsafe code: `rd_kafka_DescribeTopics` of
//! librdkafka on a queue of its own. Each native object is freed by the guard that holds it, in the reverse order of
//! their declaration, and nothing that points into an event outlives that event.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char},
    ptr,
    time::Duration,
};

use rdkafka::{
    bindings::{self as native, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS},
    client::{Client, ClientContext},
    error::RDKafkaErrorCode,
};

use super::failure;
use crate::{Error, Result};

const ACTION: &str = "describe a topic";

/// What the broker says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// Base64, as Kafka's own tools print it.
    pub(super) id: String,
    pub(super) partitions: u32,
}

/// Asks, blocking for at most `deadline`. [`Error::UnknownTopic`] when there is none; it is not created.
pub(super) fn describe<C: ClientContext>(client: &Client<C>, topic: &str, deadline: Duration) -> Result<Description> {
    let name = CString::new(topic).map_err(|_| Error::InvalidTopic { topic: topic.into() })?;
    let deadline_ms = i32::try_from(deadline.as_millis()).unwrap_or(i32::MAX);
    let mut names = [name.as_ptr()];
    let mut reason: [c_char; 256] = [0; 256];
    // SAFETY: `client` lives through this function, so its handle is valid throughout. `names` and `reason` are
    // arrays of the lengths given. `Owned` checks for null and frees each object once, with its own destructor.
    unsafe {
        let client = client.native_ptr();
        let queue = Owned::new(native::rd_kafka_queue_new(client), native::rd_kafka_queue_destroy)?;
        let topics = native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Owned::new(topics, native::rd_kafka_TopicCollection_destroy)?;
        let options = native::rd_kafka_AdminOptions_new(client, RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Owned::new(options, native::rd_kafka_AdminOptions_destroy)?;
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, deadline_ms, reason.as_mut_ptr(), reason.len());
        native::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0);
        let event = native::rd_kafka_queue_poll(queue.0, deadline_ms);
        let event = Owned::new(event, native::rd_kafka_event_destroy)?;
        check(topic, native::rd_kafka_event_error(event.0).into())?;
        read(topic, event.0)
    }
}

/// Reads the one description in the answer.
///
/// # Safety
/// `event` must be a live DescribeTopics result event for one topic.
unsafe fn read(topic: &str, event: *mut native::rd_kafka_event_t) -> Result<Description> {
    // SAFETY: everything read here belongs to the event, which the caller keeps alive, and is checked for null; the
    // id and its text are copied before the return.
    unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let descriptions = match result.is_null() {
            true => ptr::null_mut(),
            false => native::rd_kafka_DescribeTopics_result_topics(result, &mut count),
        };
        if descriptions.is_null() || count == 0 {
            return Err(no_answer());
        }
        let description = *descriptions;
        check(topic, native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(description)).into())?;
        let mut partitions = 0;
        native::rd_kafka_TopicDescription_partitions(description, &mut partitions);
        let id = native::rd_kafka_TopicDescription_topic_id(description);
        let text = if id.is_null() { ptr::null() } else { native::rd_kafka_Uuid_base64str(id) };
        if text.is_null() {
            return Err(no_answer());
        }
        let id = CStr::from_ptr(text).to_string_lossy().into_owned();
        Ok(Description { id, partitions: u32::try_from(partitions).unwrap_or(0) })
    }
}

fn check(topic: &str, code: RDKafkaErrorCode) -> Result<()> {
    match code {
        RDKafkaErrorCode::NoError => Ok(()),
        other => Err(failure::from_code(ACTION, topic, other)),
    }
}

fn no_answer() -> Error {
    Error::Unavailable { reason: format!("could not {ACTION}: no answer in time") }
}

/// A native object that is freed when dropped.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self> {
        if object.is_null() { Err(no_answer()) } else { Ok(Self(object, destroy)) }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the matching constructor, is not null and is freed only here.
        unsafe { (self.1)(self.0) }
    }
}
