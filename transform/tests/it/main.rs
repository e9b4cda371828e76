//! The transform crate as a whole: events through the embedded log to gold, with a real lake.

mod airline;
mod support;
