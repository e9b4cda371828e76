//! [`Threads`]: where questions are planned and run, beside the threads that answer requests, so that none of those waits
//! for one of these.
//!
//! Dropping the future, or the stream, of some work ends it at its next step. A panic of it is its answer.

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use karat_http::ApiError;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::mpsc,
    task::JoinSet,
};

use super::turns::Turn;

/// Stack of a thread: an expression of the depth that SQL over HTTP may have takes a tenth of it in a build without
/// optimisation. Memory is taken as it is used.
const STACK_BYTES: usize = 64 << 20;
/// Items of a stream that wait for their reader.
const AHEAD: usize = 2;

/// What is read one after the other.
pub(crate) type Items<T> = BoxStream<'static, Result<T, ApiError>>;
/// The task that sends items, and where they come.
type Sent<T> = (JoinSet<()>, mpsc::Receiver<Result<T, ApiError>>);

/// A few threads for questions of one kind.
pub(crate) struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn new(name: &str, count: usize) -> Result<Self, ApiError> {
        let mut threads = Builder::new_multi_thread();
        threads.worker_threads(count.max(1)).thread_name(name).thread_stack_size(STACK_BYTES).enable_all();
        let runtime = threads.build().map_err(ApiError::internal)?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Does `work`. The turn is given back when it has ended, which is after a step that cannot be broken off.
    ///
    /// # Errors
    /// What `work` fails with; 500 when it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let in_turn = async move {
            let done = work.await;
            drop(turn);
            done
        };
        // Ends the task when it is dropped, by a deadline or because nobody waits any more.
        let mut task = JoinSet::new();
        task.spawn_on(in_turn, &self.handle);
        match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(ApiError::internal(error)),
            None => Err(ApiError::internal("some work ended without a result")),
        }
    }

    /// The items of the stream that `open` gives, a few ahead of who reads them. Ends behind the first error.
    pub(crate) fn stream<T: Send + 'static>(
        &self,
        open: impl Future<Output = Result<Items<T>, ApiError>> + Send + 'static,
    ) -> Items<T> {
        let (sender, items) = mpsc::channel(AHEAD);
        let mut task = JoinSet::new();
        let send = async move {
            let mut opened = stream::once(open).try_flatten().boxed();
            while let Some(item) = opened.next().await {
                let has_failed = item.is_err();
                if sender.send(item).await.is_err() || has_failed {
                    return;
                }
            }
        };
        task.spawn_on(send, &self.handle);
        let next = |state: Option<Sent<T>>| async move {
            let (mut task, mut items) = state?;
            if let Some(item) = items.recv().await {
                return Some((item, Some((task, items))));
            }
            // The end of a task that panicked is not that of the stream.
            match task.join_next().await {
                Some(Err(error)) => Some((Err(ApiError::internal(error)), None)),
                _ => None,
            }
        };
        stream::unfold(Some((task, items)), next).boxed()
    }
}

impl Drop for Threads {
    /// A runtime may not wait for its threads inside of another one.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_items_of_a_stream_come_in_order_and_one_that_panics_does_not_end_as_if_it_were_whole() {
        let threads = Threads::new("test", 1).unwrap();
        let numbers = async { Ok(stream::iter(0..100).map(Ok::<i32, ApiError>).boxed()) };
        let read: Vec<i32> = threads.stream(numbers).try_collect().await.unwrap();
        assert!(read.iter().copied().eq(0..100), "{read:?}");

        let panics = |number: i32| if number < 3 { Ok(number) } else { panic!("as this test wants it") };
        let breaks = async move { Ok(stream::iter(0..100).map(panics).boxed()) };
        let read: Vec<Result<i32, ApiError>> = threads.stream(breaks).collect().await;
        let statuses: Vec<u16> =
            read.iter().map(|item| item.as_ref().err().map_or(200, |error| error.status().as_u16())).collect();
        assert_eq!(statuses, [200, 200, 200, 500]);
    }

    #[tokio::test]
    async fn a_stream_that_fails_ends_with_its_error_and_one_that_nobody_reads_ends() {
        let threads = Threads::new("test", 1).unwrap();
        let fails = async { Err(ApiError::not_found("as this test wants it")) };
        let read: Vec<Result<i32, ApiError>> = threads.stream(fails).collect().await;
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].as_ref().unwrap_err().status().as_u16(), 404);

        // It is sent to when the items are dropped, and that is told by the end of the other channel.
        let (is_alive, mut ended) = mpsc::channel::<()>(1);
        let endless = async move {
            let numbers = stream::repeat(is_alive).map(|_is_alive| Ok::<i32, ApiError>(1));
            Ok(numbers.boxed())
        };
        let mut reader = threads.stream(endless);
        assert_eq!(reader.next().await.unwrap().unwrap(), 1);
        drop(reader);
        let told = tokio::time::timeout(std::time::Duration::from_secs(30), ended.recv()).await;
        assert_eq!(told.expect("it goes on"), None);
    }
}
