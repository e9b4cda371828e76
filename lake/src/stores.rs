//! Which schemes a lake may have, and what serves each: `file://` ([`crate::durable`]) and `s3://` ([`crate::s3`]).
//!
//! deltalake finds stores in tables of the process, by scheme; nothing else in this crate opens one.

use std::sync::Once;

/// Puts our stores behind every table of this process. Idempotent.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        crate::durable::register();
        crate::s3::register();
    });
}
