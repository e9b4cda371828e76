//! Bounds what requests in flight may hold in memory (spec P7).
//!
//! Room follows what came of a body, and not what its client declared: an upload that sends nothing holds nothing. A body of at
//! most 16 KiB has its room at once when it begins to come. A larger one begins with 16 KiB, and each time that is full it
//! gets twice as much, up to what its headers say that it comes to.
//!
//! When a step has no room it waits in a line, five seconds at most, and the request is then answered 503. So uploads that
//! hold half of what they need and wait for each other never stand still: the one that waits longest is turned away, and
//! what it held, as much as it asked for, goes to the next in the line. Meanwhile each second of each wait makes one slow
//! upload give way ([`Uploads`]), so that slow ones keep no other out.
//!
//! A quarter of the room is for the first 16 KiB of bodies alone: large bodies, fast or slow, never keep small ones out. Who does
//! not get beyond these holds them for some 17 seconds, by the pace that the server asks of every body.
//!
//! Decoding of large bodies is bounded on its own: it uses a thread.

use std::{pin::pin, sync::Arc, time::Duration};

use karat_http::{ApiError, unpacked_bytes};
use poem::http::{HeaderMap, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::uploads::{Uploads, Watched};
use crate::limits::MAX_REQUEST_BYTES;

/// A permit stands for this many bytes.
const UNIT: usize = 1_024;
/// What a body begins with.
const FIRST_BYTES: usize = 16 * UNIT;
/// How long a step waits for room until the next slow upload gives way, and how often.
const TURN: Duration = Duration::from_secs(1);
const TURNS: usize = 5;

/// The memory that bodies in flight may take together.
#[derive(Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

struct Shared {
    /// For the first bytes of bodies.
    first: Arc<Semaphore>,
    /// For what comes behind them.
    further: Arc<Semaphore>,
    /// Permits of both when no request is in flight.
    units: usize,
    uploads: Arc<Uploads>,
    decoders: Arc<Semaphore>,
    turn: Duration,
}

impl Budget {
    /// A budget of `bytes`, at least that of two largest requests.
    pub fn new(bytes: usize) -> Self {
        let units = bytes.max(4 * MAX_REQUEST_BYTES) / UNIT;
        let first = units / 4;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let pool = |units| Arc::new(Semaphore::new(units));
        let (uploads, decoders) = (Arc::default(), pool(cores));
        let shared = Shared { first: pool(first), further: pool(units - first), units, uploads, decoders, turn: TURN };
        Self { shared: Arc::new(shared) }
    }

    /// What bodies may take together, in bytes.
    pub fn size_bytes(&self) -> u64 {
        (self.shared.units * UNIT) as u64
    }

    /// What requests in flight have reserved of it, in bytes.
    pub fn reserved_bytes(&self) -> u64 {
        let shared = &self.shared;
        let free = shared.first.available_permits() + shared.further.available_permits();
        (shared.units.saturating_sub(free) * UNIT) as u64
    }

    /// The room of a request with these headers, which holds nothing yet.
    pub(super) fn room(&self, headers: &HeaderMap) -> Room {
        Room {
            budget: Arc::clone(&self.shared),
            most: estimate(headers),
            held: 0,
            first: None,
            further: None,
            watched: None,
        }
    }

    /// Runs the decoding of a large body on a blocking thread, as many at a time as there are cores.
    pub(crate) async fn decode<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.shared.decoders).acquire_owned().await.map_err(ApiError::internal)?;
        let run = move || {
            let done = work();
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(run).await.map_err(ApiError::internal)
    }
}

impl Default for Budget {
    /// 256 MiB.
    fn default() -> Self {
        Self::new(256 << 20)
    }
}

