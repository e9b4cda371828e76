//! [`Arrival`]: what a connection owes, and by when.
//!
//! hyper has one timer, for heads on HTTP/1: it begins with the first byte, and knows no difference between a head that does
//! not get on and a connection that is kept. So each connection has a clock of its own from the moment it is accepted,
//! whatever is spoken on it:
//!
//! * The first head must be whole within the deadline of heads, the handshake of TLS included.
//! * Between requests a connection may be silent for the idle limit. On HTTP/1 a further head that has begun has the deadline
//!   of heads; on HTTP/2 bytes tell nothing, since pings and settings are answered between requests too.
//!   The limit begins when the end of the last answer is on its way: while that is being written, it begins anew.
//! * While requests run, each part of an answer must be taken within the deadline of answers ([`Untaken`]). On HTTP/2 the others
//!   that run on the connection may be those of other people, behind a proxy: the stream of such an answer is ended alone, and
//!   the connection with it only when all that run on it are such.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{answering::PART_BYTES, streams::End, untaken::Untaken};

/// What a client that is told to go has to say that it heard.
const FAREWELL: Duration = Duration::from_secs(1);

/// Deadlines of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub head: Duration,
    pub idle: Duration,
    pub answer: Duration,
}

/// What did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The head of a request, or a log-in where connections have one.
    Head,
    /// A further request.
    Idle,
    /// A client that takes what it asked for.
    Answer,
}

impl Overdue {
    /// In metrics and the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Answer => "answer",
        }
    }

    /// How long a connection goes on of which this is overdue, once its client is told to go; none when it ends at once.
    pub(crate) fn grace(self) -> Option<Duration> {
        (self == Self::Idle).then_some(FAREWELL)
    }
}

/// The clock of one connection.
pub(crate) struct Arrival {
    deadlines: Deadlines,
    state: Mutex<State>,
}

struct State {
    running: usize,
    has_begun: bool,
    is_multiplexed: bool,
    /// When the connection was accepted, or its last request was answered.
    waiting_since: Instant,
    /// When the first byte after that was read.
    head_since: Option<Instant>,
    untaken: Untaken,
    requests: u64,
}

impl Arrival {
    /// Of a connection that was accepted just now.
    pub(crate) fn new(deadlines: Deadlines) -> Arc<Self> {
        let state = State {
            running: 0,
            has_begun: false,
            is_multiplexed: false,
            waiting_since: Instant::now(),
            head_since: None,
            untaken: Untaken::default(),
            requests: 0,
        };
        Arc::new(Self { deadlines, state: Mutex::new(state) })
    }

    /// Something was read.
    pub(crate) fn note_bytes(&self) {
        let mut state = self.state.lock();
        if state.running == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// So much was written.
    pub(crate) fn note_written(&self, bytes: usize) {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let earned = self.deadlines.answer.saturating_mul(count) / PART_BYTES;
        let mut state = self.state.lock();
        let is_answer = state.untaken.note_written(bytes, earned);
        if is_answer && state.running == 0 {
            state.waiting_since = (state.waiting_since + earned).min(Instant::now());
        }
    }

    /// A head is whole. `is_multiplexed` on HTTP/2.
    pub(crate) fn begin(self: &Arc<Self>, is_multiplexed: bool) -> Running {
        let mut state = self.state.lock();
        state.running += 1;
        state.requests += 1;
        state.has_begun = true;
        state.is_multiplexed = is_multiplexed;
        Running { arrival: Arc::clone(self), number: state.requests, end: None }
    }

    /// Waits until a deadline has passed, at least for `grace`.
    pub(crate) async fn overdue(&self, grace: Duration) -> Overdue {
        if !grace.is_zero() {
            tokio::time::sleep(grace).await;
        }
        // A deadline that begins later is at least so far away: looking again after this time misses none, and nobody has to
        // be woken.
        let step = self.deadlines.head.min(self.deadlines.idle).min(self.deadlines.answer);
        loop {
            let (now, next) = (Instant::now(), self.next());
            if let Some((at, overdue)) = next
                && at <= now
            {
                return overdue;
            }
            let look = now + step;
            tokio::time::sleep_until(next.map_or(look, |(at, _)| at.min(look))).await;
        }
    }

    /// Ends the streams whose answers are overdue, if others run on the connection; false when it has to end as a whole. What was
    /// taken at the last moment ends nothing.
    pub(crate) fn end_stuck(&self) -> bool {
        let Some(since) = Instant::now().checked_sub(self.deadlines.answer) else { return false };
        let mut state = self.state.lock();
        let stuck = state.untaken.count(since);
        let goes_on = stuck == 0 || (state.is_multiplexed && state.running > stuck);
        if goes_on {
            state.untaken.end(since);
        }
        goes_on
    }

    /// The next deadline, as things are.
    fn next(&self) -> Option<(Instant, Overdue)> {
        let (state, deadlines) = (self.state.lock(), self.deadlines);
        if state.running > 0 {
            return state.untaken.first().map(|since| (since + deadlines.answer, Overdue::Answer));
        }
        if !state.has_begun {
            return Some((state.waiting_since + deadlines.head, Overdue::Head));
        }
        match state.head_since {
            Some(since) if !state.is_multiplexed => Some((since + deadlines.head, Overdue::Head)),
            _ => Some((state.waiting_since + deadlines.idle, Overdue::Idle)),
        }
    }
}

/// A request, from its head to the end of its answer. Dropping it is the end.
pub(crate) struct Running {
    arrival: Arc<Arrival>,
    number: u64,
    end: Option<End>,
}

impl Running {
    /// The same, whose stream is ended by this.
    pub(crate) fn ended_by(mut self, end: Option<End>) -> Self {
        self.end = end;
        self
    }

