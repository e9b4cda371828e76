//! Header names of a record in the log.
//!
//! Attributes travel as `ce_*` headers (CloudEvents Kafka protocol binding, binary mode); Karat's own start with
//! `karat_`. A record that another producer wrote may have none of them.

pub const CE_ID: &str = "ce_id";
pub const CE_SOURCE: &str = "ce_source";
pub const CE_TYPE: &str = "ce_type";
pub const CE_SPECVERSION: &str = "ce_specversion";
/// RFC 3339; absent means the arrival time (decision 26).
pub const CE_TIME: &str = "ce_time";
pub const CE_SUBJECT: &str = "ce_subject";
pub const CE_DATASCHEMA: &str = "ce_dataschema";
/// The binding names `datacontenttype` so, without the prefix.
pub const CONTENT_TYPE: &str = "content-type";
/// Who owns the credential that published the event (spec P9): a user id.
pub const PUBLISHER: &str = "karat_publisher";
/// `1` when the credential may name another user in the payload (decision 24).
pub const PUBLISH_FOR_OTHERS: &str = "karat_publish_for_others";
/// The door that the event came through (decision 25): `http`, `lineage`, `file`.
pub const DOOR: &str = "karat_door";
/// The receipt of the accepted batch (spec P6).
pub const RECEIPT: &str = "karat_receipt";
/// W3C trace context of the request that published the event ([`crate::trace`]); absent when it is not traced.
pub const TRACEPARENT: &str = "traceparent";
/// What vendors added to it.
pub const TRACESTATE: &str = "tracestate";