impl Shared {
    /// Extends what is held of a pool to so many bytes.
    async fn extend(
        &self,
        pool: &Arc<Semaphore>,
        held: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), ApiError> {
        let missing = bytes.div_ceil(UNIT).saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = match Arc::clone(pool).try_acquire_many_owned(missing) {
            Ok(more) => more,
            Err(_) => self.wait(pool, missing).await?,
        };
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    async fn wait(&self, pool: &Arc<Semaphore>, missing: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        let mut waiting = pin!(Arc::clone(pool).acquire_many_owned(missing));
        for _ in 0..TURNS {
            self.uploads.make_one_give_way();
            if let Ok(more) = tokio::time::timeout(self.turn, waiting.as_mut()).await {
                return more.map_err(ApiError::internal);
            }
        }
        Err(busy())
    }
}

/// What is held for one request, until this is dropped.
pub(super) struct Room {
    budget: Arc<Shared>,
    /// What the body comes to by its headers, in bytes.
    most: usize,
    held: usize,
    first: Option<OwnedSemaphorePermit>,
    further: Option<OwnedSemaphorePermit>,
    /// While more is waited for of a large body.
    watched: Option<Watched>,
}

impl Room {
    /// The body is here: it gives way to nobody any more.
    pub(super) fn settle(&mut self) {
        self.watched = None;
    }
}

impl karat_http::Room for Room {
    /// Without room within five seconds, 503 `door_busy` with `Retry-After`.
    async fn make(&mut self, bytes: usize) -> Result<(), ApiError> {
        if let Some(watched) = &self.watched {
            watched.note(bytes);
        }
        if bytes <= self.held {
            return Ok(());
        }
        self.watched = None;
        let (budget, held) = (&self.budget, bytes.max(FIRST_BYTES.max(2 * self.held).min(self.most)));
        budget.extend(&budget.first, &mut self.first, held.min(FIRST_BYTES)).await?;
        let further = held.saturating_sub(FIRST_BYTES);
        budget.extend(&budget.further, &mut self.further, further).await?;
        self.held = held;
        if further > 0 {
            self.watched = Some(budget.uploads.watch(bytes, held));
        }
        Ok(())
    }

    async fn lost(&self) -> ApiError {
        match &self.watched {
            Some(watched) => watched.gives_way().await,
            None => std::future::pending().await,
        }
        busy()
    }
}

fn estimate(headers: &HeaderMap) -> usize {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let sent = declared.map_or(MAX_REQUEST_BYTES, |length| length.min(MAX_REQUEST_BYTES));
    match headers.contains_key(header::CONTENT_ENCODING) {
        true => unpacked_bytes(sent, MAX_REQUEST_BYTES),
        false => sent,
    }
}

fn busy() -> ApiError {
    ApiError::unavailable("door_busy", "too many large requests are in flight: publish again after `Retry-After`")
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use karat_http::Room as _;

    use super::*;

    fn headers(length: Option<usize>, encoding: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        }
        headers
    }

    /// The smallest budget: 30 MiB behind the first bytes of bodies.
    fn small(turn: Duration, uploads: Arc<Uploads>) -> Budget {
        let mut budget = Budget::new(0);
        let shared = Arc::get_mut(&mut budget.shared).unwrap();
        (shared.turn, shared.uploads) = (turn, uploads);
        budget
    }

    /// Rooms of which each holds so much.
    async fn filled(budget: &Budget, rooms: usize, bytes: usize) -> Vec<Room> {
        let mut filled = Vec::new();
        for _ in 0..rooms {
            let mut room = budget.room(&HeaderMap::new());
            room.make(bytes).await.unwrap();
            filled.push(room);
        }
        filled
    }

    #[test]
    fn a_body_of_unknown_length_may_come_to_the_most() {
        assert_eq!(estimate(&headers(Some(300), None)), 300);
        assert_eq!(estimate(&headers(None, None)), MAX_REQUEST_BYTES);
        assert_eq!(estimate(&headers(None, Some("gzip"))), 2 * MAX_REQUEST_BYTES);
        assert_eq!(estimate(&headers(Some(1_000), Some("gzip"))), 17_000);
        assert_eq!(estimate(&headers(Some(usize::MAX), Some("zstd"))), 2 * MAX_REQUEST_BYTES);
    }

