//! [`Streams`]: runs the streams of HTTP/2 connections, so that one of them can be ended alone.
//!
//! hyper asks the body of an answer for nothing while its stream has no window, so a body cannot end the stream of a client that
//! takes nothing, and hyper hands out nothing else that could. Whoever runs a stream can drop it: then it is reset (CANCEL),
//! what was not sent of it is freed, and the other streams of its connection go on.

use std::sync::Arc;

use hyper::rt::Executor;
use tokio::sync::Notify;

/// Ends a stream when it is notified.
pub(crate) type End = Arc<Notify>;

tokio::task_local! {
    static END: End;
}

/// What ends the stream that this is asked in; none on HTTP/1.
pub(crate) fn end_of_this() -> Option<End> {
    END.try_with(Arc::clone).ok()
}

/// Runs each stream in a task of its own, until it is done or ended.
#[derive(Clone)]
pub(crate) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let end = End::default();
        let told = Arc::clone(&end);
        let until_told = async move {
            tokio::select! {
                _ = stream => {}
                () = told.notified() => {}
            }
        };
        tokio::spawn(END.scope(end, until_told));
    }
}