    /// A part of the answer was handed out, of so many bytes: the client has to take it.
    pub(crate) fn hand_out(&self, bytes: usize) {
        self.arrival.state.lock().untaken.hand_out(self.number, bytes, self.end.as_ref());
    }

    /// The client took what was handed out: the next part is asked for.
    pub(crate) fn take(&self) {
        self.arrival.state.lock().untaken.take(self.number);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.arrival.state.lock();
        state.untaken.take(self.number);
        state.running = state.running.saturating_sub(1);
        if state.running == 0 {
            state.waiting_since = Instant::now();
            state.head_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    const DEADLINES: Deadlines =
        Deadlines { head: Duration::from_secs(15), idle: Duration::from_secs(60), answer: Duration::from_secs(20) };

    /// Does something; the moments of which one is that of what was done, however slow the machine is.
    fn during<T>(work: impl FnOnce() -> T) -> (T, RangeInclusive<Instant>) {
        let begin = Instant::now();
        (work(), begin..=Instant::now())
    }

    /// That this is overdue next, so long after one of these moments.
    fn assert_next(arrival: &Arrival, since: &RangeInclusive<Instant>, after: Duration, overdue: Overdue) {
        let (at, next) = arrival.next().unwrap();
        assert_eq!(next, overdue);
        let expected = *since.start() + after..=*since.end() + after;
        assert!(expected.contains(&at), "{overdue:?} at {at:?}, expected {expected:?}");
    }

    #[test]
    fn the_first_head_has_one_deadline_whatever_arrives() {
        let (arrival, accepted) = during(|| Arrival::new(DEADLINES));
        assert_next(&arrival, &accepted, Duration::from_secs(15), Overdue::Head);
        arrival.state.lock().waiting_since -= Duration::from_secs(10);
        arrival.note_bytes();
        assert_next(&arrival, &accepted, Duration::from_secs(5), Overdue::Head);
    }

    #[test]
    fn between_requests_silence_has_the_idle_limit_and_a_head_its_own() {
        let arrival = Arrival::new(DEADLINES);
        let running = arrival.begin(false);
        arrival.note_bytes();
        assert_eq!(arrival.next(), None, "the server is at work");
        let ((), ended) = during(|| drop(running));
        assert_next(&arrival, &ended, Duration::from_secs(60), Overdue::Idle);
        let ((), read) = during(|| arrival.note_bytes());
        assert_next(&arrival, &read, Duration::from_secs(15), Overdue::Head);
        // On HTTP/2 bytes are no head.
        let ((), ended) = during(|| drop(arrival.begin(true)));
        arrival.note_bytes();
        assert_next(&arrival, &ended, Duration::from_secs(60), Overdue::Idle);
    }

    #[test]
    fn an_answer_is_overdue_while_a_part_of_it_is_not_taken() {
        let arrival = Arrival::new(DEADLINES);
        let (one, other) = (arrival.begin(true), arrival.begin(true));
        let ((), handed_out) = during(|| one.hand_out(0));
        other.hand_out(0);
        arrival.age(&one, 5);
        assert_next(&arrival, &handed_out, Duration::from_secs(15), Overdue::Answer);
        one.take();
        let ((), handed_out) = during(|| other.hand_out(0));
        assert_next(&arrival, &handed_out, Duration::from_secs(20), Overdue::Answer);
        other.take();
        assert_eq!(arrival.next(), None, "an answer is in the list once");
        let ((), ended) = during(|| drop((one, other)));
        assert_next(&arrival, &ended, Duration::from_secs(60), Overdue::Idle);
    }

    #[tokio::test]
    async fn a_stream_whose_answer_is_not_taken_is_ended_alone_while_others_run() {
        let arrival = Arrival::new(DEADLINES);
        let end = End::default();
        let stuck = arrival.begin(true).ended_by(Some(Arc::clone(&end)));
        let other = arrival.begin(true);
        stuck.hand_out(0);
        let ((), handed_out) = during(|| other.hand_out(0));
        arrival.age(&stuck, 20);
        assert!(arrival.end_stuck(), "the answer of the other one is being taken");
        tokio::time::timeout(Duration::from_secs(10), end.notified()).await.unwrap();
        // And it has its time.
        assert_next(&arrival, &handed_out, Duration::from_secs(20), Overdue::Answer);
        drop(stuck);
        arrival.age(&other, 20);
        assert!(!arrival.end_stuck(), "nobody else is there");
        drop(other);
        let only = arrival.begin(false);
        only.hand_out(0);
        arrival.age(&only, 20);
        assert!(!arrival.end_stuck(), "on HTTP/1 there are no others");
        only.take();
        assert!(arrival.end_stuck(), "it was taken after all");
    }

    #[test]
    fn answers_behind_others_have_time_while_the_line_gets_on_and_one_that_is_stuck_has_not() {
        let part = PART_BYTES as usize;
        let arrival = Arrival::new(DEADLINES);
        let (first, behind) = (arrival.begin(true), arrival.begin(true));
        let ((), first_handed_out) = during(|| first.hand_out(part));
        let ((), handed_out_behind) = during(|| behind.hand_out(part));
        arrival.age(&first, 15);
        arrival.age(&behind, 15);
        // Half a part may take half of the time. Nothing was before the first.
        arrival.note_written(part / 2);
        assert_next(&arrival, &first_handed_out, Duration::from_secs(5), Overdue::Answer);
        first.take();
        assert_next(&arrival, &handed_out_behind, Duration::from_secs(15), Overdue::Answer);
        // No more than from now on.
        let ((), written) = during(|| arrival.note_written(part));
        assert_next(&arrival, &written, Duration::from_secs(20), Overdue::Answer);
        // What was before it is written: it is its own fault.
        arrival.age(&behind, 15);
        arrival.note_written(100 * part);
        assert_next(&arrival, &written, Duration::from_secs(5), Overdue::Answer);
        drop((first, behind));
    }

    #[test]
    fn the_idle_limit_begins_when_the_end_of_the_answer_is_written() {
        let part = PART_BYTES as usize;
        let arrival = Arrival::new(DEADLINES);
        let running = arrival.begin(true);
        running.hand_out(part);
        let ((), ended) = during(|| drop(running));
        arrival.state.lock().waiting_since -= Duration::from_secs(50);
        assert_next(&arrival, &ended, Duration::from_secs(10), Overdue::Idle);
        arrival.note_written(part / 2);
        assert_next(&arrival, &ended, Duration::from_secs(20), Overdue::Idle);
        // No more than from now on.
        let ((), written) = during(|| arrival.note_written(3 * part));
        assert_next(&arrival, &written, Duration::from_secs(60), Overdue::Idle);
        // Answers to pings are no end of an answer.
        arrival.state.lock().waiting_since -= Duration::from_secs(50);
        arrival.note_written(part);
        assert_next(&arrival, &written, Duration::from_secs(10), Overdue::Idle);
    }

    impl Arrival {
        /// Moves the clock of what was handed out of an answer back.
        fn age(&self, running: &Running, by_s: u64) {
            self.state.lock().untaken.age(running.number, Duration::from_secs(by_s));
        }
    }
}