    #[tokio::test]
    async fn room_follows_what_came_and_small_bodies_have_theirs_at_once() {
        let budget = Budget::default();
        let held_after = async |length: usize, come: &[usize]| {
            let mut room = budget.room(&headers(Some(length), None));
            assert_eq!(budget.reserved_bytes(), 0, "nothing came");
            for bytes in come {
                room.make(*bytes).await.unwrap();
            }
            budget.reserved_bytes() / 1024
        };
        assert_eq!(held_after(MAX_REQUEST_BYTES, &[1]).await, 16);
        assert_eq!(held_after(MAX_REQUEST_BYTES, &[1, 16 * 1024]).await, 16);
        assert_eq!(held_after(MAX_REQUEST_BYTES, &[1, 16 * 1024 + 1]).await, 32);
        assert_eq!(held_after(MAX_REQUEST_BYTES, &[100 * 1024]).await, 100);
        assert_eq!(held_after(MAX_REQUEST_BYTES, &[6 << 20, MAX_REQUEST_BYTES]).await, 10 * 1024);
        assert_eq!(held_after(5_000, &[1]).await, 5);
        assert_eq!(held_after(20_000, &[1, 17_000]).await, 20, "no more than was declared");
        assert_eq!(budget.reserved_bytes(), 0);
    }

    #[tokio::test]
    async fn without_room_a_request_is_turned_away_and_small_ones_and_later_ones_are_not() {
        let budget = small(Duration::from_millis(2), Arc::default());
        let held = filled(&budget, 3, MAX_REQUEST_BYTES).await;
        let mut late = budget.room(&HeaderMap::new());
        late.make(FIRST_BYTES).await.unwrap();
        let error = late.make(MAX_REQUEST_BYTES).await.unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (503, "door_busy"));
        assert!(budget.room(&headers(Some(2_000), None)).make(2_000).await.is_ok(), "a small one");
        drop((held, late));
        assert_eq!(budget.reserved_bytes(), 0);
        assert!(budget.room(&HeaderMap::new()).make(MAX_REQUEST_BYTES).await.is_ok());
    }

    #[tokio::test]
    async fn uploads_that_wait_for_each_other_do_not_stand_still() {
        let budget = small(Duration::from_millis(20), Arc::default());
        // Each has a half of what it needs, and together they have everything.
        let upload = async || {
            let mut room = budget.room(&HeaderMap::new());
            for bytes in [5 << 20, MAX_REQUEST_BYTES] {
                room.make(bytes).await?;
            }
            Ok::<_, ApiError>(())
        };
        let ends = futures::future::join_all((0..6).map(|_| upload())).await;
        assert!(ends.iter().any(Result::is_ok), "{ends:?}");
        assert_eq!(budget.reserved_bytes(), 0);
    }

    #[tokio::test]
    async fn a_slow_upload_gives_way_to_one_that_waits_for_room() {
        let budget = small(Duration::from_secs(60), Uploads::judging_after(Duration::ZERO));
        let mut slow = filled(&budget, 3, MAX_REQUEST_BYTES).await;
        // Slow is who sent nothing for a millisecond.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let given_up = async {
            let (answer, which, _) = futures::future::select_all(slow.iter().map(|room| Box::pin(room.lost()))).await;
            (answer, which)
        };
        let mut other = budget.room(&HeaderMap::new());
        let other_has_room = other.make(MAX_REQUEST_BYTES);
        let mut other_has_room = pin!(other_has_room);
        let (answer, which) = tokio::select! {
            given_up = given_up => given_up,
            _ = other_has_room.as_mut() => panic!("there is none"),
        };
        assert_eq!(answer.code(), "door_busy");
        drop(slow.swap_remove(which));
        tokio::time::timeout(Duration::from_secs(20), other_has_room).await.unwrap().unwrap();
    }
}
